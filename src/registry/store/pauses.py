"""The statements on pauses of expiry: set a pause, end it, and read the pauses in force."""

from collections.abc import Mapping

from sqlalchemy import DateTime, delete, func, insert, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.event import EventKind
from registry.core.expiry_guard import Pause
from registry.errors import NotFoundError
from registry.store.database import Database, read_clock
from registry.store.rows import moment
from registry.store.tables import events, pauses
from registry.store.times import epoch

_IN_FORCE = select(
    pauses.c.scope,
    pauses.c.actor,
    pauses.c.reason,
    epoch(pauses.c.since).label("since"),
    epoch(pauses.c.until).label("until"),
)
_IN_FORCE_NOW = _IN_FORCE.where(pauses.c.until > func.clock_timestamp())


async def in_force(connection: AsyncConnection, now: float | None = None) -> dict[str, Pause]:
    """Return the pauses that end after ``now``, by scope; None stands for PostgreSQL's time."""
    query = _IN_FORCE_NOW
    if now is not None:
        query = _IN_FORCE.where(pauses.c.until > literal(moment(now), DateTime(timezone=True)))
    rows = await connection.execute(query)
    return {row.scope: Pause(row.scope, row.actor, row.reason, float(row.since), float(row.until)) for row in rows}


async def pause(database: Database, scope: str, *, actor: str, reason: str, seconds: float) -> Pause:
    """Pause expiry in ``scope`` for so many seconds, and return the pause."""
    async with database.transaction() as connection:
        now = await read_clock(connection)
        set_pause = Pause(scope, actor, reason, now, now + seconds)
        values = {"actor": actor, "reason": reason, "since": moment(now), "until": moment(now + seconds)}
        statement = upsert(pauses).values(scope=scope, **values)
        await connection.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=values))
        await _record(connection, set_pause, "paused", now)
    return set_pause


async def resume(database: Database, scope: str, *, actor: str) -> None:
    """End the pause of ``scope``, so that endpoints lapse again.

    Raises:
        NotFoundError: no pause of that scope is in force.
    """
    async with database.transaction() as connection:
        in_force_now: Mapping[str, Pause] = await in_force(connection)
        if scope not in in_force_now:
            raise NotFoundError(f"expiry is not paused for {scope}")
        await connection.execute(delete(pauses).where(pauses.c.scope == scope))
        now = await read_clock(connection)
        await _record(connection, Pause(scope, actor, "resumed by an operator", now, now), "resumed", now)


async def _record(connection: AsyncConnection, pause: Pause, kind: EventKind, now: float) -> None:
    row = {
        "at": moment(now),
        "service": pause.scope,
        "instance_id": "",
        "kind": kind,
        "reason": pause.reason,
        "actor": pause.actor,
        "status": "",
        "version": 0,
    }
    await connection.execute(insert(events), row)
