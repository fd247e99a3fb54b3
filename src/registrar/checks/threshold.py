"""The state machine that turns the results of a check into a verdict: pure rules, time is an argument.

::

    STARTING ──► HEALTHY ◄──► DEGRADED ◄──► UNHEALTHY      any ──► DRAINING
"""

import enum

from msgspec import Struct

from registrar.checks.flap_damping import FlapDamping
from registrar.checks.result import Outcome
from wire.model import Report


class State(enum.StrEnum):
    """The state of an endpoint; STARTING is never published, and DRAINING is final."""

    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    DRAINING = "DRAINING"


class OnFail(enum.StrEnum):
    """The effect of a failed check on its endpoint."""

    UNHEALTHY = "unhealthy"
    DEGRADED = "degraded"
    IGNORE = "ignore"


class ThresholdLimits(Struct, frozen=True):
    """The limits of one check: results in a row for a change, the start-up grace in seconds, and on_fail."""

    healthy: int = 2
    unhealthy: int = 3
    startup_grace: float = 120.0
    on_fail: OnFail = OnFail.UNHEALTHY


class Streaks(Struct):
    """The numbers of results in a row, up to the newest one.

    A degraded result is neither a pass nor a failure: it continues the runs of results that are not passes and of
    results that are not failures.
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
        limits: the limits of the check.
        now: monotonic seconds of the start of the start-up grace.
        damping: the flap damping of the endpoint; it is only read here.

    Attributes:
        report: the verdict, or None before the first threshold is reached.
        suppressed: how often flap damping delayed a recovery that the plain threshold would have published.
    """

    def __init__(self, limits: ThresholdLimits, now: float, damping: FlapDamping) -> None:
        self.suppressed = 0
        self._limits = limits
        self._grace_ends = now + limits.startup_grace
        self._damping = damping
        self._streaks = Streaks()
        self._verdict: Report | None = None

    @property
    def report(self) -> Report | None:
        """The verdict, limited by ``on_fail``."""
        if self._verdict is Report.UNHEALTHY and self._limits.on_fail is OnFail.DEGRADED:
            return Report.DEGRADED
        return self._verdict

    def starting(self, now: float) -> bool:
        """Tell whether the first verdict is pending and the start-up grace is not over."""
        return self._verdict is None and now < self._grace_ends

    def observe(self, outcome: Outcome, now: float) -> bool:
        """Record a result and tell whether the verdict changed."""
        if outcome not in (Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED):
            return False
        if self._verdict is None and outcome is Outcome.FAILED and now < self._grace_ends:
            # A failure within the grace does not count, but it ends a run of passes.
            self._streaks = Streaks()
            return False
        self._streaks.count(outcome)
        before, self._verdict = self._verdict, self._evaluate(now)
        return self._verdict is not before

    def _evaluate(self, now: float) -> Report | None:
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
        # Counted once for each run, when it reaches the plain threshold.
        self.suppressed += better == limits.healthy < enough
        return verdict
