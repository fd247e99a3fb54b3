"""The statements on the statements of probers: replace those of one prober, and read those about suspects."""

from collections.abc import Collection, Sequence
from typing import get_args

from sqlalchemy import ARRAY, BigInteger, any_, delete, func, literal, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.evidence import Statement, StatementKind
from registry.store.database import Database
from registry.store.tables import probe_statements
from registry.store.times import age_of, epoch

_RETENTION = 120.0
"""Seconds for which the statements of a prober that is gone are kept, by PostgreSQL's clock."""
_MAX_READ = 20_000
"""Statements that are read at most, the youngest first."""

# The probers' clocks are not PostgreSQL's, so that times are stored by their age.
_STORE = text(
    "INSERT INTO probe_statements"
    " (prober, endpoint_id, incarnation, address, kind, at, reached_at, attempts, registrar_of)"
    " VALUES (:prober, :endpoint_id, :incarnation, :address, :kind,"
    " clock_timestamp() - make_interval(secs => :age), clock_timestamp() - make_interval(secs => :reached_age),"
    " :attempts, :registrar_of)"
    " ON CONFLICT (prober, endpoint_id) DO NOTHING"
)


async def replace_statements(database: Database, prober: str, statements: Sequence[Statement], now: float) -> None:
    """Store all statements of a prober in place of its earlier ones, and delete what is long out of date.

    Args:
        database: the database.
        prober: the prober of all of the statements.
        statements: its statements; their times are of the caller's clock.
        now: the time of the caller's clock.

    Raises:
        UnavailableError: they could not be stored.
    """
    age = func.abs(age_of(probe_statements.c.at))
    old = (
        select(probe_statements.c.prober, probe_statements.c.endpoint_id)
        .where(age > _RETENTION)
        .with_for_update(skip_locked=True)
    )
    async with database.transaction() as connection:
        await connection.execute(delete(probe_statements).where(probe_statements.c.prober == prober))
        await _add(connection, prober, statements, now)
        gone = (probe_statements.c.prober, probe_statements.c.endpoint_id)
        await connection.execute(delete(probe_statements).where(tuple_(*gone).in_(old)))


async def add_statements(database: Database, prober: str, statements: Sequence[Statement], now: float) -> None:
    """Store statements of a prober beside its earlier ones.

    Args:
        database: the database.
        prober: the prober of all of the statements.
        statements: about endpoints of which none is stored; their times are of the caller's clock.
        now: the time of the caller's clock.

    Raises:
        UnavailableError: they could not be stored.
    """
    async with database.transaction() as connection:
        await _add(connection, prober, statements, now)


async def _add(connection: AsyncConnection, prober: str, statements: Sequence[Statement], now: float) -> None:
    rows = [
        {
            "prober": prober,
            "endpoint_id": statement.endpoint_id,
            "incarnation": statement.incarnation,
            "address": statement.address,
            "kind": statement.kind,
            "age": now - statement.at,
            "reached_age": None if statement.reached_at is None else now - statement.reached_at,
            "attempts": statement.attempts,
            "registrar_of": statement.registrar_of,
        }
        for statement in statements
    ]
    if rows:
        await connection.execute(_STORE, rows)


async def read_statements(database: Database, endpoint_ids: Collection[int]) -> list[Statement]:
    """Return the statements about some endpoints, with times of PostgreSQL's clock.

    Kinds that a newer version may have are left out.

    Raises:
        UnavailableError: they cannot be read.
    """
    columns = probe_statements.c
    query = (
        select(
            columns.prober,
            columns.address,
            columns.kind,
            epoch(columns.at).label("at"),
            columns.endpoint_id,
            columns.incarnation,
            epoch(columns.reached_at).label("reached_at"),
            columns.attempts,
            columns.registrar_of,
        )
        .where(
            columns.endpoint_id == any_(literal(list(endpoint_ids), ARRAY(BigInteger))),
            columns.kind.in_(get_args(StatementKind)),
        )
        .order_by(columns.at.desc())
        .limit(_MAX_READ)
    )
    async with database.session() as connection:
        return [
            Statement(
                row.prober,
                row.address,
                row.kind,
                float(row.at),
                row.endpoint_id,
                row.incarnation,
                None if row.reached_at is None else float(row.reached_at),
                row.attempts,
                row.registrar_of,
            )
            for row in await connection.execute(query)
        ]
