"""Random jitter for intervals and retries, so that a fleet that started together does not act in step."""

import random

_BACKOFF_BASE = 0.25
"""Seconds of the ceiling after the first failure."""
_MAX_BACKOFF = 5.0
"""Seconds that the ceiling never exceeds."""
_MAX_RETRY_AFTER = 60.0
"""Seconds of a Retry-After header that are respected: a wrong header must not silence a fleet for hours."""

# The generator of the operating system: clones of one machine image must not draw the same numbers.
_random = random.SystemRandom()


def around(seconds: float, share: float) -> float:
    """Return ``seconds`` plus or minus up to ``share`` of it."""
    return seconds * _random.uniform(1 - share, 1 + share)


def at_most(seconds: float, share: float) -> float:
    """Return ``seconds`` less up to ``share`` of it."""
    return seconds * _random.uniform(1 - share, 1)


def phase(seconds: float) -> float:
    """Return a random moment of a period of that many seconds."""
    return _random.uniform(0, seconds)


class Backoff:
    """Exponential backoff with full jitter: a random pause up to a ceiling that doubles with each failure.

    "Full jitter" is the method of the AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).

    Args:
        base: seconds of the ceiling after the first failure.
        most: seconds that the ceiling never exceeds.
    """

    def __init__(self, base: float = _BACKOFF_BASE, most: float = _MAX_BACKOFF) -> None:
        self._base = base
        self._most = most
        # Failures in a row.
        self._failures = 0

    def reset(self) -> None:
        """Forget the failures after a success."""
        self._failures = 0

    def failed(self, ttl: float, retry_after: float | None = None) -> float:
        """Count a failure and return the seconds to wait, at least ``retry_after``.

        The ceiling stops at a quarter of ``ttl``, so that several attempts fit into one lease.

        The registry's Retry-After is stretched by up to a fifth; otherwise the whole fleet would return at the same
        moment.
        """
        ceiling = min(self._most, ttl / 4, self._base * 2 ** min(self._failures, 16))
        self._failures += 1
        pause = _random.uniform(0, ceiling)
        if retry_after is None:
            return pause
        requested = min(max(retry_after, 0.0), _MAX_RETRY_AFTER)
        return max(pause, requested * _random.uniform(1, 1.2))
