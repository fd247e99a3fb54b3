"""The mass-expiry guard: many leases that lapse at once say more about the network than about the endpoints.

In a window only a share of a service's endpoints, and of all, may lapse. The rest stay served as suspects, for
a bounded time: a guard without an end keeps the dead for ever.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

GUARD_WINDOW = 60.0
"""Seconds over which lapses are counted."""
SERVICE_SHARE = 0.20
TOTAL_SHARE = 0.15


EVERYWHERE = "*"
"""The scope of a pause that holds for every service."""


class Candidate(Struct, frozen=True, gc=False):
    """An endpoint whose lease has expired and that is still served; ``suspect`` once the guard has said so."""

    endpoint_id: int
    service: str
    expired_at: float
    suspect: bool = False


class Pause(Struct, frozen=True):
    """An operator's word that nothing is to lapse for a while, in one service or everywhere."""

    scope: str
    actor: str
    reason: str
    since: float
    until: float


class GuardDecision(Struct, frozen=True):
    """Which candidates lapse now, and which stay served, each with the reason."""

    lapse: list[Candidate]
    hold: list[tuple[Candidate, str]]


def evaluate_guard(
    candidates: Iterable[Candidate],
    live: Mapping[str, int],
    lapsed_lately: Mapping[str, int],
    pauses: Mapping[str, Pause],
    now: float,
    longest_hold: float,
    passed_over: Collection[str] = (),
) -> GuardDecision:
    """Decide which candidates may lapse now, the longest expired first.

    Args:
        candidates: endpoints with an expired lease.
        live: for each service, how many endpoints have not lapsed, candidates included.
        lapsed_lately: for each service, how many lapsed within the window.
        pauses: those in force, by scope.
        now: the time on the clock of ``expired_at``.
        longest_hold: seconds after which a suspect lapses whatever the shares say.
        passed_over: services that could not be swept lately. They come last, so that what cannot lapse takes no share
            from what can.
    """
    limits = _Limits(live, lapsed_lately)
    judgement = GuardDecision([], [])
    in_turn = sorted(candidates, key=lambda one: (one.service in passed_over, one.expired_at, one.endpoint_id))
    for candidate in in_turn:
        pause = pauses.get(candidate.service) or pauses.get(EVERYWHERE)
        if pause is not None:
            judgement.hold.append((candidate, f"expiry is paused by {pause.actor}: {pause.reason}"))
            continue
        overdue = now - candidate.expired_at >= longest_hold
        full = None if overdue else limits.full(candidate.service)
        if full is None:
            limits.spend(candidate.service)
            judgement.lapse.append(candidate)
        else:
            judgement.hold.append((candidate, full))
    return judgement


def removals_allowed(live: int, lately: int) -> int:
    """Return how many more of ``live`` endpoints of one service may leave in this window, ``lately`` having left."""
    return max(0, _limit(SERVICE_SHARE, live + lately) - lately)


def _limit(share: float, total: int) -> int:
    return max(1, int(share * total))


class _Limits:
    """How many may still lapse in this window, of each service and of all."""

    def __init__(self, live: Mapping[str, int], lapsed_lately: Mapping[str, int]) -> None:
        self._spent = Counter(lapsed_lately)
        self._of = Counter(live) + self._spent
        self._total_spent = sum(self._spent.values())
        self._total_limit = _limit(TOTAL_SHARE, sum(self._of.values()))

    def full(self, service: str) -> str | None:
        """Say which limit is used up, or None."""
        limit = _limit(SERVICE_SHARE, self._of[service])
        if self._spent[service] >= limit:
            return f"{self._spent[service]} of {self._of[service]} of the service lapsed within {GUARD_WINDOW:g} s"
        if self._total_spent >= self._total_limit:
            return f"{self._total_spent} of {sum(self._of.values())} of all endpoints lapsed within {GUARD_WINDOW:g} s"
        return None

    def spend(self, service: str) -> None:
        """Count a lapse."""
        self._spent[service] += 1
        self._total_spent += 1
