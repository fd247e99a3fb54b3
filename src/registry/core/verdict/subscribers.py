"""Rules about subscribers: whether the Envoys that poll take what they are sent."""

from urllib.parse import quote

from registry.core.subscriber_status import ClusterSubscribers, State, SubscriberStatus
from registry.core.verdict.facts import Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, Line, counted

UNKNOWN = "the Envoys that poll could not be collected in time"
"""The reason to skip a rule about them."""
PAGE = "/ui/subscribers"
"""The page of the console that lists them."""


def page_of(service: str) -> str:
    """Return the page of the subscribers of a service, which the registry need not know."""
    return f"{PAGE}?service={quote(service, safe='')}"


def reason_incomplete(subscribers: ClusterSubscribers) -> str:
    """Return why subscribers may be missing from the list; empty when none are."""
    if subscribers.complete:
        return ""
    if subscribers.refused_ago is None:
        return "of one process only: PostgreSQL is away"
    return f"some are not remembered, the last one {ago(subscribers.refused_ago)} ago"


def _remembered(facts: Facts) -> Conclusion:
    if facts.subscribers is None:
        return skip(UNKNOWN)
    refused = []
    if facts.subscribers.refused_ago is not None:
        limits = (
            "REGISTRY_MAX_SIGHTINGS were reached, a poll had more than 16 names or one of more than 255 characters, "
            "the streams of a process ask for more than a million services, or PostgreSQL did not take a row (the "
            "log's row_left_out)"
        )
        refused.append(f"a subscriber was not remembered, last {ago(facts.subscribers.refused_ago)} ago: {limits}")
    return conclude("Envoys that poll are not remembered", refused, status=FindingStatus.WARNING)


def _not_rejecting(facts: Facts) -> Conclusion:
    return _in_state(facts, "rejected", FindingStatus.FAILURE)


def _not_stuck(facts: Facts) -> Conclusion:
    return _in_state(facts, "stuck", FindingStatus.FAILURE)


def _not_behind(facts: Facts) -> Conclusion:
    return _in_state(facts, "behind", FindingStatus.WARNING)


def _not_silent(facts: Facts) -> Conclusion:
    return _in_state(facts, "silent", FindingStatus.WARNING)


def _in_state(facts: Facts, state: State, status: FindingStatus) -> Conclusion:
    if facts.subscribers is None:
        return skip(UNKNOWN)
    statuses = facts.subscribers.statuses
    troubles = [_trouble(subscriber) for subscriber in statuses if subscriber.evaluation.state == state]
    lacking = reason_incomplete(facts.subscribers)
    fact = f"subscriptions: {len(statuses) + facts.subscribers.unlisted}{f', {lacking}' if lacking else ''}"
    headline = counted(len(troubles), f"subscription of an Envoy is {state}", f"subscriptions of Envoys are {state}")
    if state == "rejected":
        headline = counted(len(troubles), "version is refused by its subscriber", "versions are refused by subscribers")
    return conclude(headline, troubles, status=status, fact=fact if state == "stuck" else "")


def _trouble(subscriber: SubscriberStatus) -> Line:
    report = subscriber.report
    name = report.node_id or "an Envoy without a node id"
    text = f"{name} at {report.address}, {report.service}: {subscriber.evaluation.reason}"
    if subscriber.evaluation.state == "rejected":
        # Its reason names the service, and says all: "refuses version 7 of shop: malformed IP address".
        text = f"{name} at {report.address} {subscriber.evaluation.reason}"
    return Line(text, report.service, link=page_of(report.service))


RULES = (
    Rule("subscribers-remembered", "every Envoy that polls is remembered", _remembered, page=PAGE),
    Rule(
        "subscribers-not-rejecting",
        "no client of a stream rejects what it is sent",
        _not_rejecting,
        page=f"{PAGE}?state=rejected",
    ),
    Rule(
        "subscribers-not-stuck",
        "no Envoy that is remembered rejects what it is sent",
        _not_stuck,
        page=f"{PAGE}?state=stuck",
    ),
    Rule(
        "subscribers-not-behind",
        "every Envoy that is remembered holds the newest version",
        _not_behind,
        page=f"{PAGE}?state=behind",
    ),
    Rule(
        "subscribers-not-silent",
        "every Envoy that is remembered goes on polling",
        _not_silent,
        page=f"{PAGE}?state=silent",
    ),
)
