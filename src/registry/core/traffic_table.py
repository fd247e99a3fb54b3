"""The table of pairs: the sums of the digests that one process got.

Everything is in memory and bounded. Times are this process's monotonic clock, given as an argument; an image of the
table has ages instead, so that another process can add it to its own whatever its clock says.
"""

from collections.abc import Collection, Iterable, Iterator
from heapq import nsmallest

from msgspec import Struct

from registry.core.endpoint_attempts import EndpointTable, ServiceImage
from registry.core.traffic_sums import SLOT, WindowSums
from registry.core.traffic_totals import FAILURE_REASONS, PairTotals, failures_by_reason
from wire.traffic_digest import MAX_COUNT, Edge, Route, RouteCounts, TrafficDigest

MAX_REPORTERS = 10_000
"""Envoys that one process remembers; beyond it those that reported longest ago are forgotten."""
FORGOTTEN_AFTER = 3_600.0
"""Seconds after which a pair or an Envoy that says nothing any more is forgotten: the longest window."""
_DROPPED_PART = 0.05
"""The part of a full table that makes room at once: a look for the least busy goes through all."""
EDGE_WIDTH = 10
ROUTE_WIDTH = 3
"""Counts of a pair and of a route: those of the digest without the states, for a pair the number of digests too."""
_COVERAGE_WIDTH = 1

PairKey = tuple[str, str, str]
"""Caller, location of the caller's Envoys, callee."""
RouteKey = tuple[str, str, str]
"""Caller, callee, route."""


class WindowImage(Struct, array_like=True, frozen=True, gc=False):
    """The sums of one window."""

    counts: list[int]
    buckets: list[int]


class PairImage(Struct, array_like=True, frozen=True, gc=False):
    """A pair as other processes get it.

    Attributes:
        caller: the service that calls.
        location: region and zone of its Envoys.
        callee: the service that is called.
        windows: the sums by window.
        healthy: the endpoints of the callee that may be sent to.
        total: all endpoints of the callee.
        age: slots of 10 s since an Envoy counted these.
    """

    caller: str
    location: str
    callee: str
    windows: list[WindowImage]
    healthy: int
    total: int
    age: int = 0


class RouteImage(Struct, array_like=True, frozen=True, gc=False):
    """A route as other processes get it."""

    caller: str
    callee: str
    route: str
    windows: list[WindowImage]


class CallerImage(Struct, array_like=True, frozen=True, gc=False):
    """The time that the digests of a caller's Envoys cover, added up: milliseconds by window."""

    caller: str
    location: str
    milliseconds: list[int]


class ReporterImage(Struct, array_like=True, frozen=True, gc=False):
    """An Envoy that reports: since when, when last, and how often, as seconds ago."""

    caller: str
    node: str
    location: str
    since: float
    last: float
    interval: float


class TrafficImage(Struct, frozen=True, gc=False):
    """The whole table of a process, with ages instead of times."""

    pairs: list[PairImage] = []
    routes: list[RouteImage] = []
    callers: list[CallerImage] = []
    reporters: list[ReporterImage] = []


class _Reporter:
    """An Envoy that reports, by the monotonic clock.

    Attributes:
        since: the beginning of what its first digest covers.
        last: when its last digest came.
        interval: the seconds that this covered.
        sequence: its number.
        location: region and zone of the Envoy.
        slot: the slot of its last digest.
        in_slot: how many digests came in this slot.
    """

    __slots__ = ("in_slot", "interval", "last", "location", "sequence", "since", "slot")

    def __init__(self, since: float) -> None:
        self.since = since
        self.last = since
        self.interval = 0.0
        self.sequence = -1
        self.location = ""
        self.slot = 0
        self.in_slot = 0


class _Pair:
    """A pair: its sums, and the endpoints of the callee as its callers' Envoys see them."""

    __slots__ = ("_before", "_state", "failures", "sums")

    def __init__(self, slot: int) -> None:
        self.sums = WindowSums(EDGE_WIDTH, slot)
        self.failures = [0] * len(FAILURE_REASONS)
        """The failed requests since the beginning, by reason."""
        self._state = self._before = (slot, 0, 0)
        """Slot, healthy and total endpoints: the worst of the newest slot with digests, and of the one before."""

    def add(self, slot: int, edge: Edge) -> None:
        """Add an edge of a digest."""
        counts = edge.counts
        numbers = (
            counts.completed,
            counts.client_errors,
            counts.failures,
            counts.timeouts,
            counts.connect_failures,
            counts.none_healthy,
            counts.overflows,
            counts.retries,
            counts.active,
            1,
        )
        self.sums.add(slot, numbers, edge.buckets)
        if counts.failures:
            for place, count in enumerate(failures_by_reason(counts)):
                self.failures[place] = min(self.failures[place] + count, MAX_COUNT)
        state = (slot, counts.healthy, counts.total)
        if slot > self._state[0]:
            self._before, self._state = self._state, state
        elif not self._state[2] or _part(state) < _part(self._state):
            self._state = state

    def state(self, slot: int) -> tuple[int, int, int]:
        """Return the healthy and all endpoints that the Envoy with the fewest knows, and the slots since it said so."""
        recent = self._before[0] >= self._state[0] - 1 and self._before[2]
        worst = min(self._state, self._before, key=_part) if recent else self._state
        return worst[1], worst[2], max(0, slot - self._state[0])


def _part(state: tuple[int, int, int]) -> float:
    return state[1] / state[2] if state[2] else 0.0


class TrafficTable:
    """The sums of the digests that one process got.

    Args:
        max_pairs: the pairs, and the routes, that are kept; beyond them the least busy ones are dropped.
    """

    def __init__(self, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        self._pairs: dict[PairKey, _Pair] = {}
        self._routes: dict[RouteKey, WindowSums] = {}
        self._coverage: dict[tuple[str, str], WindowSums] = {}
        """By caller and location, in the order of their last digests: the milliseconds that these cover."""
        self._reporters: dict[tuple[str, str], _Reporter] = {}
        """By caller and node, in the order of their last digests."""
        self.endpoints = EndpointTable()
        """Attempts at the endpoints of services under a shift."""
        self.dropped = 0
        """Pairs and routes that were dropped because there were too many, since the start."""
        self.digests = 0
        """Digests that were added, since the start."""

    def __len__(self) -> int:
        return len(self._pairs)

    def take(self, digest: TrafficDigest, now: float, watched: Collection[str] = ()) -> bool:
        """Add a digest; False if it is the repetition of the last one of its Envoy.

        Args:
            digest: a digest whose rules were checked.
            now: this process's monotonic clock.
            watched: its callees that are under a shift, whose endpoints are counted.
        """
        location = location_of(digest)
        key = (digest.caller, digest.node)
        reporter = self._reporters.pop(key, None) or _Reporter(now - digest.seconds)
        self._reporters[key] = reporter
        if reporter.sequence == digest.sequence:
            return False
        reporter.sequence, reporter.last, reporter.interval = digest.sequence, now, digest.seconds
        reporter.location = location
        slot = int(now // SLOT)
        reporter.in_slot = reporter.in_slot + 1 if reporter.slot == slot else 1
        reporter.slot = slot
        self._cover(digest.caller, location, slot, digest.seconds)
        for edge in digest.edges:
            self._pair((digest.caller, location, edge.callee), slot).add(slot, edge)
            if edge.callee in watched:
                self.endpoints.take(edge, key, now)
        for route in digest.routes:
            self._take_route(digest.caller, route, slot)
        self.digests += 1
        if len(self._reporters) > MAX_REPORTERS:
            del self._reporters[next(iter(self._reporters))]
        return True

    def digests_in_slot(self, digest: TrafficDigest, now: float) -> int:
        """Return how many digests of the same Envoy came in the slot of ten seconds that it is now."""
        reporter = self._reporters.get((digest.caller, digest.node))
        return reporter.in_slot if reporter is not None and reporter.slot == int(now // SLOT) else 0

    def forget(self, now: float) -> None:
        """Forget pairs, routes and Envoys that have said nothing for the longest window."""
        oldest = int((now - FORGOTTEN_AFTER) // SLOT)
        self._pairs = {key: pair for key, pair in self._pairs.items() if pair.sums.touched >= oldest}
        self._routes = {key: sums for key, sums in self._routes.items() if sums.touched >= oldest}
        self._coverage = {key: sums for key, sums in self._coverage.items() if sums.touched >= oldest}
        self._reporters = {
            key: reporter for key, reporter in self._reporters.items() if reporter.last >= now - FORGOTTEN_AFTER
        }

    def pair_images(self, now: float) -> Iterator[PairImage]:
        """Yield the pairs; other digests may come in between."""
        slot = int(now // SLOT)
        for (caller, location, callee), pair in list(self._pairs.items()):
            yield PairImage(caller, location, callee, _windows(pair.sums, slot), *pair.state(slot))

    def route_images(self, now: float) -> Iterator[RouteImage]:
        """Yield the routes; other digests may come in between."""
        slot = int(now // SLOT)
        for key, sums in list(self._routes.items()):
            yield RouteImage(*key, _windows(sums, slot))

    def caller_images(self, now: float) -> Iterator[CallerImage]:
        """Yield the time that digests cover, by caller and location; other digests may come in between."""
        slot = int(now // SLOT)
        for (caller, location), sums in list(self._coverage.items()):
            sums.advance(slot)
            yield CallerImage(caller, location, [window.counts[0] for window in sums.windows()])

    def reporter_images(self, now: float) -> list[ReporterImage]:
        """Return the Envoys that report."""
        return [
            ReporterImage(
                caller,
                node,
                reporter.location,
                round(now - reporter.since, 1),
                round(now - reporter.last, 1),
                round(reporter.interval, 1),
            )
            for (caller, node), reporter in self._reporters.items()
        ]

    def image(self, now: float) -> TrafficImage:
        """Return the whole table at once."""
        return TrafficImage(
            list(self.pair_images(now)),
            list(self.route_images(now)),
            list(self.caller_images(now)),
            self.reporter_images(now),
        )

    def endpoint_images(self, now: float) -> list[ServiceImage]:
        """Return the attempts at the endpoints of services under a shift."""
        return self.endpoints.images(now)

    def totals(self) -> Iterator[PairTotals]:
        """Yield the totals of the pairs since the process knows them."""
        for (caller, location, callee), pair in list(self._pairs.items()):
            sums = pair.sums.total()
            yield PairTotals(caller, location, callee, sums.counts[0], tuple(pair.failures), sums.buckets)

    def _cover(self, caller: str, location: str, slot: int, seconds: float) -> None:
        coverage = self._coverage.pop((caller, location), None) or WindowSums(_COVERAGE_WIDTH, slot)
        self._coverage[caller, location] = coverage
        coverage.add(slot, (round(seconds * 1000),), ())
        if len(self._coverage) > self._max_pairs:
            del self._coverage[next(iter(self._coverage))]

    def _pair(self, key: PairKey, slot: int) -> _Pair:
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= self._max_pairs:
                self._drop_pairs(slot)
            pair = self._pairs[key] = _Pair(slot)
        return pair

    def _take_route(self, caller: str, route: Route, slot: int) -> None:
        key = (caller, route.callee, route.route)
        sums = self._routes.get(key)
        if sums is None:
            if len(self._routes) >= self._max_pairs:
                self._drop_routes(slot)
            sums = self._routes[key] = WindowSums(ROUTE_WIDTH, slot)
        sums.add(slot, _route_numbers(route.counts), route.buckets)

    def _drop_pairs(self, slot: int) -> None:
        def busyness(key: PairKey) -> tuple[int, int]:
            return _busyness(self._pairs[key].sums, slot)

        for key in nsmallest(self._room, self._pairs, key=busyness):
            del self._pairs[key]
            self.dropped += 1

    def _drop_routes(self, slot: int) -> None:
        def busyness(key: RouteKey) -> tuple[int, int]:
            return _busyness(self._routes[key], slot)

        for key in nsmallest(self._room, self._routes, key=busyness):
            del self._routes[key]
            self.dropped += 1

    @property
    def _room(self) -> int:
        return max(1, int(self._max_pairs * _DROPPED_PART))


def location_of(digest: TrafficDigest) -> str:
    """Return region and zone of an Envoy as one name."""
    return "/".join(part for part in (digest.region, digest.zone) if part)


def _route_numbers(counts: RouteCounts) -> Iterable[int]:
    return counts.completed, counts.client_errors, counts.failures


def _busyness(sums: WindowSums, slot: int) -> tuple[int, int]:
    """Return the requests of the last hour, and when the last digest came, to compare by."""
    sums.advance(slot)
    return sums.windows()[-1].counts[0], sums.touched


def _windows(sums: WindowSums, slot: int) -> list[WindowImage]:
    sums.advance(slot)
    return [WindowImage(window.counts, window.flat_buckets) for window in sums.windows()]
