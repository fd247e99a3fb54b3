"""Finding of one check: how it went, the headline that states it, and the lines below."""

import enum
from collections.abc import Sequence

from msgspec import Struct

from registryctl.doctor.catalogue import CHECKS

MAX_LINES = 8
"""Lines of a finding that are printed; of the others only the number is."""


class FindingStatus(enum.StrEnum):
    """How a check went; only a failure makes the exit status 1."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


class Finding(Struct, frozen=True):
    """Outcome of one check.

    Attributes:
        id: the check, as the catalogue names it.
        status: how it went.
        headline: what was found, as a sentence that is true as it stands.
        lines: a fact when the check passed, the reason when it was not made, else every trouble.
        subject: the URL of the Envoy that was checked; empty where the whole system was.
    """

    id: str
    status: FindingStatus
    headline: str
    lines: Sequence[str] = ()
    subject: str = ""


def conclude(
    check: str,
    headline: str,
    troubles: Sequence[str],
    *,
    status: FindingStatus = FindingStatus.FAILURE,
    fact: str = "",
    subject: str = "",
) -> Finding:
    """Return the finding of a check that was made.

    Args:
        check: its id.
        headline: states the troubles, when there are some; without any the headline is the catalogue's.
        troubles: a line for each.
        status: how bad they are.
        fact: stands beside the headline of a check that passed.
        subject: the URL of the Envoy that was checked.
    """
    if not troubles:
        return Finding(check, FindingStatus.OK, CHECKS[check].holds, (fact,) if fact else (), subject)
    more = len(troubles) - MAX_LINES
    lines = (*troubles[:MAX_LINES], f"and {more} more") if more > 0 else tuple(troubles)
    return Finding(check, status, headline, lines, subject)


def skipped(check: str, reason: str, subject: str = "") -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(check, FindingStatus.SKIPPED, "not checked", (reason,), subject)


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with the words that go with it: ``1 registrar is silent``, ``2 registrars are silent``."""
    return f"{number} {singular if number == 1 else plural}"
