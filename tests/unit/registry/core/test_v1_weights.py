"""Shares of traffic as weights of Envoy's v1 schema, over any endpoints and any shares."""

from collections import Counter, defaultdict
from random import Random

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.core.test_shares import apply_shares, at, listed, of, shares

from registry.core.endpoint import Endpoint
from registry.core.shares import Share, census_of, grouping
from registry.core.v1_weights import MAX_V1_WEIGHT, V1Group, v1_differences, v1_groups, v1_weights


def crowd(olds: int, canaries: int) -> dict[tuple[str, int], Endpoint]:
    """Return endpoints of revision a, and of b, which is the canaries'."""
    return at(*(of(number, "b" if number > olds else "a") for number in range(1, olds + canaries + 1)))


def served(
    endpoints: dict[tuple[str, int], Endpoint], groups: tuple[Share, ...]
) -> tuple[dict[int, int], list[Endpoint]]:
    """Return the v1 weights of endpoints under shares, and those that may have one."""
    routable = [endpoint for endpoint in apply_shares(endpoints, groups).values() if endpoint.routable]
    return v1_weights(routable, groups), routable


@pytest.mark.parametrize(
    ("olds", "canaries", "percent"),
    [(30, 1, 90), (30, 1, 99), (3, 30, 1), (10, 30, 1), (2, 1, 10), (1, 1, 0.5), (500, 500, 0.1), (95, 3, 50)],
)
def test_a_share_is_met_within_a_percent(olds: int, canaries: int, percent: float) -> None:
    """Also where one endpoint of a group has hundreds of times the requests of one of the other."""
    groups = (Share("revision=b", percent),)
    weights, routable = served(crowd(olds, canaries), groups)
    group_of = grouping(groups)
    of_canaries = sum(weights.get(endpoint.id, 0) for endpoint in routable if group_of(endpoint) == 0)
    assert abs(100 * of_canaries / sum(weights.values()) - percent) < 1


@given(listed, shares)
@examples(200)
def test_each_group_is_within_a_hundredth_of_an_endpoint_of_its_share(
    endpoints: dict[tuple[str, int], Endpoint], groups: tuple[Share, ...]
) -> None:
    """And within two where it would keep less than two endpoints; no weight is out of the schema's bounds."""
    weights, routable = served(endpoints, groups)
    assert set(weights.values()) <= set(range(1, MAX_V1_WEIGHT + 1))
    heaviest = max((endpoint.share_weight or 0 for endpoint in routable), default=0)
    members = defaultdict(list)
    for endpoint in routable:
        members[grouping(groups)(endpoint)].append(endpoint)
    for group in members.values():
        exact = sum(MAX_V1_WEIGHT * (endpoint.share_weight or 0) / heaviest for endpoint in group)
        given_weights = [weights[endpoint.id] for endpoint in group if endpoint.id in weights]
        assert len(given_weights) >= min(2, len(group))
        assert abs(sum(given_weights) - exact) <= (2 if len(given_weights) == 2 else 1) + 1e-9
        assert len(given_weights) == len(group) or sum(given_weights) + len(group) - len(given_weights) > exact + 1
        for endpoint in group:
            part = MAX_V1_WEIGHT * (endpoint.share_weight or 0) / heaviest
            assert abs(weights.get(endpoint.id, 0) - part) <= 1


@given(listed, shares, st.randoms(use_true_random=False))
@examples(100)
def test_what_is_told_is_what_is_served(
    endpoints: dict[tuple[str, int], Endpoint], groups: tuple[Share, ...], random: Random
) -> None:
    """The percentages of groups are those of the weights, which are the same in any order of the endpoints."""
    weights, routable = served(endpoints, groups)
    random.shuffle(routable)
    assert v1_weights(routable, groups) == weights
    sums, numbers = Counter[int](), Counter[int]()
    for endpoint in routable:
        number = grouping(groups)(endpoint)
        sums[number] += weights.get(endpoint.id, 0)
        numbers[number] += endpoint.id in weights
    told = v1_groups(census_of(endpoints.values(), groups))
    assert [group.listed for group in told] == [numbers[number] for number in range(len(told))]
    whole = sum(weights.values()) or 1
    assert [group.percent for group in told] == pytest.approx(
        [100 * sums[number] / whole for number in range(len(told))]
    )


def test_one_more_endpoint_changes_little_of_who_is_left_out() -> None:
    """Another set with each registration would move users, and an Envoy would close connections."""
    groups = (Share("revision=b", 90),)
    fewer, _ = served(crowd(30, 1), groups)
    more, _ = served(at(*crowd(30, 1).values(), of(40)), groups)
    assert len(fewer) == 12
    assert len(fewer.keys() - more.keys()) <= 1


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (V1Group("", 2.0, 0.1, 2, 30), "the rest gets 2 % there in place of 0.1 %, by 2 of its 30 endpoints"),
        (V1Group("revision=b", 98.04, 99.9, 1, 1), "revision=b gets 98 % there in place of 99.9 %"),
        (V1Group("revision=b", 1.0, 1.0, 3, 30), "of revision=b only 3 of 30 endpoints are listed there"),
        (V1Group("revision=b", 9.91, 10.0, 1, 1), ""),
    ],
)
def test_what_differs_from_v2_and_v3_is_told(group: V1Group, words: str) -> None:
    """More than a percent of all requests, and endpoints that are left out."""
    assert v1_differences([V1Group("", 50.0, 50.0, 1, 1), group]) == words
