"""Statements that are run on the driver (asyncpg), because SQLAlchemy's overhead costs more than PostgreSQL's work.

They are SQLAlchemy's expressions, each compiled once: those of heartbeats and changes, and what the sweeper and the
change feed read each second. All other statements are run by SQLAlchemy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import asyncpg
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.asyncpg import dialect

_dialect = dialect()  # type: ignore[no-untyped-call]  # as SQLAlchemy publishes it


class NamedRecord(asyncpg.Record):  # type: ignore[misc]  # asyncpg publishes no types
    """A row of the driver whose columns are attributes, as in SQLAlchemy's rows."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # columns of any type
        return self[name]


class _Compiled(NamedTuple):
    """A statement as the driver takes it.

    Attributes:
        sql: the statement, with numbers in place of parameters.
        names: the parameters in the order of their numbers.
        constants: the values of parameters that the expression itself has, by name.
    """

    sql: str
    names: Sequence[str]
    constants: Mapping[str, object]


class Statement:
    """An expression compiled to SQL once, when it is first used, with the order of its named parameters.

    A start would wait for the compilation of fifty statements, most of which it does not need.

    Args:
        expression: an expression of SQLAlchemy.
        columns: the columns that an insert or an update sets to parameters of the same names.
    """

    __slots__ = ("_columns", "_compiled", "_expression")

    def __init__(self, expression: ClauseElement, columns: Iterable[str] | None = None) -> None:
        self._expression = expression
        self._columns = None if columns is None else list(columns)
        self._compiled: _Compiled | None = None
        """Written by _compile(), once."""

    @property
    def sql(self) -> str:
        """The statement as the driver takes it."""
        return (self._compiled or self._compile()).sql

    def arguments(self, parameters: Mapping[str, object]) -> list[object]:
        """Return the parameters in the statement's order.

        Raises:
            KeyError: a parameter is missing.
        """
        _, names, constants = self._compiled or self._compile()
        return [parameters[name] if name in parameters else constants[name] for name in names]

    def _compile(self) -> _Compiled:
        compiled = self._expression.compile(dialect=_dialect, column_keys=self._columns)
        bound = compiled.bind_names.items()  # type: ignore[attr-defined]  # of a SQL compiler
        self._compiled = _Compiled(
            str(compiled),
            compiled.positiontup or (),  # type: ignore[attr-defined]  # as above
            {name: parameter.value for parameter, name in bound if not parameter.required},
        )
        return self._compiled


class Driver:
    """A connection of the driver; its errors have to be handled by ``translate_errors``."""

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
        self.connection = connection

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return bool(self.connection.is_closed())

    async def rows(self, statement: Statement, **parameters: object) -> list[NamedRecord]:
        """Run a statement and return its rows."""
        return cast("list[NamedRecord]", await self.connection.fetch(statement.sql, *statement.arguments(parameters)))

    async def rows_of_each(
        self, statement: Statement, parameter_sets: Iterable[Mapping[str, object]]
    ) -> list[NamedRecord]:
        """Run a statement with each of several sets of parameters in one batch, and return all rows in order."""
        return cast(
            "list[NamedRecord]",
            await self.connection.fetchmany(statement.sql, map(statement.arguments, parameter_sets)),
        )

    async def run(self, statement: Statement, **parameters: object) -> None:
        """Run a statement whose result is not needed."""
        await self.connection.execute(statement.sql, *statement.arguments(parameters))

    async def run_each(self, statement: Statement, parameter_sets: Iterable[Mapping[str, object]]) -> None:
        """Run a statement with each of several sets of parameters in one batch."""
        await self.connection.executemany(statement.sql, map(statement.arguments, parameter_sets))
