"""The statements on roll-outs that are under way, and on shares of Envoys that get a revision early."""

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import Struct
from sqlalchemy import ARRAY, Text, bindparam, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.cooperative import cooperatively
from registry.core.rollout import NodeRollout, RolloutKey, RolloutState
from registry.store.database import Database
from registry.store.left_out import SHORT_LOCK
from registry.store.mesh import WHOLE, MeshState
from registry.store.tables import events, mesh_rollout, mesh_served
from registry.store.times import epoch

_decode = msgspec.json.Decoder(RolloutState).decode
_READ = select(
    mesh_rollout.c.node_cluster,
    mesh_rollout.c.share,
    mesh_rollout.c.revision,
    epoch(mesh_rollout.c.since).label("since"),
    mesh_rollout.c.state,
).order_by(mesh_rollout.c.node_cluster, mesh_rollout.c.share)
_WRITE = text(
    "INSERT INTO mesh_rollout (node_cluster, share, revision, state, since)"
    " VALUES (:node_cluster, :share, :revision, :state, clock_timestamp())"
    " ON CONFLICT (node_cluster, share) DO UPDATE SET revision = excluded.revision, state = excluded.state,"
    " since = excluded.since"
)
_ROWS_PER_STATEMENT = 100
"""Roll-outs that one statement writes. Each takes some 20 µs, and no poll is answered meanwhile."""
_NOTE = text(
    "UPDATE mesh_rollout SET state = :state WHERE node_cluster = :node_cluster AND share = :share"
    " AND revision = :revision AND (state::json ->> 'serial')::bigint = :serial AND state::json ->> 'paused' IS NULL"
)
_DELETE = text("DELETE FROM mesh_rollout WHERE node_cluster = :node_cluster AND share = :share")
_COPY_SHARE = text(
    "INSERT INTO mesh_served (node_cluster, share, kind, name, revision, step, change, sha256)"
    " SELECT node_cluster, :share, kind, name, revision, step, :change, sha256 FROM mesh_served"
    " WHERE share = 0 AND node_cluster = ANY(CAST(:nodes AS text[])) ON CONFLICT DO NOTHING"
)
_RAISE_TO_SHARE = text(
    "UPDATE mesh_served AS own SET revision = shared.revision, step = shared.step, change = :change"
    " FROM mesh_served AS shared WHERE own.share = 0 AND shared.share <> 0"
    " AND own.node_cluster = ANY(CAST(:nodes AS text[]))"
    " AND (own.node_cluster, own.kind, own.name) = (shared.node_cluster, shared.kind, shared.name)"
    " AND (own.revision, own.step) < (shared.revision, shared.step)"
)
_ADD_EVENT = insert(events).values(at=func.clock_timestamp(), instance_id="", status="")
_SHARED = select(mesh_served.c.node_cluster, mesh_served.c.share).where(mesh_served.c.share != WHOLE).distinct()


class RolloutRow(Struct, frozen=True):
    """A roll-out that is to be stored."""

    node_cluster: str
    share: float
    revision: int
    state: RolloutState

    @property
    def key(self) -> RolloutKey:
        """Its node.cluster and share."""
        return (self.node_cluster, self.share)


async def read(connection: AsyncConnection, nodes: Collection[str] | None = None) -> list[NodeRollout]:
    """Return the roll-outs that are under way, of these node.clusters or of all.

    A row that cannot be read is one without a state.
    """
    query = _READ
    if nodes is not None:
        query = query.where(mesh_rollout.c.node_cluster == func.any(bindparam("nodes", list(nodes), ARRAY(Text))))
    return [
        NodeRollout(row.node_cluster, row.share, row.revision, float(row.since), _state(row.state))
        async for row in cooperatively(await connection.execute(query))
    ]


async def write(connection: AsyncConnection, rows: Sequence[RolloutRow]) -> None:
    """Store roll-outs at the beginning of their phases."""
    for begin in range(0, len(rows), _ROWS_PER_STATEMENT):
        await connection.execute(_WRITE, [_values(row) for row in rows[begin : begin + _ROWS_PER_STATEMENT]])


async def note(database: Database, seen: Sequence[tuple[RolloutRow, "RolloutEvent | None"]]) -> None:
    """Store what was seen of roll-outs, unless they have gone on or were paused meanwhile, and the events of it.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(SHORT_LOCK)
        for begin in range(0, len(seen), _ROWS_PER_STATEMENT):
            part = seen[begin : begin + _ROWS_PER_STATEMENT]
            await connection.execute(_NOTE, [_values(row) | {"serial": row.state.serial} for row, _ in part])
        await add_events(connection, [event for _, event in seen if event is not None])


async def delete(connection: AsyncConnection, keys: Iterable[RolloutKey]) -> None:
    """Delete roll-outs that are done."""
    rows = [{"node_cluster": node_cluster, "share": share} for node_cluster, share in keys]
    if rows:
        await connection.execute(_DELETE, rows)


async def shares(connection: AsyncConnection, nodes: Collection[str] | None = None) -> dict[str, float]:
    """Return the share of each node.cluster that has one; of these node.clusters, or of all."""
    query = _SHARED
    if nodes is not None:
        query = query.where(mesh_served.c.node_cluster == func.any(bindparam("nodes", list(nodes), ARRAY(Text))))
    return {row.node_cluster: row.share for row in await connection.execute(query)}


async def copy_share(connection: AsyncConnection, state: MeshState, nodes: Collection[str], share: float) -> None:
    """Serve a share of the Envoys of some node.clusters apart from the others, and for now the same."""
    values = {"nodes": list(nodes), "share": share, "change": state.change + 1}
    await connection.execute(_COPY_SHARE, values)


async def raise_to_share(connection: AsyncConnection, state: MeshState, nodes: Collection[str]) -> None:
    """Raise the versions of what all are served to those of the share: equal bytes, and no version goes back."""
    await connection.execute(_RAISE_TO_SHARE, {"nodes": list(nodes), "change": state.change + 1})


class RolloutEvent(Struct, frozen=True):
    """An event of a roll-out, in the history of its node.cluster.

    Attributes:
        service: the node.cluster.
        kind: what happened.
        reason: why, as a sentence.
        actor: who did it.
        version: the revision.
    """

    service: str
    kind: str
    reason: str
    actor: str
    version: int


async def add_events(connection: AsyncConnection, happened: Sequence[RolloutEvent]) -> None:
    """Add events to the history of node.clusters."""
    if happened:
        # One short statement many times: SQLAlchemy takes a tenth of a second to build one of five hundred rows.
        await connection.execute(_ADD_EVENT, [msgspec.structs.asdict(each) for each in happened])


def _values(row: RolloutRow) -> dict[str, object]:
    values = msgspec.structs.asdict(row)
    return values | {"state": msgspec.json.encode(row.state).decode()}


def _state(stored: str) -> RolloutState | None:
    try:
        return _decode(stored)
    except msgspec.DecodeError:
        return None
