"""The pairs of caller and callee whose requests fail now: those that alerts wake somebody for.

They are picked out of the tables of all processes without adding up the others: who asks for them asks often.
"""

from collections.abc import Generator, Mapping, Sequence
from itertools import chain
from operator import add

from msgspec import Struct

from registry.core.traffic import Reasons
from registry.core.traffic_images import PairImage
from registry.core.traffic_map import DEGRADED_FROM
from registry.core.traffic_pair import EDGE_WIDTH, FAILURES
from registry.core.traffic_sums import SLOT
from registry.core.traffic_table import TrafficTable

MIN_FAILURES = 3
"""Failed requests of a minute from which a pair is a finding: one or two of an idle pair are not worth a look each."""

_Key = tuple[str, str]
"""Caller and callee."""


class FailingPair(Struct, frozen=True):
    """A caller whose requests to a callee fail, as counts of the last minute.

    Attributes:
        caller: the service that calls.
        callee: the service that is called.
        requests: completed requests.
        failures: the failed ones among them, at least one.
        reasons: why they failed.
    """

    caller: str
    callee: str
    requests: int
    failures: int
    reasons: Reasons

    @property
    def part(self) -> float:
        """The part of 1 that failed."""
        return min(1.0, self.failures / self.requests) if self.requests else 1.0

    @property
    def is_finding(self) -> bool:
        """Whether it is a finding: many requests fail, or one without a healthy endpoint or with an open breaker."""
        reasons = self.reasons
        if reasons.none_healthy or reasons.overflows:
            return True
        return self.failures >= MIN_FAILURES and self.failures >= DEGRADED_FROM * self.requests


def failing_pairs_in_steps(
    table: TrafficTable, others: Sequence[Sequence[PairImage]], now: float
) -> Generator[None, None, list[FailingPair]]:
    """Return the pairs that fail in the last minute, in any order.

    Args:
        table: the table of this process.
        others: the pairs of the other processes.
        now: this process's monotonic clock.
    """
    slot = int(now // SLOT)
    sums: dict[_Key, list[int]] = {}
    for (caller, _, callee), traffic in table.pairs():
        if traffic.may_have_failures(slot):
            sums[caller, callee] = [0] * EDGE_WIDTH
        yield
    for pair in chain.from_iterable(others):
        if pair.windows[0].counts[FAILURES]:
            sums[pair.caller, pair.callee] = [0] * EDGE_WIDTH
        yield
    if sums:
        # A pair that fails at one process may not fail at another one, nor from another zone.
        for (caller, _, callee), traffic in table.pairs():
            if (caller, callee) in sums:
                _add(sums, caller, callee, traffic.counts_of_last_minute(slot))
            yield
        for pair in chain.from_iterable(others):
            if (pair.caller, pair.callee) in sums:
                _add(sums, pair.caller, pair.callee, pair.windows[0].counts)
            yield
    return (yield from _findings_in_steps(sums))


def _findings_in_steps(sums: Mapping[_Key, Sequence[int]]) -> Generator[None, None, list[FailingPair]]:
    failing = []
    for key, counts in sums.items():
        if counts[FAILURES] and (pair := _failing_pair(key, counts)).is_finding:
            failing.append(pair)
        yield
    return failing


def severity(pair: FailingPair) -> tuple[int, str, str]:
    """Return what failing pairs are ordered by: those with the most failures come first."""
    return -pair.failures, pair.caller, pair.callee


def _add(sums: dict[_Key, list[int]], caller: str, callee: str, counts: Sequence[int]) -> None:
    sums[caller, callee] = list(map(add, sums[caller, callee], counts))


def _failing_pair(key: _Key, counts: Sequence[int]) -> FailingPair:
    completed, client_errors, failures, timeouts, connect, none_healthy, overflows, retries, _, _ = counts
    return FailingPair(
        *key, completed, failures, Reasons(timeouts, connect, none_healthy, overflows, retries, client_errors)
    )
