"""The interface of all types of checks: options create a check for a target."""

from typing import Annotated, ClassVar, Protocol

from msgspec import Meta, Struct, field

from registrar.checks.inbox import Inbox
from registrar.checks.result import Outcome, Result
from registrar.checks.threshold import OnFail, ThresholdLimits
from registrar.duration import Duration


class CheckTarget(Struct, frozen=True):
    """The target of a check: the advertised address, so that an app that listens on loopback alone fails.

    Attributes:
        address: the advertised address, an IP literal.
        port: the advertised port.
        service: the name of the service.
        inbox: the inbox of pushed states.
    """

    address: str
    port: int
    service: str = ""
    inbox: Inbox = field(default_factory=Inbox)


class Check(Protocol):
    """The interface of a check of one target."""

    async def probe(self) -> Result:
        """Probe the target once and return the result.

        The caller sets a timeout, and counts OSError, TimeoutError and ValueError as failures.
        """


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """The options that every type of check has.

    Attributes:
        unanswered: the outcome of a probe without a response.
    """

    unanswered: ClassVar[Outcome] = Outcome.FAILED

    interval: Annotated[
        Duration,
        Meta(
            description="Seconds from the start of one check to the next. Shorter finds a dead endpoint "
            "earlier (unhealthy_threshold times this, plus one timeout) and costs the app more requests."
        ),
    ] = Duration(2)
    timeout: Annotated[
        Duration | None,
        Meta(
            description="Seconds after which an unanswered check has failed; shorter than the interval. "
            "Unset: 1s, or half of an interval below 2s. Too short fails a slow but living app."
        ),
    ] = None
    healthy_threshold: Annotated[
        int,
        Meta(ge=1, le=100, description="Passes in a row that publish an endpoint as HEALTHY."),
    ] = 2
    unhealthy_threshold: Annotated[
        int,
        Meta(ge=1, le=100, description="Failures in a row that publish an endpoint as UNHEALTHY."),
    ] = 3
    on_fail: Annotated[
        OnFail,
        Meta(
            description="Effect of failures: unhealthy (out of rotation), degraded (Envoy prefers others, "
            "and comes back to it when those are too few) or ignore (shown by `registrar status` only). Use "
            "degraded for a dependency that all instances share, like a database: its failure must not take out all."
        ),
    ] = OnFail.UNHEALTHY
    startup_grace: Annotated[
        Duration,
        Meta(
            description="Seconds after the registrar's start in which failures do not count and an endpoint "
            "that never passed stays unpublished. Too short publishes a slow starter as UNHEALTHY."
        ),
    ] = Duration(120)
    jitter: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of the interval by which a pause is shortened at random."),
    ] = 0.1

    def __post_init__(self) -> None:
        if self.interval < 0.01:
            raise ValueError(f"interval {self.interval} must be at least 10ms")
        if not 0 < self.probe_timeout < self.interval:
            raise ValueError(f"timeout {self.timeout} must be longer than 0s and shorter than interval {self.interval}")

    @property
    def probe_timeout(self) -> float:
        """The timeout of one probe in seconds: as configured, or else 1 s or half of a shorter interval."""
        return min(1.0, self.interval / 2) if self.timeout is None else self.timeout

    @property
    def limits(self) -> ThresholdLimits:
        """The options that the state machine needs."""
        return ThresholdLimits(self.healthy_threshold, self.unhealthy_threshold, self.startup_grace, self.on_fail)

    @property
    def failure_note(self) -> str:
        """A note for the detail of each result that is not a pass; empty without one."""
        return ""

    def check(self, target: CheckTarget) -> Check:
        """Return the check with these options for ``target``."""
        raise NotImplementedError
