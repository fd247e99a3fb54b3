"""Checks whether the Envoys that poll take what they are sent."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped
from wire.duration import ago

_CHECKS = (
    ("subscribers-not-stuck", "stuck", FindingStatus.FAILURE),
    ("subscribers-not-behind", "behind", FindingStatus.WARNING),
    ("subscribers-not-silent", "silent", FindingStatus.WARNING),
)
"""Each check with the state that it looks for, and how bad that is."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    subscribers = evidence.subscribers
    if subscribers is None:
        for check in ("subscribers-remembered", *(check for check, *_ in _CHECKS)):
            yield skipped(check, "no registry lists the Envoys that poll")
        return
    refused = [] if evidence.refused_ago is None else [_refused(evidence.refused_ago)]
    headline = "Envoys that poll are not remembered"
    yield conclude("subscribers-remembered", headline, refused, status=FindingStatus.WARNING)
    part = f", {evidence.lacking}" if evidence.lacking else ""
    for check, state, status in _CHECKS:
        troubles = [_trouble(subscriber) for subscriber in subscribers if subscriber["state"] == state]
        headline = counted(
            len(troubles), f"subscription of an Envoy is {state}", f"subscriptions of Envoys are {state}"
        )
        fact = f"subscriptions: {len(subscribers)}{part}" if state == "stuck" else ""
        yield conclude(check, headline, troubles, status=status, fact=fact)


def _refused(seconds: float) -> str:
    limits = "REGISTRY_MAX_SIGHTINGS were reached, or a poll had more than 16 names"
    return f"a subscriber was not remembered, last {ago(seconds)} ago: {limits}"


def _trouble(subscriber: Document) -> str:
    name = subscriber["node_id"] or "an Envoy without a node id"
    return f"{name} at {subscriber['address']}, {subscriber['service']}: {subscriber['reason']}"
