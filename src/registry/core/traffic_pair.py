"""The traffic of one pair, as the digests of one process count it.

Digests wait until the slot of 10 s is over, somebody asks, or there are many of them, and are added up then: together
they cost a third. So to take the edge of a digest is to put it aside.
"""

from msgspec.structs import astuple

from registry.core.traffic_images import WindowImage
from registry.core.traffic_sums import MINUTE_SLOTS, Sums, WindowSums
from registry.core.traffic_totals import FAILURE_REASONS, add_failures
from wire.traffic_digest import MAX_COUNT, Edge, EdgeCounts

EDGE_WIDTH = 10
"""Counts of a pair: those of an edge without healthy and total endpoints, and the number of digests."""
COMPLETED, FAILURES = 0, 2
"""Places of two of them."""
_SUMMED = EDGE_WIDTH - 1
"""Numbers of an edge that are added up; those behind them are states."""
_MAX_WAITING = 16
"""Edges that are added up at once at most, which bounds their memory."""


class PairTraffic:
    """The sums of a pair, and the endpoints of the callee as its callers' Envoys see them.

    Args:
        slot: the number of the slot of 10 s that it is now.
    """

    __slots__ = ("_before", "_buckets", "_failed", "_failures", "_slot", "_state", "_sums", "_waiting")

    def __init__(self, slot: int) -> None:
        self._slot = slot
        """The slot of the newest edge."""
        self._waiting: list[EdgeCounts] = []
        """The counts of the edges of this slot that are not added up yet."""
        self._buckets: list[int] = []
        """Their buckets, one behind the other."""
        self._sums = WindowSums(EDGE_WIDTH, slot)
        """The sums of all others."""
        self._failures = [0] * len(FAILURE_REASONS)
        """The failed requests of these since the beginning, by reason."""
        self._failed: int | None = None
        """The newest slot with a failed request among these; None: none has failed."""
        self._state = self._before = (slot, 0, 0)
        """Slot, healthy and total endpoints: the worst of the newest slot with digests, and of the one before."""

    def add(self, slot: int, edge: Edge) -> None:
        """Add an edge of a digest; a slot that is over counts as the newest one."""
        if slot > self._slot:
            self._add_up()
            self._slot = slot
        self._waiting.append(edge.counts)
        self._buckets += edge.buckets
        if len(self._waiting) >= _MAX_WAITING:
            self._add_up()

    @property
    def touched(self) -> int:
        """The slot of the newest edge."""
        return self._slot

    @property
    def busyness(self) -> tuple[int, int]:
        """The requests of about the last hour, and when the last digest came, to compare by; it is cheap."""
        sums, recent = self._sums, 0
        sums.advance(self._slot)
        for counts in self._waiting:
            recent += counts.completed
        return sums.last_hour() + recent, self._slot

    def last_minute(self) -> tuple[int, int]:
        """Return the completed and the failed requests of about the last minute."""
        self._add_up()
        completed, failures = self._sums.last_minute(COMPLETED, FAILURES)
        return completed, failures

    def may_have_failures(self, slot: int) -> bool:
        """Return whether a request of about the last minute may have failed, as of a slot; it is cheap."""
        if self._failed is not None and slot - self._failed <= MINUTE_SLOTS:
            return True
        return any(counts.failures for counts in self._waiting)

    def counts_of_last_minute(self, slot: int) -> list[int]:
        """Return the counts of the last minute as of a slot."""
        self._add_up()
        self._sums.advance(slot)
        return self._sums.last_minute(*range(EDGE_WIDTH))

    def windows(self, slot: int) -> list[WindowImage]:
        """Return the sums of the three windows as of a slot."""
        self._add_up()
        return window_images(self._sums, slot)

    def total(self) -> Sums:
        """Return the sums since the beginning."""
        self._add_up()
        return self._sums.total()

    def failures_so_far(self) -> tuple[int, ...]:
        """Return the failed requests since the beginning by reason, none larger than a number of a digest."""
        self._add_up()
        return tuple(min(count, MAX_COUNT) for count in self._failures)

    def state(self, slot: int) -> tuple[int, int, int]:
        """Return the healthy and all endpoints that the Envoy with the fewest knows, and the slots since it said so."""
        self._add_up()
        recent = self._before[0] >= self._state[0] - 1 and self._before[2]
        worst = min(self._state, self._before, key=_part) if recent else self._state
        return worst[1], worst[2], max(0, slot - self._state[0])

    def _add_up(self) -> None:
        waiting = self._waiting
        if not waiting:
            return
        columns = list(zip(*map(astuple, waiting), strict=True))
        self._sums.add(self._slot, [*map(sum, columns[:_SUMMED]), len(waiting)], self._buckets)
        if any(columns[FAILURES]):
            self._failed = self._slot
            for counts in waiting:
                if counts.failures:
                    add_failures(self._failures, counts)
        self._add_states(list(zip(*columns[_SUMMED:], strict=True)))
        self._waiting, self._buckets = [], []

    def _add_states(self, states: list[tuple[int, int]]) -> None:
        """Keep the worst of the healthy and total endpoints that Envoys know."""
        slot = self._slot
        if slot > self._state[0]:
            self._before, self._state = self._state, (slot, *states[0])
        if states.count(self._state[1:]) == len(states):
            return
        for healthy, total in states:
            state = (slot, healthy, total)
            if not self._state[2] or _part(state) < _part(self._state):
                self._state = state


def window_images(sums: WindowSums, slot: int) -> list[WindowImage]:
    """Return the sums of the three windows as of a slot."""
    sums.advance(slot)
    return [WindowImage(tuple(window.counts), window.flat_buckets) for window in sums.windows()]


def _part(state: tuple[int, int, int]) -> float:
    return state[1] / state[2] if state[2] else 0.0
