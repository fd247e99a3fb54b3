"""Rules about overrides: an operator's word that is in force, and may have been forgotten."""

from registry.core.verdict.facts import NOT_READY, Facts, OverrideFacts
from registry.core.verdict.finding import Conclusion, Rule, about_endpoint, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, Line, counted


def _absent(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    # The oldest are the most likely to be forgotten.
    overrides = sorted(facts.overrides, key=lambda item: item.override.set_at)
    headline = counted(len(overrides), "override is in force", "overrides are in force")
    return conclude(headline, [_line(item, facts.now) for item in overrides], status=FindingStatus.WARNING)


def _line(item: OverrideFacts, now: float) -> Line:
    override = item.override
    ends = "" if override.expires_at is None else f", for another {ago(override.expires_at - now)}"
    absent = "" if item.listed else ", for when it is listed again"
    text = (
        f"{item.service} {item.endpoint}: {' and '.join(override.parts)}{absent}, set {ago(now - override.set_at)} ago "
        f"by {override.actor}{ends or ', without an end'}: {override.reason or 'no reason given'}"
    )
    return about_endpoint(item.service, item.endpoint, text)


RULES = (Rule("overrides-absent", "no override is in force", _absent, page="/ui/overrides"),)
