"""Virtual time."""


class Clock:
    """Monotonic seconds of every process in the world; moved by the agenda and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        """Return the moment, as an event loop does."""
        return self.now

    def monotonic(self) -> float:
        """Return the moment, as the module ``time`` does."""
        return self.now
