"""Whether subscribers keep up: the rules, in time that is given to them."""

from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.core.subscriber_status import REPORT_LAG, ServiceVersion, SubscriberReport, evaluate, merge_reports

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
