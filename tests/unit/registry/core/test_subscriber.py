"""Who polls, and how it keeps up: the rules, in time that is given to them."""

from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.core.subscriber import (
    REPORT_LAG,
    SUBSCRIBER_TIMEOUT,
    ServiceVersion,
    SubscriberReport,
    Subscribers,
    Subscription,
    evaluate,
    merge_reports,
)
from wire.node import ANONYMOUS, Node

NODE = Node("i-1", "web", "zone-a", "1.40.0")
NOW = 1000.0
OURS = ServiceVersion(version=7, since=NOW - 100)


def sighting(**fields: Any) -> SubscriberReport:
    """Return a subscriber that polls each second and holds version 7, but for what is told."""
    known: dict[str, Any] = {
        "process": "p",
        "node_id": "i-1",
        "cluster": "web",
        "zone": "zone-a",
        "envoy": "1.40.0",
        "address": "10.0.0.9",
        "service": "shop",
        "api": "v3",
        "version_info": "db:7",
        "version": 7,
        "offered": None,
        "status": 304,
        "answered_at": NOW - 0.5,
        "polled_at": NOW - 0.5,
        "first_seen": 0.0,
        "held": False,
        "pause": 1.0,
        "refusals": 0,
        "refused_since": None,
    }
    return SubscriberReport(**known | fields)


def state(ours: ServiceVersion = OURS, lag: float = 0.0, **fields: Any) -> str:
    """Return the state of such a subscriber."""
    return evaluate(sighting(**fields), ours, NOW, lag).state


def test_our_version_or_a_newer_one_is_current() -> None:
    """Who holds what this process has, or what another process has already, keeps up."""
    assert [state(version=number) for number in (7, 8)] == ["current", "current"]


def test_an_older_version_is_behind_when_its_pace_does_not_explain_it() -> None:
    """A version that is older than the subscriber's pace and a margin makes it behind; until then it is current."""
    assert state(version=6) == "behind"
    assert state(ServiceVersion(7, NOW - 5), version=6) == "current"
    slow: dict[str, Any] = {"pause": 60.0, "polled_at": NOW - 90, "answered_at": NOW - 90}
    assert state(version=6, **slow) == "current"
    assert state(ServiceVersion(7, NOW - 200), version=6, **slow) == "behind"


def test_refusals_make_it_stuck() -> None:
    """Who brings what it had, after a 200 with something newer, twice and for seconds, rejects what it is answered."""
    refusing: dict[str, Any] = {"version": 6, "version_info": "db:6", "offered": 7, "status": 200, "refusals": 2}
    assert state(**refusing, refused_since=NOW - 6) == "stuck"
    assert state(ServiceVersion(7, NOW - 2), **refusing, refused_since=NOW - 2) == "current"
    verdict = evaluate(sighting(**refusing, refused_since=NOW - 6), OURS, NOW)
    assert verdict.reason == "was answered version 7 and brings version 6 all the same, 2 times in a row"


def test_who_never_took_anything_is_stuck_too() -> None:
    """An Envoy that rejects its first answer goes on without a version."""
    refusing: dict[str, Any] = {"version": None, "version_info": "", "offered": 7, "status": 200, "refusals": 9}
    assert state(**refusing, refused_since=NOW - 6) == "stuck"


@pytest.mark.parametrize("status", [401, 403])
def test_a_subscriber_that_access_control_refuses_is_stuck_while_it_polls(status: int) -> None:
    """It says which refusal, also where it holds the current version; once it polls no more it is silent."""
    refused = sighting(status=status)
    assert evaluate(refused, OURS, NOW).state == "stuck"
    assert f"({status})" in evaluate(refused, OURS, NOW).reason
    assert state(status=status, polled_at=NOW - 50, answered_at=NOW - 50) == "silent"


def test_an_answer_that_is_on_its_way_is_current() -> None:
    """Between a 200 and the next poll nobody can know, so nobody is blamed."""
    assert state(version=6, offered=7, status=200) == "current"


@pytest.mark.parametrize("held", [True, False])
def test_silence_is_silent_unless_a_poll_is_held(held: bool) -> None:
    """Three usual pauses without a poll are silence; a poll that is held is none."""
    assert state(polled_at=NOW - 50, answered_at=NOW - 50, held=held) == ("current" if held else "silent")


def test_what_another_process_told_is_given_time() -> None:
    """Who polls on unchanged is told of at intervals only: that is no silence."""
    quiet: dict[str, Any] = {"polled_at": NOW - REPORT_LAG, "answered_at": NOW - REPORT_LAG}
    assert [state(**quiet), state(**quiet, lag=REPORT_LAG)] == ["silent", "current"]


def test_v1_has_no_versions() -> None:
    """A subscriber of v1 is current while it polls."""
    assert state(api="v1", version=None, version_info="") == "current"
    assert state(api="v1", version=None, version_info="", polled_at=0.0, answered_at=0.0) == "silent"


numbers = st.none() | st.integers(0, 20)
times = st.floats(0, 2 * NOW)
SIGHTINGS = st.builds(
    sighting,
    process=st.sampled_from("pqr"),
    node_id=st.sampled_from(["", "i-1", "i-2"]),
    address=st.sampled_from(["a", "b"]),
    service=st.sampled_from(["shop", "cart"]),
    api=st.sampled_from(["v1", "v2", "v3"]),
    version=numbers,
    version_info=st.sampled_from(["", "db:6", "other:6"]),
    offered=numbers,
    status=st.sampled_from([None, 200, 304]),
    polled_at=times,
    answered_at=st.none() | times,
    held=st.booleans(),
    pause=st.none() | st.floats(0, 100),
    refusals=st.integers(0, 5),
    refused_since=st.none() | times,
)


@examples(300)
@given(SIGHTINGS, st.integers(0, 20), times, st.sampled_from([0.0, REPORT_LAG]))
def test_every_sighting_has_one_state_with_a_reason(
    seen: SubscriberReport, version: int, since: float, lag: float
) -> None:
    """Whatever is known: one state and a reason; who is held is never silent, and who has our version never behind."""
    verdict = evaluate(seen, ServiceVersion(version, since), NOW, lag)
    assert verdict.reason
    assert verdict.reason.isprintable()
    if seen.held:
        assert verdict.state != "silent"
    if verdict.state == "behind":
        assert seen.version is None or seen.version < version
    if verdict.state == "stuck":
        assert seen.refusals >= 2
    more_time = evaluate(seen, ServiceVersion(version, since), NOW, lag + 100)
    if verdict.state in ("current", "stuck"):
        assert more_time.state == verdict.state


@examples(200)
@given(st.lists(SIGHTINGS, max_size=12), st.randoms())
def test_merging_does_not_depend_on_the_order(sightings: list[SubscriberReport], random: Any) -> None:
    """Each subscriber of a service comes once, sorted, as who saw it last knows it, in whatever order they are told."""
    unique = {(report.process, *report.identity): report for report in sightings}
    merged = merge_reports(unique.values())
    shuffled = list(unique.values())
    random.shuffle(shuffled)
    assert [(report.identity, report.seen_at) for report in merge_reports(shuffled)] == [
        (report.identity, report.seen_at) for report in merged
    ]
    assert [report.identity for report in merged] == sorted({report.identity for report in sightings})
    for report in merged:
        assert report.seen_at == max(other.seen_at for other in unique.values() if other.identity == report.identity)
    assert merge_reports(merged) == merged


def test_refusals_count_wherever_they_were_seen() -> None:
    """An Envoy that changes between processes is stuck, although the one that saw it last saw it for the first time."""
    refusing = sighting(process="p", version_info="db:6", version=6, offered=7, refusals=4, refused_since=NOW - 9)
    two = sighting(process="q", version_info="db:6", version=6, offered=7, status=200, polled_at=NOW, answered_at=NOW)
    (merged,) = merge_reports([refusing, two])
    assert (merged.process, evaluate(merged, OURS, NOW).state) == ("q", "stuck")
    took = sighting(process="q", polled_at=NOW)
    assert merge_reports([refusing, took]) == [took]


def polls(subscription: Subscription, *brought: str, offered: str, every: float = 1.0) -> None:
    """Let a subscription poll, each poll answered 200."""
    now = subscription.seen_at
    for version_info in brought:
        now += every
        subscription.poll(version_info, now)
        subscription.answer(200, offered, now)


def test_refusals_are_counted_until_one_is_taken() -> None:
    """The same version_info after a 200 with another is a refusal; anything else ends the row."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, "db:6", "db:6", "db:6", offered="db:7")
    assert (subscription.refusals, subscription.refused_since) == (2, 2.0)
    polls(subscription, "db:7", offered="db:8")
    assert subscription.refusals == 0
    polls(subscription, "db:7", offered="db:8")
    assert subscription.refusals == 1


def test_a_304_is_no_offer() -> None:
    """Who holds a version for long and is told so refuses nothing."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    for moment in range(1, 9):
        subscription.poll("db:7", moment)
        subscription.answer(304, "", moment)
    assert subscription.refusals == 0


def test_the_usual_pause_is_learnt() -> None:
    """From answer to poll, smoothed: it converges on the pace that the subscriber has."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, *["db:7"] * 40, offered="db:7", every=3.0)
    assert subscription.pause == pytest.approx(3.0)


def forget(known: Subscribers, now: float) -> None:
    """Drop all who are silent for too long."""
    for subscription in known:
        known.forget(subscription, now)


def test_a_full_table_takes_nobody_new_and_forgets_nobody_who_lives() -> None:
    """Pairs of a node and a name are bounded; who comes too late is answered, counted, and not remembered."""
    known = Subscribers(max_sightings=100)
    first = known.find(NODE, "first", ("shop",), "v3", 0.0)
    for number in range(1, 500):
        known.find(Node(f"made-up-{number}"), "a", ("shop", "cart"), "v3", number)
    assert (known.sightings, len(known)) == (99, 50)
    assert known.take_refused() == 2 * (499 - 49)
    assert known.take_refused() == 0
    assert known.find(NODE, "first", ("shop",), "v3", 500.0) is first
    late = known.find(NODE, "late", ("shop", "cart"), "v3", 500.0)
    assert (late.remembered, [subscription.address for subscription in known.of("cart") if subscription is late]) == (
        False,
        [],
    )


def test_nothing_is_concluded_for_a_quarter_of_an_hour_after_a_refusal() -> None:
    """The seconds since the last refusal are known until they do not matter any more, and room is made by silence."""
    known = Subscribers(max_sightings=1)
    known.find(NODE, "first", ("shop",), "v3", 0.0)
    assert known.refused_ago(1.0) is None
    known.find(NODE, "second", ("shop",), "v3", 10.0)
    assert (known.refused_ago(11.0), known.refused_ago(10.0 + SUBSCRIBER_TIMEOUT)) == (1.0, SUBSCRIBER_TIMEOUT)
    assert known.refused_ago(10.1 + SUBSCRIBER_TIMEOUT) is None
    forget(known, SUBSCRIBER_TIMEOUT + 1)
    assert known.find(NODE, "second", ("shop",), "v3", SUBSCRIBER_TIMEOUT + 1).remembered
    assert known.sightings == 1


def test_sixteen_names_of_a_poll_are_remembered() -> None:
    """More than an Envoy asks for costs no more memory; it is counted, because their subscribers are not known."""
    known = Subscribers()
    names = tuple(f"s-{number}" for number in range(400))
    subscription = known.find(NODE, "a", names, "v3", 0.0)
    assert (subscription.names, known.sightings, known.take_refused()) == (names[:16], 16, 384)
    assert known.find(NODE, "a", names, "v3", 1.0) is subscription
    assert known.refused_ago(1.0) == 0.0


def test_what_a_poll_says_is_kept_short() -> None:
    """128 characters of its version_info for each name, and no name that is longer than a service can be called."""
    known = Subscribers()
    subscription = known.find(NODE, "a", ("shop",), "v3", 0.0)
    subscription.poll("x" * 100_000, 0.0)
    subscription.answer(200, "y" * 100_000, 0.0)
    assert (len(subscription.brought), len(subscription.offered)) == (128, 128)
    assert not known.find(NODE, "a", ("n" * 256,), "v3", 0.0).remembered
    assert known.find(NODE, "a", ("n" * 255,), "v3", 0.0).remembered


def test_who_refuses_is_known_by_what_is_kept() -> None:
    """An endless version_info that is brought again and again is a refusal like a short one."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, *["x" * 1000] * 3, offered="db:7")
    assert subscription.refusals == 2


@pytest.mark.parametrize(("node", "api", "names"), [(ANONYMOUS, "v3", ("shop",)), (NODE, "v3", ())])
def test_who_is_no_envoy_is_no_subscriber(node: Node, api: str, names: tuple[str, ...]) -> None:
    """Envoy always has a node id and asks for something; a poll without either is not remembered, nor is it missing."""
    known = Subscribers()
    assert not known.find(node, "a", names, api, 0.0).remembered
    assert (len(known), known.take_refused(), known.refused_ago(0.0)) == (0, 0, None)


def test_the_subscribers_of_a_service_are_found_by_its_name() -> None:
    """Those that ask for it alone or with others, and none any more who is forgotten."""
    known = Subscribers()
    known.find(NODE, "alone", ("shop",), "v3", 0.0)
    known.find(NODE, "other", ("cart",), "v3", 1.0)
    known.find(NODE, "both", ("shop", "ca\0rt"), "v3", 2.0)
    known.find(NODE, "new", ("shop",), "v3", 3.0)

    def of(service: str) -> list[str]:
        return [subscription.address for subscription in known.of(service)]

    assert (of("shop"), of("cart"), of("nobody")) == (["alone", "both", "new"], ["other", "both"], [])
    forget(known, SUBSCRIBER_TIMEOUT + 2.5)
    assert (of("shop"), of("cart"), known.sightings) == (["new"], [], 1)
    forget(known, SUBSCRIBER_TIMEOUT + 4)
    assert (of("shop"), known._by_name, known.sightings) == ([], {}, 0)


def test_the_silent_are_forgotten() -> None:
    """After a quarter of an hour; a client of v1 that asked once, after a minute; who is held, never."""
    known = Subscribers()
    known.find(NODE, "envoy", ("shop",), "v3", 0.0)
    known.find(NODE, "held", ("shop",), "v3", 0.0).held = 1
    known.record_v1("curl", "shop", 0.0)

    def left(now: float) -> list[str]:
        forget(known, now)
        return [subscription.address for subscription in known]

    assert left(59) == ["envoy", "held", "curl"]
    assert left(61) == ["envoy", "held"]
    assert left(SUBSCRIBER_TIMEOUT + 1) == ["held"]


def test_news_is_what_matters_at_once_and_the_rest_in_time() -> None:
    """A new version or a refusal is told at once; that somebody polls on, every quarter of a minute."""
    subscription = Subscription(("i-1", "a", ("shop",), "v3"), NODE, 0.0)
    polls(subscription, "db:7", offered="db:7")
    assert subscription.is_news(1.0)
    subscription.published, subscription.published_at = subscription.substance, 1.0
    polls(subscription, "db:7", offered="db:7")
    assert not subscription.is_news(2.0)
    assert subscription.is_news(17.0)
    polls(subscription, "db:7", offered="db:8")
    assert subscription.is_news(3.0)
