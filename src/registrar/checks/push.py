"""The push check: the app pushes its state through the local admin API; silence counts as a failure."""

import time
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.result import Outcome, Result
from registrar.duration import Duration


class PushOptions(Options, frozen=True, tag="push"):
    """The options of the push check."""

    ttl: Annotated[
        Duration,
        Meta(
            description="Seconds for which a pushed state holds; an app that pushes nothing for that long fails. At "
            "least twice the pause between its pushes."
        ),
    ] = Duration(30)
    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{0,64}$(?!\n)",
            description="Tells several push checks of one service apart; part of the path that the app PUTs to.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ttl < self.interval:
            raise ValueError(f"ttl {self.ttl} must not be shorter than interval {self.interval}")

    def check(self, target: CheckTarget) -> Check:
        """Return the check with these options, registered for the states of the target's service."""
        check = PushCheck(self.ttl)
        target.inbox.register(target.service, self.name, check)
        return check


class PushCheck:
    """Keeps the newest pushed state; each probe returns it, so the thresholds count it once an interval."""

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        # The newest state and its monotonic time; None before the first push.
        self._newest: tuple[float, Result] | None = None

    def receive(self, state: Outcome, detail: str) -> None:
        """Record the newest state."""
        self._newest = self._clock(), Result(state, detail or f"the app pushed {state}")

    async def probe(self) -> Result:
        """Return the newest state, or FAILED if it is older than the ttl."""
        if self._newest is None:
            return Result(Outcome.FAILED, "the app has not pushed anything yet")
        at, result = self._newest
        if self._clock() - at > self._ttl:
            return Result(Outcome.FAILED, f"the app has pushed nothing for {self._ttl:g}s")
        return result
