"""Findings of the checks that a client makes by itself."""

from collections.abc import Sequence

from registryctl.doctor.catalogue import CHECKS
from wire.finding import Finding, FindingStatus, Line


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
        return _finding(check, FindingStatus.OK, CHECKS[check].holds, (fact,) if fact else (), subject)
    return _finding(check, status, headline, troubles, subject)


def skipped(check: str, reason: str, subject: str = "") -> Finding:
    """Return the finding of a check that could not be made."""
    return _finding(check, FindingStatus.SKIPPED, "not checked", (reason,), subject)


def _finding(check: str, status: FindingStatus, headline: str, lines: Sequence[str], subject: str) -> Finding:
    description = CHECKS[check]
    return Finding(
        id=check,
        category=f"{description.category} {subject}" if subject else description.category,
        scope="whole",
        status=status,
        headline=headline,
        holds=description.holds,
        lines=[Line(line) for line in lines],
    )
