"""The statistics of shifts: by how much a group surely fails more often than the rest.

The group is judged by the lower bound of Wilson's score interval of its ratio of errors (E. B. Wilson, Probable
Inference, 1927), less the ratio of the rest. So three errors of a small group can suffice, and a group that is as good
as the limit is seldom taken back by chance, although the rule is asked at each look.
"""

import math

from msgspec import Struct

MIN_ERRORS = 3
"""Errors of the group below which it is not taken back."""
_Z = 2.33
"""The quantile of the normal distribution for the bound: it is exceeded by chance in 1 of 100."""
_MIN_REST = 50
"""Requests of the rest below which its ratio includes the step before; at 100 % the rest has none."""
_FULL = 100.0


class Counts(Struct, frozen=True, array_like=True):
    """Attempts at endpoints, and those of them that failed, as Envoys count them.

    Attributes:
        requests: the attempts, retries included (``rq_total`` of Envoy's ``/clusters``).
        errors: those that failed (``rq_error``).
    """

    requests: int = 0
    errors: int = 0

    @property
    def ratio(self) -> float:
        """The part that failed; 0 of none."""
        return self.errors / self.requests if self.requests else 0.0

    def since(self, before: "Counts") -> "Counts":
        """Return what is new since earlier counts; nothing where counts fell."""
        return Counts(max(0, self.requests - before.requests), max(0, self.errors - before.errors))

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(self.requests + other.requests, self.errors + other.errors)


def wilson_lower(counts: Counts, z: float = _Z) -> float:
    """Return the lower bound of Wilson's score interval of the ratio of errors; 0 without requests."""
    n = counts.requests
    if n <= 0:
        return 0.0
    ratio = min(1.0, counts.errors / n)
    centre = ratio + z * z / (2 * n)
    spread = z * math.sqrt(ratio * (1 - ratio) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n))


def rest_ratio(rest: Counts, before: Counts) -> float:
    """Return the part of the rest's requests that failed, with those of the step before where there are few."""
    return (rest if rest.requests >= _MIN_REST else rest + before).ratio


def excess_percent(group: Counts, ratio: float) -> float:
    """Return the percentage points by which a group surely fails more often than a ratio; below 0: it does not."""
    return _FULL * (wilson_lower(group) - ratio)
