"""Compiles the gateways again when the services that they select change; the process that sweeps does so for all."""

from collections.abc import Awaitable, Callable

import msgspec
import structlog

from meshconfig.position import Severity
from meshconfig.resource import Catalog
from registry.background.mesh_feed import MeshFeed
from registry.cache.mesh_cache import MeshCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.compiler.compiler import Compiler
from registry.compiler.job import Compiled, CompileGateways
from registry.errors import LimitError
from registry.rollout import switching
from registry.store import mesh as store
from registry.store.database import Database
from registry.store.mesh import WHOLE, NodeNames

log = structlog.get_logger()

GATEWAY_INTERVAL = 2.0
"""Seconds between two looks at the catalog."""


class GatewayCompiler:
    """Keeps the gateways of the revision in force as new as the catalog.

    Args:
        database: where the revision is.
        catalog_cache: tells whether any service has changed.
        mesh_cache: tells which revision is in force.
        feed: reads at once what was stored.
        compiler: compiles the gateways.
        catalog: returns the registered services with what gateways select by.
        leads: whether this process does so for all.
        envoy_binary: the Envoy that proves them; empty: none.
    """

    def __init__(  # noqa: PLR0913  # it stands between catalog, compiler and roll-outs
        self,
        database: Database,
        catalog_cache: SnapshotCache,
        mesh_cache: MeshCache,
        feed: MeshFeed,
        compiler: Compiler,
        catalog: Callable[[], Awaitable[Catalog]],
        leads: Callable[[], bool],
        *,
        envoy_binary: str,
    ) -> None:
        self._database = database
        self._catalog_cache = catalog_cache
        self._mesh_cache = mesh_cache
        self._feed = feed
        self._compiler = compiler
        self._catalog = catalog
        self._leads = leads
        self._envoy_binary = envoy_binary
        self._looked_at: tuple[int, int] | None = None
        """The revision and the number of changes of the catalog that were looked at last; None: nothing was."""
        self._compiled: tuple[int, bytes] | None = None
        """The revision and the catalog that were compiled last."""
        self._without: int | None = None
        """The revision that is known to have no gateway."""

    async def compile(self) -> None:
        """Compile the gateways of the revision in force, if the catalog has changed since the last time."""
        revision = self._mesh_cache.revision
        state = (revision, self._catalog_cache.advances)
        ready = self._mesh_cache.ready and self._catalog_cache.ready and not self._catalog_cache.stale
        if not self._leads() or not ready or revision in (0, self._without) or state == self._looked_at:
            return
        catalog = await self._catalog()
        key = (revision, msgspec.msgpack.encode(catalog, order="sorted"))
        if key != self._compiled:
            if not await self._compile(revision, catalog):
                return
            self._compiled = key
        self._looked_at = state

    async def _compile(self, revision: int, catalog: Catalog) -> bool:
        """Compile the gateways and serve what has changed; return False to try it again."""
        async with self._database.session() as connection:
            stored = await store.find_revision(connection, revision)
            files = None if stored is None else await store.files_of(connection, stored.content)
        if files is None:
            return True
        try:
            result = await self._compiler.run(CompileGateways(files, catalog, frozenset(), self._envoy_binary))
        except LimitError as error:
            log.info("mesh_gateways_postponed", reason=str(error))
            return False
        if not isinstance(result, Compiled):
            return True
        errors = [str(fault) for fault in result.faults if fault.severity is Severity.ERROR]
        if errors or result.unproven:
            log.warning("mesh_gateways_refused", revision=revision, reason=errors[0] if errors else result.unproven)
        elif result.resources:
            await self._serve(revision, result)
        else:
            self._without = revision
        return True

    async def _serve(self, revision: int, result: Compiled) -> None:
        """Store and serve what has changed, unless another revision came between."""
        gateways: dict[str, NodeNames] = {
            node: {kind: {name: each.sha256 for name, each in named.items()} for kind, named in kinds.items()}
            for node, kinds in result.resources.items()
        }
        async with self._database.transaction() as connection:
            state = await store.lock(connection)
            if await store.newest(connection) != revision:
                return
            before = await store.read_newest_contents(connection)
            changed = {node: names for node, names in gateways.items() if node in before and before[node] != names}
            if not changed:
                return
            resources = (
                each for kinds in result.resources.values() for named in kinds.values() for each in named.values()
            )
            await store.add_bodies(connection, (each for each in resources if each.body))
            await store.write_contents(connection, revision, before, {**before, **changed})
            wanted = {(node, WHOLE): names for node, names in changed.items()}
            await switching.want(connection, state, wanted, revision)
            await store.save(connection, state)
        log.info("mesh_gateways_compiled", revision=revision, gateways=sorted(changed))
        self._feed.nudge()
