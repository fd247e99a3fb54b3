"""How far to advance a service's version after a PostgreSQL fail-over, so that no version is reused.

A fail-over can lose the last commits, and with them the versions that they gave out. A subscriber that holds one of
those would take other content under the same version for equal. So the first change of a service on another timeline
of PostgreSQL advances its version further than any loss.
"""

import random

MAX_LOST_VERSIONS = 100_000
"""Versions of one service that a fail-over may lose."""
MAX_VERSIONS_AHEAD = 20 * MAX_LOST_VERSIONS
"""Versions by which a subscriber may be ahead: ten fail-overs that a process has not read yet. A subscriber that is
further ahead holds a version of something else."""

# Random, because two standbys that are not connected may be promoted to the same timeline, one after the other. The
# system's generator needs no seed, and clones of one image share no sequence.
_dice = random.SystemRandom()


def version_jump() -> int:
    """Return by how much to raise a version whose next one may have been given out before."""
    return MAX_LOST_VERSIONS + int(_dice.uniform(0, MAX_LOST_VERSIONS))


def version_before_first(generation: int) -> int:
    """Return the version before the first one of a new service.

    Args:
        generation: how many timelines lie between the database's first and this one. A service whose creation was
            lost is new here.
    """
    return 2 * MAX_LOST_VERSIONS * (generation - 1) + version_jump() if generation > 0 else 0
