"""A token bucket: so many events a second, and as many at once."""


class TokenBucket:
    """Allows ``rate`` events a second on average, and ``burst`` of them at once.

    Args:
        rate: events a second.
        burst: events that may happen together after a rest.
        now: the time, of a monotonic clock, as in every call.
    """

    __slots__ = ("_burst", "_counted_at", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        """Events that were allowed and have not happened, at the time of the last count."""
        self._counted_at = now
        """When the tokens were last counted."""

    def has(self, now: float) -> bool:
        """Return whether an event is allowed now."""
        self._count(now)
        return self._tokens >= 1

    def take(self, now: float, events: float = 1) -> bool:
        """Return whether so many events are allowed now, and count them if so."""
        self._count(now)
        if self._tokens < events:
            return False
        self._tokens -= events
        return True

    def give(self, events: float) -> None:
        """Allow so many events more, as far as the burst."""
        self._tokens = min(self._burst, self._tokens + events)

    def _count(self, now: float) -> None:
        elapsed = max(0.0, now - self._counted_at)
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._counted_at = now
