"""Randomness in time, so that a fleet that started together does not act together."""

import random

_BACKOFF_BASE = 0.25
_BACKOFF_CAP = 5.0
# A registry that asks for hours would lose its fleet to one bad header.
_LONGEST_RETRY_AFTER = 60.0

# The system's generator needs no seed, and clones of one image share no sequence.
_dice = random.SystemRandom()


def around(seconds: float, share: float) -> float:
    """Return ``seconds`` plus or minus up to ``share`` of it."""
    return seconds * _dice.uniform(1 - share, 1 + share)


def at_most(seconds: float, share: float) -> float:
    """Return ``seconds`` less up to ``share`` of it."""
    return seconds * _dice.uniform(1 - share, 1)


def phase(seconds: float) -> float:
    """Return any moment of a period."""
    return _dice.uniform(0, seconds)


class Backoff:
    """Full jitter: any pause up to a ceiling that doubles with each failure.

    The ceiling starts at 0.25 s and stops at min(5 s, ttl / 4), so that several attempts fit into one lease.
    """

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """Forget the failures after a success."""
        self._failures = 0

    def failed(self, ttl: float, retry_after: float | None = None) -> float:
        """Count a failure and return the seconds to wait; ``retry_after`` is the least that is waited.

        A wait that the registry asked for is stretched by up to a fifth, or it would get the whole fleet
        back at that moment.
        """
        ceiling = min(_BACKOFF_CAP, ttl / 4, _BACKOFF_BASE * 2 ** min(self._failures, 16))
        self._failures += 1
        pause = _dice.uniform(0, ceiling)
        if retry_after is None:
            return pause
        asked = min(max(retry_after, 0.0), _LONGEST_RETRY_AFTER)
        return max(pause, asked * _dice.uniform(1, 1.2))
