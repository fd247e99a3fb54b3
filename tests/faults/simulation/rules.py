"""The settings of the simulated registries, and what is fair of them."""

from functools import cache

from registry.core.lease import interval
from registry.settings import Settings

TTL = 20.0
HOLD = 60.0
REMOVAL_DELAY = 10.0
DRAIN_WAIT = 12.0
SLACK = 3.0
"""Seconds that the registry does not credit (a sweep's interval and the tolerance): no bound is sharper."""
HANDOVER = SLACK + 2.0
"""Seconds after which another process leads the sweeping and has made two sweeps."""
SHORT = 5.0
"""An interruption that is not longer is not credited, or not always: a late sweep looks like it."""
BLAME = 5.0
"""An endpoint may lapse only if its registrar was silent for so long since its last stored heartbeat.

Interruptions of the registry that are too short to be credited count as well. A lease of 20 s has room for a
heartbeat's interval (5.5 s with its jitter) and for the longest back-offs after an outage (5 s, stretched to 6 s, where
one registry of several does not answer); the rest is the registrar's own.
"""
EXCUSED = 2 * TTL - SLACK
"""Seconds for which what one process could not store is credited; after that, its registrars are silent."""
LEASE_REPLACED = 7.0
"""Seconds after which an endpoint that lost its lease has a whole one again."""
SLOW_WRITES = 6
"""Writes by which a lapse is later on a slow disk: two that heartbeats may wait for, that of the sweep before, its own,
and those of two other changes, which a sweep makes one after another."""
REFUSAL_RETRIED = 40.0
"""Seconds after which a sweep has tried again what PostgreSQL had refused, and what it then found."""
FAILURE_FORGOTTEN = TTL / 2
"""Seconds after which a process that nobody asks any more does not count as failing."""
HEALED = 2 * 1.1 * interval(TTL) + 6.0
"""Seconds after which who is well is routable, whatever was lost: an interval, and a back-off for a bad replica."""


CONNECTION_AGE = 60.0
"""Seconds after which a registrar exchanges its connection: a fifth of the real time, so that histories see it."""


@cache
def settings() -> Settings:
    """Return what the registries run with: the last endpoints are held for a minute instead of a quarter hour."""
    return Settings(
        lease_ttl=TTL,
        last_endpoint_hold=HOLD,
        removal_delay=REMOVAL_DELAY,
        drain_wait=DRAIN_WAIT,
        tombstone_retention=90.0,
        migrate=False,
    )
