"""The rules of a registrar's probes: when it has a say about a suspect, and what its attempts come to.

They are those of ``registry.core.probing``, for one registrar. It has a say about a suspect only if it connected to
that incarnation within the last 15 minutes while it was healthy (the base line), and if both controls connect in each
round of attempts. A connection says something in any case. Times are seconds of the loop's clock and are given.
"""

from collections.abc import Collection, Sequence
from typing import Literal

from msgspec import Struct

from wire.probe_request import ProbeSuspect, ProbeTarget
from wire.tcp_probe import Outcome

MAX_BASE_LINE_AGE = 900.0
"""Seconds for which a connection to a healthy endpoint gives a say about it."""
BASE_LINE_INTERVAL = 120.0
"""Seconds between two connections to a healthy endpoint at least, however often a registry asks."""
MAX_BASE_LINES = 200
"""Endpoints whose base line is kept; the oldest are forgotten."""
MUTE_SECONDS = 30.0
"""Seconds for which the registrar has no say after a control failed."""
ROUNDS = 3
"""Attempts at a suspect, all of which have to end in the same way."""
REFUSED_SPACING = 1.1
"""Seconds between the begins of two rounds while nothing times out; at least 1 s has to lie between two refusals."""
TIMED_OUT_SPACING = 2.1
"""Seconds between the begins of two rounds after a time-out; three time-outs have to take at least 5 s."""

Said = Literal["refused", "unreachable", "connected"]


class Conclusion(Struct, frozen=True):
    """The result of the attempts at a suspect, and when the last of them ended."""

    outcome: Said
    attempts: int
    at: float


class ProbeRecord:
    """The endpoints that one registrar has connected to."""

    def __init__(self) -> None:
        # By endpoint: the incarnation and when it was last reached, the oldest first. Bounded by MAX_BASE_LINES.
        self._base_lines: dict[str, tuple[int, float]] = {}
        # The registrar has no say before this time, because a control failed.
        self._muted_until = float("-inf")

    def due(self, targets: Sequence[ProbeTarget], now: float) -> list[ProbeTarget]:
        """Return the endpoints to try for the base line now."""
        return [target for target in targets if not self._reached_within(target, BASE_LINE_INTERVAL, now)]

    def reached(self, target: ProbeTarget, now: float) -> None:
        """Record a connection to a healthy endpoint."""
        self._base_lines.pop(target.endpoint, None)
        self._base_lines[target.endpoint] = (target.incarnation, now)
        while len(self._base_lines) > MAX_BASE_LINES:
            del self._base_lines[next(iter(self._base_lines))]

    def reached_at(self, suspect: ProbeSuspect) -> float | None:
        """Return when this incarnation of a suspect was reached; None: never."""
        incarnation, at = self._base_lines.get(suspect.endpoint, (0, 0.0))
        return at if incarnation == suspect.incarnation else None

    def has_base_line(self, suspect: ProbeSuspect, now: float) -> bool:
        """Return whether a suspect was reached lately enough to have a say about it."""
        at = self.reached_at(suspect)
        return at is not None and now - at <= MAX_BASE_LINE_AGE

    def is_muted(self, now: float) -> bool:
        """Return whether a control failed lately."""
        return now < self._muted_until

    def control_failed(self, now: float) -> None:
        """Record that a control did not connect: the fault may be the registrar's own network."""
        self._muted_until = now + MUTE_SECONDS

    def _reached_within(self, target: ProbeTarget, seconds: float, now: float) -> bool:
        incarnation, at = self._base_lines.get(target.endpoint, (0, float("-inf")))
        return incarnation == target.incarnation and now - at < seconds


def spacing(outcomes: Collection[Outcome]) -> float:
    """Return the seconds between the begins of two rounds, by the outcomes of the last one."""
    return TIMED_OUT_SPACING if "timed_out" in outcomes else REFUSED_SPACING


def conclude(attempts: Sequence[tuple[Outcome, float]]) -> Conclusion | None:
    """Return what the attempts at a suspect come to, each with the time of its end; None: nothing.

    A connection is told at once. A mixture says nothing, nor does anything but a reset or a time-out.
    """
    if attempts and attempts[-1][0] == "connected":
        return Conclusion("connected", 1, attempts[-1][1])
    outcomes = {outcome for outcome, _ in attempts}
    if len(attempts) < ROUNDS or len(outcomes) != 1:
        return None
    match outcomes.pop():
        case "refused":
            return Conclusion("refused", len(attempts), attempts[-1][1])
        case "timed_out":
            return Conclusion("unreachable", len(attempts), attempts[-1][1])
        case _:
            return None
