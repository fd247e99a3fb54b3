"""The traffic of pairs since this process knows them, as counters that only grow."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from wire.traffic_digest import EdgeCounts

FAILURE_REASONS = ("timeout", "none_healthy", "overflow", "connect_failure", "other")
"""The one reason that each failed request is counted by; ``other`` is mostly an error that the callee returned."""


class PairTotals(Struct, array_like=True, frozen=True, gc=False):
    """The totals of a pair, of the callers' Envoys of one region and zone.

    Attributes:
        caller: the service that calls.
        location: region and zone of its Envoys.
        callee: the service that is called.
        requests: completed requests.
        failures: the failed ones, by ``FAILURE_REASONS``.
        buckets: requests that left a latency, by its bucket.
    """

    caller: str
    location: str
    callee: str
    requests: int
    failures: Sequence[int]
    buckets: Mapping[int, int]


def add_failures(totals: list[int], counts: EdgeCounts) -> None:
    """Add the failed requests of a digest to totals by ``FAILURE_REASONS``; together they are all of them.

    Envoy counts attempts that reached no endpoint and connections that failed, of which a request with retries makes
    several, and which may succeed in the end. So each reason has at most what those before it leave.
    """
    left = counts.failures - counts.timeouts
    if left <= 0:
        totals[0] += counts.failures
        return
    totals[0] += counts.timeouts
    for place, count in ((1, counts.none_healthy), (2, counts.overflows), (3, counts.connect_failures)):
        if count:
            taken = min(count, left)
            totals[place] += taken
            left -= taken
    totals[-1] += left
