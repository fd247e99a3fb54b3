"""Rules about the strength of services: endpoints that were lost lately, and services that have too few."""

from registry.core.endpoint import Endpoint
from registry.core.presence import loss_in_words
from registry.core.verdict.facts import NOT_READY, Facts, StrengthFacts
from registry.core.verdict.finding import Conclusion, Rule, about_endpoint, about_service, conclude, skip
from wire.finding import FindingStatus, Line, counted

LATELY = 3600.0
"""Seconds for which a lost endpoint is reported by itself; for a day its service is reported as too weak."""


def _not_lost(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    lost = [
        endpoint
        for service in facts.weak
        for endpoint in service.presence.lost
        if facts.now - (endpoint.lost_at or 0.0) < LATELY
    ]
    lost.sort(key=lambda endpoint: endpoint.lost_at or 0.0, reverse=True)
    headline = counted(len(lost), "endpoint was lost in the last hour", "endpoints were lost in the last hour")
    return conclude(headline, [_lost(endpoint, facts.now) for endpoint in lost], status=FindingStatus.WARNING)


def _lost(endpoint: Endpoint, now: float) -> Line:
    text = f"{endpoint.service} {endpoint.name}: {loss_in_words(endpoint, now)}"
    return about_endpoint(endpoint.service, endpoint.name, text)


def _at_strength(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    weak = sorted(
        (service for service in facts.weak if service.presence.missing),
        key=lambda service: (-service.presence.missing, service.service),
    )
    headline = counted(
        len(weak),
        "service has fewer endpoints than are expected",
        "services have fewer endpoints than are expected",
    )
    return conclude(headline, [_weak(service) for service in weak], status=FindingStatus.WARNING)


def _weak(service: StrengthFacts) -> Line:
    presence = service.presence
    parts = [f"{service.silent} silent"] if service.silent else []
    if presence.lost:
        parts.append(f"{len(presence.lost)} lost within a day")
    if presence.source == "operator":
        parts.append(f"expected by {service.expected_by}")
    elif presence.source == "registration":
        parts.append("expected by the newest registration")
    elif presence.source == "ecs":
        parts.append("expected by ECS")
    text = f"{service.service}: {presence.present} of {presence.expected} endpoints are present ({', '.join(parts)})"
    return about_service(service.service, text)


RULES = (
    Rule("endpoints-not-lost", "no endpoint was lost in the last hour", _not_lost, page="/ui/services?sort=trouble"),
    Rule(
        "services-at-strength",
        "every service has the endpoints that are expected",
        _at_strength,
        page="/ui/services?sort=trouble",
    ),
)
