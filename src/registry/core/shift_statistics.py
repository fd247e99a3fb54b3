"""The statistics of shifts: by how much a group surely fails more often than the rest.

What is known of a ratio of errors is Wilson's score interval (E. B. Wilson, Probable Inference, 1927), and what is
known of the difference of two is made of both intervals (R. G. Newcombe, Interval Estimation for the Difference Between
Independent Proportions, 1998, method 10). So three errors of a small group can suffice, and few requests of the rest
prove nothing against the group. One as good as the limit is seldom taken back by chance, although the rule is asked at
each look.
"""

import math

from msgspec import Struct

MIN_ERRORS = 3
"""Errors of the group below which it is not taken back."""
_Z = 2.33
"""The quantile of the normal distribution for the bound: it is exceeded by chance in 1 of 100."""
_Z_OF_FAILING = 3.0
"""The same where the rest fails too: errors that both groups have give chance more tries."""
_FAILING = 0.005
"""The part of the rest's requests that fail from which it counts as failing."""
_MIN_REST = 50
"""Requests of the rest below which its ratio includes the step before."""
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


def wilson_upper(counts: Counts, z: float = _Z) -> float:
    """Return the upper bound of the same interval; 1 without requests."""
    return 1.0 - wilson_lower(Counts(counts.requests, max(0, counts.requests - counts.errors)), z)


def rest_counts(rest: Counts, before: Counts, percent: float) -> Counts:
    """Return the rest's requests that a group is compared with.

    Those of the step before belong to them where there are few. Where the group has all requests they alone do: what
    the rest still has then was under way when the step began, and so little would prove nothing against the group.

    Args:
        rest: what the rest had in this step.
        before: what it had in the step before.
        percent: the share of the group.
    """
    if percent >= _FULL:
        return before
    return rest if rest.requests >= _MIN_REST else rest + before


def sure_percent(group: Counts, rest: Counts) -> float:
    """Return the percentage of its requests that a group surely fails, in a comparison with the rest.

    It is lower with fewer requests of either.
    """
    z = _Z if rest.ratio < _FAILING else _Z_OF_FAILING
    group_doubt = group.ratio - wilson_lower(group, z)
    # Of a rest without requests nothing is known, and no comparison is made.
    rest_doubt = wilson_upper(rest, z) - rest.ratio if rest.requests else 0.0
    return _FULL * max(0.0, group.ratio - math.hypot(group_doubt, rest_doubt))


def excess_percent(group: Counts, rest: Counts) -> float:
    """Return the percentage points by which a group surely fails more often than the rest; below 0: it does not."""
    return sure_percent(group, rest) - _FULL * rest.ratio
