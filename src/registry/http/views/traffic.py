"""The JSON documents of traffic."""

from collections.abc import Generator, Iterable
from math import floor
from typing import Annotated, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from registry.core.traffic import PairFigures, Reasons, Reporting, RouteFigures
from registry.http.openapi import show_examples
from registry.usecases.traffic import TrafficFigures

View = TypeVar("View")
_Milliseconds = float | None
_DIGITS = 4
"""Digits behind the point of a part of 1: 99.99 % is 0.9999."""
_EXACT = 1e-6
"""More than what a part of 1 in binary lacks of the decimal that is meant."""


class ReportingView(Struct, frozen=True):
    """How many of a caller's Envoys report."""

    reported: Annotated[int, Meta(description="Envoys whose last digest is not overdue.")]
    expected: Annotated[
        int, Meta(description="The caller's instances; of a caller without any, Envoys that reported in the window.")
    ]


class ReasonsView(Struct, frozen=True):
    """Why requests failed, as counts of the window; one request may be in several."""

    timeouts: Annotated[int, Meta(description="Envoy gave up waiting. They leave no latency: look at both.")]
    connect_failures: Annotated[int, Meta(description="Connections that could not be made, retried ones too.")]
    none_healthy: Annotated[int, Meta(description="No endpoint was there, or none was healthy.")]
    overflows: Annotated[int, Meta(description="A circuit breaker turned the request away.")]
    retries: Annotated[int, Meta(description="Attempts beyond the first.")]
    client_errors: Annotated[int, Meta(description="Responses with a 4xx status, which are no failures.")]


class PairView(Struct, frozen=True):
    """The traffic of one caller to one callee."""

    caller: str
    callee: str
    location: Annotated[
        str, Meta(description="Region and zone of the callers' Envoys, with `by=location`; else empty.")
    ]
    requests: Annotated[int, Meta(description="Completed requests; one that its caller abandoned is none.")]
    requests_per_second: float
    failures: Annotated[int, Meta(description="5xx, Envoy's own 503 and 504 included, and failed gRPC statuses.")]
    success: Annotated[
        float | None, Meta(description="The part of 1 that did not fail; null: no traffic, which is not success.")
    ]
    p50_ms: Annotated[_Milliseconds, Meta(description="Within 10 % or 1 ms; null: no request left a latency.")]
    p95_ms: _Milliseconds
    p99_ms: _Milliseconds
    reasons: ReasonsView
    active: Annotated[int, Meta(description="Requests under way, on average.")]
    healthy: Annotated[int, Meta(description="Endpoints that the caller's Envoy with the fewest may send to.")]
    total: Annotated[int, Meta(description="Endpoints that this Envoy knows.")]
    reporting: ReportingView
    age: Annotated[float, Meta(description="Seconds since the newest digest of the caller.")]


class TrafficView(Struct, frozen=True):
    """The pairs of callers and callees in a window."""

    window: str
    pairs: list[PairView]
    omitted: Annotated[int, Meta(description="Pairs beyond `limit`: first those that fail stay, then the busiest.")]
    reporting: Annotated[dict[str, ReportingView], Meta(description="By caller, the silent ones too.")]
    complete: Annotated[
        bool,
        Meta(description="False: PostgreSQL is away, and these are the digests that this process got by itself."),
    ]
    processes: Annotated[int, Meta(description="Registry processes whose digests these are.")]
    dropped: Annotated[
        int,
        Meta(description="Pairs, routes and Envoys that were too many, and that this process forgot since its start."),
    ]


class RouteView(Struct, frozen=True):
    """The traffic of one route of a caller to a callee."""

    caller: str
    callee: str
    route: Annotated[str, Meta(description="The route's `stat_prefix`.")]
    requests: int
    requests_per_second: float
    failures: Annotated[int, Meta(description="5xx responses.")]
    client_errors: Annotated[int, Meta(description="4xx responses.")]
    success: float | None
    p50_ms: _Milliseconds
    p95_ms: _Milliseconds
    p99_ms: _Milliseconds
    age: float


class RoutesView(Struct, frozen=True):
    """The routes to a callee in a window."""

    window: str
    callee: str
    routes: list[RouteView]


def traffic_view_in_steps(window: str, figures: TrafficFigures) -> Generator[None, None, TrafficView]:
    """Return the document of the pairs of a window, by work that may be interrupted: 5,000 pairs take 30 ms."""
    pairs = yield from _encoded(pair_view(pair) for pair in figures.pairs)
    reporting = {}
    for caller, count in figures.reporting.items():
        reporting[caller] = _reporting(count)
        yield
    return TrafficView(
        window=window,
        pairs=pairs,
        omitted=figures.omitted,
        reporting=reporting,
        complete=figures.complete,
        processes=figures.processes,
        dropped=figures.dropped,
    )


def routes_view_in_steps(window: str, callee: str, routes: Iterable[RouteFigures]) -> Generator[None, None, RoutesView]:
    """Return the document of the routes to a callee, by work that may be interrupted."""
    return RoutesView(window, callee, (yield from _encoded(route_view(route) for route in routes)))


def _encoded(views: Iterable[View]) -> Generator[None, None, list[View]]:
    """Return views as JSON already, so that the whole document is encoded in no time."""
    encoded = []
    for view in views:
        encoded.append(cast("View", msgspec.Raw(msgspec.json.encode(view))))
        yield
    return encoded


def pair_view(pair: PairFigures) -> PairView:
    """Return the document of a pair."""
    return PairView(
        caller=pair.caller,
        callee=pair.callee,
        location=pair.location,
        requests=pair.requests,
        requests_per_second=_rate(pair.requests_per_second),
        failures=pair.failures,
        success=_part(pair.success),
        p50_ms=_milliseconds(pair.p50),
        p95_ms=_milliseconds(pair.p95),
        p99_ms=_milliseconds(pair.p99),
        reasons=_reasons(pair.reasons),
        active=pair.active,
        healthy=pair.healthy,
        total=pair.total,
        reporting=_reporting(pair.reporting),
        age=round(pair.age, 1),
    )


def route_view(route: RouteFigures) -> RouteView:
    """Return the document of a route."""
    return RouteView(
        caller=route.caller,
        callee=route.callee,
        route=route.route,
        requests=route.requests,
        requests_per_second=_rate(route.requests_per_second),
        failures=route.failures,
        client_errors=route.client_errors,
        success=_part(route.success),
        p50_ms=_milliseconds(route.p50),
        p95_ms=_milliseconds(route.p95),
        p99_ms=_milliseconds(route.p99),
        age=round(route.age, 1),
    )


def _reasons(reasons: Reasons) -> ReasonsView:
    return ReasonsView(
        reasons.timeouts,
        reasons.connect_failures,
        reasons.none_healthy,
        reasons.overflows,
        reasons.retries,
        reasons.client_errors,
    )


def _reporting(reporting: Reporting) -> ReportingView:
    return ReportingView(reporting.reported, reporting.expected)


def _rate(rate: float) -> float:
    return round(rate, 3)


def _part(success: float | None) -> float | None:
    # Rounded down: 99.996 % is not 100 %.
    return None if success is None else floor(success * 10**_DIGITS + _EXACT) / 10**_DIGITS


def _milliseconds(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


_PAIR = PairView(
    caller="checkout",
    callee="payments",
    location="",
    requests=1440,
    requests_per_second=24.0,
    failures=18,
    success=0.9875,
    p50_ms=34.0,
    p95_ms=60.4,
    p99_ms=79.4,
    reasons=ReasonsView(2, 0, 0, 0, 24, 6),
    active=4,
    healthy=5,
    total=6,
    reporting=ReportingView(3, 3),
    age=3.2,
)
show_examples(
    TrafficView("1m", [_PAIR], 0, {"checkout": ReportingView(3, 3)}, complete=True, processes=2, dropped=0),
    RoutesView("1m", "payments", []),
)
