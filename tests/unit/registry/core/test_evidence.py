"""Evidence about suspects: each row of the table, and all that counts for nothing."""

from collections import Counter
from random import Random
from typing import Any, get_args

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.core.evidence import (
    MAX_BASE_LINE_AGE,
    MAX_CONNECTED_AGE,
    MAX_STATEMENT_AGE,
    NO_EVIDENCE,
    Evidence,
    PlatformWord,
    Statement,
    Sureness,
    Suspect,
    judge,
)
from registry.core.expiry_guard import (
    STRONG_SHARE,
    WEAK_SHARE,
    Candidate,
    Pause,
    evaluate_guard,
)

NOW = 10_000.0
SUSPECT = Suspect(7, "shop", "10.0.9.7", 8080, 3, NOW - 20)


def refused(prober: str = "a", address: str = "10.0.1.4", **changed: Any) -> Statement:
    """Return a refusal by a registry process that counts, but for what is changed."""
    usual = Statement(prober, address, "refused", NOW - 1, 7, 3, NOW - 240, 3)
    return replace(usual, **changed)


def unreachable(prober: str = "a", address: str = "10.0.1.4", **changed: Any) -> Statement:
    """Return time-outs of a registry process that count, but for what is changed."""
    return refused(prober, address, kind="unreachable", **changed)


def sure(*statements: Statement, platform: PlatformWord | None = None) -> Sureness:
    """Return how sure the evidence is."""
    return judge(SUSPECT, statements, NOW, platform).sure


REGISTRAR = {"registrar_of": "shop"}


def test_the_words_of_two_that_are_refused() -> None:
    """An operator reads in the event who was refused, how often, and why those have a say."""
    evidence = judge(SUSPECT, [refused(), refused("b", "10.0.2.9")], NOW)
    assert evidence == Evidence("strong", "refused 3 × by 10.0.1.4 and 10.0.2.9, which reached it 4 min ago")
    evidence = judge(SUSPECT, [unreachable(), unreachable("r", "10.0.9.8", reached_at=NOW - 50, **REGISTRAR)], NOW)
    assert evidence == Evidence("weak", "timed out 3 × by 10.0.1.4 and 10.0.9.8, which reached it 4 min ago")
    evidence = judge(SUSPECT, [replace(refused(), kind="connected", at=NOW - 2)], NOW)
    assert evidence == Evidence("contrary", "10.0.1.4 connected to it 2 s ago")


def test_the_word_of_the_platform_is_certain() -> None:
    """It beats a connection too: another app may have the address already."""
    word = PlatformWord(7, 3, "ECS says that task t is STOPPED")
    assert judge(SUSPECT, [refused(kind="connected")], NOW, word) == Evidence("certain", word.words)
    assert sure(platform=replace(word, incarnation=2)) == "none"
    assert sure(platform=replace(word, endpoint_id=8)) == "none"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], "none"),
        ([refused()], "weak"),
        ([refused(), refused("b", "10.0.2.9")], "strong"),
        ([refused(), refused("r", "10.0.2.9", **REGISTRAR)], "strong"),
        ([refused("r", "10.0.2.9", **REGISTRAR)], "none"),
        ([refused("r", "10.0.2.8", **REGISTRAR), refused("q", "10.0.2.9", **REGISTRAR)], "none"),
        ([unreachable()], "none"),
        ([unreachable(), unreachable("b", "10.0.2.9")], "none"),
        ([unreachable(), unreachable("r", "10.0.2.9", **REGISTRAR)], "weak"),
        ([unreachable("q", "10.0.2.8", **REGISTRAR), unreachable("r", "10.0.2.9", **REGISTRAR)], "none"),
        ([unreachable(), refused("r", "10.0.2.9", **REGISTRAR)], "none"),
        ([refused(), unreachable("b", "10.0.2.9")], "weak"),
        ([refused(), refused("b", "10.0.2.9"), refused("c", "10.0.2.8", kind="connected")], "contrary"),
        ([refused(), refused("b", "10.0.2.9"), refused("r", "10.0.9.7", kind="connected", **REGISTRAR)], "contrary"),
    ],
)
def test_each_row_of_the_table(statements: list[Statement], expected: Sureness) -> None:
    """Whatever the order in which the statements come."""
    assert sure(*statements) == expected
    assert sure(*reversed(statements)) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"endpoint_id": 8},
        {"incarnation": 2},
        {"incarnation": 4},
        {"at": NOW + 60},
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": NOW - MAX_STATEMENT_AGE - 1},
        {"at": SUSPECT.expired_at - 1},
        {"reached_at": None},
        {"reached_at": NOW - 1 - MAX_BASE_LINE_AGE - 1},
        {"reached_at": NOW},
        {"reached_at": float("nan")},
        {"address": SUSPECT.address},
        {"registrar_of": "cart"},
    ],
)
def test_what_counts_for_nothing(changed: dict[str, Any]) -> None:
    """Alone, and as the second of two; the other one keeps its weight."""
    assert sure(refused(**changed)) == "none"
    second = {"address": "10.0.2.9"} | changed
    assert sure(refused(), replace(refused("b"), **second)) == "weak"
    assert sure(unreachable(), replace(unreachable("r"), **REGISTRAR | second)) == "none"


def test_a_prober_counts_once() -> None:
    """Neither one identity on two addresses nor two identities on one address are two probers."""
    assert sure(refused("a", "10.0.1.4"), refused("a", "10.0.2.9")) == "weak"
    assert sure(refused("a", "10.0.1.4"), refused("b", "10.0.1.4")) == "weak"
    assert sure(refused("a"), refused("r", "10.0.1.4", **REGISTRAR)) == "weak"
    assert sure(unreachable("a"), unreachable("r", "10.0.1.4", **REGISTRAR)) == "none"


def test_an_old_connection_counts_for_nothing() -> None:
    """It was made before the endpoint died; a new one beats a later refusal of anybody."""
    both = [refused(), refused("b", "10.0.2.9")]
    assert sure(*both, refused("c", "10.0.2.8", kind="connected", at=NOW - MAX_CONNECTED_AGE - 1)) == "strong"
    assert sure(*both, refused("c", "10.0.2.8", kind="connected", at=NOW - MAX_CONNECTED_AGE + 1)) == "contrary"


def test_the_last_statement_of_a_prober_counts() -> None:
    """A process that connects again takes back its own refusal, and the other way round."""
    assert sure(refused(at=NOW - 9), refused(at=NOW - 3, kind="unreachable")) == "none"
    assert sure(refused(at=NOW - 3), refused(at=NOW - 9, kind="unreachable")) == "weak"


probers = st.sampled_from("abc")
addresses = st.sampled_from(["10.0.1.4", "10.0.2.9", "10.0.9.7", "10.0.9.8"])
statements_drawn = st.lists(
    st.builds(
        Statement,
        prober=probers,
        address=addresses,
        kind=st.sampled_from(["refused", "unreachable", "connected"]),
        at=st.floats(NOW - 60, NOW + 20),
        endpoint_id=st.sampled_from([7, 7, 7, 8]),
        incarnation=st.sampled_from([3, 3, 3, 2]),
        reached_at=st.none() | st.floats(NOW - 2000, NOW),
        attempts=st.just(3),
        registrar_of=st.sampled_from(["", "shop", "cart"]),
    ),
    max_size=8,
)


@examples(400)
@given(statements_drawn, st.randoms())
def test_the_order_of_statements_does_not_matter(statements: list[Statement], random: Random) -> None:
    """PostgreSQL returns them in any order."""
    shuffled = list(statements)
    random.shuffle(shuffled)
    assert judge(SUSPECT, shuffled, NOW).sure == judge(SUSPECT, statements, NOW).sure


@examples(400)
@given(statements_drawn)
def test_registrars_alone_prove_nothing(statements: list[Statement]) -> None:
    """However many lie, and whatever they say, they can only hold an endpoint until the guard's end."""
    told = [replace(statement, registrar_of=statement.registrar_of or "shop") for statement in statements]
    assert judge(SUSPECT, told, NOW).sure in ("none", "contrary")


@examples(400)
@given(statements_drawn)
def test_strong_evidence_needs_two_addresses(statements: list[Statement]) -> None:
    """Whatever is said from one address, and whatever is said by one prober, is never strong."""
    assert judge(SUSPECT, [replace(one, address="10.0.1.4") for one in statements], NOW).sure != "strong"
    assert judge(SUSPECT, [replace(one, prober="a") for one in statements], NOW).sure != "strong"


def loss(count: int, evidence: Evidence, *, first: int = 0, service: str = "shop") -> list[Candidate]:
    """Return candidates of one service whose leases expired one after the other."""
    return [Candidate(first + number, service, NOW - 1 - number / 1000, evidence=evidence) for number in range(count)]


@pytest.mark.parametrize(
    ("evidence", "lapse"),
    [("certain", 10), ("strong", 5), ("weak", 4), ("contrary", 1), ("none", 1)],
)
def test_how_much_evidence_lets_lapse(evidence: Sureness, lapse: int) -> None:
    """Ten of ten endpoints of the only service are silent; the guard alone lets one lapse."""
    decision = evaluate_guard(loss(10, Evidence(evidence, "so")), {"shop": 10}, {}, {}, NOW, 900)
    assert len(decision.lapse) == lapse
    assert len(decision.hold) == 10 - lapse


def test_half_of_a_service_lapses_in_a_window() -> None:
    """Strong evidence counts what lapsed before, of whatever reason; weak evidence, too."""
    strong, weak = loss(10, Evidence("strong")), loss(10, Evidence("weak"))
    assert len(evaluate_guard(strong, {"shop": 17}, {"shop": 3}, {}, NOW, 900).lapse) == 7
    assert evaluate_guard(strong, {"shop": 10}, {"shop": 10}, {}, NOW, 900).lapse == []
    assert len(evaluate_guard(weak, {"shop": 17}, {"shop": 3}, {}, NOW, 900).lapse) == 5


def test_a_pause_holds_in_spite_of_all_evidence() -> None:
    """An operator has said that nothing lapses."""
    pause = Pause("shop", "ann", "network work", NOW - 1, NOW + 9)
    assert evaluate_guard(loss(3, Evidence("certain")), {"shop": 9}, {}, {"shop": pause}, NOW, 900).lapse == []


candidates = st.lists(
    st.tuples(
        st.sampled_from(["cart", "shop"]),
        st.floats(0, 1000),
        st.sampled_from(get_args(Sureness)),
    ),
    max_size=50,
).map(
    lambda drawn: [
        Candidate(number, service, NOW - age, evidence=Evidence(sure))
        for number, (service, age, sure) in enumerate(drawn)
    ]
)
counts = st.dictionaries(st.sampled_from(["cart", "shop"]), st.integers(0, 60))


@examples(400)
@given(candidates, counts, counts)
def test_evidence_only_adds(expired: list[Candidate], others: dict[str, int], lapsed: dict[str, int]) -> None:
    """Nobody is held who would lapse without evidence, and beyond that nobody lapses without evidence of the kind."""
    live = Counter(others) + Counter(candidate.service for candidate in expired)
    bare = [replace(candidate, evidence=NO_EVIDENCE) for candidate in expired]
    usual = {candidate.endpoint_id for candidate in evaluate_guard(bare, live, lapsed, {}, NOW, 900).lapse}
    decision = evaluate_guard(expired, live, lapsed, {}, NOW, 900)
    more = [candidate for candidate in decision.lapse if candidate.endpoint_id not in usual]
    assert len(more) == len(decision.lapse) - len(usual)
    assert {candidate.evidence.sure for candidate in more} <= {"certain", "strong", "weak"}
    held = {candidate.endpoint_id for candidate, _ in decision.hold}
    assert not held & {candidate.endpoint_id for candidate in decision.lapse}
    assert len(held) + len(decision.lapse) == len(expired)
    assert not {candidate.evidence.sure for candidate, _ in decision.hold} & {"certain"}


@examples(400)
@given(candidates, counts, counts)
def test_shares_bound_what_evidence_adds(
    expired: list[Candidate], others: dict[str, int], lapsed: dict[str, int]
) -> None:
    """Weak evidence ends at two fifths of a service within the window, and strong evidence at half."""
    live = Counter(others) + Counter(candidate.service for candidate in expired)
    bare = [replace(candidate, evidence=NO_EVIDENCE) for candidate in expired]
    usual = {candidate.endpoint_id for candidate in evaluate_guard(bare, live, lapsed, {}, NOW, 900).lapse}
    decision = evaluate_guard(expired, live, lapsed, {}, NOW, 900)
    for service in ("cart", "shop"):
        mine = [candidate for candidate in decision.lapse if candidate.service == service]
        before = sum(candidate.endpoint_id in usual for candidate in mine) + lapsed.get(service, 0)
        added = Counter(candidate.evidence.sure for candidate in mine if candidate.endpoint_id not in usual)
        population = live[service] + lapsed.get(service, 0)
        if added["weak"]:
            assert before + added["weak"] <= max(1, int(WEAK_SHARE * population))
        if added["strong"]:
            assert before + added["strong"] <= max(1, int(STRONG_SHARE * population))
