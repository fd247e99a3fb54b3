"""Flap damping: an endpoint that keeps changing has to pass longer before it is believed again."""

import math

WINDOW = 60.0
# Changes that cost nothing: one crash and one recovery.
_FREE = 1
_LARGEST_FACTOR = 8


class FlapDamping:
    """Remembers how often an endpoint's published state changed of late; time is an argument.

    The second change within a minute of the one before, and each after it, doubles the passes that are asked
    for, up to eight times; a minute without any change forgets them. That an endpoint is published for the
    first time is no change: an app that crashes soon after its start comes back like any other. Going
    UNHEALTHY is never damped: that would keep a dead endpoint in rotation.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._changes = 0
        self._published = False

    def record(self, now: float) -> None:
        """Count a change of what is published, except for the first publication."""
        if not self._published:
            self._published = True
            return
        self._changes = self._changes + 1 if now - self._last < WINDOW else 1
        self._last = now

    def factor(self, now: float) -> int:
        """Return by what the healthy_threshold is multiplied."""
        if now - self._last >= WINDOW or self._changes <= _FREE:
            return 1
        # Twice for each change, so that the second fall within a minute meets the whole factor: with half of
        # it an app that flaps every 3 s and is asked four times a second still came back twice in a minute.
        return min(_LARGEST_FACTOR, 1 << self._changes)
