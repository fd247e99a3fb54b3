"""Tables of services and endpoints."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.output import Cell, Screen
from registryctl.override import override_text
from registryctl.silence import shown_status, silence_of, silence_text
from wire.duration import ago

STATUSES = ("HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING", "TIMEOUT", "SILENT")
"""Every status of an endpoint as people see it, in the order of the columns."""
ROUTABLE = ("HEALTHY", "DEGRADED")
"""The statuses with which an endpoint gets traffic."""


def show_services(screen: Screen, listed: Document) -> None:
    """Print a list of services, each with its endpoints by status and what is wrong."""
    rows: list[Sequence[Cell]] = []
    for name in listed.get("unavailable", ()):
        screen.note(f"{name} exists, and the registry cannot read it; `registryctl check` says more")
    for service in listed["services"]:
        counts = [_count(screen, service["statuses"].get(status, 0)) for status in STATUSES]
        numbers = (str(service["version"]), str(service["endpoints"]))
        rows.append((_name(screen, service), *numbers, *counts, _trouble(service)))
    if not rows:
        screen.note("no service is registered, or none that matches")
        return
    head = ("version", "endpoints", *(status.lower() for status in STATUSES))
    screen.table(("service", *head, ""), rows, right=head)


def show_service(screen: Screen, document: Raw, endpoints: Iterable[Raw], now: float) -> None:
    """Print one service: its numbers, its endpoints by zone, and what is wrong."""
    service = read(document)
    numbers = f"  version {service['version']}, {_plural(service['endpoints'], 'endpoint')}  "
    screen.say(_name(screen, service), numbers, _trouble(service))
    zones: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    overridden = []
    for endpoint in map(read, endpoints):
        zones[endpoint["region"], endpoint["zone"]][shown_status(endpoint)] += 1
        if endpoint["override"] is not None:
            overridden.append(endpoint)
    if zones:
        rows = [
            (region or "-", zone or "-", *(_count(screen, counts[status]) for status in STATUSES))
            for (region, zone), counts in sorted(zones.items())
        ]
        head = [status.lower() for status in STATUSES]
        screen.table(("region", "zone", *head), rows, right=head)
    for lost in service.get("lost", ()):
        screen.say(lost["endpoint"], "  ", (_loss(lost, now), "yellow"))
    unshown = service.get("lost_count", 0) - len(service.get("lost", ()))
    if unshown > 0:
        screen.say((f"and {unshown} more that were lost", "yellow"))
    for endpoint in overridden:
        screen.say(f"{endpoint['endpoint']}: {override_text(endpoint['override'], now)}")
    for place, reason in service.get("quarantined", {}).items():
        screen.say(Text(f"{place} is quarantined: {reason}", "yellow"))


def show_endpoints(screen: Screen, endpoints: Sequence[Raw], now: float) -> None:
    """Print endpoints, each with what decides about its traffic."""
    # Silent ones first: they may be dead, and get traffic.
    listed = sorted(map(read, endpoints), key=lambda endpoint: silence_of(endpoint) is None)
    rows = [_endpoint(screen, endpoint, now) for endpoint in listed]
    if not rows:
        screen.note("no endpoint matches")
        return
    head = ("endpoint", "status", "weight", "zone", "revision", "instance", "lease", "changed", "")
    screen.table(head, rows, right=("weight", "lease", "changed"))


def _endpoint(screen: Screen, endpoint: Document, now: float) -> Sequence[Cell]:
    return (
        endpoint["endpoint"],
        screen.status(shown_status(endpoint)),
        str(endpoint["weight"] or 1),
        endpoint["zone"] or "-",
        (endpoint["revision"] or "-") + (" canary" if endpoint["canary"] else ""),
        endpoint["instance_id"],
        _left(endpoint["lease_expires_at"], now),
        ago(now - endpoint["changed_at"]),
        _remark(endpoint, now),
    )


def _left(expires_at: float | None, now: float) -> Cell:
    if expires_at is None:
        return "-"
    return ago(expires_at - now) if expires_at > now else Text("over", "red")


def _remark(endpoint: Document, now: float) -> Cell:
    """Return what matters most about an endpoint: its silence, its override, or its check's result."""
    override = override_text(endpoint["override"], now)
    silence = silence_of(endpoint)
    if silence is not None:
        return Text("; ".join(filter(None, (silence_text(silence, now), override))), "magenta")
    if override:
        return Text(override, "cyan")
    if endpoint["lapsed_at"] is not None:
        return Text(f"no heartbeat for {ago(now - endpoint['lapsed_at'])} since its lease was over", "magenta")
    return Text(endpoint["detail"], "dim" if endpoint["status"] == "HEALTHY" else "")


def _name(screen: Screen, service: Document) -> Cell:
    gets_traffic = routable(service)
    if not screen.alive:
        return str(service["name"])
    if gets_traffic == 0:
        sign, style = (screen.sign("✗", "x"), "red") if service["endpoints"] else (screen.sign("·", "-"), "dim")
    elif service.get("silent"):
        sign, style = screen.sign("◇", "!"), "bold magenta"
    elif gets_traffic < service["endpoints"] or any(map(service.get, ("quarantined", "missing"))):
        sign, style = screen.sign("◐", "~"), "yellow"
    else:
        sign, style = screen.sign("●", "+"), "green"
    return Text.assemble((f"{sign} ", style), service["name"])


def _count(screen: Screen, number: int) -> Cell:
    return Text(screen.sign("·", "-"), "dim") if screen.alive and not number else str(number)


def _trouble(service: Document) -> Text:
    trouble = Text()
    silent = service.get("silent", 0)
    if not service["endpoints"]:
        trouble = Text("empty", "dim")
    elif not routable(service):
        trouble = Text("no routable endpoint", "red")
    if silent:
        trouble += Text(f"{', ' if trouble else ''}{silent} silent, kept by the guard", "bold magenta")
    if service.get("missing"):
        trouble += Text(f"{', ' if trouble else ''}{strength(service)}", "yellow")
    if service.get("quarantined"):
        trouble += Text(f"{', ' if trouble else ''}{len(service['quarantined'])} quarantined", "yellow")
    return trouble


def strength(service: Document) -> str:
    """Return how many of the expected endpoints of a service are present, as ``3 of 5 present (2 lost)``."""
    notes = ["expected by ECS"] if service.get("expected_source") == "ecs" else []
    if service["lost_count"]:
        notes.append(f"{service['lost_count']} lost")
    noted = f" ({', '.join(notes)})" if notes else ""
    return f"{service['present']} of {service['expected']} present{noted}"


def _loss(lost: Document, now: float) -> str:
    place = f" in {lost['zone']}" if lost["zone"] else ""
    return f"lost: gone {ago(now - lost['lost_at'])} ago, was {lost['health']}{place}, {lost['reason']}"


def routable(service: Document) -> int:
    """Return how many endpoints of a service get traffic; a registry of an earlier version does not count them."""
    counted: int | None = service.get("routable")
    return sum(service["statuses"].get(status, 0) for status in ROUTABLE) if counted is None else counted


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
