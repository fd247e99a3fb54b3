"""Rows that are stored together, of which PostgreSQL refuses some: those are left out, and the others are stored.

A trigger or a constraint of somebody's own, or a value that is out of range, refuses one row and with it the whole
statement; so does a row that another session has locked. They are found by bisection, since refusals are rare.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog
from sqlalchemy import text

from registry.errors import UnavailableError
from registry.metrics import ROWS_LEFT_OUT
from registry.store.failures import LOCKED_STATES, concerns_rows, diagnose

log = structlog.get_logger()

Row = TypeVar("Row")

MAX_LEFT_OUT = 20
"""Rows of one call that are left out; where more cannot be stored, it is not for what is in them."""
_LOG_INTERVAL = 60.0
"""Seconds between two log lines of rows of one kind that were left out."""

SHORT_LOCK = text("SET LOCAL lock_timeout = '500ms'")
"""For transactions that write many rows, so that one that is locked keeps the others waiting for a moment alone."""


class StoredApart(Generic[Row]):
    """Stores rows of one kind, and leaves out those that PostgreSQL does not take.

    Args:
        kind: what the rows are, as a label of the metric.
        name: returns how the log calls a row.
    """

    def __init__(self, kind: str, name: Callable[[Row], str]) -> None:
        self._kind = kind
        self._name = name
        self._logged_at = float("-inf")
        """Monotonic time of the last log line. Written by _note()."""

    async def store(
        self,
        rows: Sequence[Row],
        store: Callable[[Sequence[Row]], Awaitable[object]],
        on_done: Callable[[Sequence[Row], bool], None] = lambda _rows, _stored: None,
    ) -> list[Row]:
        """Store rows, and return those that were left out.

        Args:
            rows: the rows.
            store: stores some of them in one transaction, or none.
            on_done: called with rows that are done with, also before an error, and whether they were stored.

        Raises:
            UnavailableError: PostgreSQL is away, or has refused ``MAX_LEFT_OUT`` rows and one more; some may be stored.
        """
        left_out: list[Row] = []
        parts = [rows] if rows else []
        while parts:
            part = parts.pop()
            try:
                await store(part)
                on_done(part, True)
            except Exception as error:
                if not is_of_rows(error) or len(left_out) >= MAX_LEFT_OUT:
                    raise
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                left_out.append(part[0])
                self._note(part[0], error)
                on_done(part, False)
        return left_out

    def _note(self, row: Row, error: Exception) -> None:
        ROWS_LEFT_OUT.labels(self._kind).inc()
        now = time.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            diagnosed = isinstance(error, UnavailableError)
            reason = error.cause if isinstance(error, UnavailableError) else repr(error)
            # What PostgreSQL has not refused is a defect of this program, whose place is wanted.
            exc_info = None if diagnosed else error
            log.warning("row_left_out", kind=self._kind, row=self._name(row), reason=reason, exc_info=exc_info)


def is_of_rows(error: BaseException) -> bool:
    """Return whether other rows may be stored: these are refused, or another session has locked one of them."""
    if concerns_rows(error):
        return True
    diagnosis = diagnose(error if error.__cause__ is None else error.__cause__)
    return diagnosis is not None and diagnosis.sqlstate in LOCKED_STATES
