"""The rules of time: when a lease has lapsed, when an endpoint may be left out, what our own outage credits."""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from registry.core.endpoint import Endpoint

TOLERANCE = 2.0
"""Seconds that a sweep may be late, or the clocks may differ, before the difference is credited."""

WRITE_MEMORY = 30.0
"""Seconds for which the sweeper remembers how long a write took."""
FAST_WRITE = 0.5
"""Seconds that a write may take without any effect: heartbeats come so often that one may be late by it."""
WRITES_IN_FLIGHT = 2
"""Writes that a heartbeat may have to wait for: that of the batch before its own, and its own."""

MAX_MISSED_SWEEPS = 5
"""Sweep intervals that may pass without a sweep."""
MIN_SWEEP_SILENCE = 6.0
"""Seconds without a sweep that are never too many: another process may need them to take the lead."""

_YEAR_2000 = 946_684_800_000_000


class Lease(Struct, frozen=True, gc=False):
    """The promise with a time limit that keeps an endpoint listed."""

    endpoint_id: int
    renewed_at: float
    expires_at: float


class Leases:
    """All leases at one moment, in 24 bytes each: an object for each would cost seven times as much.

    Args:
        ids: of their endpoints, growing.
        renewed: when each was renewed, in microseconds since the year 2000, as PostgreSQL counts.
        expires: when each expires, likewise.
    """

    __slots__ = ("_expires", "_ids", "_renewed")

    def __init__(self, ids: "array[int]", renewed: "array[int]", expires: "array[int]") -> None:
        self._ids = ids
        self._renewed = renewed
        self._expires = expires

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, endpoint_id: int) -> Lease | None:
        """Return the lease of an endpoint, if it had one."""
        index = bisect_left(self._ids, endpoint_id)
        if index == len(self._ids) or self._ids[index] != endpoint_id:
            return None
        return Lease(endpoint_id, _seconds(self._renewed[index]), _seconds(self._expires[index]))

    @classmethod
    def none(cls) -> "Leases":
        """Return what is known before the first reading."""
        return cls(array("q"), array("q"), array("q"))


def _seconds(microseconds: int) -> float:
    return (microseconds + _YEAR_2000) / 1e6


def interval(ttl: float) -> float:
    """Return the seconds between heartbeats for a lease: three of them and two time-outs fit into it."""
    return ttl / 4


class ClockReading(Struct, frozen=True):
    """One reading of PostgreSQL's clock.

    Attributes:
        database: the time that it said, in seconds since 1970.
        asked: this process's monotonic time before it was asked.
        answered: this process's monotonic time after it had answered.
    """

    database: float
    asked: float
    answered: float


def clock_step(earlier: ClockReading, later: ClockReading) -> float:
    """Return by how many seconds PostgreSQL's clock was set between two readings; 0.0 where they can agree.

    A reading may take long, so the time between two is known within bounds only. What lies beyond them by more than
    ``TOLERANCE`` is a step, forwards or backwards.
    """
    passed = later.database - earlier.database
    longest, shortest = later.answered - earlier.asked, later.asked - earlier.answered
    if passed > longest + TOLERANCE:
        return passed - longest
    return passed - shortest if passed < shortest - TOLERANCE else 0.0


class WriteDurations:
    """How long the sweeper's own writes took lately, which tells how long heartbeats wait for PostgreSQL's disk.

    Args:
        longest: seconds that a write can take at most, because it is given up then.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        # Monotonic time at the end of each write of the last ``MEMORY`` seconds, and the seconds that it took.
        self._took: deque[tuple[float, float]] = deque()

    def note(self, began: float, ended: float) -> None:
        """Take note of a write; times are monotonic and do not decrease from call to call."""
        self._took.append((ended, ended - began))

    def allowance(self, now: float) -> float:
        """Return for how many seconds after its expiry a lease is not judged: its renewal may be under way.

        A heartbeat waits for the batch before its own, and then for its own. Without any write it may be the longest
        time, and where writes are as fast as they should be, it is none.
        """
        while self._took and self._took[0][0] < now - WRITE_MEMORY:
            self._took.popleft()
        slowest = max((took for _, took in self._took), default=self._longest)
        return 0.0 if slowest <= FAST_WRITE else WRITES_IN_FLIGHT * min(slowest, self._longest)


class SweepTime(Struct, frozen=True):
    """When any process swept last, as PostgreSQL tells it.

    Attributes:
        at: the time of PostgreSQL's clock that was stored then.
        ago: how many seconds ago that was by the same clock; negative when it was set back since.
    """

    at: float
    ago: float


class SweepWatch:
    """When any process swept last, by this process's monotonic clock.

    PostgreSQL's clock may be set at any time. So it is believed only the first time how long ago the last sweep was;
    after that a stored time that differs is a sweep of now, and one that stays is as old as before.
    """

    def __init__(self) -> None:
        # The stored time that was observed last, and the monotonic time of that sweep; None before any.
        self._stored: float | None = None
        self._swept_at: float | None = None

    def observe(self, found: SweepTime | None, now: float) -> None:
        """Take note of what PostgreSQL tells at ``now``, of monotonic time; None: no process has ever swept."""
        if found is None:
            self._stored = self._swept_at = None
            return
        if self._stored is None:
            self._swept_at = now - max(0.0, found.ago)
        elif found.at != self._stored:
            self._swept_at = now
        self._stored = found.at

    def ago(self, now: float) -> float | None:
        """Return the seconds since the last sweep; None when none is known."""
        return None if self._swept_at is None else now - self._swept_at


def sweep_overdue(swept_ago: float | None, running: float, sweep_interval: float, resync_interval: float) -> bool:
    """Return whether no process sweeps any more, so that expired leases stay served.

    Args:
        swept_ago: seconds since any process swept; None when no sweep is known.
        running: seconds since this process started: it waits that long at least before it says so.
        sweep_interval: seconds between two sweeps of the process that leads.
        resync_interval: seconds after which this process learns of a sweep of another one, at most.
    """
    silence = running if swept_ago is None else swept_ago
    return silence > max(MIN_SWEEP_SILENCE, MAX_MISSED_SWEEPS * sweep_interval + resync_interval)


def credit(last_sweep: float | None, now: float, elapsed: float | None, every: float, write: float = 0.0) -> float:
    """Return the seconds by which all leases are moved because the registry, not the instances, was away.

    Args:
        last_sweep: the database's time at the end of the last sweep of any process, None before the first.
        now: the database's time.
        elapsed: seconds by this process's monotonic clock since that sweep, None if another process swept.
        every: seconds that are meant to lie between two sweeps.
        write: seconds that this process's write of ``last_sweep`` took, 0 if another process swept. PostgreSQL was
            slow then, and not away: heartbeats were stored, as slowly.

    The time in which nobody swept is credited whole: heartbeats may have been refused all along. A database
    clock that jumped, forwards or backwards, is credited by its jump.
    """
    if last_sweep is None:
        return 0.0
    passed = now - last_sweep
    if elapsed is not None and abs(passed - elapsed) > TOLERANCE:
        return passed
    return passed if passed - write > every + TOLERANCE or passed < -TOLERANCE else 0.0


def removable(endpoints: Iterable[Endpoint], now: float, delay: float, last_hold: float) -> list[Endpoint]:
    """Return which endpoints of one service may be left out of the answers now.

    Removal has two phases: an Envoy with active health checks goes on using an endpoint that just vanishes,
    so it is first published as not routable for ``delay`` seconds. Lapsed endpoints stay while the service has
    nothing routable, up to ``last_hold`` seconds, so that an answer never becomes empty by a loss of contact.
    """
    listed = list(endpoints)
    has_routable = any(endpoint.routable for endpoint in listed)
    return [
        endpoint
        for endpoint in listed
        if endpoint.unroutable_at is not None
        and now - endpoint.unroutable_at >= delay
        and _departed(endpoint, now, last_hold, has_routable=has_routable)
    ]


def _departed(endpoint: Endpoint, now: float, last_hold: float, *, has_routable: bool) -> bool:
    if endpoint.leaving_at is not None:
        return True
    if endpoint.lapsed_at is None:
        return False
    on_purpose = endpoint.registration.draining
    return on_purpose or has_routable or now - endpoint.lapsed_at >= last_hold
