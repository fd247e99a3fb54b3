"""When the next heartbeat leaves: pure rules, time is an argument."""

from registrar import jitter

DEFAULT_INTERVAL = 5.0
SPREAD = 0.1
COALESCE = 0.1
RATE = 1.0
BURST = 5
# Whatever a registry answers, it gets neither a flood nor silence.
_SHORTEST_INTERVAL = 0.1
_LONGEST_INTERVAL = 3600.0


class HeartbeatSchedule:
    """A period with a random phase, changes that do not wait for it, and failures that hold all back.

    A change leaves after 0.1 s, so that several make one request; five of them at any moment, and then one
    a second, so that a flapping app is no load for the registry.
    """

    def __init__(self, now: float) -> None:
        self._due = now + jitter.phase(DEFAULT_INTERVAL)
        self._changed: float | None = None
        self._held_until = now
        self._tokens = float(BURST)
        self._filled = now
        self._phased = False

    def change(self, now: float) -> None:
        """Ask for a heartbeat that does not wait for the period."""
        if self._changed is None:
            self._changed = now + COALESCE

    def delay(self, now: float) -> float:
        """Return the seconds until the next heartbeat, 0 when it is due."""
        due = self._due
        if self._changed is not None:
            self._fill(now)
            due = min(due, max(self._changed, now + (1 - self._tokens) / RATE))
        return max(0.0, due - now, self._held_until - now)

    def sent(self, now: float) -> None:
        """A heartbeat leaves, and every change so far with it."""
        if self._changed is not None:
            self._fill(now)
            self._tokens = max(0.0, self._tokens - 1)
            self._changed = None

    def answered(self, now: float, interval: float) -> None:
        """Schedule the next one; the first answer puts it at a random phase, the others ±10 %."""
        interval = min(max(interval, _SHORTEST_INTERVAL), _LONGEST_INTERVAL)
        self._due = now + (jitter.around(interval, SPREAD) if self._phased else jitter.phase(interval))
        self._phased = True

    def idle(self, now: float) -> None:
        """There was nothing to send; a change will be."""
        self._due = now + DEFAULT_INTERVAL

    def failed(self, now: float, pause: float) -> None:
        """Try again after ``pause`` seconds and not before, whatever changes meanwhile."""
        self._due = self._held_until = now + pause

    def _fill(self, now: float) -> None:
        self._tokens = min(float(BURST), self._tokens + (now - self._filled) * RATE)
        self._filled = now
