"""Times as PostgreSQL has them and Python can hold: in the years 1 to 9999.

PostgreSQL knows infinite times, and years before the first and far behind the last. Somebody who writes one by hand, as
in ``until = 'infinity'``, would make the driver fail at the whole statement, with all of its other rows. So each
statement that reads a time reads the nearest one that there is in Python.
"""

from typing import Any

from sqlalchemy import ColumnElement, case, func, literal_column

_FIRST: ColumnElement[Any] = literal_column("timestamptz '0001-01-02 00:00:00+00'")
_LAST: ColumnElement[Any] = literal_column("timestamptz '9999-12-30 00:00:00+00'")
"""A day within what Python has, because people are shown times in zones of up to 14 hours."""


def bounded(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column of times, without a name, with those that Python cannot hold as the nearest that it can."""
    return case((column > _LAST, _LAST), (column < _FIRST, _FIRST), else_=column)


def epoch(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column of times, without a name, as seconds since 1970, none of which is infinite."""
    return func.extract("epoch", bounded(column))


def age_of(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the seconds since a time, without a name; PostgreSQL before 17 refuses to subtract an infinite one."""
    return func.extract("epoch", func.clock_timestamp() - bounded(column))
