"""Services and endpoints as tables."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.output import Cell, Screen
from registryctl.override import override_text
from registryctl.times import ago

STATUSES = ("HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING", "TIMEOUT")
ROUTABLE = ("HEALTHY", "DEGRADED")


def show_services(screen: Screen, found: Iterable[Raw]) -> None:
    """Print services, each with its endpoints by status and what is wrong."""
    rows: list[Sequence[Cell]] = []
    for item in found:
        told = read(item)
        counts = [_count(screen, told["statuses"].get(status, 0)) for status in STATUSES]
        rows.append((_name(screen, told), str(told["version"]), str(told["endpoints"]), *counts, _trouble(told)))
    if not rows:
        screen.note("no service is registered")
        return
    numbers = ("version", "endpoints", *(status.lower() for status in STATUSES))
    screen.table(("service", *numbers, ""), rows, right=numbers)


def show_service(screen: Screen, item: Raw, listed: Iterable[Raw], now: float) -> None:
    """Print one service: its numbers, its endpoints by zone, and what is wrong."""
    told = read(item)
    screen.say(
        _name(screen, told), f"  version {told['version']}, {_plural(told['endpoints'], 'endpoint')}  ", _trouble(told)
    )
    zones: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    overridden = []
    for one in map(read, listed):
        zones[one["region"], one["zone"]][one["status"]] += 1
        if one["override"] is not None:
            overridden.append(one)
    if zones:
        rows = [
            (region or "-", zone or "-", *(_count(screen, counts[status]) for status in STATUSES))
            for (region, zone), counts in sorted(zones.items())
        ]
        numbers = [status.lower() for status in STATUSES]
        screen.table(("region", "zone", *numbers), rows, right=numbers)
    for one in overridden:
        screen.say(f"{one['endpoint']}: {override_text(one['override'], now)}")
    for place, reason in told.get("quarantined", {}).items():
        screen.say(Text(f"{place} is quarantined: {reason}", "yellow"))


def show_endpoints(screen: Screen, found: Sequence[Raw], now: float) -> None:
    """Print endpoints, each with what decides about its traffic."""
    rows = [_endpoint(screen, read(item), now) for item in found]
    if not rows:
        screen.note("no endpoint matches")
        return
    head = ("endpoint", "status", "weight", "zone", "revision", "instance", "lease", "changed", "")
    screen.table(head, rows, right=("weight", "lease", "changed"))


def _endpoint(screen: Screen, told: Document, now: float) -> Sequence[Cell]:
    left = told["lease_expires_at"]
    return (
        told["endpoint"],
        screen.status(told["status"]),
        str(told["weight"] or 1),
        told["zone"] or "-",
        (told["revision"] or "-") + (" canary" if told["canary"] else ""),
        told["instance_id"],
        _left(left, now),
        ago(now - told["changed_at"]),
        _note(told, now),
    )


def _left(expires_at: float | None, now: float) -> Cell:
    if expires_at is None:
        return "-"
    return ago(expires_at - now) if expires_at > now else Text("over", "red")


def _note(told: Document, now: float) -> Cell:
    """Return the one thing to know of an endpoint: what an operator did, why it is suspected, what its check said."""
    override = override_text(told["override"], now)
    if override:
        return Text(override, "cyan")
    if told["suspect_since"] is not None:
        return Text(f"suspect for {ago(now - told['suspect_since'])}: {told['suspect_reason']}", "yellow")
    if told["lapsed_at"] is not None:
        return Text(f"not heard of for {ago(now - told['lapsed_at'])} since its lease was over", "magenta")
    return Text(told["detail"], "dim" if told["status"] == "HEALTHY" else "")


def _name(screen: Screen, told: Document) -> Cell:
    statuses = told["statuses"]
    routable = sum(statuses.get(status, 0) for status in ROUTABLE)
    if not screen.alive:
        return str(told["name"])
    if routable == 0:
        sign, style = (screen.sign("✗", "x"), "red") if told["endpoints"] else (screen.sign("·", "-"), "dim")
    elif routable < told["endpoints"] or told.get("quarantined"):
        sign, style = screen.sign("◐", "~"), "yellow"
    else:
        sign, style = screen.sign("●", "+"), "green"
    return Text.assemble((f"{sign} ", style), told["name"])


def _count(screen: Screen, number: int) -> Cell:
    return Text(screen.sign("·", "-"), "dim") if screen.alive and not number else str(number)


def _trouble(told: Document) -> Text:
    routable = sum(told["statuses"].get(status, 0) for status in ROUTABLE)
    found = Text()
    if not told["endpoints"]:
        found = Text("empty", "dim")
    elif not routable:
        found = Text("no routable endpoint", "red")
    if told.get("quarantined"):
        found += Text(f"{', ' if found else ''}{len(told['quarantined'])} quarantined", "yellow")
    return found


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
