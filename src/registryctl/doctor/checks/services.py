"""Whether services can be reached by anybody at all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from registryctl.doctor.evidence import Document, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped

_ROUTABLE = ("HEALTHY", "DEGRADED")

_NEAR = 0.8
"""Share of a limit from which on it is said."""


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    services = look.services
    if services is None:
        for check in (
            "services-routable",
            "services-not-empty",
            "services-within-limits",
            "endpoints-allowed",
            "nothing-quarantined",
        ):
            yield skipped(check, "no registry is ready")
        return
    unreachable = (one for one in services if one["endpoints"] and not _routable(one))
    yield judged("services-routable", map(_statuses, unreachable), f"services: {len(services)}")
    if look.subscribers is None:
        yield skipped("services-not-empty", "no registry tells who polls")
    else:
        yield _not_empty(look, services, look.subscribers)
    yield from _limits(look)
    quarantined = (
        f"{one['name']} {place}: {reason}" for one in services for place, reason in one.get("quarantined", {}).items()
    )
    yield judged("nothing-quarantined", quarantined, "", Mark.WARNING)


def _limits(look: Look) -> Iterator[Finding]:
    told = [(where, state["limits"]) for where, state in look.states if "limits" in state]
    if not told:
        yield skipped("services-within-limits", "no registry tells its limits")
        yield skipped("endpoints-allowed", "no registry tells its limits")
        return
    near = [
        f"{where}{one[name]:,} {name} of {one[f'max_{name}']:,} (REGISTRY_MAX_{name.upper()}): "
        f"{'new ones are refused' if one[name] >= one[f'max_{name}'] else 'beyond it new ones are refused'}"
        for where, one in told
        for name in ("services", "endpoints")
        if one[name] >= _NEAR * one[f"max_{name}"]
    ]
    reached = any(one[name] >= one[f"max_{name}"] for _, one in told for name in ("services", "endpoints"))
    yield judged("services-within-limits", near, "", Mark.FAILURE if reached else Mark.WARNING)
    # Every process knows the same endpoints.
    where, one = max(told, key=lambda item: item[1]["misplaced_count"])
    more = one["misplaced_count"] - len(one["misplaced"])
    misplaced = [f"{where}{named}" for named in one["misplaced"]] + ([f"and {more} more"] if more else [])
    yield judged("endpoints-allowed", misplaced, "", Mark.WARNING)


def _not_empty(look: Look, services: Iterable[Document], subscribers: Iterable[Document]) -> Finding:
    missed = list(_missed(services, subscribers))
    if look.lacking and not missed:
        # That nobody asks for an empty service can be said only when everybody who asks is known.
        return skipped("services-not-empty", f"not all subscribers are known: {look.lacking}")
    return judged("services-not-empty", missed, "", Mark.WARNING)


def _missed(services: Iterable[Document], subscribers: Iterable[Document]) -> Iterator[str]:
    """Say which services are asked for and have no endpoint: emptied, never registered by that name, or forgotten."""
    endpoints = {one["name"]: one["endpoints"] for one in services}
    askers: defaultdict[str, list[str]] = defaultdict(list)
    for one in subscribers:
        askers[one["service"]].append(one["node_id"] or one["address"])
    for name, nodes in sorted(askers.items()):
        if not endpoints.get(name):
            asked = f"{nodes[0]}{f' and {len(nodes) - 1} more' if len(nodes) > 1 else ''}"
            missing = "has no endpoint any more" if name in endpoints else "was never registered, or is forgotten"
            yield f"{name} {missing}, and is asked for by {asked}"


def _routable(one: Document) -> int:
    return sum(one["statuses"].get(status, 0) for status in _ROUTABLE)


def _statuses(one: Document) -> str:
    told = ", ".join(f"{count} {status}" for status, count in sorted(one["statuses"].items()))
    return f"{one['name']}: no endpoint may have traffic ({told})"
