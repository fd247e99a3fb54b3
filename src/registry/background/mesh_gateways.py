"""Compiles the gateways again when the services that they select change; the process that sweeps does so for all."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import structlog

from meshconfig.catalog import Metadata
from meshconfig.gateway_selection import GatewaySelection, used_of
from meshconfig.resource import Catalog
from registry.background.mesh_feed import MeshFeed
from registry.cache.mesh_cache import MeshCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.compiler.compiler import Compiler
from registry.compiler.gateways import (
    AcceptedGateways,
    FormerGateway,
    GatewayCompilation,
    compile_apart,
    compile_together,
)
from registry.compiler.nodes import read_nodes
from registry.cooperative import cooperatively
from registry.core.mesh_gateways import RefusedGateway
from registry.core.rollout import held_nodes
from registry.metrics import MESH_GATEWAYS_REFUSED, MESH_GATEWAYS_UNPROVEN
from registry.rollout import switching
from registry.rollout.registered_services import RegisteredServices
from registry.rollout.switching import used_clusters
from registry.store import mesh as store
from registry.store import mesh_gateways as gateways
from registry.store import rollouts
from registry.store.database import Database
from registry.store.mesh import WHOLE, Contents, NodeNames

log = structlog.get_logger()

_encode = msgspec.msgpack.Encoder(order="sorted").encode

GATEWAY_INTERVAL = 2.0
"""Seconds between two looks at the catalog."""
RETRY_INTERVAL = 30.0
"""Seconds until the same catalog is compiled again, when its gateways were not proven, were refused, or had to wait."""

State = tuple[int, int, int]
"""The revision, the number of changes of the endpoints, and that of changes of the mesh configuration."""


class GatewaySchedule:
    """The times at which the gateways are compiled: when what they use has changed, and again after a failure."""

    def __init__(self) -> None:
        self._lead = 0
        """The lead that the rest is of; 0: another process leads. Written by begin_lead()."""
        self._looked_at: State | None = None
        """What was looked at last; None: nothing was."""
        self._compiled: tuple[int, bytes] | None = None
        """The revision, and what its gateways use of the catalog, that were compiled last, with whatever result."""
        self._retry_at = math.inf
        """The monotonic time at which these are compiled again; infinite: they are served."""

    def begin_lead(self, lead: int) -> bool:
        """Forget everything in another lead than before, and return whether it is another one.

        Another process may have led in between, and have compiled the gateways for another catalog.
        """
        if lead == self._lead:
            return False
        self._lead, self._looked_at, self._compiled, self._retry_at = lead, None, None, math.inf
        return True

    def may_be_due(self, state: State, now: float) -> bool:
        """Tell whether the catalog has to be read, because it may have changed or has to be compiled again."""
        return state != self._looked_at or now >= self._retry_at

    def is_due(self, compiled: tuple[int, bytes], now: float) -> bool:
        """Tell whether a revision and a catalog have to be compiled."""
        return compiled != self._compiled or now >= self._retry_at

    def note_compiled(self, compiled: tuple[int, bytes], retry_at: float) -> None:
        """Take note of what was compiled, and of when that is to be done again; infinite: not again."""
        self._compiled, self._retry_at = compiled, retry_at

    def note_looked_at(self, state: State) -> None:
        """Take note that nothing is left to do in this state, or nothing before the next retry."""
        self._looked_at = state


def changed_gateways(
    before: Contents, compiled: Mapping[str, NodeNames], held: Collection[str]
) -> tuple[dict[str, NodeNames], list[str]]:
    """Return the gateways that are served something else, and the names of those that have to wait for it.

    Args:
        before: the resources of the revision in force.
        compiled: the gateways as they are compiled now.
        held: the node.clusters that are served nothing new.
    """
    changed = {node: names for node, names in compiled.items() if node in before and before[node] != names}
    return (
        {node: names for node, names in changed.items() if node not in held},
        sorted(node for node in changed if node in held),
    )


class GatewayCompiler:
    """Keeps the gateways of the revision in force as new as the catalog.

    Args:
        database: where the revision is.
        catalog_cache: tells whether any service has changed.
        mesh_cache: tells which revision is in force.
        feed: reads at once what was stored.
        compiler: compiles the gateways.
        services: the registered services, of which this stores the last known metadata.
        lead: returns the number of the lead in which this process does so for all; 0: another one does.
        envoy_binary: the Envoy that proves them; empty: none.
    """

    def __init__(  # noqa: PLR0913  # it stands between catalog, compiler and roll-outs
        self,
        database: Database,
        catalog_cache: SnapshotCache,
        mesh_cache: MeshCache,
        feed: MeshFeed,
        compiler: Compiler,
        services: RegisteredServices,
        lead: Callable[[], int],
        *,
        envoy_binary: str,
    ) -> None:
        self._database = database
        self._catalog_cache = catalog_cache
        self._mesh_cache = mesh_cache
        self._feed = feed
        self._compiler = compiler
        self._services = services
        self._lead = lead
        self._envoy_binary = envoy_binary
        self._schedule = GatewaySchedule()
        self._selections: tuple[int, Sequence[GatewaySelection]] | None = None
        """A revision, and what its gateways select; None: it was not compiled yet. Written by _result()."""
        self._accepted: dict[str, Catalog] = {}
        """The services as each gateway used them when it was accepted last in this lead. Written by _compile()."""
        self._refused: tuple[int, Sequence[RefusedGateway]] | None = None
        """A revision, and what its last compile refused; None: this lead has compiled nothing yet."""

    async def compile(self) -> None:
        """Store what is known of services, and compile the gateways of the revision in force if that has changed.

        Raises:
            UnavailableError: PostgreSQL is away; the next look goes on.
        """
        lead, revision = self._lead(), self._mesh_cache.revision
        if self._schedule.begin_lead(lead):
            self._selections, self._refused, self._accepted = None, None, {}
            self._services.forget_stored()
            MESH_GATEWAYS_REFUSED.set(0)
            MESH_GATEWAYS_UNPROVEN.set(0)
        ready = self._mesh_cache.ready and self._catalog_cache.ready and not self._catalog_cache.stale
        if not lead or not ready or not revision:
            return
        state = (revision, self._catalog_cache.advances, self._feed.change)
        if not self._schedule.may_be_due(state, time.monotonic()):
            return
        catalog = await self._services.keep()
        key, used = await self._used(revision, catalog)
        if self._schedule.is_due(key, time.monotonic()):
            wait = await self._compile(revision, used)
            # The first compile of a revision tells what its gateways use.
            key, _ = await self._used(revision, catalog)
            self._schedule.note_compiled(key, time.monotonic() + wait)
        await self._set_gauges(revision)
        self._schedule.note_looked_at(state)

    async def _used(self, revision: int, catalog: Catalog) -> tuple[tuple[int, bytes], Catalog]:
        """Return the key of what the gateways use of the catalog, and that part; at first all of it."""
        if self._selections is None or self._selections[0] != revision:
            return (revision, b""), catalog
        selections = self._selections[1]
        metadata: dict[str, Metadata] = {}
        grpc_services: dict[str, tuple[str, ...]] = {}
        async for service, values in cooperatively(catalog.metadata.items()):
            used = used_of(service, values, catalog.grpc_services.get(service, ()), selections)
            if used is not None:
                metadata[service], grpc_services[service] = used
        part = Catalog(metadata, grpc_services)
        return (revision, _encode(part)), part

    async def _compile(self, revision: int, catalog: Catalog) -> float:
        """Compile the gateways and serve what has changed; return the seconds until the next try, infinite for none."""
        async with self._database.session() as connection:
            stored = await store.find_revision(connection, revision)
            files = None if stored is None else await store.files_of(connection, stored.content)
        result = await self._result(revision, files, catalog)
        self._selections = None if result.selections is None else (revision, result.selections)
        self._accepted |= result.catalogs
        wait = RETRY_INTERVAL if result.refused else math.inf
        for accepted in result.accepted:
            wait = min(wait, await self._serve(revision, accepted))
        for each in result.refused:
            log.warning(
                "mesh_gateway_refused",
                revision=revision,
                gateway=each.gateway,
                service=each.service,
                reason=each.reason,
                retry_in=RETRY_INTERVAL,
            )
        if (revision, result.refused) != self._refused:
            await gateways.refuse(self._database, revision, result.refused)
            self._refused = (revision, result.refused)
        return wait

    async def _result(self, revision: int, files: bytes | None, catalog: Catalog) -> GatewayCompilation:
        """Return the gateways as far as they may be served: where not all may, each is compiled and proven alone."""
        if files is None:
            async with self._database.session() as connection:
                contents = await store.read_newest_contents(connection)
            # Gateways and edges alone have listeners of their own.
            if not any(kinds.get("listeners") for kinds in contents.values()):
                return GatewayCompilation(())
            reason = "the files of the revision are missing in PostgreSQL: apply them again"
            return GatewayCompilation((), [RefusedGateway(reason)])
        queue, envoy = self._compiler.changes, self._envoy_binary
        result = await compile_together(queue, files, catalog, envoy)
        if isinstance(result, GatewayCompilation):
            return result
        log.warning("mesh_gateways_apart", revision=revision, reason=result)
        async with self._database.session() as connection:
            served = await used_clusters(connection, await store.read_newest_contents(connection))
        former = {name: FormerGateway(used, self._accepted.get(name, Catalog())) for name, used in served.items()}
        return await compile_apart(queue, files, catalog, envoy, former)

    async def _set_gauges(self, revision: int) -> None:
        async with self._database.session() as connection:
            status = await gateways.read(connection, revision)
        MESH_GATEWAYS_REFUSED.set(len(status.refusals))
        MESH_GATEWAYS_UNPROVEN.set(len(status.unproven))

    async def _serve(self, revision: int, result: AcceptedGateways) -> float:
        """Store and serve what has changed, unless another revision came between; return the seconds until a retry.

        A gateway waits while a share of its Envoys has another revision, or its roll-out is paused: all its Envoys
        would get this revision at once, against the order of an operator.
        """
        nodes = await read_nodes(result.resources)
        envoy = [result.envoy] if result.envoy else []
        async with self._database.transaction() as connection:
            state = await store.lock(connection)
            if await store.newest(connection) != revision:
                return math.inf
            before = await store.read_newest_contents(connection)
            held = held_nodes(await rollouts.shares(connection), await rollouts.read(connection))
            changed, waiting = changed_gateways(before, nodes.contents, held)
            wait = math.inf
            if waiting:
                log.info("mesh_gateways_held", revision=revision, gateways=waiting, retry_in=RETRY_INTERVAL)
                wait = RETRY_INTERVAL
            if envoy:
                # An Envoy has now seen what a registry without one has served.
                unproven = (await gateways.read(connection, revision)).unproven
                same = [node for node in unproven if before.get(node) == nodes.contents.get(node)]
                await gateways.note(connection, revision, same, envoy)
            if not changed:
                return wait
            await gateways.note(connection, revision, changed, envoy)
            await store.add_bodies(connection, nodes.bodies)
            await store.write_contents(connection, revision, before, {**before, **changed})
            wanted = {(node, WHOLE): names for node, names in changed.items()}
            await switching.want(connection, state, wanted, revision)
            await store.save(connection, state)
        log.info("mesh_gateways_compiled", revision=revision, gateways=sorted(changed), proven_by=envoy)
        self._feed.nudge()
        return wait
