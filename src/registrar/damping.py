"""Flap damping: an endpoint that keeps changing has to pass longer before it is believed again."""

import math

WINDOW = 60.0
_LARGEST_FACTOR = 8


class Damping:
    """Remembers how often the published state changed of late; time is an argument.

    Each change within a minute of the one before doubles the passes that are asked for, up to eight times,
    and a minute without any change forgets them. Going UNHEALTHY is never damped: that would keep a dead
    endpoint in rotation.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._factor = 1

    def record(self, now: float) -> None:
        """Count a transition."""
        flapping = now - self._last < WINDOW
        self._factor = min(_LARGEST_FACTOR, self._factor * 2) if flapping else 1
        self._last = now

    def factor(self, now: float) -> int:
        """Return by what the healthy_threshold is multiplied."""
        return self._factor if now - self._last < WINDOW else 1
