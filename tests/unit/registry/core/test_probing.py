"""When a prober has a say, what its attempts come to, and in which order it tries suspects."""

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.core.evidence import MAX_BASE_LINE_AGE, MAX_STATEMENT_AGE
from registry.core.probing import (
    BASE_LINE_INTERVAL,
    CONNECTED_INTERVAL,
    CONTROL_WINDOW,
    MAX_ACTIVE_SUSPECTS,
    MUTE_SECONDS,
    REPEAT_INTERVAL,
    RETRY_INTERVAL,
    Attempt,
    ProberRecord,
    SuspectQueue,
    Target,
    choose_controls,
    conclude,
)
from wire.tcp_probe import Outcome

NOW = 1_000.0


def target(number: int, address: str = "", service: str = "shop", zone: str = "", incarnation: int = 1) -> Target:
    """Return an endpoint on a host of its own."""
    return Target(number, service, address or f"10.0.0.{number}", 8080, incarnation, zone)


SUSPECT, CONTROLS = target(1), [target(2), target(3)]


class Trial:
    """A prober that has reached all, and tries one suspect in virtual time."""

    def __init__(self, *, base_line: bool = True) -> None:
        self.record = ProberRecord()
        self.now = NOW
        if base_line:
            self.record.note_base_line(SUSPECT, "connected", NOW - 100)

    def control(self, outcome: Outcome = "connected") -> None:
        """Connect to both controls."""
        for control in CONTROLS:
            self.record.note_control(control, outcome, self.now)

    def attempt(self, outcome: Outcome, *, took: float = 0.0, controlled: bool = True) -> None:
        """Try the suspect once, and wait until the next attempt is due."""
        if controlled:
            self.control()
        began, self.now = self.now, self.now + took
        self.record.note_attempt(SUSPECT, outcome, began, self.now, CONTROLS)
        self.now += RETRY_INTERVAL

    @property
    def kind(self) -> str | None:
        """What the attempts come to."""
        conclusion = self.record.conclusion(SUSPECT, self.now)
        return None if conclusion is None else conclusion.kind


def test_three_refusals_are_a_refusal() -> None:
    """And no fewer; the conclusion names when the endpoint was reached."""
    trial = Trial()
    for expected in (None, None, "refused", "refused"):
        trial.attempt("refused")
        assert trial.kind == expected
    conclusion = trial.record.conclusion(SUSPECT, trial.now)
    assert conclusion is not None
    assert (conclusion.attempts, conclusion.reached_at) == (3, NOW - 100)


def test_three_time_outs_take_five_seconds() -> None:
    """Three that are closer together are one short interruption."""
    trial = Trial()
    for expected in (None, None, "unreachable"):
        trial.attempt("timed_out", took=1.0)
        assert trial.kind == expected
    trial = Trial()
    for _ in range(3):
        trial.attempt("timed_out", took=0.1)
    assert trial.kind is None


@pytest.mark.parametrize("between", ["nothing", "timed_out", "connected"])
def test_another_outcome_begins_anew(between: Outcome) -> None:
    """No route, a reset, a time-out: what differs takes back what was shown before."""
    trial = Trial()
    for outcome in ("refused", "refused", between, "refused", "refused"):
        trial.attempt(outcome)
    assert trial.kind in (None, "connected")


def test_nothing_comes_to_nothing() -> None:
    """However often an attempt shows nothing."""
    trial = Trial()
    for _ in range(6):
        trial.attempt("nothing")
    assert trial.kind is None


def test_attempts_that_are_too_close_count_once() -> None:
    """A host may refuse for a moment, while its app is restarted."""
    attempts = [Attempt("refused", NOW + n / 10, NOW + n / 10, controlled=True) for n in range(9)]
    assert conclude(attempts, NOW - 1, NOW + 1) is None


def test_without_a_base_line_only_a_connection_counts() -> None:
    """Overlapping networks, a firewall from the beginning: whoever never got there cannot tell that it is dead."""
    trial = Trial(base_line=False)
    for _ in range(4):
        trial.attempt("refused")
    assert trial.kind is None
    trial.attempt("connected")
    assert trial.kind == "connected"


def test_a_base_line_is_of_an_incarnation_and_ends() -> None:
    """A base line of an earlier start is none, and one of long ago neither."""
    record = ProberRecord()
    record.note_base_line(target(1, incarnation=1), "connected", NOW)
    assert record.reached_at(target(1, incarnation=2)) is None
    assert record.has_base_line(SUSPECT, NOW + MAX_BASE_LINE_AGE)
    assert not record.has_base_line(SUSPECT, NOW + MAX_BASE_LINE_AGE + 1)
    assert record.base_lines(NOW) == 1
    record.note_base_line(SUSPECT, "timed_out", NOW + 10)
    assert record.reached_at(SUSPECT) == NOW
    assert not record.base_line_due(SUSPECT, NOW + BASE_LINE_INTERVAL)
    assert record.base_line_due(SUSPECT, NOW + 10 + BASE_LINE_INTERVAL)
    record.prune(NOW + 10 + MAX_BASE_LINE_AGE)
    assert record.base_lines(NOW) == 0


def test_without_controls_there_is_no_say() -> None:
    """A prober whose own network is cut is refused, or times out, everywhere."""
    trial = Trial()
    for _ in range(4):
        trial.attempt("refused", controlled=False)
    assert trial.kind is None


def test_one_control_is_too_few() -> None:
    """Two on one host neither: it may be the suspect's neighbour in death."""
    record = ProberRecord()
    record.note_base_line(SUSPECT, "connected", NOW)
    for controls in ([target(2)], [target(2), target(3, "10.0.0.2")], [target(2), target(3, SUSPECT.address)]):
        for n in range(3):
            for control in controls:
                record.note_control(control, "connected", NOW + 2 * n)
            record.note_attempt(SUSPECT, "refused", NOW + 2 * n, NOW + 2 * n, controls)
        assert record.conclusion(SUSPECT, NOW + 5) is None


def test_controls_count_for_five_seconds() -> None:
    """Of the connections to both, not one may be older at the end of the attempt."""
    for age, expected in ((CONTROL_WINDOW, "refused"), (CONTROL_WINDOW + 0.1, None)):
        record = ProberRecord()
        record.note_base_line(SUSPECT, "connected", NOW)
        for n in range(3):
            at = NOW + 10 + n * 6
            record.note_control(CONTROLS[0], "connected", at - age)
            record.note_control(CONTROLS[1], "connected", at)
            record.note_attempt(SUSPECT, "refused", at, at, CONTROLS)
        conclusion = record.conclusion(SUSPECT, NOW + 22)
        assert (None if conclusion is None else conclusion.kind) == expected


@pytest.mark.parametrize("outcome", ["refused", "timed_out", "nothing"])
def test_a_failed_control_takes_the_say_for_half_a_minute(outcome: Outcome) -> None:
    """It takes back what was concluded before, too."""
    trial = Trial()
    for _ in range(3):
        trial.attempt("refused")
    assert trial.kind == "refused"
    trial.control(outcome)
    assert trial.record.is_muted(trial.now)
    muted = trial.now + MUTE_SECONDS
    while trial.now < muted - 1:
        trial.attempt("refused")
        assert trial.kind is None
    trial.now = muted
    for _ in range(3):
        trial.attempt("refused")
    assert trial.kind == "refused"


def test_a_failed_control_takes_no_connection_back() -> None:
    """It was made, whatever became of the network."""
    trial = Trial()
    trial.attempt("connected")
    trial.control("timed_out")
    assert trial.kind == "connected"


def test_conclusions_end() -> None:
    """Attempts of long ago say nothing about now."""
    trial = Trial()
    for _ in range(3):
        trial.attempt("refused")
    trial.now += MAX_STATEMENT_AGE
    assert trial.kind is None


outcomes = st.sampled_from(["connected", "refused", "timed_out", "nothing"])
attempts_drawn = st.lists(st.tuples(outcomes, st.floats(0, 8), st.floats(0, 1), st.booleans()), min_size=1, max_size=10)


@examples(500)
@given(attempts_drawn, st.none() | st.floats(NOW - 2 * MAX_BASE_LINE_AGE, NOW), st.floats(0, 40))
def test_what_is_concluded_was_shown(
    drawn: list[tuple[Outcome, float, float, bool]], reached_at: float | None, later: float
) -> None:
    """A refusal: the last three of enough, controlled, after a base line, and no connection since for ten seconds."""
    made, now = [], NOW
    for outcome, pause, took, controlled in drawn:
        made.append(Attempt(outcome, now + pause, now + pause + took, controlled))
        now += pause + took
    conclusion = conclude(made, reached_at, now + later)
    if conclusion is None:
        return
    if conclusion.kind == "connected":
        assert any(one.outcome == "connected" and one.ended == conclusion.at for one in made)
        return
    assert reached_at is not None
    assert conclusion.at - reached_at <= MAX_BASE_LINE_AGE
    shown = {"refused": "refused", "unreachable": "timed_out"}[conclusion.kind]
    run = []
    for one in reversed(made):
        if one.outcome != shown:
            break
        run.append(one)
    assert len(run) >= conclusion.attempts >= 3
    assert sum(one.controlled for one in run) >= 3
    assert not [one for one in made if one.outcome == "connected" and now + later - one.ended <= 10]
    if conclusion.kind == "unreachable":
        assert run[0].ended - run[-1].began >= 5


def test_controls_are_alike_and_elsewhere() -> None:
    """Of its service and its network if there are, and never on its host, nor both on one."""
    suspect = target(1, "10.0.0.1", zone="a")
    far, near = target(2, "10.9.0.2"), target(3, "10.0.0.3")
    zone, other = target(4, "10.9.0.4", zone="a"), target(5, "10.0.0.5", service="cart")
    same_host, twin = target(6, "10.0.0.1"), target(7, "10.0.0.3")
    renewing = [other, far, same_host, near, twin, zone]
    assert choose_controls(suspect, renewing) == [near, zone]
    assert choose_controls(suspect, [other, far, same_host, twin]) == [twin, far]
    assert choose_controls(suspect, [other, same_host, twin]) == [twin, other]
    assert choose_controls(suspect, [same_host, near, twin]) == [near]
    more = target(8, "10.0.0.8")
    assert choose_controls(suspect, [near, zone, more], fresh={more.subject}) == [more, near]


def test_networks_of_ipv6() -> None:
    """A /64 is one network, however its addresses are written."""
    suspect = target(1, "2001:db8::1")
    assert choose_controls(
        suspect, [target(2, "2001:db8:1::2"), target(3, "2001:db8::3"), target(4, "2001:db8::4")]
    ) == [
        target(3, "2001:db8::3"),
        target(4, "2001:db8::4"),
    ]


def test_suspects_are_tried_in_turn() -> None:
    """A few at a time, each until it is settled; the next ones in the order of their ids."""
    queue = SuspectQueue()
    queue.update([target(number, f"10.0.1.{number}") for number in range(1, 101)], NOW)
    first = [queue.take(NOW) for _ in range(MAX_ACTIVE_SUSPECTS)]
    assert [one.endpoint_id for one in first if one] == list(range(1, MAX_ACTIVE_SUSPECTS + 1))
    assert queue.take(NOW) is None
    assert first[0] is not None
    assert first[1] is not None
    queue.put_back(first[0], NOW + 1, settled=False)
    assert queue.take(NOW + 0.5) is None
    assert queue.take(NOW + 1) == first[0]
    queue.put_back(first[1], NOW + 9, settled=True)
    following = queue.take(NOW + 1)
    assert following is not None
    assert following.endpoint_id == MAX_ACTIVE_SUSPECTS + 1


def test_a_suspect_that_returns_is_no_suspect() -> None:
    """It is not tried again, nor put back by an attempt that was under way."""
    queue = SuspectQueue()
    queue.update([SUSPECT], NOW)
    assert queue.take(NOW) == SUSPECT
    queue.update([], NOW)
    queue.put_back(SUSPECT, NOW, settled=False)
    queue.put_back(SUSPECT, NOW, settled=True)
    assert len(queue) == 0
    assert queue.take(NOW + 100) is None
    queue.update([SUSPECT], NOW + 200)
    assert queue.take(NOW + 200) == SUSPECT


def test_how_soon_a_suspect_is_tried_again() -> None:
    """Often until the attempts agree, then seldom; a connection stays young enough to be held against all others."""
    trial = Trial()
    assert trial.record.next_attempt_in(SUSPECT) == RETRY_INTERVAL
    for expected in (RETRY_INTERVAL, RETRY_INTERVAL, REPEAT_INTERVAL):
        trial.attempt("refused")
        assert trial.record.next_attempt_in(SUSPECT) == expected
    assert trial.record.is_settled(SUSPECT)
    trial = Trial()
    for _ in range(3):
        trial.attempt("refused", controlled=False)
    assert trial.record.is_settled(SUSPECT)
    for expected in (RETRY_INTERVAL, RETRY_INTERVAL, REPEAT_INTERVAL):
        trial.now += CONTROL_WINDOW
        trial.attempt("refused")
        assert trial.record.next_attempt_in(SUSPECT) == expected
    trial.attempt("connected")
    assert trial.record.next_attempt_in(SUSPECT) == CONNECTED_INTERVAL
    trial.record.keep_suspects(set())
    assert trial.record.next_attempt_in(SUSPECT) == RETRY_INTERVAL
