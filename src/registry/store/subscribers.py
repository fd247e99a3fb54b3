"""The statements by which processes exchange the subscribers that they have seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import delete, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.cooperative import cooperatively
from registry.core.subscriber import SUBSCRIBER_TIMEOUT
from registry.core.subscriber_status import REPORT_LAG, SubscriberFilter, SubscriberReport, report_lag
from registry.store.database import Database, read_clock
from registry.store.left_out import SHORT_LOCK
from registry.store.tables import subscriber_memories, subscribers

_KEY = ("process", "service", "node_id", "address", "api")
_REPORT_COLUMNS = [subscribers.c[name] for name in SubscriberReport.__struct_fields__]
_COLUMNS = [column.name for column in subscribers.c]
_NAMES = ", ".join(_COLUMNS)
# One JSON document instead of twenty parameters a row, because SQLAlchemy takes longer to build a statement of
# thousands of rows than PostgreSQL takes to run it.
_STORE_REPORTS = text(
    f"INSERT INTO subscribers ({_NAMES}) SELECT {_NAMES} FROM json_populate_recordset("  # noqa: S608  # constants
    "json_populate_record(NULL::subscribers, json_build_object('told_at', CAST(:now AS double precision))),"
    f" CAST(:sightings AS json)) ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in _KEY)
)


class SubscriberMemory(Struct, frozen=True):
    """The use of a process's memory of subscribers.

    Attributes:
        sightings: the number of pairs of a node and a name that the process remembers.
        refused_at: the database's time at which there was last no room for one; None: not lately.
    """

    sightings: int
    refused_at: float | None


class ReportsOfOthers(Struct, frozen=True):
    """The reports of the other processes, and the use of each one's memory."""

    sightings: list[SubscriberReport]
    memories: Mapping[str, SubscriberMemory]


async def store_reports(database: Database, sightings: Sequence[SubscriberReport], now: float) -> None:
    """Store a process's reports, in place of its earlier ones about the same subscribers.

    Args:
        database: the database.
        sightings: reports, at most one for each subscriber of a service.
        now: the database's time.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(SHORT_LOCK)
        await connection.execute(_STORE_REPORTS, {"sightings": msgspec.json.encode(sightings).decode(), "now": now})


async def store_memory(database: Database, process: str, memory: SubscriberMemory, now: float) -> None:
    """Store the use of a process's memory of subscribers.

    Raises:
        UnavailableError: it could not be stored.
    """
    values = {"sightings": memory.sightings, "refused_at": memory.refused_at, "told_at": now}
    statement = insert(subscriber_memories).values(process=process, **values)
    async with database.transaction() as connection:
        await connection.execute(statement.on_conflict_do_update(index_elements=["process"], set_=values))


async def delete_old(database: Database, now: float) -> None:
    """Delete reports that no process has repeated for ``SUBSCRIBER_TIMEOUT``."""
    old = (
        select(*(subscribers.c[name] for name in _KEY))
        .where(subscribers.c.told_at < now - SUBSCRIBER_TIMEOUT)
        # Other processes delete them as well.
        .with_for_update(skip_locked=True)
    )
    gone = (
        select(subscriber_memories.c.process)
        .where(subscriber_memories.c.told_at < now - SUBSCRIBER_TIMEOUT)
        .with_for_update(skip_locked=True)
    )
    async with database.transaction() as connection:
        await connection.execute(delete(subscribers).where(tuple_(*(subscribers.c[name] for name in _KEY)).in_(old)))
        await connection.execute(delete(subscriber_memories).where(subscriber_memories.c.process.in_(gone)))


async def reports_of_others(database: Database, process: str, wanted: SubscriberFilter) -> ReportsOfOthers:
    """Return the reports of the other processes about the subscribers that match a filter.

    Raises:
        UnavailableError: it cannot be read.
    """
    query = select(*_REPORT_COLUMNS, subscribers.c.told_at).where(subscribers.c.process != process)
    for name, value in msgspec.structs.asdict(wanted).items():
        if value is not None:
            query = query.where(subscribers.c[name] == value)
    async with database.session() as connection:
        now = await read_clock(connection)
        memories = await _memories(connection, process, now)
        rows = await connection.execute(query.where(subscribers.c.told_at > now - SUBSCRIBER_TIMEOUT))
        lags = {name: report_lag(memory.sightings) for name, memory in memories.items()}
        return ReportsOfOthers([_report(row, now, lags) async for row in cooperatively(rows)], memories)


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


def _report(row: Sequence[Any], now: float, lags: Mapping[str, float]) -> SubscriberReport:
    *values, told_at = row
    report = SubscriberReport(*values)
    # A process that died no longer holds a poll, whatever it reported last.
    late = report.held and told_at <= now - lags.get(report.process, REPORT_LAG)
    return replace(report, held=False) if late else report
