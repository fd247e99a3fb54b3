"""Times as people read them: how long ago, and in UTC."""

import datetime as dt

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))

_MAX_MOMENT = 1e11
"""Seconds since 1970 that the API takes at most."""


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: ``42 s``, ``3 min 5 s``, ``2 d 4 h``."""
    whole = max(0, int(seconds))
    for (size, unit), (smaller, smaller_unit) in zip(_UNITS, (*_UNITS[1:], (1, "s")), strict=True):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {smaller_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def ago(then: float, now: float) -> str:
    """Return how long ago ``then`` was; clocks that differ a little make nothing happen in the future."""
    return f"{span(now - then)} ago"


def utc(moment: float) -> str:
    """Return a moment in UTC, to the second."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: float) -> str:
    """Return a moment as HTML's ``datetime`` has it."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")


def moment_of(text: str) -> float:
    """Return the moment that a form or an address has in UTC, in seconds since 1970.

    Raises:
        ValueError: it is none, or too far away for a database.
    """
    moment = dt.datetime.fromisoformat(text)
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    if not 0 <= seconds <= _MAX_MOMENT:
        raise ValueError(text)
    return seconds
