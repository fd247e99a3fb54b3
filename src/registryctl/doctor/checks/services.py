"""Checks whether services can be reached at all, and how near their limits they are."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped
from registryctl.tables import routable
from wire.duration import ago

NEAR_LIMIT = 0.8
"""Share of a limit from which on it is reported."""

_DAY = 86_400.0
"""Seconds for which a limit that refused something is reported."""

_COUNTS = ("services", "endpoints")


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    services = evidence.services
    if services is None:
        for check in (
            "services-routable",
            "services-not-empty",
            "services-within-limits",
            "endpoints-allowed",
            "limits-not-reached",
            "nothing-quarantined",
        ):
            yield skipped(check, evidence.unlisted)
        return
    unroutable = [_statuses(service) for service in services if service["endpoints"] and not routable(service)]
    headline = counted(len(unroutable), "service has no routable endpoint", "services have no routable endpoint")
    yield conclude("services-routable", headline, unroutable, fact=f"services: {len(services)}")
    if evidence.subscribers is None:
        yield skipped("services-not-empty", "no registry lists the Envoys that poll")
    else:
        yield _not_empty(evidence, services, evidence.subscribers)
    yield from _limits(evidence)
    quarantined = [
        f"{service['name']} {place}: {reason}"
        for service in services
        for place, reason in service.get("quarantined", {}).items()
    ]
    headline = counted(len(quarantined), "row is quarantined", "rows are quarantined")
    yield conclude("nothing-quarantined", headline, quarantined, status=FindingStatus.WARNING)


def _limits(evidence: Evidence) -> Iterator[Finding]:
    limits = [(prefix, state["limits"]) for prefix, state in evidence.states if "limits" in state]
    if not limits:
        yield skipped("services-within-limits", "no registry reports its limits")
        yield skipped("endpoints-allowed", "no registry reports its limits")
        yield skipped("limits-not-reached", "no registry reports its limits")
        return
    near = [
        f"{prefix}{numbers[name]:,} {name} of {numbers[f'max_{name}']:,} (REGISTRY_MAX_{name.upper()}): "
        f"{'new ones are refused' if numbers[name] >= numbers[f'max_{name}'] else 'beyond it new ones are refused'}"
        for prefix, numbers in limits
        for name in _COUNTS
        if numbers[name] >= NEAR_LIMIT * numbers[f"max_{name}"]
    ]
    reached = any(numbers[name] >= numbers[f"max_{name}"] for _, numbers in limits for name in _COUNTS)
    yield conclude(
        "services-within-limits",
        "a limit on services or endpoints is reached" if reached else "a limit on services or endpoints is near",
        near,
        status=FindingStatus.FAILURE if reached else FindingStatus.WARNING,
    )
    # Every process knows the same endpoints, so the address that names the most is enough.
    prefix, numbers = max(limits, key=lambda limit: limit[1]["misplaced_count"])
    count = numbers["misplaced_count"]
    more = count - len(numbers["misplaced"])
    misplaced = [f"{prefix}{endpoint}" for endpoint in numbers["misplaced"]] + ([f"and {more} more"] if more else [])
    headline = counted(
        count, "endpoint is outside of the allowed networks", "endpoints are outside of the allowed networks"
    )
    yield conclude("endpoints-allowed", headline, misplaced, status=FindingStatus.WARNING)
    refusals = [
        f"{prefix}{limit['limit']}: {counted(limit['count'], 'time', 'times')} since the start, last "
        f"{ago(limit['ago'])} ago"
        for prefix, numbers in limits
        for limit in numbers.get("reached", ())
        if limit["ago"] < _DAY
    ]
    yield conclude("limits-not-reached", "limits have refused something", refusals, status=FindingStatus.WARNING)


def _not_empty(evidence: Evidence, services: Iterable[Document], subscribers: Iterable[Document]) -> Finding:
    missed = list(_missed(services, subscribers))
    if evidence.lacking and not missed:
        # That no Envoy asks for an empty service can be said only when every Envoy that asks is known.
        return skipped("services-not-empty", f"not all subscribers are known: {evidence.lacking}")
    headline = counted(
        len(missed),
        "service that an Envoy asks for has no endpoint",
        "services that an Envoy asks for have no endpoint",
    )
    return conclude("services-not-empty", headline, missed, status=FindingStatus.WARNING)


def _missed(services: Iterable[Document], subscribers: Iterable[Document]) -> Iterator[str]:
    """Yield the services that are asked for and have no endpoint: emptied, never registered, or forgotten."""
    endpoints = {service["name"]: service["endpoints"] for service in services}
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    for subscriber in subscribers:
        nodes[subscriber["service"]].append(subscriber["node_id"] or subscriber["address"])
    for name, asking in sorted(nodes.items()):
        if not endpoints.get(name):
            envoys = f"{asking[0]}{f' and {len(asking) - 1} more' if len(asking) > 1 else ''}"
            missing = "has no endpoint any more" if name in endpoints else "was never registered, or is forgotten"
            yield f"{name} {missing}, and is asked for by {envoys}"


def _statuses(service: Document) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(service["statuses"].items()))
    return f"{service['name']}: no endpoint may have traffic ({counts})"
