"""The statements by which processes tell each other of the traffic that they know: one row a process."""

from collections.abc import Mapping

from msgspec import Struct
from sqlalchemy import bindparam, delete, func, select, text

from registry.store.database import Database
from registry.store.tables import traffic
from registry.store.times import age_of

RETENTION = 3_600.0
"""Seconds for which the row of a process that is gone is kept, by PostgreSQL's clock: the longest window."""

_STORE = text(
    "INSERT INTO traffic (process_id, number, told_at, pairs, endpoints)"
    " VALUES (:process, :number, clock_timestamp(), :pairs, :endpoints)"
    " ON CONFLICT (process_id) DO UPDATE SET number = excluded.number, told_at = excluded.told_at,"
    " pairs = excluded.pairs, endpoints = excluded.endpoints"
)

_OLD = select(traffic.c.process_id).where(func.abs(age_of(traffic.c.told_at)) > RETENTION)
_DELETE_OLD = delete(traffic).where(traffic.c.process_id.in_(_OLD.with_for_update(skip_locked=True)))
_NUMBERS = select(traffic.c.process_id, traffic.c.number).where(traffic.c.process_id != bindparam("process"))


class TrafficRow(Struct, frozen=True):
    """The row of one process.

    Attributes:
        process_id: the random id of the process.
        number: grows with each row of it.
        age: seconds since it was stored, by PostgreSQL's clock.
        pairs: an image of its table.
        endpoints: an image of its attempts at endpoints.
    """

    process_id: str
    number: int
    age: float
    pairs: bytes
    endpoints: bytes


async def store_traffic(database: Database, process_id: str, number: int, pairs: bytes, endpoints: bytes) -> None:
    """Store what a process knows in place of what it stored last, and delete the rows of those long gone.

    Raises:
        UnavailableError: it could not be stored.
    """
    parameters = {"process": process_id, "number": number, "pairs": pairs, "endpoints": endpoints}
    async with database.transaction() as connection:
        await connection.execute(_STORE, parameters)
        await connection.execute(_DELETE_OLD)


async def read_traffic(
    database: Database, process_id: str, known: Mapping[str, int]
) -> tuple[list[TrafficRow], set[str]]:
    """Return rows of other processes that are not known yet, and the ids of all with a row.

    Args:
        database: the database.
        process_id: the id of this process, whose row is left out.
        known: the numbers of the rows that are known, by process.

    Raises:
        UnavailableError: they cannot be read.
    """
    columns = traffic.c
    async with database.session() as connection:
        numbers = await connection.execute(_NUMBERS, {"process": process_id})
        living = {row.process_id: row.number for row in numbers}
        new = [process for process, number in living.items() if known.get(process) != number]
        if not new:
            return [], set(living)
        age = age_of(columns.told_at).label("age")
        query = select(columns.process_id, columns.number, age, columns.pairs, columns.endpoints)
        rows = [
            TrafficRow(row.process_id, row.number, float(row.age), bytes(row.pairs), bytes(row.endpoints))
            for row in await connection.execute(query.where(columns.process_id.in_(new)))
        ]
    return rows, set(living)
