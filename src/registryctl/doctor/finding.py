"""What one check found."""

import enum
from collections.abc import Iterable, Sequence

from msgspec import Struct

_MOST_SAID = 8


class Mark(enum.StrEnum):
    """How it went; only a failure makes the exit status 1."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


class Finding(Struct, frozen=True):
    """The outcome of one check.

    Attributes:
        id: of the check.
        mark: how it went.
        said: what was found, a line each: a fact when it passed, else what is wrong.
        subject: of which Envoy, when it is of one.
    """

    id: str
    mark: Mark
    said: Sequence[str] = ()
    subject: str = ""


def judged(
    check: str, troubles: Iterable[str], fact: str = "", mark: Mark = Mark.FAILURE, subject: str = ""
) -> Finding:
    """Return a finding: well when there are no troubles, else ``mark`` with the troubles, the first ones of many."""
    found = list(troubles)
    if not found:
        return Finding(check, Mark.OK, (fact,) if fact else (), subject)
    more = [f"and {len(found) - _MOST_SAID} more"] if len(found) > _MOST_SAID else []
    return Finding(check, mark, (*found[:_MOST_SAID], *more), subject)


def skipped(check: str, reason: str, subject: str = "") -> Finding:
    """Return that a check could not be made."""
    return Finding(check, Mark.SKIPPED, (reason,), subject)
