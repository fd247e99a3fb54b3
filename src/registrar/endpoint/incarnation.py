"""One incarnation of an endpoint: its checks' verdicts joined into a state; pure rules, time is an argument."""

from collections.abc import Sequence

from registrar.checks.flap_damping import FlapDamping
from registrar.checks.result import Result
from registrar.checks.threshold import Limits, OnFail, State, Threshold
from wire.model import Report

_SEVERITY = (Report.HEALTHY, Report.DEGRADED, Report.UNHEALTHY)


class Incarnation:
    """Begins unpublished, is as bad as the worst of its checks, and ends for good with a drain.

    Args:
        limits: one for each check; a check whose failures are ignored is only remembered.
        now: when it begins.
        damping: the endpoint's; it outlives the incarnation, or a restart would wash a flapping app clean.

    Attributes:
        state: what is known.
        report: what may be published: None before every check has a verdict, unchanged from a drain on.
        detail: what the check that decided said when it did.
    """

    def __init__(self, limits: Sequence[Limits], now: float, damping: FlapDamping) -> None:
        self.state = State.STARTING
        self.report: Report | None = None
        self.detail = ""
        self._damping = damping
        self._details = [""] * len(limits)
        self._thresholds = [None if each.on_fail is OnFail.IGNORE else Threshold(each, now, damping) for each in limits]
        self._counted = [one for one in self._thresholds if one is not None]

    @property
    def suppressed(self) -> int:
        """Recoveries that flap damping held back."""
        return sum(threshold.suppressed for threshold in self._counted)

    def starting(self, check: int, now: float) -> bool:
        """Tell whether the check with that index keeps the endpoint from being published for the first time."""
        threshold = self._thresholds[check]
        return self.state is State.STARTING and threshold is not None and threshold.starting(now)

    def observe(self, check: int, result: Result, now: float) -> bool:
        """Take in a result of the check with that index and tell whether the report changed."""
        threshold = self._thresholds[check]
        if self.state is State.DRAINING or threshold is None:
            return False
        # The detail moves with a verdict only: one that changed with each result would make each heartbeat
        # a change that the registry has to publish.
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
        self.report = max((one for one in reports if one), key=_SEVERITY.index)
        self.state = State(self.report)
        # Of several equally bad checks the first one speaks.
        self.detail = self._details[self._thresholds.index(self._counted[reports.index(self.report)])]
        if self.report is not before:
            self._damping.record(now)
        return self.report is not before
