"""Figures of pairs and routes, from the tables of all processes.

The rate is what digests counted, over the time that they cover, times the Envoys that were there on average. So it is
right while digests come unevenly, in the first minute of an Envoy, and through a deploy, when old and new ones overlap.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from heapq import nsmallest
from typing import NamedTuple

from msgspec import Struct

from registry.cooperative import at_once
from registry.core.latency_buckets import quantiles
from registry.core.traffic import (
    WINDOW_SECONDS,
    PairFigures,
    Reasons,
    Reporting,
    RouteFigures,
    Window,
)
from registry.core.traffic_images import PairImage, TrafficImage
from registry.core.traffic_pair import EDGE_WIDTH
from registry.core.traffic_sums import SLOT, Sums
from registry.core.traffic_table import ROUTE_WIDTH

_LEVELS: dict[Window, int] = {"1m": 0, "10m": 1, "1h": 2}
_QUANTILES = (0.50, 0.95, 0.99)
_OVERDUE_INTERVALS = 2.5
"""Intervals after which a digest is overdue."""
_OVERDUE_SLACK = 5.0
"""Seconds on top of them, for a registry that was restarted and a reading that was slow."""
DEGRADED = 0.01
"""The part of failed requests from which a pair counts as failing."""
_STATE_SPREAD = 60.0
"""Seconds by which the state of a callee is older than another one before it says nothing any more."""
_MIN_COVERED = 0.5
"""Seconds that a rate is taken over at least."""
_RESTART_OVERLAP = 1.0
"""Seconds by which a registrar may seem to begin before the one that it replaces has ended."""

ExpectedEnvoys = Callable[[str], int]
"""Returns how many Envoys a caller should have."""


class AgedImage(Struct, frozen=True):
    """The table of one process, and the seconds since it was made."""

    image: TrafficImage
    age: float


class _State(Struct, frozen=True):
    """The healthy and all endpoints of a callee, and the seconds since an Envoy said so."""

    healthy: int
    total: int
    age: float


class _Reports(NamedTuple):
    """The digests of an Envoy: its location, the seconds since the first and the last one, and their interval."""

    location: str
    since: float
    last: float
    interval: float

    def joined_with(self, other: "_Reports") -> "_Reports":
        """Return both as those of one Envoy, with what the later one said."""
        later = min(self, other, key=lambda each: each.last)
        return _Reports(later.location, max(self.since, other.since), later.last, later.interval)


class _Caller:
    """The Envoys of a caller, of all locations or of one.

    Attributes:
        covered: seconds that digests of the window cover, added up.
        alive: Envoys that were there, on average over the time that is known of the window.
        reported: Envoys whose last digest is not overdue.
        seen: Envoys that were there in the window.
        age: seconds since the newest digest.
    """

    __slots__ = ("age", "alive", "covered", "reported", "seen")

    def __init__(self) -> None:
        self.covered = 0.0
        self.alive = 0.0
        self.reported = 0
        self.seen = 0
        self.age = float("inf")

    def rate(self, requests: int, window: Window) -> float:
        """Return requests a second."""
        if self.covered < _MIN_COVERED:
            return requests / WINDOW_SECONDS[window]
        return requests / self.covered * self.alive


CallerKey = tuple[str, str]
"""Caller and location; an empty location is all of them."""


class _Pair:
    """The sums of a pair in all processes, and the state of its callee."""

    __slots__ = ("_state", "sums")

    def __init__(self) -> None:
        self.sums = Sums.zero(EDGE_WIDTH)
        self._state: _State | None = None

    def add(self, image: PairImage, level: int, age: float) -> None:
        """Add what one process knows, as of so many seconds ago."""
        window = image.windows[level]
        self.sums.add(window.counts, window.buckets)
        state = _State(image.healthy, image.total, image.age * SLOT + age)
        self._state = state if self._state is None else _worse(self._state, state)

    @property
    def endpoints(self) -> tuple[int, int]:
        """The healthy and all endpoints of the callee."""
        return (0, 0) if self._state is None else (self._state.healthy, self._state.total)


class Figures:
    """Figures of one window, from the images of all processes; ``figures_in_steps`` makes them.

    Args:
        images: the tables of the processes.
        window: the window.
        expected: how many Envoys a caller should have.
        by_location: tell callers' Envoys of different regions and zones apart.
    """

    def __init__(
        self,
        images: Sequence[AgedImage],
        window: Window,
        expected: ExpectedEnvoys,
        *,
        by_location: bool = False,
    ) -> None:
        self._window = window
        self._level = _LEVELS[window]
        # A process that is gone has nothing to say of a window that begins after its last word.
        self._images = [each for each in images if each.age < WINDOW_SECONDS[window]]
        self._expected = expected
        self._by_location = by_location
        self._callers: dict[CallerKey, _Caller] = {}
        """By caller and location. Written by count_callers_in_steps(), before anything is asked for."""

    def count_callers_in_steps(self) -> Generator[None, None, None]:
        """Count the callers' Envoys and the time that they cover, which everything else is made of."""
        yield from self._cover()
        yield from self._count_reporters()

    def pairs(self, caller: str | None = None, callee: str | None = None) -> list[PairFigures]:
        """Return the pairs, those of one caller or callee alone where they are named, in order."""
        return at_once(self.pairs_in_steps(caller, callee))

    def pairs_in_steps(self, caller: str | None, callee: str | None) -> Generator[None, None, list[PairFigures]]:
        """Return the same by work that may be interrupted after each pair: 5,000 take 40 ms."""
        callers: dict[str, dict[tuple[str, str], _Pair]] = {}
        for image, age in ((image, aged.age) for aged in self._images for image in aged.image.pairs):
            yield
            if caller not in (None, image.caller) or callee not in (None, image.callee):
                continue
            known = callers.setdefault(image.caller, {})
            key = (image.location if self._by_location else "", image.callee)
            pair = known.get(key)
            if pair is None:
                pair = known[key] = _Pair()
            pair.add(image, self._level, age)
        pairs = []
        for name in sorted(callers):
            for key in sorted(callers[name]):
                pairs.append(self._pair(name, *key, callers[name][key]))
                yield
        return pairs

    def routes(self, callee: str, caller: str | None = None) -> list[RouteFigures]:
        """Return the routes to one callee, those of one caller alone where it is named, in order."""
        return at_once(self.routes_in_steps(callee, caller))

    def routes_in_steps(self, callee: str, caller: str | None) -> Generator[None, None, list[RouteFigures]]:
        """Return the same by work that may be interrupted after each route."""
        sums: dict[tuple[str, str], Sums] = {}
        for route in (route for each in self._images for route in each.image.routes):
            yield
            if route.callee != callee or caller not in (None, route.caller):
                continue
            total = sums.setdefault((route.caller, route.route), Sums.zero(ROUTE_WIDTH))
            window = route.windows[self._level]
            total.add(window.counts, window.buckets)
        routes = []
        for name, route_name in sorted(sums):
            routes.append(self._route(name, callee, route_name, sums[name, route_name]))
            yield
        return routes

    def reporting(self) -> Iterator[tuple[str, Reporting]]:
        """Yield each caller with how many of its Envoys report."""
        for (caller, place), known in self._callers.items():
            if not place:
                yield caller, self._reporting(caller, known)

    def _pair(self, caller: str, location: str, callee: str, pair: _Pair) -> PairFigures:
        sums = pair.sums
        healthy, total = pair.endpoints
        completed, client_errors, failures, timeouts, connect, none_healthy, overflows, retries, active, digests = (
            sums.counts
        )
        known = self._callers.get((caller, location)) or _Caller()
        p50, p95, p99 = quantiles(sums.buckets, _QUANTILES)
        return PairFigures(
            caller=caller,
            callee=callee,
            location=location,
            requests=completed,
            requests_per_second=known.rate(completed, self._window),
            failures=failures,
            success=_success(completed, failures),
            p50=p50,
            p95=p95,
            p99=p99,
            reasons=Reasons(timeouts, connect, none_healthy, overflows, retries, client_errors),
            active=round(active / digests * known.alive) if digests else 0,
            healthy=healthy,
            total=total,
            reporting=self._reporting(caller, known, location),
            age=known.age,
        )

    def _route(self, caller: str, callee: str, route: str, sums: Sums) -> RouteFigures:
        completed, client_errors, failures = sums.counts
        known = self._callers.get((caller, "")) or _Caller()
        p50, p95, p99 = quantiles(sums.buckets, _QUANTILES)
        return RouteFigures(
            caller=caller,
            callee=callee,
            route=route,
            requests=completed,
            requests_per_second=known.rate(completed, self._window),
            failures=failures,
            client_errors=client_errors,
            success=_success(completed, failures),
            p50=p50,
            p95=p95,
            p99=p99,
            age=known.age,
        )

    def _reporting(self, caller: str, known: _Caller, location: str = "") -> Reporting:
        # The instances of a caller are known by service, and not by location; a gateway may have none.
        expected = 0 if location else self._expected(caller)
        return Reporting(known.reported, max(expected or known.seen, known.reported))

    def _caller(self, caller: str, location: str) -> Iterable[_Caller]:
        keys = ((caller, ""), (caller, location)) if location else ((caller, ""),)
        for key in keys:
            known = self._callers.get(key)
            if known is None:
                known = self._callers[key] = _Caller()
            yield known

    def _cover(self) -> Iterator[None]:
        for each in (each for aged in self._images for each in aged.image.callers):
            for known in self._caller(each.caller, each.location):
                known.covered += each.milliseconds[self._level] / 1000
            yield

    def _count_reporters(self) -> Generator[None, None, None]:
        length = WINDOW_SECONDS[self._window]
        elapsed: dict[CallerKey, float] = {}
        spans = []
        reporters = yield from self._reporters()
        for (caller, _), senders in reporters.items():
            for location, since, last, interval in _successions(senders.values()):
                overdue = last > interval * _OVERDUE_INTERVALS + _OVERDUE_SLACK
                end, beginning = last if overdue else 0.0, min(since, length)
                spans.append((caller, location, max(0.0, beginning - end)))
                for known in self._caller(caller, location):
                    known.age = min(known.age, last)
                    known.reported += not overdue
                    known.seen += last < length
                for key in ((caller, ""), (caller, location)):
                    elapsed[key] = max(elapsed.get(key, _MIN_COVERED), beginning)
                yield
        for caller, location, span in spans:
            keys = ("", location) if location else ("",)
            for place in keys:
                self._callers[caller, place].alive += span / elapsed[caller, place]
            yield

    def _reporters(self) -> Generator[None, None, dict[tuple[str, str], dict[str, _Reports]]]:
        """Return what each sender of a caller's node reported, by caller and node and then by sender."""
        nodes: dict[tuple[str, str], dict[str, _Reports]] = {}
        for each, age in ((each, aged.age) for aged in self._images for each in aged.image.reporters):
            senders = nodes.setdefault((each.caller, each.node), {})
            reports = _Reports(each.location, each.since + age, each.last + age, each.interval)
            before = senders.get(each.sender)
            senders[each.sender] = reports if before is None else before.joined_with(reports)
            yield
        return nodes


def figures_in_steps(
    images: Sequence[AgedImage], window: Window, expected: ExpectedEnvoys, *, by_location: bool = False
) -> Generator[None, None, Figures]:
    """Return the figures of a window, by work that may be interrupted: 10,000 Envoys take 30 ms.

    The arguments are those of ``Figures``.
    """
    figures = Figures(images, window, expected, by_location=by_location)
    yield from figures.count_callers_in_steps()
    return figures


def _successions(senders: Collection[_Reports]) -> Collection[_Reports]:
    """Return the Envoys of one node id: a registrar that began after another one's last digest has replaced it.

    Those that report beside each other are Envoys that share the id.
    """
    if len(senders) == 1:
        return senders
    envoys: list[_Reports] = []
    for sender in sorted(senders, key=lambda each: -each.since):
        for place, envoy in enumerate(envoys):
            if envoy.last + _RESTART_OVERLAP >= sender.since:
                envoys[place] = envoy.joined_with(sender)
                break
        else:
            envoys.append(sender)
    return envoys


def most_telling_in_steps(pairs: Sequence[PairFigures], limit: int) -> Generator[None, None, list[PairFigures]]:
    """Return so many pairs in their order: first those that fail, then the busiest."""
    if len(pairs) <= limit:
        return list(pairs)
    telling = []
    for number, pair in enumerate(pairs):
        telling.append((pair.success is None or pair.success > 1 - DEGRADED, -pair.requests_per_second, number))
        yield
    return [pairs[number] for number in sorted(number for _, _, number in nsmallest(limit, telling))]


def _success(completed: int, failures: int) -> float | None:
    return max(0, completed - failures) / completed if completed else None


def _worse(state: _State, other: _State) -> _State:
    """Return the state with the smaller part of healthy endpoints; one without endpoints, or an old one, says nothing.

    The caller's registrar may have moved to another process: the one before remembers the pair for an hour.
    """
    if not state.total or not other.total:
        return max(state, other, key=lambda each: each.total)
    if abs(state.age - other.age) > _STATE_SPREAD:
        return min(state, other, key=lambda each: each.age)
    return min(state, other, key=lambda each: each.healthy / each.total)
