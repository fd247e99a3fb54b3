"""Whether the Envoys that poll take what they are sent."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped
from registryctl.times import ago

_CHECKS = (
    ("subscribers-not-stuck", "stuck", Mark.FAILURE),
    ("subscribers-not-behind", "behind", Mark.WARNING),
    ("subscribers-not-silent", "silent", Mark.WARNING),
)


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    known = look.subscribers
    if known is None:
        yield skipped("subscribers-remembered", "no registry tells who polls")
        for check, _, _ in _CHECKS:
            yield skipped(check, "no registry tells who polls")
        return
    refused = [] if look.refused_ago is None else [_refused(look.refused_ago)]
    yield judged("subscribers-remembered", refused, "", Mark.WARNING)
    part = f", {look.lacking}" if look.lacking else ""
    for check, state, mark in _CHECKS:
        troubles = [_trouble(one) for one in known if one["state"] == state]
        fact = f"subscriptions: {len(known)}{part}" if state == "stuck" else ""
        yield judged(check, troubles, fact, mark)


def _refused(seconds: float) -> str:
    limits = "REGISTRY_MAX_SIGHTINGS were reached, or a poll had more than 16 names"
    return f"who polls was not remembered, last {ago(seconds)} ago: {limits}"


def _trouble(one: Document) -> str:
    name = one["node_id"] or "an Envoy without a node id"
    return f"{name} at {one['address']}, {one['service']}: {one['reason']}"
