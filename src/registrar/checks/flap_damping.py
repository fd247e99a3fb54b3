"""Flap damping: an endpoint that keeps changing its state needs more passes to recover."""

import math

WINDOW = 60.0
"""Seconds without a change after which earlier changes are forgotten."""
_FREE_CHANGES = 1
"""Changes without damping: one crash with its recovery."""
_MAX_FACTOR = 8


class FlapDamping:
    """Counts the recent changes of an endpoint's published state; time is an argument.

    The second change within a minute of the one before, and each further one, doubles the passes that a recovery needs,
    up to eight times. A minute without a change resets the count. The first publication is not a change: an app that
    crashes soon after its start recovers like any other. A change to UNHEALTHY is never delayed: that would keep a
    dead endpoint in rotation.
    """

    def __init__(self) -> None:
        # Monotonic seconds of the newest change, and the number of changes up to it.
        self._last = -math.inf
        self._changes = 0
        # Whether the endpoint was published at all.
        self._published = False

    def record(self, now: float) -> None:
        """Count a change of the published state; the first publication is not one."""
        if not self._published:
            self._published = True
            return
        self._changes = self._changes + 1 if now - self._last < WINDOW else 1
        self._last = now

    def factor(self, now: float) -> int:
        """Return the factor by which healthy_threshold is multiplied."""
        if now - self._last >= WINDOW or self._changes <= _FREE_CHANGES:
            return 1
        # Doubled with each change, so that the second failure within a minute gets the whole factor. With half of it an
        # app that flaps every 3 s and is checked four times a second recovered twice in a minute.
        return min(_MAX_FACTOR, 1 << min(self._changes, _MAX_FACTOR.bit_length()))
