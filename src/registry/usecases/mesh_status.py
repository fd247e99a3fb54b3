"""The mesh configuration as people look at it: what is served, to which Envoys, and what a revision changed."""

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from meshconfig.change import Change
from registry.auth.grants import Reach
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.mesh_cache import MeshCache
from registry.compiler.compiler import Compiler
from registry.compiler.job import CompareFiles, Shown
from registry.core.mesh import ServedNode
from registry.core.mesh_envoy import MeshEnvoy, envoys_of
from registry.errors import NotFoundError, UnavailableError
from registry.rollout.sightings import Sightings
from registry.store import mesh as store
from registry.store.database import Database

_MAX_DIFFERENCES = 16
"""Differences between revisions that are kept, because each takes the compiler a second or more."""

_changes = msgspec.json.Decoder(tuple[Change, ...])


class MeshStatus:
    """Shows the mesh configuration as it is served.

    Args:
        policy: decides who may read.
        database: where revisions are.
        cache: what this process serves.
        sightings: what all processes have seen of the Envoys that poll.
        compiler: compares revisions by their meaning.
    """

    def __init__(
        self, policy: Policy, database: Database, cache: MeshCache, sightings: Sightings, compiler: Compiler
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._sightings = sightings
        self._compiler = compiler
        self._differences: OrderedDict[tuple[str, int, int], tuple[Change, ...]] = OrderedDict()
        """By the database and the revisions whose content is compared. Written by difference()."""

    def reach(self, principal: Principal) -> Reach:
        """Return the services, gateways and edges whose configuration a principal may read."""
        return self._policy.reach(principal, Verb.READ)

    def nodes(self, principal: Principal) -> list[ServedNode]:
        """Return what each node.cluster is served that the principal may read."""
        self._policy.allow(principal, Verb.READ)
        reach = self._policy.reach(principal, Verb.READ)
        return [node for node in self._cache if reach.everything or reach.covers(node.cluster)]

    def node(self, principal: Principal, service: str) -> ServedNode | None:
        """Return what the Envoys of a service are served; None: nothing was ever defined for it."""
        self._policy.allow(principal, Verb.READ, service)
        return self._cache.get(service)

    def unreadable(self, principal: Principal) -> Mapping[str, str]:
        """Return why a node.cluster cannot be read, by its name."""
        self._policy.allow(principal, Verb.READ)
        reach = self._policy.reach(principal, Verb.READ)
        return {
            cluster: reason
            for cluster, reason in sorted(self._cache.unreadable.items())
            if reach.everything or reach.covers(cluster)
        }

    async def envoys(self, principal: Principal, service: str) -> list[MeshEnvoy]:
        """Return the Envoys whose node.cluster is a service, those first that do not show what they are served.

        Raises:
            UnavailableError: what the other processes have seen cannot be read.
        """
        self._policy.allow(principal, Verb.READ, service)
        return envoys_of(await self._sightings.subscribers_of(service), self._cache.get(service))

    async def difference(self, principal: Principal, number: int) -> tuple[Change, ...] | None:
        """Return what a revision changed in meaning; None: the principal may not read all services.

        Raises:
            NotFoundError: there is no such revision.
            UnavailableError: it could not be read or compared.
            LimitError: the compiler has too much to do.
        """
        self._policy.allow(principal, Verb.READ)
        if not self._policy.reach(principal, Verb.READ).everything:
            return None
        async with self._database.reading() as connection:
            revision = await store.find_revision(connection, number)
            if revision is None:
                raise NotFoundError(f"there is no revision {number}")
            before = await store.find_revision(connection, revision.base)
            if before is None and revision.base:
                raise UnavailableError(f"revision {revision.base}, which it followed, is no longer kept")
            contents = (0 if before is None else before.content, revision.content)
            key = (self._cache.database_id, *contents)
            if key in self._differences:
                return self._differences[key]
            old, new = [await store.files_of(connection, content) or b"" for content in contents]
        shown = await self._compiler.reads.run_shared(key, principal.limited_as, CompareFiles(old, new))
        changes = _changes.decode(shown.document) if isinstance(shown, Shown) else ()
        self._differences[key] = changes
        if len(self._differences) > _MAX_DIFFERENCES:
            self._differences.popitem(last=False)
        return changes
