"""Follows the mesh configuration in PostgreSQL, and keeps the cache of this process as new.

A notification makes it fast: the transaction that changes what is served notifies all processes. One short query a
second makes it certain, since notifications can be lost; every resync interval all of it is compared.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256

import structlog

from meshconfig.resource import TYPE_URLS, Kind
from registry.cache.mesh_cache import MeshCache
from registry.client_deadline import in_time_for_client
from registry.cooperative import cooperatively
from registry.core.mesh import KINDS, MAX_REVISIONS_AHEAD, ServedNode, ServedResource, ServedSet, ServedSets
from registry.errors import UnavailableError
from registry.metrics import MESH_REVISION, MESH_UNREADABLE
from registry.store import mesh as store
from registry.store.database import Database, Session
from registry.store.mesh import ALL, WHOLE, ServedRow
from registry.store.restored import read_identity

log = structlog.get_logger()

_INTERVAL = 1.0
"""Seconds between two looks at PostgreSQL when nothing is notified."""
_RESYNC_INTERVAL = 30.0
"""Seconds after which everything is compared, whether it has changed or not: a person may have written it."""
_MAX_NODES_PER_READ = 20
"""node.clusters that one statement reads: some thousand rows, which are decoded in one piece."""
_MAX_BODIES_PER_READ = 200
"""Bodies that one statement reads."""
_MIN_REST = 0.05
"""Seconds between two readings that fail."""
_KINDS: Mapping[str, Kind] = {kind: kind for kind in KINDS}
"""The kinds that this version reads, by their names in PostgreSQL."""


class MeshFeed:
    """The loop that reads what is served from PostgreSQL into the cache.

    Args:
        database: the database to follow.
        cache: what this process serves.
    """

    def __init__(self, database: Database, cache: MeshCache) -> None:
        self._database = database
        self._cache = cache
        self._change: int | None = None
        """The number of the change up to which the cache has everything; None: all of it has to be read."""
        self._resync_due = 0.0
        """When everything is compared next (monotonic)."""
        self._bodies: dict[str, bytes] = {}
        """The bodies that are served, by their digest. Written by _read_bodies(), cut by _compare()."""
        self._reading = asyncio.Lock()
        """Held while PostgreSQL is read: an older state must not replace a newer one."""
        self._wake = asyncio.Event()
        """Set when a change was notified, or this process has made one."""
        self._loaded = asyncio.Event()
        """Set once the schema is there and everything was read, or could not be read by a defect."""
        self._loss = ""
        """Why PostgreSQL cannot be read, for the log; empty while it can."""
        self._lost: frozenset[str] = frozenset()
        """node.clusters whose newest version PostgreSQL has lost; each is logged once."""
        self.on_body: Callable[[bytes], None] | None = None
        """Called with each body that is read, before anybody is told of it, in turns with other work; None: nothing is.
        Written before load()."""
        self.read_at: float | None = None
        """When PostgreSQL was last read (monotonic); None: never."""

    @property
    def change(self) -> int:
        """The number of the change up to which everything was read: while it is the same, nothing was stored since."""
        return self._change or 0

    def nudge(self) -> None:
        """Read again soon."""
        self._wake.set()

    async def load(self) -> None:
        """Read everything before anything is answered; a defect of it leaves the rest of the registry as it is.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        try:
            await self._read()
        except UnavailableError:
            raise
        except Exception:
            log.exception("mesh_not_read")
        self._loaded.set()

    async def run(self) -> None:
        """Follow PostgreSQL until cancelled; while it is away, everything stays as it is."""
        await self._loaded.wait()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._read()
            except UnavailableError as error:
                self._note_loss(error.cause)
            except Exception as error:
                if repr(error) != self._loss:
                    log.exception("mesh_not_read")
                self._loss = repr(error)
                self._change = None
            else:
                self._loss = ""
                continue
            await asyncio.sleep(_MIN_REST)

    async def refresh(self) -> None:
        """Read at once what a request has stored; if that fails, it is read within a second."""
        try:
            async with in_time_for_client():
                await self._read()
        except UnavailableError as error:
            log.info("mesh_not_refreshed", reason=error.cause)
        except Exception:
            log.exception("mesh_not_refreshed")

    def _note_loss(self, reason: str) -> None:
        if not self._loss:
            log.warning("mesh_feed_lost", reason=reason)
        self._loss = reason
        # After a fail-over the same number may stand for something else.
        self._change = None

    async def _read(self) -> None:
        if self._change is None:
            # A restored database has numbers that were given out for something else, until it has an id of its own.
            await read_identity(self._database)
        async with self._reading, self._database.session() as connection:
            database_id, state = await store.read_state(connection)
            if self._cache.set_database(database_id):
                log.warning("mesh_database_replaced", now=database_id)
                self._change = None
            now = time.monotonic()
            if self._change is None or now >= self._resync_due or state.change < self._change:
                await self._compare(connection)
                self._resync_due = now + _RESYNC_INTERVAL
            elif state.change > self._change:
                await self._read_nodes(connection, await store.changed_nodes(connection, self._change), whole=False)
            self._change = state.change
            self._cache.revision = state.revision
            MESH_REVISION.set(state.revision)
            self._cache.mark_ready()
            self.read_at = now
        await self._note_claim(state.revision)

    async def _compare(self, connection: Session) -> None:
        nodes = await store.all_nodes(connection)
        await self._read_nodes(connection, nodes, whole=True)
        self._note_lost(self._lost | {node.cluster for node in self._cache}.difference(nodes))
        sets = (each for node in self._cache for each in (*node.sets.values(), *node.share_sets.values()))
        self._bodies = {
            resource.sha256: resource.body async for each in cooperatively(sets) for resource in each.resources.values()
        }

    async def _read_nodes(self, connection: Session, nodes: Collection[str], *, whole: bool) -> None:
        """Read node.clusters into the cache.

        One whose rows are spoilt stays as it was, and costs nothing but itself.

        Args:
            connection: the connection.
            nodes: their names.
            whole: whether these are all.
        """
        unreadable = {} if whole else {name: why for name, why in self._cache.unreadable.items() if name not in nodes}
        lost = set() if whole else set(self._lost - set(nodes))
        names = list(nodes)
        for begin in range(0, len(names), _MAX_NODES_PER_READ):
            rows = await store.read_served(connection, names[begin : begin + _MAX_NODES_PER_READ])
            await self._read_bodies(connection, {row.sha256 for row in rows if row.sha256})
            async for name, own in cooperatively(_by_node(rows)):
                try:
                    lost |= set(self._cache.apply((_node(name, own, self._bodies),)))
                except ValueError as error:
                    unreadable[name] = str(error)
        self._note_unreadable(unreadable)
        self._note_lost(frozenset(lost))

    async def _read_bodies(self, connection: Session, digests: Iterable[str]) -> None:
        missing = sorted(digest for digest in digests if digest not in self._bodies)
        for begin in range(0, len(missing), _MAX_BODIES_PER_READ):
            bodies = await store.read_bodies(connection, missing[begin : begin + _MAX_BODIES_PER_READ])
            async for digest, body in cooperatively(bodies.items()):
                if sha256(body).hexdigest() == digest:
                    self._bodies[digest] = body
                    if self.on_body is not None:
                        self.on_body(body)

    async def _note_claim(self, revision: int) -> None:
        """Keep a revision that an Envoy holds and PostgreSQL has lost from being given out again."""
        claimed, self._cache.revision_ahead = self._cache.revision_ahead, 0
        if revision < claimed <= revision + MAX_REVISIONS_AHEAD:
            log.warning("mesh_revision_lost", held=claimed, newest=revision)
            try:
                await store.raise_floor(self._database, claimed)
            except BaseException:
                self._cache.claim_ahead(claimed)
                raise

    def _note_unreadable(self, reasons: Mapping[str, str]) -> None:
        for node, reason in reasons.items():
            if self._cache.unreadable.get(node) != reason:
                log.error("mesh_node_unreadable", node_cluster=node, reason=reason)
        MESH_UNREADABLE.set(len(reasons))
        self._cache.note_unreadable(reasons)

    def _note_lost(self, lost: frozenset[str]) -> None:
        for node in sorted(lost - self._lost):
            log.warning("mesh_changes_lost", node_cluster=node)
        self._lost = lost


def _by_node(rows: Iterable[ServedRow]) -> Iterator[tuple[str, list[ServedRow]]]:
    nodes: dict[str, list[ServedRow]] = {}
    for row in rows:
        nodes.setdefault(row.node_cluster, []).append(row)
    return iter(nodes.items())


def _node(name: str, rows: Iterable[ServedRow], bodies: Mapping[str, bytes]) -> ServedNode:
    """Return a node.cluster as its rows say.

    Raises:
        ValueError: a row is spoilt; the text says which.
    """
    by_share: dict[float, list[ServedRow]] = {}
    for row in rows:
        by_share.setdefault(row.share, []).append(row)
    sets = _sets(by_share.pop(WHOLE, []), bodies)
    if not by_share:
        return ServedNode(name, sets)
    if len(by_share) > 1:
        raise ValueError(f"there are {len(by_share)} shares, and there can be one")
    ((share, rest),) = by_share.items()
    return ServedNode(name, sets, share, _sets(rest, bodies))


def _sets(rows: Iterable[ServedRow], bodies: Mapping[str, bytes]) -> ServedSets:
    versions: dict[Kind, int] = {}
    resources: dict[Kind, dict[str, ServedResource]] = {}
    for row in rows:
        kind = _KINDS.get(row.kind)
        if kind is None:
            # Of a newer version of the registry.
            continue
        if row.name == ALL:
            versions[kind] = row.version
        else:
            resources.setdefault(kind, {})[row.name] = _resource(kind, row, bodies)
    without = [kind for kind in resources if kind not in versions]
    if without:
        raise ValueError(f"the row of the set of {without[0]} is missing")
    return {
        kind: ServedSet(version, dict(sorted(resources.get(kind, {}).items()))) for kind, version in versions.items()
    }


def _resource(kind: Kind, row: ServedRow, bodies: Mapping[str, bytes]) -> ServedResource:
    body = bodies.get(row.sha256)
    if body is None:
        raise ValueError(f"the body of {kind} {row.name!r} is missing, or is not the one of its digest")
    if not body.startswith(b'{"@type":"%b"' % TYPE_URLS[kind].encode()):
        raise ValueError(f"the body of {kind} {row.name!r} is of another type")
    return ServedResource(row.name, row.version, body, row.sha256)
