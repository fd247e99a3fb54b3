"""Shares of traffic as weights of Envoy's v1 schema: whole numbers from 1 to 100, and nothing finer.

The heaviest endpoint weighs 100. Rounding each endpoint by itself would add up over a group: thirty endpoints at the
least weight have 30 beside a canary of 100, where a share of 90 % leaves them 11. So a group as a whole is rounded, and
the sum is divided among its endpoints. Where the sum is smaller than the number of endpoints, some are left out: each
of those had less than a hundredth of the requests of the heaviest, so the others hardly notice. Nobody is left out to
gain less than one hundredth of an endpoint, and a group keeps two endpoints, so that one may die.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.shares import Share, ShareCensus, grouping

MAX_V1_WEIGHT = 100
"""The largest load balancing weight that Envoy's v1 schema allows."""
_KEPT = 2
"""The endpoints that a group keeps, where it has as many."""
_MIXER = 2_654_435_769
"""2**32 divided by the golden ratio: multiples of it are spread evenly (Knuth's multiplicative hashing)."""
_MISSED = 1.0
"""The difference in percent of all requests at which what a group gets by v1 is worth a word."""


class V1Group(Struct, frozen=True):
    """A group of endpoints as clients of v1 see it.

    Attributes:
        selector: the group; empty for the rest.
        percent: the percentage of the requests that its weights give it.
        wanted: the one that it gets by v2 and v3.
        listed: the number of its endpoints in the answer.
        routable: the number of those that might be in it.
    """

    selector: str
    percent: float
    wanted: float
    listed: int
    routable: int

    @property
    def in_words(self) -> str:
        """The difference from v2 and v3 as a clause for people; empty: there is none."""
        group = self.selector or "the rest"
        if abs(self.percent - self.wanted) > _MISSED:
            listed = "" if self.listed == self.routable else f", by {self.listed} of its {self.routable} endpoints"
            return f"{group} gets {self.percent:.3g} % there in place of {self.wanted:.3g} %{listed}"
        if self.listed < self.routable:
            return f"of {group} only {self.listed} of {self.routable} endpoints are listed there"
        return ""


def v1_weights(endpoints: Sequence[Endpoint], groups: Sequence[Share]) -> dict[int, int]:
    """Return the v1 weights of endpoints of a service under shares, by their ids; those without one are left out.

    It is the same in every process: which endpoints are left out depends on their ids alone, those of the database.

    Args:
        endpoints: the routable ones that an answer is about.
        groups: the shares.
    """
    group_of = grouping(groups)
    members: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for endpoint in endpoints:
        if endpoint.share_weight:
            members[group_of(endpoint)][endpoint.share_weight].append(endpoint.id)
    heaviest = max((weight for group in members.values() for weight in group), default=0)
    weights: dict[int, int] = {}
    for group in members.values():
        weights |= _divided(group, heaviest)
    return weights


def v1_groups(census: ShareCensus) -> list[V1Group]:
    """Return the groups of a service as clients of v1 see them, with the rest as the last one."""
    weights = census.routable_weights
    heaviest = max((weight for of_group in weights for weight in of_group), default=0)
    sums = [_sum(of_group, heaviest) for of_group in weights]
    whole = sum(total for total, _ in sums) or 1
    return [
        V1Group(group.selector, 100 * total / whole, group.effective, listed, sum(of_group.values()))
        for group, of_group, (total, listed) in zip(census.served, weights, sums, strict=True)
    ]


def v1_differences(groups: Iterable[V1Group]) -> str:
    """Return in words what clients of v1 get otherwise than those of v2 and v3; empty: the shares are met."""
    return "; ".join(filter(None, (group.in_words for group in groups)))


def _divided(members: Mapping[int, Sequence[int]], heaviest: int) -> dict[int, int]:
    """Return the v1 weights of a group's endpoints by their ids.

    Args:
        members: the ids of its endpoints by their weights of v2 and v3.
        heaviest: the greatest such weight of any group.
    """
    total, _ = _sum({weight: len(ids) for weight, ids in members.items()}, heaviest)
    parts = [(*divmod(MAX_V1_WEIGHT * weight, heaviest), ids) for weight, ids in members.items()]
    rounded_up = total - sum(whole * len(ids) for whole, _, ids in parts)
    weights: dict[int, int] = {}
    # Those that would be left out come first, and then the greatest remainders.
    for whole, _, ids in sorted(parts, key=lambda part: (part[0] > 0, -part[1])):
        # Few groups need an order; it would cost a large service milliseconds.
        chosen = sorted(ids, key=_mixed) if 0 < rounded_up < len(ids) else ids
        weights |= dict.fromkeys(chosen[:rounded_up], whole + 1)
        if whole:
            weights |= dict.fromkeys(chosen[rounded_up:], whole)
        rounded_up = max(0, rounded_up - len(ids))
    return weights


def _mixed(endpoint_id: int) -> int:
    """Return the place of an endpoint among its equals.

    It depends on nothing else, so that few endpoints change places when one comes or goes; and neighbours, which are
    often of one zone, are far from each other.
    """
    return endpoint_id * _MIXER % 2**32


def _sum(weights: Mapping[int, int], heaviest: int) -> tuple[int, int]:
    """Return the sum of a group's weights, and how many of its endpoints have any.

    It differs from the exact sum by 1 at most, or by 2 where that would leave fewer than `_KEPT` endpoints.

    Args:
        weights: how many of its endpoints have each weight of v2 and v3.
        heaviest: the greatest such weight of any group.
    """
    if not weights:
        return 0, 0
    exact = sum(MAX_V1_WEIGHT * weight * number for weight, number in weights.items())
    rounded = (2 * exact + heaviest) // (2 * heaviest)
    wholes = sum(MAX_V1_WEIGHT * weight // heaviest * number for weight, number in weights.items())
    light = sum(number for weight, number in weights.items() if MAX_V1_WEIGHT * weight < heaviest)
    endpoints = sum(weights.values())
    with_all = max(rounded, wholes + light)
    if with_all * heaviest <= exact + heaviest:
        return with_all, endpoints
    kept = max(0, min(endpoints, _KEPT) - (endpoints - light))
    total = max(rounded, wholes + kept)
    return total, endpoints - light + min(light, total - wholes)
