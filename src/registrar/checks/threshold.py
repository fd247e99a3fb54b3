"""From single results of one check to a state worth publishing: pure rules, time is an argument.

::

    STARTING ──► HEALTHY ◄──► DEGRADED ◄──► UNHEALTHY      any ──► DRAINING
"""

import enum

from msgspec import Struct

from registrar.checks.flap_damping import FlapDamping
from registrar.checks.result import Outcome
from wire.model import Report


class State(enum.StrEnum):
    """What is known of an endpoint; STARTING is published nowhere and DRAINING is final."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"


class OnFail(enum.StrEnum):
    """What a failed check means for its endpoint."""

    UNHEALTHY = "unhealthy"
    DEGRADED = "degraded"
    IGNORE = "ignore"


class Limits(Struct, frozen=True):
    """How much evidence a change of state takes, and how far it goes; ``startup_grace`` is in seconds."""

    healthy: int = 2
    unhealthy: int = 3
    startup_grace: float = 120.0
    on_fail: OnFail = OnFail.UNHEALTHY


class Streaks(Struct):
    """Results in a row, up to the last one.

    Two views of each direction, because a degraded result neither passed nor failed: it continues a run
    that is merely not one of those.
    """

    passed: int = 0
    not_failed: int = 0
    not_passed: int = 0
    failed: int = 0

    def count(self, outcome: Outcome) -> None:
        """Continue the runs that ``outcome`` belongs to and end the others."""
        passed, failed = outcome is Outcome.PASSED, outcome is Outcome.FAILED
        self.passed = self.passed + 1 if passed else 0
        self.not_failed = 0 if failed else self.not_failed + 1
        self.not_passed = 0 if passed else self.not_passed + 1
        self.failed = self.failed + 1 if failed else 0


class Threshold:
    """The verdict of one check.

    Args:
        limits: the check's.
        now: when the start-up grace begins.
        damping: the endpoint's, which records what is published; it is only read here.

    Attributes:
        report: what the results so far amount to, or None before the first threshold.
        suppressed: how often flap damping held back a recovery that the plain threshold would have shown.
    """

    def __init__(self, limits: Limits, now: float, damping: FlapDamping) -> None:
        self.suppressed = 0
        self._limits = limits
        self._grace_ends = now + limits.startup_grace
        self._damping = damping
        self._streaks = Streaks()
        self._verdict: Report | None = None

    @property
    def report(self) -> Report | None:
        """The verdict, as bad as ``on_fail`` allows."""
        if self._verdict is Report.UNHEALTHY and self._limits.on_fail is OnFail.DEGRADED:
            return Report.DEGRADED
        return self._verdict

    def starting(self, now: float) -> bool:
        """Tell whether there is no verdict yet, and failures do not count for one."""
        return self._verdict is None and now < self._grace_ends

    def observe(self, outcome: Outcome, now: float) -> bool:
        """Take in one result and tell whether the verdict changed."""
        if outcome not in (Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED):
            return False
        if self._verdict is None and outcome is Outcome.FAILED and now < self._grace_ends:
            # Does not count as a failure, but the passes in front of it were no run either.
            self._streaks = Streaks()
            return False
        self._streaks.count(outcome)
        before, self._verdict = self._verdict, self._settled(now)
        return self._verdict is not before

    def _settled(self, now: float) -> Report | None:
        run, limits, verdict = self._streaks, self._limits, self._verdict
        enough = limits.healthy * self._damping.factor(now)
        if run.failed >= limits.unhealthy:
            return Report.UNHEALTHY
        if verdict is Report.HEALTHY:
            return Report.DEGRADED if run.not_passed >= limits.unhealthy else verdict
        if run.passed >= enough:
            return Report.HEALTHY
        if run.not_failed >= enough and verdict is not Report.DEGRADED:
            return Report.DEGRADED
        better = run.passed if verdict is Report.DEGRADED else run.not_failed
        # Once for each run: the moment in which the plain threshold would have been crossed.
        self.suppressed += better == limits.healthy < enough
        return verdict
