"""The database's time between two readings, which is the one clock that all rules go by."""

import time


class Clock:
    """The database's time as this process's monotonic time plus an offset, since its wall clock may be wrong.

    Before the first reading of the database's clock it is the process's wall clock.
    """

    def __init__(self) -> None:
        # Seconds from monotonic time to the database's time; written by each comparison with the database.
        self._offset = time.time() - time.monotonic()
        self.error = float("inf")
        """Seconds by which the time may be wrong: half of the duration of the last reading."""

    def set(self, database_time: float, before: float, after: float) -> None:
        """Set the clock to the database's time at some moment between ``before`` and ``after``, of monotonic time."""
        self._offset = database_time - (before + after) / 2
        self.error = (after - before) / 2

    def at(self, monotonic: float) -> float:
        """Return the database's time, in seconds since 1970, at a moment of the process's monotonic time."""
        return monotonic + self._offset

    def now(self) -> float:
        """Return the database's time now."""
        return self.at(time.monotonic())
