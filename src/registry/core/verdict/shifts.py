"""Rules about shifts of traffic: one that holds or is paused for long, and one that was aborted."""

from collections.abc import Sequence

from registry.core.shares import Share
from registry.core.shift import Shift
from registry.core.verdict.facts import AWAY, Facts
from registry.core.verdict.finding import Conclusion, Rule, about_service, conclude, skip
from wire.duration import ago, format_duration
from wire.finding import FindingStatus, counted

MAX_HOLD = 300.0
"""Seconds for which a shift may hold before that is a finding."""
MAX_PAUSE = 86_400.0
"""Seconds for which an operator may pause a shift before that is a finding."""


def trouble_of(shift: Shift | None, in_force: Sequence[Share], now: float) -> str:
    """Return in words why somebody has to look at a shift; empty: nobody has to.

    Args:
        shift: the last shift of a service; None: its row cannot be read.
        in_force: the shares of the service that are in force.
        now: the database's time.
    """
    if shift is None:
        return "its shift cannot be read, and stands still; begin another one, which replaces it"
    to, since = shift.plan.selector, ago(max(0.0, now - shift.changed_at))
    by_rule = shift.changed_by == "registry"
    match shift.state:
        case "running" if shift.holding >= MAX_HOLD:
            held = format_duration(round(shift.holding))
            return f"the shift to {to} has held at {shift.percent:g} % for {held}: {shift.held}"
        case "paused" if by_rule or now - shift.changed_at >= MAX_PAUSE:
            return f"the shift to {to} was paused {since} ago by {shift.changed_by}: {shift.reason}"
        # An operator who aborts one knows of it; and a share that was set since says that somebody has looked.
        case "aborted" if by_rule and not shift.released and tuple(in_force) == shift.shares:
            return f"the shift to {to} was taken back {since} ago, and its endpoints get no requests: {shift.reason}"
    return ""


def _advancing(facts: Facts) -> Conclusion:
    if facts.troubled_shifts is None:
        return skip(AWAY)
    troubled = sorted(facts.troubled_shifts, key=lambda item: item.service)
    headline = counted(
        len(troubled),
        "shift of traffic holds, is paused or was taken back",
        "shifts of traffic hold, are paused or were taken back",
    )
    lines = [about_service(item.service, f"{item.service}: {item.trouble}") for item in troubled]
    return conclude(headline, lines, status=FindingStatus.WARNING)


RULES = (Rule("shifts-advance", "no shift of traffic stands still or was taken back", _advancing, page="/ui/services"),)
