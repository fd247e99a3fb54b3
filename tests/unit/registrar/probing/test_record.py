"""When a registrar has a say about a suspect, and what its attempts come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.probing.record import (
    BASE_LINE_INTERVAL,
    MAX_BASE_LINE_AGE,
    MAX_BASE_LINES,
    MUTE_SECONDS,
    REFUSED_SPACING,
    ROUNDS,
    TIMED_OUT_SPACING,
    ProbeRecord,
    conclude,
    spacing,
)
from wire.probe_request import ProbeSuspect, ProbeTarget
from wire.tcp_probe import PROBE_TIMEOUT, Outcome

TARGET = ProbeTarget("10.0.0.6:80", 7)
SUSPECT = ProbeSuspect("10.0.0.6:80", 7, ("10.0.0.7:80", "10.0.0.8:80"))
OUTCOMES: list[Outcome] = ["connected", "refused", "timed_out", "nothing"]


def test_a_say_needs_a_base_line_of_the_same_incarnation() -> None:
    """Another start of the app, and one that was reached too long ago, were never seen to accept."""
    record = ProbeRecord()
    assert not record.has_base_line(SUSPECT, 0.0)
    record.reached(TARGET, 0.0)
    assert record.has_base_line(SUSPECT, MAX_BASE_LINE_AGE)
    assert not record.has_base_line(SUSPECT, MAX_BASE_LINE_AGE + 1)
    assert not record.has_base_line(ProbeSuspect("10.0.0.6:80", 8, ()), 1.0)
    assert not record.has_base_line(ProbeSuspect("10.0.0.6:81", 7, ()), 1.0)


def test_a_registry_that_asks_often_is_obeyed_once_in_a_while() -> None:
    """Several registry processes ask, each of its own accord."""
    record = ProbeRecord()
    assert record.due([TARGET], 0.0) == [TARGET]
    record.reached(TARGET, 0.0)
    assert record.due([TARGET], BASE_LINE_INTERVAL - 1) == []
    assert record.due([TARGET, ProbeTarget(TARGET.endpoint, 8)], 1.0) == [ProbeTarget(TARGET.endpoint, 8)]
    assert record.due([TARGET], BASE_LINE_INTERVAL) == [TARGET]


def test_base_lines_are_bounded() -> None:
    """The oldest are forgotten."""
    record = ProbeRecord()
    for number in range(MAX_BASE_LINES + 10):
        record.reached(ProbeTarget(f"10.0.1.1:{number + 1}", 1), float(number))
    assert len(record._base_lines) == MAX_BASE_LINES
    assert not record.has_base_line(ProbeSuspect("10.0.1.1:1", 1, ()), 10.0)


def test_a_control_that_fails_mutes_the_prober() -> None:
    """Its own network may be what is broken."""
    record = ProbeRecord()
    assert not record.is_muted(0.0)
    record.control_failed(0.0)
    assert record.is_muted(MUTE_SECONDS - 0.1)
    assert not record.is_muted(MUTE_SECONDS)


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["refused"] * 3, "refused"),
        (["timed_out"] * 3, "unreachable"),
        (["connected"], "connected"),
        (["refused", "refused", "connected"], "connected"),
        (["refused"] * 2, None),
        (["nothing"] * 3, None),
        (["refused", "timed_out", "refused"], None),
        (["refused", "refused", "nothing"], None),
        ([], None),
    ],
)
def test_only_attempts_that_agree_say_something(outcomes: list[Outcome], said: str | None) -> None:
    """Three resets, three time-outs, or one connection."""
    conclusion = conclude([(outcome, float(number)) for number, outcome in enumerate(outcomes)])
    assert (conclusion.outcome if conclusion else None) == said


@given(st.lists(st.sampled_from(OUTCOMES), max_size=6))
def test_nothing_but_three_of_a_kind_is_held_against_a_suspect(outcomes: list[Outcome]) -> None:
    """Whatever else came, the suspect keeps what it has."""
    conclusion = conclude([(outcome, float(number)) for number, outcome in enumerate(outcomes)])
    if conclusion is not None and conclusion.outcome != "connected":
        assert len(outcomes) >= ROUNDS
        assert len(set(outcomes)) == 1


def test_rounds_are_far_enough_apart() -> None:
    """Two refusals have at least a second between them, and three time-outs take at least five."""
    assert spacing(["refused"]) == REFUSED_SPACING > 1
    assert spacing(["refused", "timed_out"]) == TIMED_OUT_SPACING
    assert (ROUNDS - 1) * TIMED_OUT_SPACING + PROBE_TIMEOUT >= 5
