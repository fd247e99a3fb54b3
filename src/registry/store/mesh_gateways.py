"""The statements on gateways that were compiled again, and on the compile of them that was refused."""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import ARRAY, Text, bindparam, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.mesh_gateways import GatewayRefusal, GatewayStatus, RecompiledGateway, RefusedGateway
from registry.store.database import Database, read_clock
from registry.store.tables import mesh_gateway_refusal, mesh_gateways
from registry.store.times import epoch

_decode = msgspec.json.Decoder(list[str]).decode
_RECOMPILED = select(
    mesh_gateways.c.node_cluster, epoch(mesh_gateways.c.at).label("at"), mesh_gateways.c.proof
).order_by(mesh_gateways.c.node_cluster)
_decode_refusals = msgspec.json.Decoder(list[GatewayRefusal]).decode
_REFUSAL = select(
    mesh_gateway_refusal.c.reason,
    mesh_gateway_refusal.c.refused,
    epoch(mesh_gateway_refusal.c.since).label("since"),
)
_NOTE = text(
    "INSERT INTO mesh_gateways (node_cluster, revision, at, proof)"
    " VALUES (:node_cluster, :revision, clock_timestamp(), :proof)"
    " ON CONFLICT (node_cluster) DO UPDATE SET revision = excluded.revision, at = excluded.at, proof = excluded.proof"
)
_REFUSE = text(
    "INSERT INTO mesh_gateway_refusal (revision, reason, since, refused)"
    " VALUES (:revision, :reason, clock_timestamp(), :refused) ON CONFLICT (singleton) DO UPDATE"
    " SET revision = excluded.revision, reason = excluded.reason, since = excluded.since, refused = excluded.refused"
)


async def read(connection: AsyncConnection, revision: int) -> GatewayStatus:
    """Return the gateways of a revision that were compiled again; a proof that somebody has spoilt proves nothing."""
    rows = await connection.execute(_RECOMPILED.where(mesh_gateways.c.revision == revision))
    recompiled = [RecompiledGateway(row.node_cluster, float(row.at), _versions(row.proof)) for row in rows]
    return GatewayStatus(recompiled, await _refusals(connection, revision))


async def _refusals(connection: AsyncConnection, revision: int) -> list[GatewayRefusal]:
    row = (await connection.execute(_REFUSAL.where(mesh_gateway_refusal.c.revision == revision))).first()
    if row is None:
        return []
    try:
        refusals = _decode_refusals(row.refused)
    except msgspec.DecodeError:
        refusals = []
    # A registry of the version before stores the reason alone.
    return refusals or [GatewayRefusal(row.reason, since=float(row.since))]


async def names(connection: AsyncConnection) -> set[str]:
    """Return the gateways that were compiled again in any revision, as far as that is noted."""
    return set(await connection.scalars(select(mesh_gateways.c.node_cluster)))


async def note(connection: AsyncConnection, revision: int, gateways: Collection[str], envoy: Sequence[str]) -> None:
    """Note that gateways were compiled again.

    Args:
        connection: the connection, in the transaction that begins to serve them.
        revision: the revision in force.
        gateways: their names.
        envoy: the versions of Envoy that have accepted them; none: they are unproven.
    """
    proof = msgspec.json.encode(envoy).decode()
    rows = [{"node_cluster": name, "revision": revision, "proof": proof} for name in sorted(gateways)]
    if rows:
        await connection.execute(_NOTE, rows)


async def carry(
    connection: AsyncConnection, revision: int, gateways: Collection[str], *, before: int | None = None
) -> None:
    """Note that a new revision serves gateways as they were compiled again earlier.

    Args:
        connection: the connection, in the transaction that begins to serve the revision.
        revision: the number of the new revision.
        gateways: their names.
        before: only those that were compiled again in this revision; None: in any.
    """
    of_gateways = mesh_gateways.c.node_cluster == func.any(bindparam("gateways", list(gateways), ARRAY(Text)))
    rows = update(mesh_gateways).where(of_gateways)
    if before is not None:
        rows = rows.where(mesh_gateways.c.revision == before)
    await connection.execute(rows.values(revision=revision))


async def refuse(database: Database, revision: int, refused: Sequence[RefusedGateway]) -> None:
    """Note which gateways of a revision, and which services of them, do not follow the catalog; none: all do.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        if not refused:
            await connection.execute(delete(mesh_gateway_refusal))
            return
        since = {(each.gateway, each.service): each.since for each in await _refusals(connection, revision)}
        now = await read_clock(connection)
        refusals = [
            GatewayRefusal(each.reason, each.gateway, each.service, since=since.get((each.gateway, each.service), now))
            for each in refused
        ]
        reason = "; ".join(f"{each.subject}: {each.reason}" for each in refusals)
        row = {"revision": revision, "reason": reason, "refused": msgspec.json.encode(refusals).decode()}
        await connection.execute(_REFUSE, row)


def _versions(proof: str) -> list[str]:
    try:
        return _decode(proof)
    except msgspec.DecodeError:
        return []
