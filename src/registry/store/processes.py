"""The reports of registry processes, where all of them can read them."""

from contextlib import suppress

import msgspec
from sqlalchemy import delete, func, literal, select, text

from registry.core.abilities import Failure
from registry.core.processes import ProcessReport, StoredReport
from registry.store.database import Database
from registry.store.tables import processes

_KEPT = 60.0
"""Seconds for which the report of a process that is gone stays: by PostgreSQL's clock, which may be set meanwhile."""

_TELL = text(
    "INSERT INTO processes (id, name, started_at, seen_at, failures)"
    " VALUES (:id, :name, :started_at, clock_timestamp(), CAST(:failures AS jsonb))"
    " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, failures = excluded.failures"
)


async def store_report(database: Database, report: ProcessReport) -> None:
    """Store a process's report over its last one, and delete those of processes that are long gone.

    Raises:
        UnavailableError: it could not be stored.
    """
    told = {
        "id": report.id,
        "name": report.name,
        "started_at": report.started_at,
        "failures": msgspec.json.encode(report.failures).decode(),
    }
    age = func.abs(func.extract("epoch", func.clock_timestamp() - processes.c.seen_at))
    old = select(processes.c.id).where(age > _KEPT).with_for_update(skip_locked=True)
    async with database.transaction() as connection:
        await connection.execute(_TELL, told)
        await connection.execute(delete(processes).where(processes.c.id.in_(old)))


async def delete_report(database: Database, process_id: str) -> None:
    """Delete the report of a process that stops.

    Raises:
        UnavailableError: it could not be deleted.
    """
    async with database.transaction() as connection:
        await connection.execute(delete(processes).where(processes.c.id == literal(process_id)))


async def read_reports(database: Database) -> list[StoredReport]:
    """Return the reports of all processes.

    Raises:
        UnavailableError: they cannot be read.
    """
    found = select(
        processes.c.id,
        processes.c.name,
        processes.c.started_at,
        processes.c.failures,
        func.extract("epoch", processes.c.seen_at).label("seen"),
        func.extract("epoch", func.clock_timestamp() - processes.c.seen_at).label("age"),
    )
    async with database.session() as connection:
        return [
            StoredReport(
                ProcessReport(row.id, row.name, row.started_at, _known_failures(row.failures)),
                float(row.seen),
                float(row.age),
            )
            for row in await connection.execute(found)
        ]


def _known_failures(told: object) -> tuple[Failure, ...]:
    """Return the failures that this version knows: during an upgrade a newer process may report others.

    A report that could not be read would hide those of all processes.
    """
    known = []
    for one in told if isinstance(told, list) else ():
        with suppress(msgspec.ValidationError):
            known.append(msgspec.convert(one, Failure))
    return tuple(known)
