"""The mass-expiry guard."""

from collections import Counter
from random import Random

from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.core.expiry_guard import (
    EVERYWHERE,
    SERVICE_SHARE,
    TOTAL_SHARE,
    Candidate,
    Pause,
    evaluate_guard,
    removals_allowed,
)

NOW, HOLD = 10_000.0, 900.0
SERVICES = ["cart", "pay", "shop"]

candidates = st.lists(st.tuples(st.sampled_from(SERVICES), st.floats(0, 2 * HOLD)), max_size=60).map(
    lambda drawn: [Candidate(number, service, NOW - age) for number, (service, age) in enumerate(drawn)]
)
counts = st.dictionaries(st.sampled_from(SERVICES), st.integers(0, 100))


def lost(count: int, service: str = "shop", age: float = 1.0) -> list[Candidate]:
    """Return candidates whose leases expired one after the other."""
    return [Candidate(number, service, NOW - age - number / 1000) for number in range(count)]


def lapsing(expired: list[Candidate], live: dict[str, int], lapsed_recently: dict[str, int]) -> list[Candidate]:
    """Return who lapses now, where nothing is paused; the rest is held, each once."""
    decision = evaluate_guard(expired, live, lapsed_recently, {}, NOW, HOLD)
    assert sorted([*decision.lapse, *(candidate for candidate, _ in decision.hold)], key=id) == sorted(expired, key=id)
    return decision.lapse


def allowed(expired: list[Candidate], live: dict[str, int], lapsed_recently: dict[str, int] | None = None) -> list[int]:
    """Return the ids of those that may lapse."""
    return [candidate.endpoint_id for candidate in lapsing(expired, live, lapsed_recently or {})]


def test_one_may_always_lapse() -> None:
    """In a small service a fifth is less than one, and a lost host must still be found."""
    assert allowed(lost(1), {"shop": 1}) == [0]
    assert allowed(lost(3), {"shop": 3}) == [2]


def test_a_fifth_of_a_service_may_lapse() -> None:
    """Fault 16: of thirty lost endpoints out of a hundred, twenty lapse, the longest expired first."""
    assert allowed(lost(30), {"shop": 100, "cart": 1000}) == list(range(29, 9, -1))


def test_fifteen_hundredths_of_all_may_lapse() -> None:
    """Many services that lose a few each are one loss of contact."""
    expired = [Candidate(number, f"s-{number % 20}", NOW - 1) for number in range(40)]
    assert len(allowed(expired, {f"s-{number}": 10 for number in range(20)})) == 30


def test_what_lapsed_within_the_window_counts() -> None:
    """The share is of a minute, not of a sweep."""
    assert allowed(lost(30), {"shop": 80, "cart": 1000}, {"shop": 20}) == []
    assert len(allowed(lost(30), {"shop": 90, "cart": 1000}, {"shop": 10})) == 10
    assert allowed(lost(1), {"shop": 1}, {"cart": 5}) == []


def test_a_suspect_lapses_after_the_hold() -> None:
    """A guard without an end makes immortal zombies."""
    assert len(allowed(lost(30, age=HOLD), {"shop": 30})) == 30


def test_who_is_held_is_told_why() -> None:
    """An operator reads which limit was met, or who paused expiry."""
    held = evaluate_guard(lost(10), {"shop": 10, "cart": 990}, {}, {}, NOW, HOLD).hold
    assert {reason for _, reason in held} == {"2 of 10 of the service lapsed within 60 s, limit 20 %"}
    held = evaluate_guard(lost(10), {"shop": 10}, {}, {}, NOW, HOLD).hold
    assert {reason for _, reason in held} == {"1 of 10 of all endpoints lapsed within 60 s, limit 15 %"}
    pause = Pause("shop", "ann", "network work", NOW - 1, NOW + 9)
    for scope in ("shop", EVERYWHERE):
        decision = evaluate_guard(lost(2, age=2 * HOLD), {"shop": 10}, {}, {scope: pause}, NOW, HOLD)
        assert decision.lapse == []
        assert {reason for _, reason in decision.hold} == {"expiry is paused by ann: network work"}
    assert len(evaluate_guard(lost(1), {"shop": 10}, {}, {"cart": pause}, NOW, HOLD).lapse) == 1


@examples(300)
@given(candidates, counts, counts)
def test_the_shares_hold_for_any_loss(
    expired: list[Candidate], others: dict[str, int], lapsed_recently: dict[str, int]
) -> None:
    """Apart from the overdue, no service and not all together lose more than their share in a window."""
    live = Counter(others) + Counter(candidate.service for candidate in expired)
    chosen = lapsing(expired, live, lapsed_recently)
    overdue = {candidate.endpoint_id for candidate in expired if NOW - candidate.expired_at >= HOLD}
    early = Counter(candidate.service for candidate in chosen if candidate.endpoint_id not in overdue)
    for service, count in early.items():
        limit = max(1, SERVICE_SHARE * (live[service] + lapsed_recently.get(service, 0)))
        assert count + lapsed_recently.get(service, 0) <= limit
    if early:
        assert sum(early.values()) + sum(lapsed_recently.values()) <= max(
            1, TOTAL_SHARE * (live + Counter(lapsed_recently)).total()
        )


@examples(200)
@given(candidates, counts, counts)
def test_the_longest_expired_go_first(
    expired: list[Candidate], others: dict[str, int], lapsed_recently: dict[str, int]
) -> None:
    """Within a service nobody lapses before one that expired earlier; the overdue all go, and nobody twice."""
    live = Counter(others) + Counter(candidate.service for candidate in expired)
    chosen = lapsing(expired, live, lapsed_recently)
    ids = {candidate.endpoint_id for candidate in chosen}
    assert len(ids) == len(chosen)
    assert ids >= {candidate.endpoint_id for candidate in expired if NOW - candidate.expired_at >= HOLD}
    assert [candidate.expired_at for candidate in chosen] == sorted(candidate.expired_at for candidate in chosen)
    for candidate in chosen:
        earlier = {
            c.endpoint_id for c in expired if c.service == candidate.service and c.expired_at < candidate.expired_at
        }
        assert earlier <= ids


@given(candidates, counts, counts, st.randoms())
@examples(60)
def test_the_order_of_the_rows_does_not_matter(
    expired: list[Candidate], others: dict[str, int], lapsed_recently: dict[str, int], random: Random
) -> None:
    """PostgreSQL returns them in any order."""
    live = Counter(others) + Counter(candidate.service for candidate in expired)
    shuffled = list(expired)
    random.shuffle(shuffled)
    assert lapsing(shuffled, live, lapsed_recently) == lapsing(expired, live, lapsed_recently)


@given(st.integers(0, 500), st.booleans())
def test_a_loop_gets_as_far_as_the_share(live: int, at_once: bool) -> None:  # drawn
    """One after the other, or all that are allowed at a time: a fifth may leave, but at least one."""
    left = 0
    while allowed := min(removals_allowed(live - left, left), live - left):
        left += allowed if at_once else 1
    assert left == min(live, max(1, int(SERVICE_SHARE * live)))


def test_a_service_that_cannot_be_swept_takes_no_share_from_others() -> None:
    """Its endpoints expired first and would use up the share of all, second by second, without lapsing."""
    expired = [*lost(40, "cart", age=50.0), *lost(3, "shop")]
    live = {"cart": 200, "shop": 15}
    usual = evaluate_guard(expired, live, {}, {}, NOW, HOLD)
    assert Counter(candidate.service for candidate in usual.lapse) == {"cart": 32}
    spared = evaluate_guard(expired, live, {}, {}, NOW, HOLD, {"cart"})
    assert Counter(candidate.service for candidate in spared.lapse) == {"shop": 3, "cart": 29}
