"""The mass-expiry guard: many leases that lapse at once say more about the network than about the endpoints.

In a window only a share of a service's endpoints, and of all, may lapse. The rest stay served as suspects, for
a bounded time: a guard without an end keeps the dead for ever.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

WINDOW = 60.0
"""Seconds over which lapses are counted."""
SERVICE_SHARE = 0.20
TOTAL_SHARE = 0.15


class Candidate(Struct, frozen=True, gc=False):
    """An endpoint whose lease has expired and that is still served."""

    endpoint_id: int
    service: str
    expired_at: float


def allowed_to_lapse(
    candidates: Iterable[Candidate],
    live: Mapping[str, int],
    lapsed_lately: Mapping[str, int],
    now: float,
    longest_hold: float,
) -> list[Candidate]:
    """Return the candidates that may lapse now, the longest expired first.

    Args:
        candidates: endpoints with an expired lease.
        live: for each service, how many endpoints have not lapsed, candidates included.
        lapsed_lately: for each service, how many lapsed within the window.
        now: the time on the clock of ``expired_at``.
        longest_hold: seconds after which a suspect lapses whatever the shares say.
    """
    spent = Counter(lapsed_lately)
    total_spent = sum(spent.values())
    total_limit = max(1, int(TOTAL_SHARE * (sum(live.values()) + total_spent)))
    allowed = []
    for candidate in sorted(candidates, key=lambda one: (one.expired_at, one.endpoint_id)):
        service = candidate.service
        service_limit = max(1, int(SERVICE_SHARE * (live.get(service, 0) + lapsed_lately.get(service, 0))))
        overdue = now - candidate.expired_at >= longest_hold
        if overdue or (spent[service] < service_limit and total_spent < total_limit):
            spent[service] += 1
            total_spent += 1
            allowed.append(candidate)
    return allowed
