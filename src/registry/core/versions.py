"""How far a service's numbers move where the next one could have been given out before.

A fail-over can lose the last commits, and with them the numbers that they gave out: who saw those would take other
content under the same number for equal. So the first change of a service on another timeline of PostgreSQL moves its
numbers further than any loss.
"""

import random

MAX_LOST_VERSIONS = 100_000
"""Versions that a fail-over may have lost of one service at most."""
MAX_VERSIONS_AHEAD = 20 * MAX_LOST_VERSIONS
"""Versions by which a subscriber may be ahead: ten fail-overs that a process has not heard of. Beyond it the
subscriber holds nothing of ours."""

# Drawn, because two standbys that have not heard of one another may be promoted to the same timeline, one after the
# other. The system's generator needs no seed, and clones of one image share no sequence.
_dice = random.SystemRandom()


def version_jump() -> int:
    """Return by how much to raise numbers that may have been given out before."""
    return MAX_LOST_VERSIONS + int(_dice.uniform(0, MAX_LOST_VERSIONS))


def version_before_first(generation: int) -> int:
    """Return the number before a new service's first one.

    Args:
        generation: how many timelines lie between the database's first and this one. A service that was lost with its
            founding is new here.
    """
    return 2 * MAX_LOST_VERSIONS * (generation - 1) + version_jump() if generation > 0 else 0
