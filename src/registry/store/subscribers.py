"""What each process knows of who polls it, where all processes can read it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import delete, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.cooperative import cooperatively
from registry.core.subscriber import REPORT_LAG, SUBSCRIBER_TIMEOUT, SubscriberFilter, SubscriberReport, report_lag
from registry.store.database import Database, read_clock
from registry.store.tables import subscriber_memories, subscribers

_KEY = ("process", "service", "node_id", "address", "api")
_FOUND = [subscribers.c[name] for name in SubscriberReport.__struct_fields__]
_COLUMNS = [column.name for column in subscribers.c]
_NAMES = ", ".join(_COLUMNS)
# One JSON document and not twenty parameters a row: to write a statement of thousands takes longer than to run it.
_TELL = text(
    f"INSERT INTO subscribers ({_NAMES}) SELECT {_NAMES} FROM json_populate_recordset("  # noqa: S608  # constants
    "json_populate_record(NULL::subscribers, json_build_object('told_at', CAST(:now AS double precision))),"
    f" CAST(:sightings AS json)) ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in _KEY)
)


class SubscriberMemory(Struct, frozen=True):
    """How full a process's memory of subscribers is.

    Attributes:
        sightings: pairs of a node and a name that it remembers.
        refused_at: when it last did not remember one, in seconds of the database's clock; None: not lately.
    """

    sightings: int
    refused_at: float | None


class ReportsOfOthers(Struct, frozen=True):
    """What the other processes know, and how full the memory of each is."""

    sightings: list[SubscriberReport]
    memories: Mapping[str, SubscriberMemory]


async def store_reports(database: Database, sightings: Sequence[SubscriberReport], now: float) -> None:
    """Store what a process knows, over what it knew of the same subscribers before.

    Args:
        database: where.
        sightings: at most one of each subscriber of a service.
        now: the database's time.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(_TELL, {"sightings": msgspec.json.encode(sightings).decode(), "now": now})


async def store_memory(database: Database, process: str, memory: SubscriberMemory, now: float) -> None:
    """Store how full a process's memory of subscribers is.

    Raises:
        UnavailableError: it could not be stored.
    """
    told = {"sightings": memory.sightings, "refused_at": memory.refused_at, "told_at": now}
    statement = insert(subscriber_memories).values(process=process, **told)
    async with database.transaction() as connection:
        await connection.execute(statement.on_conflict_do_update(index_elements=["process"], set_=told))


async def delete_old(database: Database, now: float) -> None:
    """Delete what no process has told of for so long that it is of no interest."""
    old = (
        select(*(subscribers.c[name] for name in _KEY))
        .where(subscribers.c.told_at < now - SUBSCRIBER_TIMEOUT)
        # Another process deletes them as well.
        .with_for_update(skip_locked=True)
    )
    gone = delete(subscriber_memories).where(subscriber_memories.c.told_at < now - SUBSCRIBER_TIMEOUT)
    async with database.transaction() as connection:
        await connection.execute(delete(subscribers).where(tuple_(*(subscribers.c[name] for name in _KEY)).in_(old)))
        await connection.execute(gone)


async def reports_of_others(database: Database, process: str, sought: SubscriberFilter) -> ReportsOfOthers:
    """Return what other processes than this one know.

    Raises:
        UnavailableError: it cannot be read.
    """
    found = select(*_FOUND, subscribers.c.told_at).where(subscribers.c.process != process)
    for name, wanted in msgspec.structs.asdict(sought).items():
        if wanted is not None:
            found = found.where(subscribers.c[name] == wanted)
    async with database.session() as connection:
        now = await read_clock(connection)
        memories = await _memories(connection, process, now)
        rows = await connection.execute(found.where(subscribers.c.told_at > now - SUBSCRIBER_TIMEOUT))
        lags = {name: report_lag(memory.sightings) for name, memory in memories.items()}
        return ReportsOfOthers([_sighting(row, now, lags) async for row in cooperatively(rows)], memories)


async def _memories(connection: AsyncConnection, process: str, now: float) -> dict[str, SubscriberMemory]:
    table = subscriber_memories.c
    rows = await connection.execute(
        select(table.process, table.sightings, table.refused_at).where(table.process != process)
    )
    oldest = now - SUBSCRIBER_TIMEOUT
    return {
        row.process: SubscriberMemory(
            row.sightings, row.refused_at if row.refused_at is not None and row.refused_at > oldest else None
        )
        for row in rows
    }


def _sighting(row: Sequence[Any], now: float, lags: Mapping[str, float]) -> SubscriberReport:
    *values, told_at = row
    found = SubscriberReport(*values)
    # A process that died holds nothing any more, whatever it said last.
    late = found.held and told_at <= now - lags.get(found.process, REPORT_LAG)
    return replace(found, held=False) if late else found
