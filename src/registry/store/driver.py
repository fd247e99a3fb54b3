"""PostgreSQL asked through the driver itself: what SQLAlchemy adds to a statement costs more than PostgreSQL does.

Statements are still SQLAlchemy's expressions, but compiled once. For what is asked with each heartbeat and each change;
everything else goes the plain way.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import asyncpg
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.asyncpg import dialect

_dialect = dialect()  # type: ignore[no-untyped-call]  # as SQLAlchemy publishes it


class NamedRecord(asyncpg.Record):  # type: ignore[misc]  # asyncpg publishes no types
    """A row, whose columns have names as those of SQLAlchemy's rows have."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # columns of any type
        return self[name]


class Statement:
    """SQL that was made once of an expression, and in which order it takes the parameters that are named there.

    Args:
        expression: any of SQLAlchemy's.
        columns: those that an insert or an update sets to parameters of their names.
    """

    __slots__ = ("_constants", "_names", "sql")

    def __init__(self, expression: ClauseElement, columns: Iterable[str] | None = None) -> None:
        compiled = expression.compile(dialect=_dialect, column_keys=None if columns is None else list(columns))
        self.sql = str(compiled)
        self._names: Sequence[str] = compiled.positiontup or ()  # type: ignore[attr-defined]  # of a SQL compiler
        bound = compiled.bind_names.items()  # type: ignore[attr-defined]  # as above
        self._constants = {name: parameter.value for parameter, name in bound if not parameter.required}

    def arguments(self, told: Mapping[str, object]) -> list[object]:
        """Return the parameters in their order.

        Raises:
            KeyError: one is missing.
        """
        return [told[name] if name in told else self._constants[name] for name in self._names]


class Driver:
    """One connection of the driver.

    Whatever it raises is to be had within ``translate_errors``.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
        self.connection = connection

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return bool(self.connection.is_closed())

    async def rows(self, statement: Statement, **told: object) -> list[NamedRecord]:
        """Run a statement and return its rows."""
        return cast("list[NamedRecord]", await self.connection.fetch(statement.sql, *statement.arguments(told)))

    async def rows_of_each(self, statement: Statement, told: Iterable[Mapping[str, object]]) -> list[NamedRecord]:
        """Run a statement with each of several sets of parameters, sent together, and return all rows in order."""
        return cast("list[NamedRecord]", await self.connection.fetchmany(statement.sql, map(statement.arguments, told)))

    async def run(self, statement: Statement, **told: object) -> None:
        """Run a statement that returns nothing of interest."""
        await self.connection.execute(statement.sql, *statement.arguments(told))

    async def run_each(self, statement: Statement, told: Iterable[Mapping[str, object]]) -> None:
        """Run a statement with each of several sets of parameters, sent together."""
        await self.connection.executemany(statement.sql, map(statement.arguments, told))
