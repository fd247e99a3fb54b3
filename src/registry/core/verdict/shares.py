"""Rules about shares of traffic: one that does not do what it says, and one that may have been forgotten."""

from registry.core.verdict.facts import NOT_READY, Facts
from registry.core.verdict.finding import Conclusion, Rule, about_service, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, counted

MAX_AGE = 7 * 86_400.0
"""Seconds for which shares that no shift changes may be in force before that is a finding."""


def _kept(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    services = sorted(facts.misleading_shares, key=lambda item: item.service)
    headline = counted(
        len(services),
        "service's shares of traffic do not do what they say",
        "services' shares of traffic do not do what they say",
    )
    lines = [
        about_service(item.service, f"{item.service}: {words}; set by {item.actor}")
        for item in services
        for words in item.misleading
    ]
    return conclude(headline, lines, status=FindingStatus.WARNING)


def _recent(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    services = sorted(facts.old_shares, key=lambda item: -item.seconds)
    headline = counted(
        len(services),
        "service has shares of traffic that were set more than a week ago",
        "services have shares of traffic that were set more than a week ago",
    )
    lines = [
        about_service(
            item.service,
            f"{item.service}: set {ago(item.seconds)} ago by {item.actor}: {item.reason or 'no reason given'}",
        )
        for item in services
    ]
    return conclude(headline, lines, status=FindingStatus.WARNING)


RULES = (
    Rule("shares-kept", "every share of traffic is met", _kept, page="/ui/services?sort=trouble"),
    Rule("shares-recent", "no share of traffic is a week old", _recent, page="/ui/services"),
)
