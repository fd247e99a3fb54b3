"""Figures of traffic as tables: pairs of callers and callees, and routes."""

import math
from collections.abc import Mapping, Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.errors import MissingError, UnreachableError
from registryctl.output import Cell, Screen
from registryctl.session import Session
from wire.duration import ago

FAILING, DEGRADED = 0.95, 0.99
"""The parts of requests that succeed up to which a pair is shown in red, and in yellow, as in the console."""
_OLD = 30.0
"""Seconds after which a figure is said to be old."""
_TOO_OLD = "this registry has no figures of traffic: it is older than they are"
_PLURALS = {
    "connect_failures": "connections that failed",
    "none_healthy": "without a healthy endpoint",
    "overflows": "turned away by a breaker",
    "answered": "answered with an error",
    "retries": "retries",
}
_BEFORE_AN_ANSWER = ("timeouts", "connect_failures", "none_healthy", "overflows")
"""Reasons of failures that the callee had no part in by an answer of its own."""


def ask(session: Session, path: str, params: Mapping[str, str | int | None]) -> Raw:
    """Return a document of traffic.

    Raises:
        UnreachableError: the registry has none, because it is of a version before.
    """
    try:
        return session.client.get(path, dict(params))
    except MissingError:
        raise UnreachableError(_TOO_OLD, "upgrade it; see docs/traffic.md") from None


def pairs_of(session: Session, service: str | None, window: str) -> Document:
    """Return the pairs of a service as caller and as callee, or all of them.

    Raises:
        UnreachableError: as ``ask``.
    """
    if service is None:
        return read(ask(session, "/v1/traffic", {"window": window}))
    document = read(ask(session, "/v1/traffic", {"window": window, "callee": service}))
    calls = read(ask(session, "/v1/traffic", {"window": window, "caller": service}))
    document["pairs"] += [pair for pair in calls["pairs"] if pair["callee"] != service]
    document["omitted"] += calls["omitted"]
    # Callers that have nothing to do with the service are of no interest here.
    callers = {pair["caller"] for pair in document["pairs"]}
    document["reporting"] = {
        caller: count for caller, count in (document["reporting"] | calls["reporting"]).items() if caller in callers
    }
    return document


def nobody_reports(document: Document) -> bool:
    """Return whether no Envoy reports."""
    return not any(count["reported"] for count in document["reporting"].values())


def show_pairs(screen: Screen, document: Document, pairs: Sequence[Document]) -> None:
    """Print pairs with all their figures, those that fail first, then the busiest."""
    head = ("caller", "callee", "success", "req/s", "p50", "p95", "p99", "time-outs", "healthy", "reporting", "")
    rows: list[Sequence[Cell]] = [
        (
            pair["caller"],
            pair["callee"],
            _success(screen, pair["success"]),
            f"{pair['requests_per_second']:.1f}",
            *(_milliseconds(pair[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            str(pair["reasons"]["timeouts"]),
            f"{pair['healthy']}/{pair['total']}",
            _reporting(pair["reporting"]),
            _remark(pair),
        )
        for pair in sorted(pairs, key=_worst_first)
    ]
    screen.table(head, rows, right=head[2:-1])
    _note_gaps(screen, document)


def show_edges(screen: Screen, document: Document) -> None:
    """Print who calls whom: those that fail first, then all others by name."""
    head = ("caller", "callee", "req/s", "success")
    rows: list[Sequence[Cell]] = [
        (
            pair["caller"],
            pair["callee"],
            f"{pair['requests_per_second']:.1f}",
            _success(screen, pair["success"]),
        )
        for pair in sorted(document["pairs"], key=_failing_first)
    ]
    screen.table(head, rows, right=head[2:])
    _note_gaps(screen, document)


def show_routes(session: Session, content: Raw) -> None:
    """Print the routes to a service, those that fail first, then the busiest."""
    head = ("caller", "route", "success", "req/s", "p50", "p95", "p99", "4xx", "5xx")
    rows: list[Sequence[Cell]] = [
        (
            route["caller"],
            route["route"],
            _success(session.screen, route["success"]),
            f"{route['requests_per_second']:.1f}",
            *(_milliseconds(route[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
            str(route["client_errors"]),
            str(route["failures"]),
        )
        for route in sorted(read(content)["routes"], key=_worst_first)
    ]
    session.screen.table(head, rows, right=head[2:])


def _worst_first(figures: Document) -> tuple[float, float]:
    return _failing_first(figures), -figures["requests_per_second"]


def _failing_first(figures: Document) -> float:
    success = figures["success"]
    return 0.0 if success is None or success > DEGRADED else success - 1


def _success(screen: Screen, success: float | None) -> Cell:
    if success is None:
        return Text("no traffic", "dim")
    sign = ""
    style = "green"
    if success <= DEGRADED:
        sign, style = (screen.sign("✗", "x"), "red") if success <= FAILING else (screen.sign("◐", "~"), "yellow")
    percent = _percent(success)
    return Text(f"{sign} {percent}".strip(), style) if screen.alive else percent


def _percent(part: float) -> str:
    """Return a part of 1 in percent, never rounded up to a hundred or down to nothing."""
    # What 1 - 0.01 is in binary is a little more or less than 0.99.
    hundreds = math.floor(round(part * 10_000, 6)) / 100
    return "< 0.01 %" if part > 0 and not hundreds else f"{hundreds:.2f} %"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 1:
        return "<1ms"
    return f"{value:.0f}ms" if value < 10_000 else f"{value / 1000:.0f}s"


def _reporting(count: Document) -> str:
    return f"{count['reported']}/{count['expected']}"


def _remark(pair: Document) -> Cell:
    """Return what matters beside the numbers: why requests fail, and old figures."""
    answered = pair["failures"] - sum(pair["reasons"].get(name, 0) for name in _BEFORE_AN_ANSWER)
    counts = pair["reasons"] | {"answered": max(0, answered)}
    reasons = [f"{counts[name]} {words}" for name, words in _PLURALS.items() if counts.get(name)]
    if pair["success"] is None and pair["active"]:
        reasons.insert(0, f"{pair['active']} under way and none completed")
    if pair["age"] > _OLD:
        reasons.insert(0, f"last report {ago(pair['age'])} ago")
    return ", ".join(reasons)


def _note_gaps(screen: Screen, document: Document) -> None:
    """Say what the figures lack."""
    if not document["complete"]:
        screen.note("PostgreSQL is away: these are the digests that this one process got")
    if document["omitted"]:
        screen.note(f"{document['omitted']} more pairs are not shown: name a service, or ask by -o json")
    if document["dropped"]:
        screen.note(
            f"{document['dropped']} pairs were forgotten, of the callers with the most: raise REGISTRY_TRAFFIC_PAIRS, "
            "or see traffic_dropped in the registry's log for who sends so many"
        )
    missing = [
        f"{caller} {_reporting(count)}"
        for caller, count in sorted(document["reporting"].items())
        if count["reported"] < count["expected"]
    ]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        screen.note(f"not all Envoys report: {', '.join(missing[:10])}{more}")
