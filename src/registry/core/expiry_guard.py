"""The mass-expiry guard decides how many endpoints may lapse at once; its limits are here and nowhere else.

Many leases that expire together say more about the network than about the endpoints. So within ``GUARD_WINDOW`` only a
share of a service's endpoints (``SERVICE_SHARE``), and of all endpoints (``TOTAL_SHARE``), may lapse. The others stay
served as suspects, until ``REGISTRY_LAST_ENDPOINT_HOLD`` has passed. ``removals_allowed`` applies the limit of a
service to deregistrations by operators.

The rule follows Netflix Eureka, whose self-preservation mode stops evictions once more than 15 % of the expected
renewals are missing. Unlike there, each service has a limit of its own, and suspects lapse in the end, because a guard
without an end would keep dead endpoints for ever.

Evidence about an endpoint (``registry.core.evidence``) lets it lapse beyond the shares: the platform's word without a
limit, two probers that are refused up to ``STRONG_SHARE`` of its service, and weaker evidence up to ``WEAK_SHARE``. It
lets nobody lapse during a pause, holds nobody longer, and takes no share from the endpoints that lapse without it.

``registry.background.sweeper`` calls it with what ``registry.store.leases`` has read, and applies the decision by
``registry.core.changeset`` (``lapse``, ``suspect``).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from registry.core.evidence import NO_EVIDENCE, Evidence, Sureness

GUARD_WINDOW = 60.0
"""Seconds over which lapses are counted."""
SERVICE_SHARE = 0.20
"""The share of a service's endpoints that may lapse within the window; at least one endpoint may."""
TOTAL_SHARE = 0.15
"""The share of all endpoints that may lapse within the window, as in Eureka; at least one endpoint may."""
STRONG_SHARE = 0.50
"""The share of a service's endpoints up to which those may lapse that two probers found refusing."""
WEAK_SHARE = 2 * SERVICE_SHARE
"""The share of a service's endpoints up to which those may lapse about which there is weak evidence."""

EVERYWHERE = "*"
"""The scope of a pause that holds for every service."""


class Candidate(Struct, frozen=True, gc=False):
    """An endpoint whose lease has expired and that is still served.

    Attributes:
        endpoint_id: its id.
        service: its service.
        expired_at: when its lease expired.
        suspect: whether the guard has held it before.
        evidence: the evidence of whether it is dead.
        address: its address.
        port: its port.
        incarnation: the incarnation of its instance.
    """

    endpoint_id: int
    service: str
    expired_at: float
    suspect: bool = False
    evidence: Evidence = NO_EVIDENCE
    address: str = ""
    port: int = 0
    incarnation: int = 0


class Pause(Struct, frozen=True):
    """A pause of expiry by an operator: until its end no endpoint lapses, in one service or everywhere."""

    scope: str
    actor: str
    reason: str
    since: float
    until: float


class GuardDecision(Struct, frozen=True):
    """The guard's decision: the candidates that lapse now, and those that stay served, each with the reason."""

    lapse: list[Candidate]
    hold: list[tuple[Candidate, str]]


def evaluate_guard(
    candidates: Iterable[Candidate],
    live: Mapping[str, int],
    lapsed_recently: Mapping[str, int],
    pauses: Mapping[str, Pause],
    now: float,
    max_hold: float,
    skipped_services: Collection[str] = (),
) -> GuardDecision:
    """Decide which candidates may lapse now, the longest expired first.

    Args:
        candidates: endpoints with an expired lease.
        live: for each service, the number of endpoints that have not lapsed, candidates included.
        lapsed_recently: for each service, the number of endpoints that lapsed within the window.
        pauses: the pauses in force, by scope.
        now: the time on the clock of ``expired_at``.
        max_hold: seconds after which a suspect lapses regardless of the shares.
        skipped_services: services that PostgreSQL lately refused to change. They come last, so that endpoints that
            cannot lapse use up none of the limit for those that can.
    """
    limits = _Limits(live, lapsed_recently)
    decision = GuardDecision([], [])
    in_order = sorted(
        candidates,
        key=lambda candidate: (candidate.service in skipped_services, candidate.expired_at, candidate.endpoint_id),
    )
    silent = []
    for candidate in in_order:
        pause = pauses.get(candidate.service) or pauses.get(EVERYWHERE)
        if pause is not None:
            decision.hold.append((candidate, f"expiry is paused by {pause.actor}: {pause.reason}"))
            continue
        overdue = now - candidate.expired_at >= max_hold
        used_up = None if overdue else limits.used_up(candidate.service)
        if used_up is None:
            limits.count_lapse(candidate.service)
            decision.lapse.append(candidate)
        else:
            silent.append((candidate, used_up))
    # After all others, so that evidence takes nothing from an endpoint that would lapse without any.
    for candidate, used_up in silent:
        exceeded = limits.used_up_by_evidence(candidate.service, candidate.evidence.sure, used_up)
        if exceeded is None:
            limits.count_lapse(candidate.service)
            decision.lapse.append(candidate)
        else:
            decision.hold.append((candidate, exceeded))
    return decision


def removals_allowed(live: int, left_recently: int) -> int:
    """Return how many of a service's ``live`` endpoints may still leave after ``left_recently`` left in the window."""
    return max(0, _limit(SERVICE_SHARE, live + left_recently) - left_recently)


def _limit(share: float, total: int) -> int:
    return max(1, int(share * total))


_SHARES: Mapping[Sureness, float] = {"strong": STRONG_SHARE, "weak": WEAK_SHARE}


class _Limits:
    """The endpoints that may still lapse in the window, counted for each service and for all."""

    def __init__(self, live: Mapping[str, int], lapsed_recently: Mapping[str, int]) -> None:
        # By service: the endpoints that lapsed in the window, those that this sweep lets lapse included.
        self._lapsed = Counter(lapsed_recently)
        # By service: the endpoints that the shares are taken of.
        self._population = Counter(live) + self._lapsed
        self._total_lapsed = sum(self._lapsed.values())
        self._total_limit = _limit(TOTAL_SHARE, sum(self._population.values()))

    def used_up(self, service: str) -> str | None:
        """Return which limit is used up, in words; None: the endpoint may lapse."""
        limit = _limit(SERVICE_SHARE, self._population[service])
        if self._lapsed[service] >= limit:
            lapsed = f"{self._lapsed[service]} of {self._population[service]} of the service"
            return f"{lapsed} lapsed within {GUARD_WINDOW:g} s, limit {100 * SERVICE_SHARE:g} %"
        if self._total_lapsed >= self._total_limit:
            lapsed = f"{self._total_lapsed} of {sum(self._population.values())} of all endpoints"
            return f"{lapsed} lapsed within {GUARD_WINDOW:g} s, limit {100 * TOTAL_SHARE:g} %"
        return None

    def used_up_by_evidence(self, service: str, sure: Sureness, used_up: str) -> str | None:
        """Return which limit is used up for an endpoint about which there is evidence; None: the endpoint may lapse.

        The share of all endpoints does not matter: evidence is of one endpoint, and not of the network.

        Args:
            service: its service.
            sure: how sure the evidence is.
            used_up: the limit that holds it without evidence.
        """
        if sure == "certain":
            return None
        share = _SHARES.get(sure)
        if share is None or self._lapsed[service] >= _limit(share, self._population[service]):
            return used_up
        return None

    def count_lapse(self, service: str) -> None:
        """Count a lapse."""
        self._lapsed[service] += 1
        self._total_lapsed += 1
