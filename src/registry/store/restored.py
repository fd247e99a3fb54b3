"""A database that is a copy of another one gets an id of its own before it is served.

A restored dump has the versions of the day of the backup. They are given out again, for other content, and subscribers
that hold them would take the two for equal. With another ``database_id`` no version of before is compared with one of
after. A dump is recognised by the place where the database is (``headcount_location``); a disk that was set back is
not, and ``registry restored`` says so.
"""

import asyncio

import structlog
from msgspec import Struct
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.database_url import DatabaseUrl
from registry.store.database import Database
from registry.store.tables import registry_state
from registry.store.times import age_of

log = structlog.get_logger()

MAX_LOST_TRANSACTIONS = 2**32
"""Transactions that the original may have stored since the backup; readers of events may have seen them."""

# A location begins with the identifier of the cluster, or with a dot where PostgreSQL does not say it. A right that was
# granted or revoked meanwhile is no copy: of the two locations the rest is compared, if either lacks the identifier.
_COPIED = (
    "CASE WHEN '' IN (split_part(location, '.', 1), split_part(headcount_location(), '.', 1))"
    " THEN substr(location, strpos(location, '.'))"
    " <> substr(headcount_location(), strpos(headcount_location(), '.'))"
    " ELSE location <> headcount_location() END"
)
_READ = text(
    f"SELECT database_id, {_COPIED} AS copied,"  # noqa: S608  # constants
    f" {age_of(registry_state.c.restored_at)} AS restored_ago FROM registry_state"
)
# Only the first of several processes changes anything: the others wait for its row, and find it done.
_RENEW = text(
    "UPDATE registry_state AS state SET"  # noqa: S608  # constants
    " database_id = left(replace(gen_random_uuid()::text, '-', ''), 8),"
    " location = headcount_location(), timeline = headcount_timeline(), restored_at = clock_timestamp(),"
    " access_generation = access_generation + 1,"
    " transaction_offset = greatest(transaction_offset,"
    "  coalesce((SELECT transaction FROM events ORDER BY transaction DESC LIMIT 1), 0)) + :lost"
    f" WHERE :anyway OR {_COPIED}"
    " RETURNING database_id"
)
# Timelines of another cluster mean nothing here.
_TIMELINES = (
    text("UPDATE services SET timeline = headcount_timeline()"),
    text("UPDATE mesh_state SET timeline = headcount_timeline()"),
)


class DatabaseIdentity(Struct, frozen=True):
    """The id of a database, and the seconds since it was found to be restored; None: it never was."""

    id: str
    restored_ago: float | None


async def read_identity(database: Database) -> DatabaseIdentity:
    """Return the id of the database; one that was restored gets a new one first.

    Raises:
        UnavailableError: it does not answer, or its schema is older than this program.
    """
    async with database.session() as connection:
        row = await _read(connection)
    if row.copied:
        await renew_identity(database)
        async with database.session() as connection:
            row = await _read(connection)
    return DatabaseIdentity(row.database_id, None if row.restored_ago is None else float(row.restored_ago))


async def renew_identity(database: Database, *, anyway: bool = False) -> str | None:
    """Give a restored database an id of its own; return it, or None if the database is where it was.

    Args:
        database: the database.
        anyway: whether it is restored although its place says nothing of it, as a disk that was set back.

    Raises:
        UnavailableError: it does not answer, or refuses writes.
    """
    async with database.transaction() as connection:
        before = (await _read(connection)).database_id
        renewed = (await connection.execute(_RENEW, {"lost": MAX_LOST_TRANSACTIONS, "anyway": anyway})).first()
        if renewed is None:
            return None
        for statement in _TIMELINES:
            await connection.execute(statement)
    identity = str(renewed.database_id)
    log.warning(
        "database_restored",
        before=before,
        now=identity,
        consequence="state since the backup is lost: overrides, tokens and their revocations, mesh revisions",
        fix="docs/databases.md, After a restore",
    )
    return identity


def renew_identity_now(database_url: DatabaseUrl, statement_timeout: float) -> None:
    """Run ``renew_identity`` for any database from a program without a loop.

    Raises:
        UnavailableError: PostgreSQL is away, or its schema is older than this program.
    """
    asyncio.run(_renew_now(Database(database_url, connections=1, timeout=statement_timeout, unbounded=True)))


async def _renew_now(database: Database) -> None:
    try:
        await renew_identity(database, anyway=True)
    finally:
        await database.close()


async def _read(connection: AsyncConnection) -> Row[tuple[str, bool, float | None]]:
    return (await connection.execute(_READ)).one()
