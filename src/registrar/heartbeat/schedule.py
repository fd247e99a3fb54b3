"""The schedule of heartbeats: pure rules, time is an argument."""

from registrar import jitter

DEFAULT_INTERVAL = 5.0
"""Seconds between heartbeats until the first grant."""
INTERVAL_JITTER = 0.1
"""Share of the interval by which each heartbeat is moved at random."""
COALESCE_DELAY = 0.1
"""Seconds that a change waits, so that several changes share a request."""
CHANGES_PER_SECOND = 1.0
"""Rate of the token bucket for changes."""
MAX_BURST = 5
"""Size of the token bucket for changes."""
_MIN_INTERVAL = 0.1
"""Seconds between heartbeats at least, whatever interval a registry grants."""
_MAX_INTERVAL = 3600.0
"""Seconds between heartbeats at most, whatever interval a registry grants."""


class HeartbeatSchedule:
    """The time of the next heartbeat: periodic, sooner after a change, later after a failure.

    A change is sent after 0.1 s, so that several changes share a request. A token bucket limits changes to five at
    once and one a second after that, so that a flapping app is no load for the registry.
    """

    def __init__(self, now: float) -> None:
        # All times are monotonic seconds. When the periodic heartbeat is due.
        self._due = now + jitter.phase(DEFAULT_INTERVAL)
        # When the oldest change that was not sent yet is due; None without one.
        self._change_due: float | None = None
        # The end of the pause after a failure: nothing is sent before.
        self._held_until = now
        # The token bucket of changes, and when it was filled last.
        self._tokens = float(MAX_BURST)
        self._filled = now
        # Whether the first response has set a random phase.
        self._phased = False

    def change(self, now: float) -> None:
        """Schedule a heartbeat for a change, ahead of the periodic one."""
        if self._change_due is None:
            self._change_due = now + COALESCE_DELAY

    def delay(self, now: float) -> float:
        """Return the seconds until the next heartbeat; 0 if it is due."""
        due = self._due
        if self._change_due is not None:
            self._fill(now)
            due = min(due, max(self._change_due, now + (1 - self._tokens) / CHANGES_PER_SECOND))
        return max(0.0, due - now, self._held_until - now)

    def sent(self, now: float) -> None:
        """Record that a heartbeat is sent, with every change so far."""
        if self._change_due is not None:
            self._fill(now)
            self._tokens = max(0.0, self._tokens - 1)
            self._change_due = None

    def answered(self, now: float, interval: float) -> None:
        """Schedule the next periodic heartbeat: at a random phase after the first response, then ±10 %."""
        interval = min(max(interval, _MIN_INTERVAL), _MAX_INTERVAL)
        self._due = now + (jitter.around(interval, INTERVAL_JITTER) if self._phased else jitter.phase(interval))
        self._phased = True

    def idle(self, now: float) -> None:
        """Record that nothing was sent, because no endpoint may be published yet."""
        self._due = now + DEFAULT_INTERVAL

    def failed(self, now: float, pause: float) -> None:
        """Schedule a retry after ``pause`` seconds; no change is sent before."""
        self._due = self._held_until = now + pause

    def _fill(self, now: float) -> None:
        self._tokens = min(float(MAX_BURST), self._tokens + (now - self._filled) * CHANGES_PER_SECOND)
        self._filled = now
