"""The database's time, as a process knows it between two looks: the one clock that rules go by."""

import time


class Clock:
    """The database's time as the process's own monotonic time and an offset; its wall clock may be hours off.

    Until the first look at the database the process's wall clock has to do.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self.error = float("inf")
        """Seconds by which it may be wrong: half of what the look at the database took."""

    def set(self, told: float, before: float, after: float) -> None:
        """Take over what the database said at some moment between ``before`` and ``after``, of monotonic time."""
        self._offset = told - (before + after) / 2
        self.error = (after - before) / 2

    def at(self, monotonic: float) -> float:
        """Return the database's time, in seconds since 1970, at a moment of the process's monotonic time."""
        return monotonic + self._offset

    def now(self) -> float:
        """Return the database's time now."""
        return self.at(time.monotonic())
