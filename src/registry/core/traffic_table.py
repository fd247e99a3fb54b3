"""The table of pairs: the sums of the digests that one process got.

Everything is in memory and bounded. Times are this process's monotonic clock, given as an argument; an image of the
table has ages instead, so that another process can add it to its own whatever its clock says.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from operator import attrgetter
from types import MappingProxyType

from msgspec.structs import astuple

from registry.core.endpoint_attempts import EndpointTable
from registry.core.shared_table import FairBudget, Owner, SharedTable
from registry.core.traffic_images import (
    CallerImage,
    PairImage,
    ReporterImage,
    RouteImage,
    TrafficImage,
)
from registry.core.traffic_map import UNHEALTHY_FROM
from registry.core.traffic_pair import COMPLETED, FAILURES, PairTraffic, window_images
from registry.core.traffic_sums import SLOT, WindowSums
from registry.core.traffic_totals import PairTotals
from registry.errors import LimitError
from wire.traffic_digest import Route, TrafficDigest

MAX_REPORTERS = 10_000
"""Envoys that one process remembers."""
MAX_DIGESTS = 30_000
"""Digests that one process takes in a slot of ten seconds before it looks who sends so many: 40 % of a core."""
MAX_DIGESTS_OF_ENVOY = 30
"""Digests of one Envoy in a slot at most; during a shift it sends five."""
FORGOTTEN_AFTER = 3_600.0
"""Seconds after which a pair or an Envoy that says nothing any more is forgotten: the longest window."""
ROUTE_WIDTH = 3
"""Counts of a route: those of the digest."""
_COVERAGE_WIDTH = 1

PairKey = tuple[str, str, str]
"""Caller, location of the caller's Envoys, callee."""
RouteKey = tuple[str, str, str]
"""Caller, callee, route."""
ReporterKey = tuple[str, str, str]
"""Caller, node, and the sender of the digests: Envoys may share a node id."""


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
        self.slot = -1
        self.in_slot = 0

    def add(self, digest: TrafficDigest, location: str, slot: int, now: float) -> None:
        """Note a digest."""
        self.sequence, self.last, self.interval = digest.sequence, now, digest.seconds
        self.location = location
        self.in_slot = self.in_slot + 1 if self.slot == slot else 1
        self.slot = slot


class TrafficTable:
    """The sums of the digests that one process got.

    Args:
        max_pairs: the pairs, and the routes, that are kept; beyond them those with the most give way.
    """

    def __init__(self, max_pairs: int) -> None:
        self._pairs: SharedTable[PairKey, PairTraffic] = SharedTable(max_pairs, attrgetter("busyness"))
        self._routes: SharedTable[RouteKey, WindowSums] = SharedTable(
            max_pairs, lambda sums: (sums.last_hour(), sums.touched)
        )
        self._coverage: SharedTable[tuple[str, str], WindowSums] = SharedTable(max_pairs, lambda sums: sums.touched)
        """By caller and location: the milliseconds that digests cover."""
        self._reporters: SharedTable[ReporterKey, _Reporter] = SharedTable(MAX_REPORTERS, lambda each: each.last)
        self._budget = FairBudget(MAX_DIGESTS)
        self._suspects: set[PairKey] = set()
        """Pairs of which a digest had many failures since begins_to_fail_in_steps() was asked last."""
        self._failing: set[PairKey] = set()
        """Pairs that other processes know to fail. Written by note_failing_in_steps()."""
        self.endpoints = EndpointTable()
        """Attempts at the endpoints of services under a shift."""
        self.digests = 0
        """Digests that were added, since the start."""

    def __len__(self) -> int:
        return len(self._pairs)

    def check_rate(self, digest: TrafficDigest, principal: str, now: float) -> None:
        """Refuse a digest of an Envoy or of a principal that has sent too many in this slot.

        Raises:
            LimitError: it has.
        """
        slot = int(now // SLOT)
        reporter = self._reporters.get((digest.caller, digest.node, digest.sender))
        if reporter is not None and reporter.slot == slot and reporter.in_slot >= MAX_DIGESTS_OF_ENVOY:
            raise LimitError(
                f"node {digest.node} of {digest.caller} has sent {MAX_DIGESTS_OF_ENVOY} digests in ten seconds; send "
                "one each ten seconds, and give each Envoy a node id of its own",
                "traffic",
                SLOT,
            )
        if not self._budget.spend(principal, slot):
            raise LimitError(
                f"{principal} has sent more than its part of {MAX_DIGESTS} digests in ten seconds; send one for each "
                "Envoy each ten seconds",
                "traffic",
                SLOT,
            )

    def take(
        self,
        digest: TrafficDigest,
        now: float,
        watched: Mapping[str, Callable[[str], bool]] = MappingProxyType({}),
        principal: str = "",
    ) -> bool:
        """Add a digest; False if it is the repetition of the last one of its sender.

        Args:
            digest: a digest whose rules were checked.
            now: this process's monotonic clock.
            watched: by callee under a shift, whose endpoints are counted: whether it has an endpoint, by ``ip:port``.
            principal: who sent it, by which the table is shared.
        """
        location = location_of(digest)
        owner = (principal, digest.caller)
        key = (digest.caller, digest.node, digest.sender)
        reporter = self._reporters.get(key)
        if reporter is None:
            reporter = _Reporter(now - digest.seconds)
            self._reporters.add(key, reporter, owner)
        elif reporter.sequence == digest.sequence:
            return False
        slot = int(now // SLOT)
        reporter.add(digest, location, slot, now)
        self._cover(owner, location, slot, digest.seconds)
        self._pairs.begin()
        self._routes.begin()
        find = self._pairs.get
        for edge in digest.edges:
            pair_key = (digest.caller, location, edge.callee)
            pair = find(pair_key) or self._new_pair(pair_key, slot, owner)
            if pair is not None:
                pair.add(slot, edge)
                counts = edge.counts
                if counts.failures and _fails(counts.completed, counts.failures):
                    self._suspects.add(pair_key)
            if watched and edge.callee in watched:
                self.endpoints.take(edge, (digest.caller, digest.node), now, watched[edge.callee], principal)
        for route in digest.routes:
            self._take_route(owner, route, slot)
        self.digests += 1
        return True

    def begins_to_fail_in_steps(self) -> Generator[None, None, bool]:
        """Return whether a pair has begun to fail, which other processes do not know yet; each is looked at once."""
        suspects, self._suspects = self._suspects, set()
        for key in suspects - self._failing:
            pair = self._pairs.get(key)
            if pair is not None and _fails(*pair.last_minute()):
                return True
            yield
        return False

    def note_failing_in_steps(self, image: TrafficImage) -> Generator[None, None, None]:
        """Note which pairs others know to fail, now that they have an image."""
        failing = set()
        for pair in image.pairs:
            counts = pair.windows[0].counts
            if counts[FAILURES] and _fails(counts[COMPLETED], counts[FAILURES]):
                failing.add((pair.caller, pair.location, pair.callee))
            yield
        self._failing = failing

    def take_dropped(self) -> dict[Owner, int]:
        """Return how many entries each owner lost because there were too many, since the last call."""
        lost: dict[Owner, int] = {}
        for table in (self._pairs, self._routes, self._coverage, self._reporters):
            for owner, number in table.dropped.items():
                lost[owner] = lost.get(owner, 0) + number
            table.dropped.clear()
        return lost

    def forget_in_steps(self, now: float) -> Iterator[None]:
        """Forget pairs, routes and Envoys that have said nothing for the longest window, a step for each."""
        oldest = int((now - FORGOTTEN_AFTER) // SLOT)
        yield from self._pairs.forget_in_steps(lambda pair: pair.touched < oldest)
        yield from self._routes.forget_in_steps(lambda sums: sums.touched < oldest)
        yield from self._coverage.forget_in_steps(lambda sums: sums.touched < oldest)
        yield from self._reporters.forget_in_steps(lambda reporter: reporter.last < now - FORGOTTEN_AFTER)

    def pairs(self) -> Iterator[tuple[PairKey, PairTraffic]]:
        """Yield the pairs with their traffic; other digests may come in between."""
        return self._pairs.items()

    def pair_images(self, now: float) -> Iterator[PairImage]:
        """Yield the pairs; other digests may come in between."""
        slot = int(now // SLOT)
        for (caller, location, callee), pair in self._pairs.items():
            yield PairImage(caller, location, callee, pair.windows(slot), *pair.state(slot))

    def route_images(self, now: float) -> Iterator[RouteImage]:
        """Yield the routes; other digests may come in between."""
        slot = int(now // SLOT)
        for key, sums in self._routes.items():
            yield RouteImage(*key, window_images(sums, slot))

    def caller_images(self, now: float) -> Iterator[CallerImage]:
        """Yield the time that digests cover, by caller and location; other digests may come in between."""
        slot = int(now // SLOT)
        for (caller, location), sums in self._coverage.items():
            sums.advance(slot)
            yield CallerImage(caller, location, [window.counts[0] for window in sums.windows()])

    def reporter_images(self, now: float) -> Iterator[ReporterImage]:
        """Yield the Envoys that report; other digests may come in between."""
        for (caller, node, sender), reporter in self._reporters.items():
            yield ReporterImage(
                caller,
                node,
                reporter.location,
                round(now - reporter.since, 1),
                round(now - reporter.last, 1),
                round(reporter.interval, 1),
                sender,
            )

    def image(self, now: float) -> TrafficImage:
        """Return the whole table at once."""
        return TrafficImage(
            list(self.pair_images(now)),
            list(self.route_images(now)),
            list(self.caller_images(now)),
            list(self.reporter_images(now)),
        )

    def totals(self) -> Iterator[PairTotals]:
        """Yield the totals of the pairs since the process knows them."""
        for (caller, location, callee), pair in self._pairs.items():
            sums = pair.total()
            yield PairTotals(caller, location, callee, sums.counts[0], pair.failures_so_far(), sums.buckets)

    def _cover(self, owner: Owner, location: str, slot: int, seconds: float) -> None:
        key = (owner[1], location)
        coverage = self._coverage.get(key)
        if coverage is None:
            coverage = WindowSums(_COVERAGE_WIDTH, slot)
            self._coverage.add(key, coverage, owner)
        coverage.add(slot, (round(seconds * 1000),), ())

    def _new_pair(self, key: PairKey, slot: int, owner: Owner) -> PairTraffic | None:
        """Add a pair; None: the table is full, and the digest has brought many others already."""
        if not self._pairs.admits(owner):
            return None
        pair = PairTraffic(slot)
        self._pairs.add(key, pair, owner)
        return pair

    def _take_route(self, owner: Owner, route: Route, slot: int) -> None:
        key = (owner[1], route.callee, route.route)
        sums = self._routes.get(key)
        if sums is None:
            if not self._routes.admits(owner):
                return
            sums = WindowSums(ROUTE_WIDTH, slot)
            self._routes.add(key, sums, owner)
        sums.add(slot, astuple(route.counts), route.buckets)


def _fails(completed: int, failures: int) -> bool:
    return failures >= UNHEALTHY_FROM * completed


def location_of(digest: TrafficDigest) -> str:
    """Return region and zone of an Envoy as one name."""
    return "/".join(part for part in (digest.region, digest.zone) if part)
