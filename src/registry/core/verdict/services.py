"""Rules about services: whether they can be reached at all, and how near their limits they are."""

from collections import defaultdict
from collections.abc import Iterator

from msgspec.structs import replace

from registry.core.verdict.facts import NOT_READY, PARTIAL, AilingEndpoint, Facts, ServiceFacts
from registry.core.verdict.finding import Conclusion, Rule, about_endpoint, about_service, conclude, skip
from registry.core.verdict.subscribers import UNKNOWN, page_of, reason_incomplete
from wire.duration import ago
from wire.finding import FindingStatus, Line, counted

NEAR_LIMIT = 0.8
"""Share of a limit from which on it is reported."""

_DAY = 86_400.0
"""Seconds for which a limit that refused something is reported."""


def _routable(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    unroutable = [
        _unroutable(service) for service in facts.troubled if sum(service.statuses.values()) and not service.routable
    ]
    headline = counted(len(unroutable), "service has no routable endpoint", "services have no routable endpoint")
    return conclude(headline, unroutable, fact=f"services: {facts.services}")


def _unroutable(service: ServiceFacts) -> Line:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(service.statuses.items()) if count)
    return about_service(service.service, f"{service.service}: no endpoint may have traffic ({counts})")


def _healthy(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    ailing = sorted(facts.ailing, key=lambda endpoint: (endpoint.status != "UNHEALTHY", endpoint.service))
    headline = counted(len(ailing), "endpoint fails its check", "endpoints fail their checks")
    return conclude(headline, [_ailing(endpoint) for endpoint in ailing], status=FindingStatus.WARNING)


def _ailing(endpoint: AilingEndpoint) -> Line:
    since = "" if endpoint.seconds is None else f" for {ago(endpoint.seconds)}"
    detail = f": {endpoint.detail}" if endpoint.detail else ", and its check says no more"
    text = f"{endpoint.service} {endpoint.endpoint}: {endpoint.status}{since}{detail}"
    return about_endpoint(endpoint.service, endpoint.endpoint, text)


def _not_empty(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    if facts.subscribers is None:
        return skip(UNKNOWN)
    missed = list(_missed(facts))
    lacking = reason_incomplete(facts.subscribers)
    if lacking and not missed:
        # That no Envoy asks for an empty service can be said only when every Envoy that asks is known.
        return skip(f"not all subscribers are known: {lacking}")
    headline = counted(
        len(missed),
        "service that an Envoy asks for has no endpoint",
        "services that an Envoy asks for have no endpoint",
    )
    return conclude(headline, missed, status=FindingStatus.WARNING)


def _missed(facts: Facts) -> Iterator[Line]:
    """Yield the services that are asked for and have no endpoint: emptied, never registered, or forgotten.

    Of those that this process cannot read it is not known; ``services-readable`` names them.
    """
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    for subscriber in facts.subscribers.statuses if facts.subscribers else ():
        report = subscriber.report
        nodes[report.service].append(report.node_id or report.address)
    unsure = set(facts.unavailable)
    for name, asking in sorted(nodes.items()):
        if not facts.sizes.get(name) and name not in unsure:
            envoys = f"{asking[0]}{f' and {len(asking) - 1} more' if len(asking) > 1 else ''}"
            missing = "has no endpoint any more" if name in facts.sizes else "was never registered, or is forgotten"
            yield Line(f"{name} {missing}, and is asked for by {envoys}", name, link=page_of(name))


def _within_limits(facts: Facts) -> Conclusion:
    if not facts.everything:
        return skip(PARTIAL)
    limits = facts.state.limits
    counts = {
        "services": (limits.services, limits.max_services),
        "endpoints": (limits.endpoints, limits.max_endpoints),
    }
    near = [
        f"{number:,} {name} of {limit:,} (REGISTRY_MAX_{name.upper()}): "
        f"{'new ones are refused' if number >= limit else 'beyond it new ones are refused'}"
        for name, (number, limit) in counts.items()
        if number >= NEAR_LIMIT * limit
    ]
    reached = any(number >= limit for number, limit in counts.values())
    return conclude(
        f"a limit on services or endpoints is {'reached' if reached else 'near'}",
        near,
        status=FindingStatus.FAILURE if reached else FindingStatus.WARNING,
    )


def _allowed(facts: Facts) -> Conclusion:
    limits = facts.state.limits
    count = limits.misplaced_count if facts.everything else len(limits.misplaced)
    misplaced = [_misplaced(endpoint) for endpoint in limits.misplaced]
    headline = counted(
        count, "endpoint is outside of the allowed networks", "endpoints are outside of the allowed networks"
    )
    conclusion = conclude(headline, misplaced, status=FindingStatus.WARNING)
    return replace(conclusion, more=count - len(misplaced))


def _misplaced(name: str) -> Line:
    service, _, endpoint = name.rpartition(" ")
    return about_endpoint(service, endpoint, name)


def _limits_not_reached(facts: Facts) -> Conclusion:
    refusals = [
        f"{limit.limit}: {counted(limit.count, 'time', 'times')} since the start, last {ago(limit.ago)} ago"
        for limit in facts.state.limits.reached
        if limit.ago < _DAY
    ]
    return conclude("limits have refused something", refusals, status=FindingStatus.WARNING)


def _quarantined(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    quarantined = [
        about_service(service.service, f"{service.service} {place}: {reason}")
        for service in facts.troubled
        for place, reason in service.quarantined
    ]
    headline = counted(len(quarantined), "row is quarantined", "rows are quarantined")
    return conclude(headline, quarantined, status=FindingStatus.WARNING)


_TROUBLE_FIRST = "/ui/services?sort=trouble"
RULES = (
    Rule("services-routable", "every service that has endpoints has a routable one", _routable, page=_TROUBLE_FIRST),
    Rule("endpoints-healthy", "every endpoint passes its check", _healthy, page=_TROUBLE_FIRST),
    Rule("services-not-empty", "every service that an Envoy asks for has endpoints", _not_empty, page=_TROUBLE_FIRST),
    Rule("services-within-limits", "services and endpoints are well below their limits", _within_limits),
    Rule("endpoints-allowed", "every endpoint is in a network that is allowed", _allowed),
    Rule("limits-not-reached", "no limit refused anything within a day", _limits_not_reached, "process"),
    Rule("nothing-quarantined", "no row is quarantined", _quarantined, page=_TROUBLE_FIRST),
)
