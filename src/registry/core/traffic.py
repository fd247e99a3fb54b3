"""Figures of traffic: who calls whom, how often, how well and how fast, as API, console and rules read them."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Window = Literal["1m", "10m", "1h"]
WINDOW_SECONDS: Mapping[Window, float] = {"1m": 60.0, "10m": 600.0, "1h": 3600.0}
"""The length of each window; sums reach back up to one of its slots further, which rates take into account."""


class Reporting(Struct, frozen=True):
    """The number of Envoys of a caller that report, of those that it has.

    Attributes:
        reported: Envoys whose last digest is not overdue.
        expected: the caller's instances; of a caller without any, the Envoys that reported within the window.
    """

    reported: int
    expected: int

    @property
    def complete(self) -> bool:
        """Whether all of them report."""
        return self.reported >= self.expected


class Reasons(Struct, frozen=True):
    """Why requests failed, as counts of a window; one request may be in several.

    Attributes:
        timeouts: Envoy gave up waiting for the response. They leave no latency.
        connect_failures: connections to endpoints that could not be made, retried ones too.
        none_healthy: no endpoint was there, or none was healthy.
        overflows: a circuit breaker turned the request away.
        retries: attempts beyond the first.
        client_errors: responses with a 4xx status, which are no failures of the callee.
    """

    timeouts: int = 0
    connect_failures: int = 0
    none_healthy: int = 0
    overflows: int = 0
    retries: int = 0
    client_errors: int = 0

    def answered_with_an_error(self, failures: int) -> int:
        """Return the failures that no reason explains: answers of the callee, and connections that it reset.

        It is a lower bound where connections failed and retries healed that.
        """
        return max(0, failures - self.timeouts - self.connect_failures - self.none_healthy - self.overflows)


class PairFigures(Struct, frozen=True):
    """The traffic of one caller to one callee in a window.

    Attributes:
        caller: the service that calls.
        callee: the service that is called.
        location: region and zone of the callers' Envoys; empty: of all of them.
        requests: completed requests; one that its caller abandoned is none.
        requests_per_second: their rate over the time that is known of the window.
        failures: the failed ones among them.
        success: the part of 1 that did not fail; None without requests: no traffic is not success.
        p50: milliseconds within which half of the requests ended; None where none left a latency.
        p95: the same of 95 %.
        p99: the same of 99 %.
        reasons: why requests failed.
        active: requests under way, on average.
        healthy: the callee's endpoints that the Envoy with the fewest may send to.
        total: the callee's endpoints that this Envoy knows.
        reporting: how many of the caller's Envoys this is from.
        age: seconds since the newest digest of the caller.
    """

    caller: str
    callee: str
    location: str
    requests: int
    requests_per_second: float
    failures: int
    success: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    reasons: Reasons
    active: int
    healthy: int
    total: int
    reporting: Reporting
    age: float

    @property
    def answered_with_an_error(self) -> int:
        """The failures that no other reason explains."""
        return self.reasons.answered_with_an_error(self.failures)


class RouteFigures(Struct, frozen=True):
    """The traffic of one route of a caller to a callee in a window.

    Its other attributes are those of a pair.

    Attributes:
        route: the route's ``stat_prefix``.
    """

    caller: str
    callee: str
    route: str
    requests: int
    requests_per_second: float
    failures: int
    client_errors: int
    success: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    age: float


class Attempts(Struct, frozen=True):
    """Attempts at an endpoint, and the failed ones among them; a request with retries makes several."""

    attempts: int
    errors: int


class EndpointCounts(Struct, frozen=True):
    """The attempts at the endpoints of a service under a shift.

    Attributes:
        endpoints: by endpoint, as ``address:port``.
        reporting: the callers' Envoys that count them, of those that have traffic to the service.
    """

    endpoints: Mapping[str, Attempts]
    reporting: Reporting
