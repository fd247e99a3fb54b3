"""Rules about shares of traffic: a share that does not do what it says."""

from registry.core.verdict.facts import NOT_READY, Facts
from registry.core.verdict.finding import Conclusion, Rule, about_service, conclude, skip
from wire.finding import FindingStatus, counted


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


RULES = (Rule("shares-kept", "every share of traffic is met", _kept, page="/ui/services?sort=trouble"),)
