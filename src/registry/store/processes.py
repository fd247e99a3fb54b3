"""The statements on the reports by which registry processes learn of one another."""

from contextlib import suppress

import msgspec
from sqlalchemy import delete, func, literal, select, text

from registry.core.abilities import Failure
from registry.core.processes import ProcessReport, StoredReport
from registry.store.database import Database
from registry.store.tables import processes
from registry.store.times import age_of, epoch

_RETENTION = 900.0
"""Seconds for which the report of a process that is gone is kept, so that it is missed, by PostgreSQL's clock."""

_STORE_REPORT = text(
    "INSERT INTO processes (id, name, started_at, seen_at, failures)"
    " VALUES (:id, :name, :started_at, clock_timestamp(), CAST(:failures AS jsonb))"
    " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, failures = excluded.failures"
)

_OLD = (
    select(processes.c.id).where(func.abs(age_of(processes.c.seen_at)) > _RETENTION).with_for_update(skip_locked=True)
)
_DELETE_OLD = delete(processes).where(processes.c.id.in_(_OLD))
_READ_REPORTS = select(
    processes.c.id,
    processes.c.name,
    processes.c.started_at,
    processes.c.failures,
    epoch(processes.c.seen_at).label("seen"),
    age_of(processes.c.seen_at).label("age"),
)


async def store_report(database: Database, report: ProcessReport) -> None:
    """Store a process's report in place of its last one, and delete those of processes that are long gone.

    Raises:
        UnavailableError: it could not be stored.
    """
    parameters = {
        "id": report.id,
        "name": report.name,
        "started_at": report.started_at,
        "failures": msgspec.json.encode(report.failures).decode(),
    }
    async with database.transaction() as connection:
        await connection.execute(_STORE_REPORT, parameters)
        await connection.execute(_DELETE_OLD)


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
    async with database.session() as connection:
        return [
            StoredReport(
                ProcessReport(row.id, row.name, row.started_at, _readable_failures(row.failures)),
                float(row.seen),
                float(row.age),
            )
            for row in await connection.execute(_READ_REPORTS)
        ]


def _readable_failures(stored: object) -> tuple[Failure, ...]:
    """Return the failures that this version can read; a newer process may report others during an upgrade.

    An error for one of them would hide the reports of all processes.
    """
    failures = []
    for failure in stored if isinstance(stored, list) else ():
        with suppress(msgspec.ValidationError):
            failures.append(msgspec.convert(failure, Failure))
    return tuple(failures)
