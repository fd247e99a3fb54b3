"""The state of one incarnation of an endpoint, from its checks: pure rules, time is an argument."""

from collections.abc import Sequence

from registrar.checks.flap_damping import FlapDamping
from registrar.checks.result import Result
from registrar.checks.threshold import OnFail, State, Threshold, ThresholdLimits
from wire.model import Report

_SEVERITY = (Report.HEALTHY, Report.DEGRADED, Report.UNHEALTHY)


class Incarnation:
    """One incarnation: it starts unpublished, is as healthy as its worst check, and ends with a drain.

    Args:
        limits: the limits of each check; a check whose failures are ignored does not count.
        now: monotonic seconds of its start.
        damping: the flap damping of the endpoint; it outlives the incarnation, so that a restart does not reset it.

    Attributes:
        state: the current state.
        report: the health to publish: None before every check has a verdict, unchanged after a drain.
        detail: the detail of the check that decided the state.
    """

    def __init__(self, limits: Sequence[ThresholdLimits], now: float, damping: FlapDamping) -> None:
        self.state = State.STARTING
        self.report: Report | None = None
        self.detail = ""
        self._damping = damping
        # By the index of the check: the detail of its newest verdict.
        self._details = [""] * len(limits)
        # By the index of the check; None where failures are ignored. `_counted` has the others alone.
        self._thresholds = [None if each.on_fail is OnFail.IGNORE else Threshold(each, now, damping) for each in limits]
        self._counted = [threshold for threshold in self._thresholds if threshold is not None]

    @property
    def suppressed(self) -> int:
        """The number of recoveries that flap damping delayed."""
        return sum(threshold.suppressed for threshold in self._counted)

    def starting(self, check: int, now: float) -> bool:
        """Tell whether the check with that index keeps the endpoint from being published for the first time."""
        threshold = self._thresholds[check]
        return self.state is State.STARTING and threshold is not None and threshold.starting(now)

    def observe(self, check: int, result: Result, now: float) -> bool:
        """Record a result of the check with that index and tell whether the report changed."""
        threshold = self._thresholds[check]
        if self.state is State.DRAINING or threshold is None:
            return False
        # The detail changes with the verdict alone. If it changed with every result, every heartbeat would be a change
        # that the registry has to store and publish.
        if not threshold.observe(result.outcome, now):
            return False
        self._details[check] = result.detail
        return self._join(now)

    def drain(self) -> None:
        """Enter DRAINING, for good."""
        self.state = State.DRAINING

    def _join(self, now: float) -> bool:
        reports = [threshold.report for threshold in self._counted]
        if None in reports:
            return False
        before = self.report
        self.report = max((report for report in reports if report), key=_SEVERITY.index)
        self.state = State(self.report)
        # Of several equally bad checks the first one gives the detail.
        self.detail = self._details[self._thresholds.index(self._counted[reports.index(self.report)])]
        if self.report is not before:
            self._damping.record(now)
        return self.report is not before
