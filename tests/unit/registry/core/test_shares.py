"""Shares of traffic: the weights that groups get, over any endpoints and any shares."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.core.endpoint import Endpoint, Override
from registry.core.endpoint_table import EndpointTable
from registry.core.shares import (
    MAX_GROUPS,
    WHOLE,
    GroupShare,
    Share,
    Shares,
    check_shares,
    groups_in,
    misleading_shares,
    released_groups,
    share_of,
    share_table,
    shares_in_words,
)
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.errors import InvalidError
from wire.model import Health, Report

REVISIONS = ["a", "b", "c"]


def of(number: int, revision: str = "a", **fields: Any) -> Endpoint:
    """Return an endpoint of a revision."""
    return endpoint(number, stored=registration(f"i-{number}", revision=revision, **fields))


def at(*endpoints: Endpoint) -> dict[tuple[str, int], Endpoint]:
    """Return endpoints by their address, as a snapshot has them."""
    return {(each.address, each.port): each for each in endpoints}


def apply_shares(
    endpoints: dict[tuple[str, int], Endpoint], groups: tuple[Share, ...]
) -> dict[tuple[str, int], Endpoint]:
    """Return endpoints with the weights of shares, all of them looked at."""
    table = EndpointTable(endpoints.values())
    for _ in share_table(table, groups, lambda _endpoint, _number: None):
        pass
    return dict(table.items())


listed = st.lists(
    st.builds(
        lambda number, revision, health, weight, drained: endpoint(
            number,
            stored=registration(f"i-{number}", revision=revision, health=health, weight=weight, draining=drained),
        ),
        st.integers(1, 400),
        st.sampled_from(REVISIONS),
        st.sampled_from(list(Report)),
        st.none() | st.integers(1, 10_000),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=12,
    unique_by=lambda each: each.id,
).map(lambda endpoints: at(*endpoints))
percentages = st.integers(0, 100) | st.floats(0, 100).map(lambda percent: round(percent, 2))
shares = (
    st.dictionaries(st.sampled_from([f"revision={revision}" for revision in REVISIONS]), percentages, min_size=1)
    .filter(lambda groups: sum(groups.values()) <= 100)
    .map(lambda groups: tuple(Share(selector, percent) for selector, percent in groups.items()))
)


SMALL = (Share("revision=b", 0.01),)


@given(listed, shares)
@examples(300)
def test_each_group_gets_its_share_of_what_is_routable(
    endpoints: dict[tuple[str, int], Endpoint], groups: tuple[Share, ...]
) -> None:
    """Within rounding, by the weights of what Envoy may send to; what is published can be published."""
    shared = apply_shares(endpoints, groups)
    assert shared.keys() == endpoints.keys()
    given_percent = {share.selector: share.percent for share in groups}
    rest = max(0.0, 100 - sum(given_percent.values()))
    weights: defaultdict[str, int] = defaultdict(int)
    for each in shared.values():
        selector = f"revision={each.registration.revision}"
        percent = given_percent.get(selector, rest)
        assert each.weight is None or each.weight >= 1
        if percent < 1e-9:
            assert not each.routable
            assert each.status is (
                Health.UNHEALTHY if each.registration.health is Report.UNHEALTHY else Health.DRAINING
            )
        elif each.routable_by_itself:
            assert each.routable
            weights[selector if selector in given_percent else ""] += each.weight or 0
    taking = sum({**given_percent, "": rest}[group] for group in weights)
    total = sum(weights.values())
    assert not total or abs(total - WHOLE) <= len(endpoints) or abs(total - 1000 * WHOLE) <= len(endpoints)
    for group, weight in weights.items():
        wanted = total * {**given_percent, "": rest}[group] / taking
        assert abs(weight - wanted) <= 2 * len(endpoints)


@given(listed, shares)
@examples(100)
def test_shares_are_repeatable_and_leave_no_trace(
    endpoints: dict[tuple[str, int], Endpoint], groups: tuple[Share, ...]
) -> None:
    """The same again changes no object, so no byte is encoded anew; without shares all is as before."""
    shared = apply_shares(endpoints, groups)
    again = apply_shares(shared, groups)
    assert all(again[key] is each for key, each in shared.items())
    assert apply_shares(shared, ()) == endpoints


@given(st.lists(st.tuples(listed, st.sampled_from([0, 0, 1, 2]), st.booleans()), max_size=6), shares, shares)
@examples(150)
def test_weights_that_are_carried_on_are_those_of_a_snapshot_made_anew(
    steps: list[tuple[dict[tuple[str, int], Endpoint], int, bool]],
    first: tuple[Share, ...],
    second: tuple[Share, ...],
) -> None:
    """Whatever comes, changes and goes, in status, counts and groups too: all processes serve one version alike."""
    choices = (Shares(first, "anna", "", NOW), Shares(second, "anna", "", NOW), None)
    snapshot = Snapshot("shop")
    for change, (endpoints, choice, whole) in enumerate(steps, start=1):
        gone = [] if whole else [(at, each.id) for at, each in list(snapshot.endpoints.items())[::3]]
        listed_now, in_force = endpoints.values(), choices[choice]
        snapshot = snapshot.advance(
            SnapshotDelta("shop", change, change, listed=listed_now, removed=gone, whole=whole, shares=in_force)
        )
        rows = [replace(each, share_weight=None) for each in snapshot.endpoints.values()]
        anew = Snapshot("shop").advance(SnapshotDelta("shop", change, change, listed=rows, whole=True, shares=in_force))
        assert dict(snapshot.endpoints.items()) == dict(anew.endpoints.items())
        assert snapshot.counts == anew.counts == Counter(each.status.value for each in snapshot.endpoints.values())
        assert snapshot.groups == anew.groups
        if snapshot.shares is not None:
            assert snapshot.groups == groups_in(snapshot.endpoints.values(), snapshot.shares.groups)


def test_a_group_keeps_its_share_when_it_scales() -> None:
    """Constants would give a canary of three three times as much."""
    groups = (Share("revision=b", 5.0),)
    for canaries in (1, 3, 7):
        shared = apply_shares(
            at(*(of(n) for n in range(1, 4)), *(of(n, "b") for n in range(10, 10 + canaries))), groups
        )
        of_b = sum(each.weight or 0 for each in shared.values() if each.registration.revision == "b")
        assert abs(of_b - 50_000) <= canaries


def test_a_small_share_of_many_endpoints_is_met() -> None:
    """Each of them weighs 1 at least, which was four times this share; Envoy takes sums below 2**32."""
    many = at(*(of(n, "b") for n in range(1, 401)), *(of(n) for n in range(401, 404)))
    weights = {each.registration.revision: each.weight or 0 for each in apply_shares(many, SMALL).values()}
    of_b, of_rest = 400 * weights["b"], 3 * weights["a"]
    assert of_b / (of_b + of_rest) == pytest.approx(0.0001, rel=0.01)
    assert of_b + of_rest < 2**32


def test_own_weights_divide_the_share_of_a_group() -> None:
    """Of registration and override alike."""
    heavy = replace(
        of(1), override=Override(weight=3, drain=False, actor="anna", reason="", set_at=NOW, expires_at=None)
    )
    shared = apply_shares(at(heavy, of(2), of(3, "b")), (Share("revision=b", 20.0),))
    assert [each.weight for each in shared.values()] == [600_000, 200_000, 200_000]


def test_a_group_without_routable_endpoints_leaves_its_share_to_the_others() -> None:
    """The only canary dies: nobody is sent to it by the share, and it does not take the rest with it."""
    groups = (Share("revision=b", 20.0), Share("revision=c", 20.0))
    dead = of(3, "b", health=Report.UNHEALTHY)
    shared = apply_shares(at(of(1), dead, of(4, "c")), groups)
    assert [each.weight for each in shared.values()] == [750_000, 1, 250_000]
    census = groups_in(shared.values(), groups)
    assert [(group.selector, group.percent, group.effective) for group in census] == [
        ("revision=b", 20.0, 0.0),
        ("revision=c", 20.0, 25.0),
        ("", 60.0, 75.0),
    ]
    assert misleading_shares(census) == ["revision=b has no routable endpoint, so the others get its 20 %"]


@pytest.mark.parametrize(
    ("wanted", "released"),
    [
        ((), ["revision=b"]),
        ((Share("zone=a", 10.0),), ["revision=b"]),
        ((Share("revision=b", 5.0),), []),
        ((Share("revision=b", 0.0), Share("zone=a", 10.0)), []),
    ],
)
def test_a_group_that_was_taken_out_is_named_when_other_shares_let_it_back_in(
    wanted: tuple[Share, ...], released: list[str]
) -> None:
    """Also by a share of something else, which replaces all of them; not one that is named, or that nobody is in."""
    out = (Share("revision=b", 0.0), Share("revision=gone", 0.0))
    groups = groups_in(apply_shares(at(of(1), of(2, "b")), out).values(), out)
    texts = released_groups(Shares(out, "registry", "shift aborted", 1.0), groups, wanted)
    assert [text.partition(" ")[0] for text in texts] == released
    assert all("(registry: shift aborted), and gets requests again; name revision=b=0 too" in text for text in texts)
    assert released_groups(None, (), wanted) == []


def test_the_rest_is_named_too_unless_it_gets_nothing_again() -> None:
    """After a shift that is done the rest has a share of 0."""
    done = (Share("revision=b", 100.0),)
    shares = Shares(done, "registry", "", 1.0)
    groups = groups_in(apply_shares(at(of(1), of(2, "b")), done).values(), done)
    (text,) = released_groups(shares, groups, ())
    assert text.startswith("the rest had a share of 0 % until now (registry), and gets requests again; name shares of")
    assert released_groups(shares, groups, (Share("revision=c", 100.0),)) == []


def test_a_share_of_nothing_is_never_served_even_when_all_others_are_dead() -> None:
    """An operator has taken that group out; what is left is said, not decided here."""
    groups = (Share("revision=b", 0.0),)
    shared = apply_shares(at(of(1, health=Report.UNHEALTHY), of(2, "b")), groups)
    assert [each.status for each in shared.values()] == [Health.UNHEALTHY, Health.DRAINING]
    assert misleading_shares(groups_in(shared.values(), groups)) == [
        "no group with a share has a routable one, and 1 routable endpoint is drained by a share of 0"
    ]
    assert misleading_shares(groups_in([], groups)) == []


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("canary=true", [2]),
        ("canary=false", [1, 3]),
        ("zone=z2", [2, 3]),
        ("instance_id=i-3", [3]),
        ("tier=gold", [3]),
        ("flag=true", [1]),
        ("formula=a=b", [1]),
        ("revision=none", []),
    ],
)
def test_selectors(selector: str, fits: list[int]) -> None:
    """Own keys by what is published, all others by the metadata as people write them."""
    endpoints = at(
        of(1, zone="z1", metadata={"flag": True, "formula": "a=b"}),
        of(2, zone="z2", canary=True),
        of(3, zone="z2", metadata={"tier": "gold"}),
    )
    shared = apply_shares(endpoints, (Share(selector, 0.0),))
    assert [each.id for each in shared.values() if not each.routable] == fits


def test_the_first_group_that_fits_counts() -> None:
    """So a canary of a revision can have a share of its own."""
    groups = Shares((Share("canary=true", 1.0), Share("revision=b", 9.0)), "anna", "", NOW)
    canary, plain, rest = of(1, "b", canary=True), of(2, "b"), of(3)
    assert [share_of(each, groups).share.percent for each in (canary, plain, rest)] == [1.0, 9.0, 90.0]
    assert share_of(rest, groups) == GroupShare(Share("", 90.0), "anna", "")
    assert "the rest of the service, which it is in, gets 90 %" in share_of(rest, groups).in_words


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ((), "0 shares were given"),
        (tuple(Share(f"revision={n}", 1.0) for n in range(MAX_GROUPS + 1)), "1 to 16"),
        ((Share("revision", 1.0),), "no key=value"),
        ((Share("=abc", 1.0),), "no key=value"),
        ((Share("revision=a\0b", 1.0),), "control character"),
        ((Share("revision=a\nb", 1.0),), "control character"),
        ((Share("canary=yes", 1.0),), "canary is true or false"),
        ((Share("revision=a", 100.5),), "from 0 to 100"),
        ((Share("revision=a", float("nan")),), "from 0 to 100"),
        ((Share("revision=a", 60.0), Share("revision=b", 60.0)), "add up to 120 percent"),
        ((Share("revision=a", 1.0), Share("revision=a", 2.0)), "two shares"),
    ],
)
def test_shares_that_mean_nothing_are_refused(groups: tuple[Share, ...], words: str) -> None:
    """With what was given, and what is allowed."""
    with pytest.raises(InvalidError, match=words):
        check_shares(groups)


def test_thirds_add_up() -> None:
    """100 percent in floats is not exactly 100."""
    groups = (Share("revision=a", 33.3), Share("revision=b", 33.3), Share("revision=c", 33.4))
    check_shares(groups)
    assert shares_in_words(groups).endswith("the rest 0 %")
    shared = apply_shares(at(of(1), of(2, "b"), of(3, "c"), of(4, "other")), groups)
    assert [each.routable for each in shared.values()] == [True, True, True, False]


def test_a_rest_is_drained_only_where_nothing_is_left() -> None:
    """However little it is: 0 is an order, and a millionth of a percent is none."""
    groups = (Share("revision=a", 99.9999999),)
    check_shares(groups)
    shared = apply_shares(at(of(1), of(2, "b")), groups)
    assert [(each.routable, each.share_weight) for each in shared.values()] == [(True, 1000 * WHOLE - 1), (True, 1)]


def test_a_snapshot_follows_its_shares() -> None:
    """With each delta, in status, counts and weights, until the shares are taken back."""
    first = Snapshot("shop").advance(SnapshotDelta("shop", 1, 1, listed=[of(1), of(2, "b")]))
    shares = Shares((Share("revision=b", 0.0),), "anna", "", NOW)
    shared = first.advance(SnapshotDelta("shop", 2, 2, shares=shares))
    assert (shared.routable, shared.counts["DRAINING"], len(shared.groups)) == (1, 1, 2)
    grown = shared.advance(SnapshotDelta("shop", 3, 3, listed=[of(3, "b")], shares=shares))
    assert (grown.routable, grown.counts["DRAINING"]) == (1, 2)
    back = grown.advance(SnapshotDelta("shop", 4, 4))
    assert (back.routable, back.shares, back.groups) == (3, None, ())
    assert all(each.share_weight is None for each in back.endpoints.values())
