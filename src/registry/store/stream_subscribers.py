"""The statements by which processes tell each other of their gRPC streams."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Row, Select, Text, bindparam, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from registry.cooperative import cooperatively
from registry.core.stream_subscriber import SeenRow, StreamRow, Trouble
from registry.core.subscriber import SUBSCRIBER_TIMEOUT
from registry.core.subscriber_status import SubscriberFilter
from registry.store.database import Database
from registry.store.left_out import SHORT_LOCK
from registry.store.tables import processes, subscriber_streams
from registry.store.times import age_of, epoch

MAX_PROCESS_AGE = 10.0
"""Seconds since the last report of a process after which its streams have ended; it reports every three."""

_NAMES = ", ".join(StreamRow.__struct_fields__)
_STORE = text(
    f"INSERT INTO subscriber_streams ({_NAMES}, told_at) SELECT {_NAMES}, clock_timestamp()"  # noqa: S608  # constants
    " FROM json_populate_recordset(NULL::subscriber_streams, CAST(:rows AS json))"
    " ON CONFLICT (process_id, stream) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in StreamRow.__struct_fields__[2:])
    + ", told_at = excluded.told_at RETURNING xmax = 0"
)
_COUNT = text("SELECT count(*) FROM subscriber_streams WHERE process_id = :process")


async def store_streams(database: Database, rows: Sequence[StreamRow]) -> None:
    """Store streams of this process, in place of what it has told of them before.

    Raises:
        UnavailableError: they could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(SHORT_LOCK)
        await connection.execute(_STORE, {"rows": msgspec.json.encode(rows).decode()})


async def count_streams(database: Database, process_id: str) -> int:
    """Return how many streams of a process are stored; fewer than it told of after a crash of PostgreSQL.

    Raises:
        UnavailableError: they cannot be counted.
    """
    async with database.session() as connection:
        return int((await connection.execute(_COUNT, {"process": process_id})).scalar_one())


async def delete_streams(database: Database, process_id: str, streams: Collection[int] | None) -> None:
    """Delete streams of a process that have ended; None: all of them.

    Raises:
        UnavailableError: they could not be deleted.
    """
    table = subscriber_streams.c
    statement = delete(subscriber_streams).where(table.process_id == process_id)
    if streams is not None:
        ended = bindparam("ended", sorted(streams), ARRAY(BigInteger))
        statement = statement.where(table.stream == func.any(ended))
    async with database.transaction() as connection:
        await connection.execute(statement)


async def delete_orphans(database: Database) -> None:
    """Delete the streams of processes that are long gone.

    Raises:
        UnavailableError: they could not be deleted.
    """
    age = func.abs(age_of(subscriber_streams.c.told_at))
    living = select(processes.c.id)
    async with database.transaction() as connection:
        await connection.execute(
            delete(subscriber_streams).where(subscriber_streams.c.process_id.not_in(living), age > SUBSCRIBER_TIMEOUT)
        )


async def streams_of_others(database: Database, process_id: str, wanted: SubscriberFilter) -> list[SeenRow]:
    """Return the streams that the other processes have told of, as far as they match a filter.

    The streams of a process that is gone are among them, for as long as a subscriber is remembered that is not seen.

    Raises:
        UnavailableError: they cannot be read.
    """
    table = subscriber_streams.c
    query = _of_others(process_id)
    for name in ("node_id", "cluster", "zone"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(table[name] == value)
    if wanted.service is not None:
        query = query.where(literal(wanted.service) == func.any(table.services))
    return await _read(database, query)


async def streams_of_clusters(database: Database, process_id: str, clusters: Collection[str]) -> list[SeenRow]:
    """Return the streams that the other processes have told of whose node has one of these clusters.

    Raises:
        UnavailableError: they cannot be read.
    """
    parameter = bindparam("clusters", list(clusters), ARRAY(Text))
    return await _read(database, _of_others(process_id).where(subscriber_streams.c.cluster == func.any(parameter)))


def _of_others(process_id: str) -> Select[*tuple[Any, ...]]:
    table = subscriber_streams.c
    seen = func.coalesce(processes.c.seen_at, table.told_at)
    age = age_of(seen)
    return (
        select(
            *(table[name] for name in StreamRow.__struct_fields__),
            processes.c.id.is_not(None).label("reports"),
            epoch(seen).label("seen"),
            age.label("age"),
        )
        .select_from(subscriber_streams.outerjoin(processes, processes.c.id == table.process_id))
        .where(table.process_id != process_id, age < SUBSCRIBER_TIMEOUT)
    )


async def _read(database: Database, query: Select[*tuple[Any, ...]]) -> list[SeenRow]:
    async with database.session() as connection:
        rows = await connection.execute(query)
        return [_seen(row) async for row in cooperatively(rows)]


def _seen(row: Row[*tuple[Any, ...]]) -> SeenRow:
    facts = {name: getattr(row, name) for name in StreamRow.__struct_fields__}
    stream = StreamRow(**facts | {"troubles": msgspec.convert(row.troubles, list[Trouble])})
    # An age of the future is one from before the clock was set back.
    alive = bool(row.reports) and abs(float(row.age)) <= MAX_PROCESS_AGE
    return SeenRow(stream, alive, float(row.seen))
