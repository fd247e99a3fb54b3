"""The statements on the mesh configuration: its revisions, their resources, and what is served of them.

Every writer locks the single row of ``mesh_state`` first and holds it until it commits. So versions and the numbers of
changes are committed in their order, and a reader that goes on behind the last one that it saw misses none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ARRAY, Text, bindparam, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from meshconfig.resource import Kind, Resource
from registry.cooperative import cooperatively
from registry.core.expiry_guard import EVERYWHERE
from registry.core.mesh import KINDS, Revision, version_of
from registry.store.database import MESH_CHANNEL, Database
from registry.store.rows import moment
from registry.store.tables import (
    events,
    mesh_bodies,
    mesh_contents,
    mesh_revisions,
    mesh_rollout,
    mesh_served,
)
from registry.store.times import epoch

ALL = "*"
"""The name of the row that stands for a whole set of resources."""
WHOLE = 0.0
"""The share of the rows that hold for every Envoy of a node.cluster that is in no share."""
_MAX_LOST = 100
"""Revisions, and steps of one, that a fail-over may lose: the next number after it is that much greater."""
_ROWS_PER_STATEMENT = 200
"""Rows that one statement writes. SQLAlchemy takes some 5 µs for each, and no poll is answered meanwhile."""
_KEYS_PER_STATEMENT = 200
"""Keys that one statement names, each by parameters of its own: SQLAlchemy writes its text anew each time."""

NodeNames = Mapping[Kind, Mapping[str, str]]
"""The resources of a node.cluster: their digests by kind and name. A kind that is missing is not defined."""
Contents = Mapping[str, NodeNames]
"""The resources of all node.clusters."""


class MeshState(Struct):
    """The numbers that were given out.

    Attributes:
        revision: the newest revision.
        step: its newest step.
        change: the number of changes.
        next_revision: the number of the next revision.
    """

    revision: int
    step: int
    change: int
    next_revision: int = 0


class ServedRow(Struct, frozen=True):
    """A row of what is served: a resource, or a set of them."""

    node_cluster: str
    share: float
    kind: str
    name: str
    version: int
    sha256: str


_REVISION_COLUMNS = [
    epoch(mesh_revisions.c.at).label("at") if name == "at" else mesh_revisions.c[name]
    for name in Revision.__struct_fields__
]
_LOCK = text(
    "SELECT revision, step, floor, change, timeline <> headcount_timeline() AS crossed FROM mesh_state FOR UPDATE"
)
_SAVE = text(
    "UPDATE mesh_state SET revision = :revision, step = :step, change = :change, timeline = headcount_timeline()"
)
_READ_STATE = text("SELECT database_id, revision, step, change FROM registry_state, mesh_state")
_RAISE_FLOOR = text("UPDATE mesh_state SET floor = :floor WHERE floor < :floor")
_IS_WHOLE = func.encode(func.sha256(mesh_bodies.c.body), "hex") == mesh_bodies.c.sha256
"""The condition for a body that nobody has spoilt."""
_NOTIFY = text("SELECT pg_notify(:channel, :change)")


async def lock(connection: AsyncConnection) -> MeshState:
    """Lock the mesh configuration until the end of the transaction, and return its numbers.

    After a fail-over the numbers are raised, so that none that was lost is given out again for something else.
    """
    row = (await connection.execute(_LOCK)).one()
    # A revision that an Envoy holds although it was lost may have been followed by others.
    lost = _MAX_LOST if (row.crossed and row.revision) or row.floor > row.revision else 0
    return MeshState(row.revision, row.step + lost, row.change, max(row.revision, row.floor) + lost + 1)


async def save(connection: AsyncConnection, state: MeshState) -> None:
    """Store the numbers that were given out, and notify all processes once this is committed."""
    state.change += 1
    await connection.execute(_SAVE, {"revision": state.revision, "step": state.step, "change": state.change})
    await connection.execute(_NOTIFY, {"channel": MESH_CHANNEL, "change": str(state.change)})


async def raise_floor(database: Database, revision: int) -> None:
    """Take note of a revision that an Envoy holds and PostgreSQL does not know; its number is not used again."""
    async with database.transaction() as connection:
        await connection.execute(_RAISE_FLOOR, {"floor": revision})


async def newest(connection: AsyncConnection) -> int:
    """Return the number of the newest revision; 0 if there is none."""
    query = select(func.coalesce(func.max(mesh_revisions.c.number), 0))
    return int((await connection.execute(query)).scalar_one())


async def find_revisions(connection: AsyncConnection, *, before: int | None, limit: int) -> list[Revision]:
    """Return revisions, the newest first.

    Args:
        connection: the connection.
        before: only those with a smaller number; None: from the newest on.
        limit: how many at most.
    """
    query = select(*_REVISION_COLUMNS).order_by(mesh_revisions.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(mesh_revisions.c.number < before)
    return [_revision(row) for row in await connection.execute(query)]


async def find_revision(connection: AsyncConnection, number: int) -> Revision | None:
    """Return a revision; None if there is none of this number."""
    query = select(*_REVISION_COLUMNS).where(mesh_revisions.c.number == number)
    row = (await connection.execute(query)).first()
    return None if row is None else _revision(row)


async def files_of(connection: AsyncConnection, content: int) -> bytes | None:
    """Return the deflated files of the revision that has them; None if they are gone."""
    query = select(mesh_revisions.c.files).where(mesh_revisions.c.number == content)
    stored: bytes | None = (await connection.execute(query)).scalar()
    return stored


async def add_revision(connection: AsyncConnection, revision: Revision, files: bytes | None) -> None:
    """Store a revision."""
    row = msgspec.structs.asdict(revision) | {
        "at": moment(revision.at),
        "proof": msgspec.json.encode(revision.proof).decode(),
        "files": files,
    }
    await connection.execute(insert(mesh_revisions), row)


async def add_bodies(connection: AsyncConnection, resources: Iterable[Resource]) -> None:
    """Store the bodies of resources, as far as they are not stored."""
    distinct = {resource.sha256: resource for resource in resources}
    for digests in _pieces(sorted(distinct)):
        stored = await find_whole(connection, digests)
        rows = [_body_row(distinct[digest]) for digest in digests if digest not in stored]
        if rows:
            # A body that a person has spoilt is mended.
            statement = upsert(mesh_bodies)
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["sha256"],
                    set_={name: statement.excluded[name] for name in ("body", "uses", "eds_service", "settle")},
                ),
                rows,
            )


async def find_whole(connection: AsyncConnection, digests: Collection[str]) -> set[str]:
    """Return the digests whose bodies are stored, and are what they were."""
    parameter = bindparam("digests", list(digests), ARRAY(Text))
    query = select(mesh_bodies.c.sha256).where(mesh_bodies.c.sha256 == func.any(parameter), _IS_WHOLE)
    return set((await connection.execute(query)).scalars())


async def read_bodies(connection: AsyncConnection, digests: Collection[str]) -> dict[str, bytes]:
    """Return the bodies of these digests, as far as they are stored."""
    parameter = bindparam("digests", list(digests), ARRAY(Text))
    query = select(mesh_bodies.c.sha256, mesh_bodies.c.body).where(mesh_bodies.c.sha256 == func.any(parameter))
    return {row.sha256: row.body for row in await connection.execute(query)}


async def read_resources(connection: AsyncConnection, kinds: Mapping[str, Kind]) -> dict[str, Resource]:
    """Return the resources that are stored by their digests: their facts, but neither bodies nor names.

    Args:
        connection: the connection.
        kinds: the kind of each by its digest.
    """
    parameter = bindparam("digests", list(kinds), ARRAY(Text))
    query = select(mesh_bodies.c.sha256, mesh_bodies.c.uses, mesh_bodies.c.eds_service, mesh_bodies.c.settle).where(
        mesh_bodies.c.sha256 == func.any(parameter)
    )
    return {
        row.sha256: Resource(kinds[row.sha256], "", b"", row.sha256, tuple(row.uses), row.eds_service, row.settle)
        async for row in cooperatively(await connection.execute(query))
    }


async def read_contents(
    connection: AsyncConnection, revision: int, nodes: Collection[str] | None = None
) -> dict[str, dict[Kind, dict[str, str]]]:
    """Return the resources of a revision, of these node.clusters or of all."""
    table = mesh_contents.c
    query = select(table.node_cluster, table.kind, table.name, table.sha256).where(
        table.since <= revision, or_(table.until.is_(None), table.until > revision)
    )
    if nodes is not None:
        query = query.where(table.node_cluster == func.any(bindparam("nodes", list(nodes), ARRAY(Text))))
    return await _contents(await connection.execute(query))


async def read_newest_contents(connection: AsyncConnection) -> dict[str, dict[Kind, dict[str, str]]]:
    """Return the resources of the newest revision."""
    table = mesh_contents.c
    query = select(table.node_cluster, table.kind, table.name, table.sha256).where(table.until.is_(None))
    return await _contents(await connection.execute(query))


async def write_contents(connection: AsyncConnection, revision: int, before: Contents, after: Contents) -> None:
    """Store the resources of a revision: only what differs from those of the revision before it."""
    # Of a node.cluster that stays the same, nothing is looked at twice.
    changed = [
        node async for node in cooperatively(before.keys() | after.keys()) if before.get(node) != after.get(node)
    ]
    ended: list[tuple[str, str, str]] = []
    begun: list[tuple[tuple[str, str, str], str]] = []
    async for node in cooperatively(sorted(changed)):
        old, new = _flat(node, before.get(node, {})), _flat(node, after.get(node, {}))
        ended += [key for key, digest in old.items() if new.get(key) != digest]
        begun += [(key, digest) for key, digest in new.items() if old.get(key) != digest]
    table = mesh_contents.c
    key_columns = tuple_(table.node_cluster, table.kind, table.name)
    for keys in _pieces(ended, _KEYS_PER_STATEMENT):
        await connection.execute(
            delete(mesh_contents).where(key_columns.in_(keys), table.since == revision, table.until.is_(None))
        )
        await connection.execute(
            update(mesh_contents).where(key_columns.in_(keys), table.until.is_(None)).values(until=revision)
        )
    for rows in _pieces(begun):
        await connection.execute(
            insert(mesh_contents),
            [
                {"node_cluster": node, "kind": kind, "name": name, "since": revision, "sha256": digest}
                for (node, kind, name), digest in rows
            ],
        )


async def read_state(connection: AsyncConnection) -> tuple[str, MeshState]:
    """Return the database's id and the numbers that were given out, without a lock."""
    row = (await connection.execute(_READ_STATE)).one()
    return row.database_id, MeshState(row.revision, row.step, row.change)


async def changed_nodes(connection: AsyncConnection, change: int) -> list[str]:
    """Return the node.clusters of which something has changed after a change."""
    query = select(mesh_served.c.node_cluster).where(mesh_served.c.change > change).distinct()
    return sorted((await connection.execute(query)).scalars())


async def all_nodes(connection: AsyncConnection) -> list[str]:
    """Return the node.clusters of which anything is or was defined."""
    return sorted((await connection.execute(select(mesh_served.c.node_cluster).distinct())).scalars())


async def read_served(connection: AsyncConnection, nodes: Collection[str]) -> list[ServedRow]:
    """Return what some node.clusters are served."""
    table = mesh_served.c
    columns = (table.node_cluster, table.share, table.kind, table.name, table.revision, table.step, table.sha256)
    parameter = bindparam("nodes", list(nodes), ARRAY(Text))
    query = select(*columns).where(table.node_cluster == func.any(parameter)).order_by(*columns[:4])
    return [
        ServedRow(row.node_cluster, row.share, row.kind, row.name, version_of(row.revision, row.step), row.sha256)
        async for row in cooperatively(await connection.execute(query))
    ]


async def serve(
    connection: AsyncConnection, state: MeshState, wanted: Contents, share: float = WHOLE
) -> list[tuple[str, Kind]]:
    """Serve node.clusters these resources, at the next step; what stays the same keeps its version.

    Args:
        connection: the connection, in a transaction that has locked the mesh configuration.
        state: its numbers; the caller stores them.
        wanted: the resources of the node.clusters that are to be served something else. A kind that is served and
            missing here gets empty: that is a decision, and Envoys lose what they had.
        share: the percentage of node ids that these are for; `WHOLE`: for all others.

    Returns:
        The sets that have changed, each with its node.cluster.
    """
    served = await _served(await read_served(connection, wanted), share)
    writer = _ServedWriter(state, share)
    async for node, kinds in cooperatively(wanted.items()):
        for kind in KINDS:
            before, after = served.get(node, {}).get(kind), kinds.get(kind)
            if before is not None or after is not None:
                writer.add(node, kind, before, after or {})
    if writer.changed:
        await writer.write(connection)
    return writer.changed


async def forget_share(connection: AsyncConnection, state: MeshState, nodes: Collection[str]) -> None:
    """Serve all Envoys of some node.clusters the same again."""
    parameter = bindparam("nodes", list(nodes), ARRAY(Text))
    of_nodes = mesh_served.c.node_cluster == func.any(parameter)
    await connection.execute(delete(mesh_served).where(of_nodes, mesh_served.c.share != WHOLE))
    await connection.execute(
        update(mesh_served).where(of_nodes, mesh_served.c.name == ALL).values(change=state.change + 1)
    )


async def rollouts(connection: AsyncConnection) -> int:
    """Return the number of roll-outs that are under way."""
    return int((await connection.execute(select(func.count()).select_from(mesh_rollout))).scalar_one())


async def add_event(
    connection: AsyncConnection,
    services: Collection[str],
    kind: str,
    reason: str,
    actor: str,
    now: datetime,
    version: int,
) -> None:
    """Add an event to the history of some services; of none: one to that of all together."""
    row = {
        "at": now,
        "instance_id": "",
        "kind": kind,
        "reason": reason,
        "actor": actor,
        "status": "",
        "version": version,
    }
    await connection.execute(insert(events), [row | {"service": service} for service in services or (EVERYWHERE,)])


class _ServedWriter:
    """Collects the rows of one step, and writes them."""

    def __init__(self, state: MeshState, share: float) -> None:
        self.changed: list[tuple[str, Kind]] = []
        self._state = state
        self._share = share
        self._rows: list[dict[str, Any]] = []
        self._gone: list[tuple[str, str, str]] = []

    def add(self, node: str, kind: Kind, before: Mapping[str, str] | None, after: Mapping[str, str]) -> None:
        """Add what differs between two sets; the set itself has changed if anything of it has."""
        names = [name for name, digest in after.items() if before is None or before.get(name) != digest]
        gone = [name for name in before or () if name not in after]
        if before is not None and not names and not gone:
            return
        self.changed.append((node, kind))
        self._gone += [(node, kind, name) for name in gone]
        self._rows += [self._row(node, kind, name, after[name]) for name in names]
        self._rows.append(self._row(node, kind, ALL, ""))

    async def write(self, connection: AsyncConnection) -> None:
        """Write the rows at the next step."""
        self._state.step += 1
        numbers = {"revision": self._state.revision, "step": self._state.step, "change": self._state.change + 1}
        table = mesh_served.c
        for keys in _pieces(self._gone, _KEYS_PER_STATEMENT):
            condition = tuple_(table.node_cluster, table.kind, table.name).in_(keys)
            await connection.execute(delete(mesh_served).where(condition, table.share == self._share))
        statement = upsert(mesh_served)
        excluded = {name: statement.excluded[name] for name in ("revision", "step", "change", "sha256")}
        statement = statement.on_conflict_do_update(
            index_elements=["node_cluster", "share", "kind", "name"], set_=excluded
        )
        for rows in _pieces(self._rows):
            await connection.execute(statement, [row | numbers for row in rows])

    def _row(self, node: str, kind: Kind, name: str, digest: str) -> dict[str, Any]:
        return {"node_cluster": node, "share": self._share, "kind": kind, "name": name, "sha256": digest}


async def _served(rows: Iterable[ServedRow], share: float) -> dict[str, dict[str, dict[str, str]]]:
    """Return the sets that are served to a share, by node.cluster and kind."""
    served: dict[str, dict[str, dict[str, str]]] = {}
    async for row in cooperatively(rows):
        if row.share == share:
            names = served.setdefault(row.node_cluster, {}).setdefault(row.kind, {})
            if row.name != ALL:
                names[row.name] = row.sha256
    return served


async def _contents(rows: Iterable[Any]) -> dict[str, dict[Kind, dict[str, str]]]:
    contents: dict[str, dict[Kind, dict[str, str]]] = {}
    async for row in cooperatively(rows):
        if row.kind in KINDS:
            names = contents.setdefault(row.node_cluster, {}).setdefault(row.kind, {})
            if row.name != ALL:
                names[row.name] = row.sha256
    return contents


def _flat(node: str, kinds: NodeNames) -> dict[tuple[str, str, str], str]:
    """Return the digests of a node.cluster by its name, kind and name, each set among them."""
    flat: dict[tuple[str, str, str], str] = {}
    for kind, names in kinds.items():
        flat[node, kind, ALL] = ""
        flat |= {(node, kind, name): digest for name, digest in names.items()}
    return flat


def _body_row(resource: Resource) -> dict[str, Any]:
    return {
        "sha256": resource.sha256,
        "body": resource.body,
        "uses": list(resource.uses),
        "eds_service": resource.eds_service,
        "settle": resource.settle,
    }


def _revision(row: Any) -> Revision:  # noqa: ANN401  # a row of SQLAlchemy
    values = {name: getattr(row, name) for name in Revision.__struct_fields__}
    return Revision(**(values | {"at": float(row.at), "proof": _proof(row.proof)}))


def _proof(document: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except msgspec.DecodeError:
        # A person may have written anything into the row. The revision is shown all the same.
        return {}


def _pieces(rows: Sequence[Any], size: int = _ROWS_PER_STATEMENT) -> Iterable[Sequence[Any]]:
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))
