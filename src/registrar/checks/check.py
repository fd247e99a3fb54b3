"""The seam between the types of checks and the rest: options make a check for a target."""

from typing import Annotated, ClassVar, Protocol

from msgspec import Meta, Struct, field

from registrar.checks.inbox import Inbox
from registrar.checks.result import Outcome, Result
from registrar.checks.threshold import Limits, OnFail
from registrar.duration import Duration


class CheckTarget(Struct, frozen=True):
    """What is checked: the advertised address, so that what only loopback reaches is never published.

    Attributes:
        address: an IP literal.
        port: the advertised one.
        service: whose endpoint it is.
        inbox: where push checks get their states from.
    """

    address: str
    port: int
    service: str = ""
    inbox: Inbox = field(default_factory=Inbox)


class Check(Protocol):
    """One probe of one target."""

    async def probe(self) -> Result:
        """Ask once.

        The caller limits the time, and takes OSError, TimeoutError and ValueError for failures.
        """


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """What every type of check takes.

    Attributes:
        unanswered: what it means when the probe got no answer.
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
            description="What failures amount to: unhealthy (out of rotation), degraded (Envoy prefers others, "
            "and comes back to it when those are too few) or ignore (shown by `registrar status` only). Use "
            "degraded for what all instances share, like a database: it must not take all of them out."
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
            raise ValueError(f"interval {self.interval} is shorter than 10ms")
        if not 0 < self.probe_timeout < self.interval:
            raise ValueError(f"timeout {self.timeout} must be shorter than interval {self.interval}")

    @property
    def probe_timeout(self) -> float:
        """Seconds that one probe may take."""
        return min(1.0, self.interval / 2) if self.timeout is None else self.timeout

    @property
    def limits(self) -> Limits:
        """The part of the options that the state machine needs."""
        return Limits(self.healthy_threshold, self.unhealthy_threshold, self.startup_grace, self.on_fail)

    @property
    def failure_note(self) -> str:
        """What the detail of a probe that did not pass says at its end, or nothing."""
        return ""

    def check(self, target: CheckTarget) -> Check:
        """Return the check of this type for ``target``."""
        raise NotImplementedError
