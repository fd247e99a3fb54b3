"""Health of this process: whether it is ready, and whether each of its parts does its work, from memory alone."""

import asyncio
import time

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.background.sweeper import Sweeper
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.abilities import Abilities, Failure
from registry.core.lease import sweep_overdue
from registry.core.status import ABILITY_WORDS, Part
from registry.errors import UnavailableError
from registry.settings import Settings

_STALE_AFTER = 5
"""Resync intervals without a complete reading after which a snapshot counts as old."""


class ProcessHealth:
    """Tells whether this process does its work, from memory.

    Args:
        policy: decides who may see each part.
        cache: tells whether discovery can be answered.
        settings: how often PostgreSQL is read and swept.
        change_feed: tells whether PostgreSQL is read.
        sweeper: tells whether this process sweeps.
        abilities: what this process can do.
    """

    def __init__(
        self,
        policy: Policy,
        cache: SnapshotCache,
        settings: Settings,
        change_feed: ChangeFeed,
        sweeper: Sweeper,
        abilities: Abilities,
    ) -> None:
        self._policy = policy
        self._cache = cache
        self._settings = settings
        self._change_feed = change_feed
        self._sweeper = sweeper
        self._abilities = abilities
        self._started = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether discovery can be answered; anybody may know."""
        return self._cache.ready and not self._cache.closing

    def write_refusal(self) -> str:
        """Return why nothing can be stored, for people; empty: as far as this process knows everything can."""
        if self._change_feed.loss or not self._fresh():
            return "PostgreSQL is away: nothing can be changed until it is back"
        if self._change_feed.read_only:
            return "PostgreSQL is read-only: nothing can be changed until it takes writes again"
        return ""

    def database_time(self) -> float:
        """Return the time of PostgreSQL's clock, as this process last measured it, in seconds since 1970."""
        return self._cache.clock.now()

    def check_ready(self) -> None:
        """Refuse to read or write before this process knows the registry's state.

        Raises:
            UnavailableError: it has not been read yet.
        """
        if not self._cache.ready:
            raise UnavailableError("this process has not read the registry's state yet")

    def parts(self, principal: Principal) -> list[Part]:
        """Return whether each part of this process does its work."""
        self._policy.allow(principal, Verb.OBSERVE)
        return self.summary()

    def summary(self) -> list[Part]:
        """Return what ``parts`` does, for a page that shows it to those who may observe."""
        cache = self._cache
        age, fresh = self._age(), self._fresh()
        detail = f"read {age:.1f} s ago, {len(cache.services())} services" if cache.ready else "never read"
        if cache.stale:
            detail = f"from disk, stale: PostgreSQL was not read since the start; {len(cache.services())} services"
        if cache.unsure:
            detail += f", {len(cache.unsure)} more cannot be read"
        return [
            Part("snapshot", cache.ready, detail),
            self._postgresql(fresh=fresh),
            self._sweeps(fresh=fresh),
            self._heartbeats(),
        ]

    def _age(self) -> float:
        """Return the seconds since PostgreSQL was last read completely."""
        return asyncio.get_running_loop().time() - self._cache.synchronised_at

    def _fresh(self) -> bool:
        """Return whether PostgreSQL was read just now."""
        cache = self._cache
        return cache.ready and not cache.stale and self._age() < _STALE_AFTER * self._settings.resync_interval

    def _postgresql(self, *, fresh: bool) -> Part:
        if not fresh:
            detail = f"{self._change_feed.loss or 'away'}; discovery goes on from memory"
            return Part("postgresql", ok=False, detail=detail)
        if self._change_feed.read_only:
            return Part(
                "postgresql",
                ok=False,
                detail=f"answered {self._age():.1f} s ago, and refuses writes: it is a standby, or set to read only",
            )
        return Part("postgresql", ok=True, detail=f"answered {self._age():.1f} s ago")

    def _sweeps(self, *, fresh: bool) -> Part:
        """Return whether any process sweeps; to hold the lead is no evidence of it.

        Args:
            fresh: whether PostgreSQL was read just now; otherwise nothing is known of other processes.
        """
        if not fresh:
            detail = "not known: PostgreSQL, which says when somebody swept, was not read"
            return Part("sweeper", ok=False, detail=detail)
        settings, now = self._settings, time.monotonic()
        running, swept_ago = now - self._started, self._change_feed.swept.ago(now)
        if sweep_overdue(swept_ago, running, settings.sweep_interval, settings.resync_interval):
            silence = running if swept_ago is None else swept_ago
            return Part("sweeper", ok=False, detail=f"nobody has swept for {silence:.0f} s: nothing expires")
        detail = "this process sweeps" if self._sweeper.leads else "another process sweeps"
        return Part("sweeper", ok=True, detail=detail)

    def _heartbeats(self) -> Part:
        """Return whether heartbeats get through: their connections, the renewals and the changes that they are."""
        failures = self._abilities.failures(time.monotonic())
        detail = "; ".join(_failing(failure) for failure in failures)
        return Part("heartbeats", ok=not failures, detail=detail or "taken")


def _failing(failure: Failure) -> str:
    extent = "" if failure.total else " each time"
    return f"cannot {ABILITY_WORDS[failure.ability]}{extent}, for {failure.seconds:.0f} s: {failure.reason}"
