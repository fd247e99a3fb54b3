"""The rules of time: when an endpoint leaves the answers, and how much time an outage of the registry credits.

``registry.background.sweeper`` applies them; which endpoints lapse is decided by ``registry.core.expiry_guard``.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from registry.core.endpoint import Endpoint

MAX_CLOCK_ERROR = 2.0
"""Seconds by which a sweep may be late, or two clocks may differ, before the difference is credited."""

WRITE_WINDOW = 30.0
"""Seconds for which the duration of a write is remembered."""
MAX_FAST_WRITE = 0.5
"""Seconds that a write may take without any effect, since heartbeats are frequent enough to be late by it."""
WRITES_IN_FLIGHT = 2
"""Writes that a heartbeat may have to wait for: the batch before its own, and its own."""

MAX_MISSED_SWEEPS = 5
"""Sweep intervals that may pass without a sweep."""
MIN_SWEEP_SILENCE = 6.0
"""Seconds without a sweep that are never too many: another process may need them to take the lead."""

RESTORE_HOLD = 1.5
"""Lease times for which a restored database is not served at least."""
MAX_RESTORE_HOLD = 180.0
"""Seconds for which a restored database is not served at most."""

_YEAR_2000 = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where PostgreSQL's timestamps begin."""
_FIRST, _LAST = -63_082_195_200_000_000, 252_455_443_200_000_000
"""Microseconds from 2000 to the second day of the year 1, and to the last but one of 9999; others, infinite ones among
them, were written by hand and are in no calendar of Python."""


class Lease(Struct, frozen=True, gc=False):
    """A lease keeps an endpoint listed until it expires; each heartbeat renews it.

    The idea is that of Gray and Cheriton (Leases, 1989). Times are seconds of the database's clock.
    """

    endpoint_id: int
    renewed_at: float
    expires_at: float


def restore_hold(lease_ttl: float, longest_ttl: float, sweep_interval: float, restored_ago: float) -> float:
    """Return the seconds for which a restored database is not served yet.

    Living endpoints return with their next heartbeat, which is due within a quarter of their lease.

    Args:
        lease_ttl: seconds of the lease of registrations that name none.
        longest_ttl: seconds of the longest lease of any endpoint that was served before; 0 if none has one.
        sweep_interval: seconds between two sweeps.
        restored_ago: seconds since it was found to be restored; negative when PostgreSQL's clock was set back since.
    """
    hold = min(max(RESTORE_HOLD * lease_ttl, longest_ttl / 4 + sweep_interval), MAX_RESTORE_HOLD)
    return max(0.0, hold - max(0.0, restored_ago))


def heartbeat_overdue(lease: Lease, now: float) -> bool:
    """Tell whether a lease had no heartbeat for half of its time; they come at a quarter of it."""
    return now - lease.renewed_at > (lease.expires_at - lease.renewed_at) / 2


class Leases:
    """All leases at one moment, in 24 bytes each; an object for each would take seven times as much.

    Args:
        ids: the ids of the endpoints, in increasing order.
        renewed: when each lease was renewed, in microseconds since the year 2000, as PostgreSQL sends timestamps.
        expires: when each lease expires, in the same unit.
    """

    __slots__ = ("_expires", "_ids", "_renewed")

    def __init__(self, ids: "array[int]", renewed: "array[int]", expires: "array[int]") -> None:
        self._ids = ids
        self._renewed = renewed
        self._expires = expires

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, endpoint_id: int) -> Lease | None:
        """Return the lease of an endpoint, or None if it has none."""
        index = bisect_left(self._ids, endpoint_id)
        if index == len(self._ids) or self._ids[index] != endpoint_id:
            return None
        return Lease(endpoint_id, _seconds(self._renewed[index]), _seconds(self._expires[index]))

    def extend(self, ids: "array[int]", renewed: "array[int]", expires: "array[int]") -> None:
        """Append leases whose ids are all greater, as a reading in several statements does."""
        self._ids.extend(ids)
        self._renewed.extend(renewed)
        self._expires.extend(expires)

    @classmethod
    def none(cls) -> "Leases":
        """Return no leases, which is the state before they were first read."""
        return cls(array("q"), array("q"), array("q"))


def _seconds(microseconds: int) -> float:
    return (min(max(microseconds, _FIRST), _LAST) + _YEAR_2000) / 1e6


def interval(ttl: float) -> float:
    """Return the seconds between heartbeats: three heartbeats and two timeouts fit into a lease."""
    return ttl / 4


class ClockReading(Struct, frozen=True):
    """One reading of PostgreSQL's clock.

    Attributes:
        database: PostgreSQL's time, in seconds since 1970.
        asked: this process's monotonic time before the query.
        answered: this process's monotonic time after the answer.
    """

    database: float
    asked: float
    answered: float


def clock_step(earlier: ClockReading, later: ClockReading) -> float:
    """Return by how many seconds PostgreSQL's clock was set between two readings; 0.0 if it was not.

    A reading may take long, so the time between two readings lies between two bounds. A difference beyond them of more
    than ``MAX_CLOCK_ERROR`` is a step, forwards or backwards.
    """
    elapsed = later.database - earlier.database
    max_elapsed, min_elapsed = later.answered - earlier.asked, later.asked - earlier.answered
    if elapsed > max_elapsed + MAX_CLOCK_ERROR:
        return elapsed - max_elapsed
    return elapsed - min_elapsed if elapsed < min_elapsed - MAX_CLOCK_ERROR else 0.0


class WriteDurations:
    """The durations of the sweeper's recent writes, which tell how long heartbeats wait for PostgreSQL's disk.

    Args:
        timeout: seconds after which a write is given up.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # Monotonic time of the end of each write of the last ``WRITE_WINDOW`` seconds, and its duration in seconds.
        self._durations: deque[tuple[float, float]] = deque()

    def record(self, began: float, ended: float) -> None:
        """Record a write; times are monotonic and do not decrease from call to call."""
        self._durations.append((ended, ended - began))

    def allowance(self, now: float) -> float:
        """Return for how many seconds after its expiry a lease may not lapse, because its renewal may be under way.

        A heartbeat waits for the batch before its own, and then for its own. Without a recorded write the timeout is
        assumed; where all writes were fast, it is 0.
        """
        while self._durations and self._durations[0][0] < now - WRITE_WINDOW:
            self._durations.popleft()
        slowest = max((took for _, took in self._durations), default=self._timeout)
        return 0.0 if slowest <= MAX_FAST_WRITE else WRITES_IN_FLIGHT * min(slowest, self._timeout)


class SweepTime(Struct, frozen=True):
    """The time of the last sweep of any process, as PostgreSQL has it.

    Attributes:
        at: PostgreSQL's time that was stored at the end of the sweep.
        ago: seconds since then by the same clock; negative when the clock was set back since.
    """

    at: float
    ago: float


class SweepWatch:
    """The time of the last sweep of any process, by this process's monotonic clock.

    PostgreSQL's clock may be set at any time. So it tells how long ago the last sweep was the first time only. After
    that, a stored time that differs is a sweep that took place now, and a stored time that stays the same is no sweep.
    """

    def __init__(self) -> None:
        # The stored time that was observed last, and the monotonic time of that sweep; None: no sweep is known.
        self._stored: float | None = None
        self._swept_at: float | None = None

    def observe(self, sweep: SweepTime | None, now: float) -> None:
        """Record the last sweep as PostgreSQL has it at ``now``, a monotonic time; None: no process ever swept."""
        if sweep is None:
            self._stored = self._swept_at = None
            return
        if self._stored is None:
            self._swept_at = now - max(0.0, sweep.ago)
        elif sweep.at != self._stored:
            self._swept_at = now
        self._stored = sweep.at

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


def credit(
    last_sweep: float | None, now: float, elapsed: float | None, sweep_interval: float, write_seconds: float = 0.0
) -> float:
    """Return the seconds by which all leases are extended because the registry, not the instances, was away.

    The whole time without a sweep is credited, because heartbeats may have been refused all that time. A step of the
    database's clock, forwards or backwards, is credited too.

    Args:
        last_sweep: the database's time at the end of the last sweep of any process, None before the first.
        now: the database's time.
        elapsed: seconds by this process's monotonic clock since that sweep, None if another process swept.
        sweep_interval: seconds between the begins of two sweeps, as configured.
        write_seconds: seconds that this process's write of ``last_sweep`` took, 0 if another process swept. PostgreSQL
            was slow then, and not away: heartbeats were stored as slowly.
    """
    if last_sweep is None:
        return 0.0
    since_sweep = now - last_sweep
    if elapsed is not None and abs(since_sweep - elapsed) > MAX_CLOCK_ERROR:
        return since_sweep
    return (
        since_sweep
        if since_sweep - write_seconds > sweep_interval + MAX_CLOCK_ERROR or since_sweep < -MAX_CLOCK_ERROR
        else 0.0
    )


def removable(endpoints: Iterable[Endpoint], now: float, delay: float, last_hold: float) -> list[Endpoint]:
    """Return the endpoints of one service that may be left out of the answers now.

    Removal has two phases. Envoy keeps using an endpoint that vanishes from EDS while its active health checks pass
    (Envoy's documentation of service discovery, "on eventually consistent service discovery"), so an endpoint is first
    published as not routable for ``delay`` seconds. Lapsed endpoints stay while the service has no routable endpoint,
    for up to ``last_hold`` seconds, so that a loss of contact alone never empties an answer.
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
