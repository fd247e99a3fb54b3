"""Changes of the mesh configuration: apply a repository of definitions, plan that, and roll back.

Revisions are applied one after the other: each has the whole of what is wanted. The definitions are compiled here, in a
process of its own, whatever the sender has compiled; and they are proven by an Envoy before anything is stored.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from meshconfig.plan import Fleet, Plan
from meshconfig.position import Fault, Severity
from meshconfig.resource import NodeResources, Resource
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.mesh_feed import MeshFeed
from registry.cache.mesh_cache import MeshCache
from registry.compiler.compiler import Compiler
from registry.compiler.job import (
    CompareMesh,
    Compile,
    Compiled,
    Shown,
)
from registry.compiler.job_queue import JobQueue
from registry.compiler.nodes import CompiledNodes, encode_node, read_nodes
from registry.cooperative import cooperatively
from registry.core.expiry_guard import EVERYWHERE
from registry.core.mesh import Revision, version_of
from registry.core.mesh_fleet import MeshFleet, make_fleet
from registry.core.mesh_gateways import RefusedGateway
from registry.core.mesh_subscriber import Certainty
from registry.errors import FaultsError, NotFoundError, RegistryError, RevisionConflictError, UnavailableError
from registry.program import VERSION
from registry.rollout.registered_services import RegisteredServices
from registry.rollout.sightings import Sightings
from registry.rollout.switching import begin
from registry.store import mesh as store
from registry.store import mesh_gateways as gateways
from registry.store import rollouts
from registry.store.database import Database, Session, read_clock
from registry.store.mesh import Contents, MeshState, NodeNames
from registry.usecases.audit import Audit
from registry.usecases.former_gateways import FormerGateways, RecompiledGateways
from registry.usecases.mesh_faults import outdated_fault, pause_faults, removal_fault, unproven_fault

log = structlog.get_logger()

_APPLIED, _ROLLED_BACK = "mesh_applied", "mesh_rolled_back"
"""The names of both in the audit, in the log, and in the history of the node.clusters that a revision touches."""
_EVERYBODY = 100.0
"""The share of a revision that all node ids get."""
_MAX_EVENTS = 100
"""node.clusters that get an event of their own; a revision that touches more has one for all."""
_MAX_NAMED = 5
"""node.clusters that the audit names."""
_MAX_RECEIVED = 2
"""Applies, and as many plans, whose files are in memory."""


class Applied(Struct, frozen=True):
    """A revision that was stored.

    Attributes:
        revision: the revision.
        nodes: the node.clusters whose resources it changes.
        kept: node.clusters whose definition a rollback has kept, because Envoys poll for it or may do so.
        in_doubt: those of them of which it is not certain whether any Envoy polls.
        warnings: faults that do not keep the definitions from being applied.
    """

    revision: Revision
    nodes: Sequence[str]
    kept: Sequence[str] = ()
    in_doubt: Sequence[str] = ()
    warnings: Sequence[Fault] = ()


class _Base(Struct, frozen=True):
    """The revision in force when a request begins, and its resources.

    Attributes:
        number: its number; 0: there is none.
        contents: the digests of its resources.
        files: its deflated files.
        stored: the digests whose bodies are stored and whole; the compiler sends all others, which mends them.
        refused: services that an Envoy has refused at a gateway and that it does not serve, by the gateway.
        resources: its resources without their bodies, for a plan; empty for an apply.
    """

    number: int
    contents: Contents
    files: bytes
    stored: frozenset[str]
    refused: Mapping[str, frozenset[str]]
    resources: Mapping[str, msgspec.Raw] = {}


class _Wanted(Struct, frozen=True):
    """The result of a compilation, with its resources read."""

    compiled: Compiled
    nodes: CompiledNodes


class MeshConfiguration:
    """Plans, applies and rolls back revisions of the mesh configuration.

    Args:
        policy: decides who may configure and read.
        database: where revisions are.
        cache: what this process serves of them.
        services: the registered services.
        feed: reads at once what was stored.
        audit: notes who applied what and why.
        compiler: compiles definitions.
        sightings: tells which Envoys poll which process.
        envoy_binary: the Envoy that proves what is applied; None: the sender's proof counts.
    """

    def __init__(  # noqa: PLR0913  # it meets most parts of a process
        self,
        policy: Policy,
        *,
        database: Database,
        cache: MeshCache,
        services: RegisteredServices,
        feed: MeshFeed,
        audit: Audit,
        compiler: Compiler,
        sightings: Sightings,
        envoy_binary: str | None,
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._services = services
        self._feed = feed
        self._audit = audit
        self._compiler = compiler
        self._sightings = sightings
        self._envoy_binary = envoy_binary
        self._former_gateways = FormerGateways(database, services, compiler.rollbacks, envoy_binary or "")
        self._receiving = {queue: asyncio.Semaphore(_MAX_RECEIVED) for queue in (compiler.changes, compiler.plans)}
        """Held while the files of a request arrive and are compiled, of which there may be 16 MiB."""

    @asynccontextmanager
    async def place(self, principal: Principal, *, dry_run: bool) -> AsyncIterator[None]:
        """Keep a place for a request to apply or plan, before its files are read.

        Raises:
            NotAllowedError: the principal may configure no service at all.
            LimitError: too many of them wait, or too many of the principal's.
        """
        self.check_may_apply(principal)
        queue = self._compiler.plans if dry_run else self._compiler.changes
        with queue.place(principal.limited_as):
            async with self._receiving[queue]:
                yield

    def check_may_apply(self, principal: Principal) -> None:
        """Refuse a principal that may configure no service at all, before its files are read.

        Raises:
            NotAllowedError: it may not.
        """
        reach = self._policy.reach(principal, Verb.CONFIGURE)
        covered = () if reach.everything else (*sorted(reach.names), *reach.prefixes)
        self._policy.allow(principal, Verb.CONFIGURE, covered[0] if covered else "")

    async def plan(self, principal: Principal, document: bytes) -> Plan:
        """Return what an apply of this request would change, and store nothing.

        Raises:
            FaultsError: it would be refused for its definitions; the faults say why.
            RevisionConflictError: another revision is in force than the sender knows.
        """
        self.check_may_apply(principal)
        base, fleet = await self._base(for_plan=True), await self._fleet()
        wanted = await self._compile(self._compiler.plans, document, base, _fleet_of(fleet))
        self._check(principal, base, wanted, fleet)
        plan = wanted.compiled.plan
        if plan is None:
            raise UnavailableError("the compiler made no plan")
        nodes = {each.node for each in plan.nodes}
        async with self._database.session() as connection:
            paused = pause_faults(await rollouts.read(connection), nodes)
        return replace(plan, warnings=(*plan.warnings, *paused))

    async def apply(self, principal: Principal, document: bytes) -> Applied:
        """Compile, prove and store a repository of definitions as the next revision, and begin to serve it.

        Raises:
            FaultsError: the definitions have faults; nothing is stored.
            RevisionConflictError: another revision is in force than the sender knows, or came between.
            NotAllowedError: the principal may not configure a node.cluster that it touches; or not all services,
                and mesh.yaml differs.
            UnavailableError: it could not be compiled or stored.
        """
        self.check_may_apply(principal)
        try:
            base, fleet = await self._base(), await self._fleet()
            wanted = await self._compile(self._compiler.changes, document, base)
            self._check(principal, base, wanted, fleet)
            applied = await self._store(principal, base, wanted, self._proof_of(wanted.compiled))
        except RegistryError as error:
            self._audit.note_failure(principal, _APPLIED, error, Verb.CONFIGURE)
            raise
        await self._note(principal, applied)
        return applied

    async def roll_back(
        self, principal: Principal, number: int | None, reason: str, allow_removal: Sequence[str] = ()
    ) -> Applied:
        """Store a new revision with the resources of an earlier one, byte for byte.

        Its gateways are compiled for the services that are registered now. A definition that the earlier one lacks
        stays while Envoys poll for it, because they would lose everything. The number None stands for the revision in
        force.

        Raises:
            NotFoundError: there is no such revision.
            LimitError: too many changes wait.
            NotAllowedError: as `apply`.
            RevisionConflictError: another revision came between.
            UnavailableError: it could not be stored.
        """
        self.check_may_apply(principal)
        fleet = await self._fleet()
        try:
            if number is None:
                async with self._database.session() as connection:
                    number = await store.newest(connection)
            with self._compiler.rollbacks.place(principal.limited_as):
                checked = await self._check_former_mesh(principal, number)
                fronts = await self._former_gateways.of(number)
            applied = await self._store_former(principal, number, reason, fleet, allow_removal, checked, fronts)
        except RegistryError as error:
            self._audit.note_failure(principal, _ROLLED_BACK, error, Verb.CONFIGURE)
            raise
        await self._note(principal, applied)
        return applied

    async def _fleet(self) -> MeshFleet:
        """Return the Envoys that poll any process."""
        observation = await self._sightings.observe({})
        certain = Certainty(observation.watched, observation.overlooked)
        return make_fleet(await self._sightings.all_subscribers(), observation.now, certain)

    async def _base(self, *, for_plan: bool = False) -> _Base:
        async with self._database.session() as connection:
            number = await store.newest(connection)
            revision = await store.find_revision(connection, number)
            contents = await store.read_newest_contents(connection)
            files = None if revision is None else await store.files_of(connection, revision.content)
            kinds = {
                digest: kind
                async for named in cooperatively(contents.values())
                for kind, names in named.items()
                for digest in names.values()
            }
            whole = frozenset(await store.find_whole(connection, kinds))
            refused = _left_out((await gateways.read(connection, number)).refusals, contents)
            facts = await store.read_resources(connection, kinds) if for_plan else {}
        if not for_plan:
            return _Base(number, contents, files or b"", whole, refused)
        resources = {
            node: encode_node(_resources_of(names, facts)) async for node, names in cooperatively(contents.items())
        }
        return _Base(number, contents, files or b"", whole, refused, resources)

    async def _compile(self, queue: JobQueue, document: bytes, base: _Base, fleet: Fleet | None = None) -> _Wanted:
        catalog = await self._services.catalog()
        job = Compile(document, catalog, base.stored, self._envoy_binary or "", base.refused, base.files)
        if fleet is not None:
            job = msgspec.structs.replace(job, plan=True, base=base.number, base_resources=base.resources, fleet=fleet)
        compiled = await queue.run(job)
        if not isinstance(compiled, Compiled):
            raise UnavailableError("the compiler answered something else")
        return _Wanted(compiled, await read_nodes(compiled.resources))

    def _check(self, principal: Principal, base: _Base, wanted: _Wanted, fleet: MeshFleet) -> None:
        """Refuse what may not be applied, whether it is to be stored or only planned."""
        compiled, contents = wanted.compiled, wanted.nodes.contents
        request = compiled.request
        if request.base is not None and request.base != base.number:
            raise RevisionConflictError(request.base, base.number)
        if any(fault.severity is Severity.ERROR for fault in compiled.faults):
            raise FaultsError(compiled.faults)
        self._check_reach(principal, base.contents, contents)
        if compiled.changes_mesh:
            self._policy.allow(principal, Verb.CONFIGURE, EVERYWHERE)
        removed = sorted(base.contents.keys() - contents.keys() - set(request.allow_removal))
        faults = [removal_fault(node, fleet) for node in removed if fleet.may_poll(node)]
        if faults:
            raise FaultsError(faults)

    async def _check_former_mesh(self, principal: Principal, number: int) -> int | None:
        """Refuse a rollback that changes mesh.yaml to a principal that may not configure all services.

        Returns:
            The revision in force that the answer holds for; None: for any.
        """
        if self._policy.reach(principal, Verb.CONFIGURE).everything:
            return None
        async with self._database.session() as connection:
            newest = await store.newest(connection)
            revisions = [await store.find_revision(connection, each) for each in (newest, number)]
            files = [
                b"" if each is None else await store.files_of(connection, each.content) or b"" for each in revisions
            ]
        shown = await self._compiler.rollbacks.run(CompareMesh(*files))
        if not isinstance(shown, Shown) or shown.document != b"false":
            self._policy.allow(principal, Verb.CONFIGURE, EVERYWHERE)
        return newest

    def _check_reach(self, principal: Principal, before: Contents, wanted: Contents) -> None:
        for node in sorted(before.keys() | wanted.keys()):
            if before.get(node) != wanted.get(node):
                self._policy.allow(principal, Verb.CONFIGURE, node)

    def _proof_of(self, compiled: Compiled) -> Mapping[str, Any]:
        """Return how the resources are proven; what nothing has proven is refused unless that is asked for."""
        request = compiled.request
        if compiled.envoy:
            return {"by": "registry", "envoy": [compiled.envoy]}
        if request.unproven:
            return {"by": "nobody", "envoy": []}
        if request.proof is not None and not self._envoy_binary:
            if request.proof.sha256 == compiled.sha256:
                return {"by": "sender", "envoy": list(request.proof.envoy)}
            raise FaultsError(
                [
                    unproven_fault(
                        f"The proof is of {request.proof.sha256[:12]}…, and the registry has compiled "
                        f"{compiled.sha256[:12]}….",
                        "Use the registryctl of the registry's version, and plan again.",
                    )
                ]
            )
        reason = compiled.unproven or "No Envoy has accepted it: the registry has none (REGISTRY_ENVOY_BINARY)."
        raise FaultsError(
            [
                unproven_fault(
                    reason,
                    "Have registryctl prove it with an Envoy of yours (--with PATH), or apply it with --unproven.",
                )
            ]
        )

    async def _store(self, principal: Principal, base: _Base, wanted: _Wanted, proof: Mapping[str, Any]) -> Applied:
        compiled = wanted.compiled
        request = compiled.request
        async with self._database.transaction() as connection:
            state = await store.lock(connection)
            newest = await store.newest(connection)
            if newest != base.number:
                raise RevisionConflictError(base.number, newest)
            before = await store.read_newest_contents(connection)
            number = state.next_revision
            revision = Revision(
                number,
                await read_clock(connection),
                "apply",
                number,
                principal.name,
                request.reason,
                request.commit,
                base.number,
                request.share or _EVERYBODY,
                compiled.sha256,
                VERSION,
                proof,
            )
            await store.add_bodies(connection, wanted.nodes.bodies)
            under_way = await rollouts.read(connection)
            nodes = await _begin(connection, state, revision, before, wanted.nodes.contents, compiled.files)
        return Applied(revision, nodes, warnings=(*compiled.faults, *pause_faults(under_way, set(nodes))))

    async def _store_former(
        self,
        principal: Principal,
        number: int,
        reason: str,
        fleet: MeshFleet,
        allow_removal: Sequence[str],
        checked: int | None,
        fronts: RecompiledGateways,
    ) -> Applied:
        async with self._database.transaction() as connection:
            state = await store.lock(connection)
            former = await store.find_revision(connection, number)
            if former is None:
                raise NotFoundError(f"there is no revision {number}")
            newest = await store.newest(connection)
            if checked not in (None, newest):
                raise RevisionConflictError(checked or 0, newest)
            before = await store.read_newest_contents(connection)
            contents = await store.read_contents(connection, number)
            wanted: dict[str, NodeNames] = dict(contents)
            compiled = fronts.nodes.contents
            anew = [node for node in compiled if node in wanted]
            wanted |= {node: compiled[node] for node in anew}
            gone = sorted(before.keys() - wanted.keys() - set(allow_removal))
            kept = [node for node in gone if fleet.may_poll(node)]
            wanted |= {node: before[node] for node in kept}
            self._check_reach(principal, before, wanted)
            revision = Revision(
                state.next_revision,
                await read_clock(connection),
                "rollback",
                former.content,
                principal.name,
                reason,
                former.commit,
                newest,
                _EVERYBODY,
                former.sha256,
                former.compiler,
                former.proof,
            )
            await store.add_bodies(connection, fronts.nodes.bodies)
            noted = await gateways.names(connection)
            for node in anew:
                if node not in noted and compiled[node] == contents[node]:
                    # It was never compiled again: it is as its revision was proven.
                    continue
                await gateways.note(connection, revision.number, [node], fronts.envoy[node])
            await gateways.carry(connection, revision.number, kept, before=newest)
            if fronts.refused:
                await gateways.carry(connection, revision.number, wanted.keys() - {*anew, *kept})
            nodes = await _begin(connection, state, revision, before, wanted, None)
        in_doubt = [node for node in kept if not fleet.pollers.get(node)]
        return Applied(revision, nodes, kept, in_doubt, [outdated_fault(each) for each in fronts.refused])

    async def _note(self, principal: Principal, applied: Applied) -> None:
        """Note in the audit what was stored, and serve it from this process at once."""
        revision = applied.revision
        action = _APPLIED if revision.kind == "apply" else _ROLLED_BACK
        reason = f"{_why(revision)}; changes {len(applied.nodes)} services: {', '.join(applied.nodes[:_MAX_NAMED])}"
        self._audit.note(principal, action, verb=Verb.CONFIGURE, reason=reason)
        log.info(action, revision=revision.number, author=revision.author, nodes=len(applied.nodes))
        await self._feed.refresh()


async def _begin(
    connection: Session, state: MeshState, revision: Revision, before: Contents, wanted: Contents, files: bytes | None
) -> list[str]:
    """Store a revision and begin to serve it; return the node.clusters that it touches."""
    state.revision, state.step = revision.number, 0
    await store.add_revision(connection, revision, files)
    await store.write_contents(connection, revision.number, before, wanted)
    share = store.WHOLE if revision.share >= _EVERYBODY else revision.share
    nodes = await begin(connection, state, before, wanted, share=share)
    kind = _APPLIED if revision.kind == "apply" else _ROLLED_BACK
    services = nodes if len(nodes) <= _MAX_EVENTS else ()
    version = version_of(revision.number, state.step)
    at = datetime.fromtimestamp(revision.at, UTC)
    await store.add_event(connection, services, kind, _why(revision), revision.author, at, version)
    await store.save(connection, state)
    return nodes


def _left_out(refusals: Sequence[RefusedGateway], contents: Contents) -> dict[str, frozenset[str]]:
    """Return the services that were refused and that their gateways do not serve, by the gateway."""
    left_out: dict[str, set[str]] = {}
    for each in refusals:
        if each.service and each.service not in contents.get(each.gateway, {}).get("clusters", {}):
            left_out.setdefault(each.gateway, set()).add(each.service)
    return {gateway: frozenset(services) for gateway, services in left_out.items()}


def _why(revision: Revision) -> str:
    """Return what a revision is, and why it was applied."""
    what = f"revision {revision.number}"
    if revision.kind == "rollback":
        what += f", which has the content of {revision.content}"
    return f"{what}: {revision.reason}" if revision.reason else what


def _resources_of(names: NodeNames, facts: Mapping[str, Resource]) -> NodeResources:
    """Return the resources of a node.cluster without bodies, as far as the facts about them are stored."""
    return {
        kind: {
            name: msgspec.structs.replace(facts[digest], kind=kind, name=name)
            for name, digest in named.items()
            if digest in facts
        }
        for kind, named in names.items()
    }


def _fleet_of(fleet: MeshFleet) -> Fleet:
    versions: dict[str, int] = {}
    for poller in {poller for pollers in fleet.pollers.values() for poller in pollers}:
        versions[poller.envoy] = versions.get(poller.envoy, 0) + 1
    versions.pop("", None)
    return Fleet({node: len(pollers) for node, pollers in fleet.pollers.items()}, versions)
