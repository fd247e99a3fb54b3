"""The state machine between results and what is published, in virtual time."""

from collections.abc import Callable, Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.checks.flap_damping import WINDOW, FlapDamping
from registrar.checks.result import Outcome, Result
from registrar.checks.threshold import OnFail, State, Threshold, ThresholdLimits
from registrar.endpoint.incarnation import Incarnation
from wire.model import Report

P, D, F, U = Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED, Outcome.UNKNOWN
NO_GRACE = ThresholdLimits(healthy=2, unhealthy=3, startup_grace=0)


def run(outcomes: str, limits: ThresholdLimits = NO_GRACE) -> Incarnation:
    """Return an incarnation with one check after results that are one letter and two seconds each."""
    incarnation = Incarnation([limits], 0, FlapDamping())
    for index, letter in enumerate(outcomes):
        incarnation.observe(0, Result({"P": P, "D": D, "F": F, "U": U}[letter], letter), index * 2.0)
    return incarnation


def changes(outcomes: Iterable[tuple[float, Outcome]], limits: ThresholdLimits = NO_GRACE) -> list[float]:
    """Return the moments at which what is published changed."""
    incarnation = Incarnation([limits], 0, FlapDamping())
    return [now for now, outcome in outcomes if incarnation.observe(0, Result(outcome, ""), now)]


def test_starting_is_published_nowhere() -> None:
    """One pass is no evidence yet: there is nothing to report."""
    incarnation = run("P")
    assert (incarnation.state, incarnation.report) == (State.STARTING, None)


def test_healthy_after_two_passes_in_a_row() -> None:
    """The healthy_threshold publishes HEALTHY; a failure between two passes starts the run again."""
    assert run("PP").report is Report.HEALTHY
    assert run("PFP").report is None
    assert run("PFPP").report is Report.HEALTHY


def test_unhealthy_after_three_failures_in_a_row() -> None:
    """Two failures change nothing, a third publishes UNHEALTHY."""
    assert run("PPFF").report is Report.HEALTHY
    assert run("PPFFF").report is Report.UNHEALTHY
    assert run("PPFFPFF").report is Report.HEALTHY


def test_failures_within_the_startup_grace_do_not_count() -> None:
    """An app that needs long to start stays unpublished, and after the grace three failures publish it."""
    limits = ThresholdLimits(startup_grace=10)
    assert run("FFFFF", limits).report is None
    assert run("FFFFFFF", limits).report is None
    assert run("FFFFFFFF", limits).report is Report.UNHEALTHY


def test_a_failure_in_the_grace_breaks_a_run_of_passes() -> None:
    """Passes count in a row only, also while failures do not count."""
    assert run("PFPFPF", ThresholdLimits(startup_grace=100)).report is None


def test_warnings_publish_degraded() -> None:
    """Degraded results publish DEGRADED at start and after the unhealthy_threshold, and passes end it."""
    assert run("DD").report is Report.DEGRADED
    assert run("PPDD").report is Report.HEALTHY
    assert run("PPDDD").report is Report.DEGRADED
    assert run("DDPP").report is Report.HEALTHY
    assert run("DDFFF").report is Report.UNHEALTHY


def test_a_mixed_run_of_bad_results_is_degraded_at_most() -> None:
    """Only failures in a row are UNHEALTHY; failures and warnings in turns are DEGRADED."""
    assert run("PPDFDFDF").report is Report.DEGRADED


def test_recovering_with_warnings_is_degraded() -> None:
    """An endpoint that answers again, with warnings, is no longer UNHEALTHY and not yet HEALTHY."""
    assert run("FFFDD").report is Report.DEGRADED


def test_observe_tells_transitions_only() -> None:
    """The answer is True at a change of the published state and False everywhere else."""
    assert changes(enumerate([P, P, P, F, F, F, F])) == [1, 5]


def test_unknown_results_are_evidence_for_nothing() -> None:
    """They neither make a run nor break one, and end no grace."""
    assert run("UUUUUU").report is None
    assert run("PUUP").report is Report.HEALTHY
    assert run("PPFUFUUF").report is Report.UNHEALTHY
    assert run("PPUUUUUUUU").report is Report.HEALTHY


def test_an_app_that_crashes_once_after_its_start_comes_back_after_two_passes() -> None:
    """The first publication is no flapping."""
    incarnation = run("PPFFFPP")
    assert (incarnation.report, incarnation.suppressed) == (Report.HEALTHY, 0)


def test_a_flapping_endpoint_has_to_pass_longer() -> None:
    """The second crash within a minute costs eight times the passes, and what was held back is counted."""
    crashed_twice = "PPFFFPPFFF"
    incarnation = run(crashed_twice + "P" * 15)
    assert (incarnation.report, incarnation.suppressed) == (Report.UNHEALTHY, 1)
    assert run(crashed_twice + "P" * 16).report is Report.HEALTHY


def test_damping_is_over_after_a_minute_of_quiet() -> None:
    """The first publication and one change are free, the factor stops at eight, and a minute resets it."""
    damping = FlapDamping()
    factors = []
    for now in range(6):
        damping.record(now)
        factors.append(damping.factor(now))
    assert factors == [1, 1, 4, 8, 8, 8]
    assert damping.factor(5 + WINDOW) == 1
    damping.record(5 + WINDOW)
    assert damping.factor(5 + WINDOW) == 1


@pytest.mark.parametrize("quiet", [0.0, 200.0])
@given(interval=st.floats(0.25, 2.0), offset=st.floats(0, 6), seed=st.integers(0, 2**32))
def test_an_app_that_flaps_every_three_seconds_changes_four_times_a_minute_at_most(
    quiet: float, interval: float, offset: float, seed: int
) -> None:
    """Fault 2: with the default thresholds no minute has more than four, from the start on or after long health."""

    def results() -> Iterable[tuple[float, Outcome]]:
        now, jitter = 0.0, Random(seed)
        while now < quiet + 150:
            yield now, P if now < quiet or (now + offset) % 6 < 3 else F
            now += interval * jitter.uniform(0.9, 1)

    moments = changes(results(), ThresholdLimits())
    assert all(sum(start <= at < start + 60 for at in moments) <= 4 for start in moments)


def test_on_fail_degraded_stops_at_degraded() -> None:
    """Three failures are DEGRADED, passes end it, and failures within the grace do not count either."""
    softly = ThresholdLimits(startup_grace=0, on_fail=OnFail.DEGRADED)
    assert run("PPFF", softly).report is Report.HEALTHY
    assert run("PPFFF", softly).report is Report.DEGRADED
    assert run("FFF", softly).report is Report.DEGRADED
    assert run("PPFFFPP", softly).report is Report.HEALTHY
    assert run("FFFF", ThresholdLimits(startup_grace=60, on_fail=OnFail.DEGRADED)).report is None


limits = st.builds(ThresholdLimits, st.integers(1, 5), st.integers(1, 5), st.floats(0, 60), st.sampled_from(OnFail))
# One to three checks, and a history: the index of a check and its outcome, or the drain.
histories = st.lists(limits, min_size=1, max_size=3).flatmap(
    lambda several: st.tuples(
        st.just(several),
        st.lists(st.tuples(st.integers(0, len(several) - 1), st.sampled_from(Outcome)) | st.just("drain"), max_size=80),
        st.floats(0, 10),
    )
)
History = tuple[list[ThresholdLimits], list[tuple[int, Outcome] | str], float]


def play(history: History, look: Callable[[Incarnation, bool], None]) -> Incarnation:
    """Let a history happen and look at each moment of it."""
    several, events, step = history
    incarnation = Incarnation(several, 0, FlapDamping())
    for index, event in enumerate(events):
        changed = False
        if isinstance(event, str):
            incarnation.drain()
        else:
            changed = incarnation.observe(event[0], Result(event[1], ""), index * step)
        look(incarnation, changed)
    return incarnation


@given(histories)
def test_draining_is_final(history: History) -> None:
    """Whatever results follow a drain, state and report stay what they were at that moment."""
    latched: list[Report | None] = []

    def look(incarnation: Incarnation, changed: bool) -> None:
        if incarnation.state is State.DRAINING:
            latched.append(incarnation.report)
            assert not changed
        assert len(set(latched)) <= 1
        assert not latched or incarnation.state is State.DRAINING

    play(history, look)


@given(histories)
def test_state_and_report_say_the_same(history: History) -> None:
    """STARTING has no report, every other state but DRAINING has its own, and a change is told exactly once."""
    reports: list[Report | None] = [None]

    def look(incarnation: Incarnation, changed: bool) -> None:
        if incarnation.state is not State.DRAINING:
            assert incarnation.state == (incarnation.report or State.STARTING)
        assert changed == (incarnation.report is not reports[-1])
        reports.append(incarnation.report)

    play(history, look)


@given(histories)
def test_soft_checks_never_make_an_endpoint_unhealthy(history: History) -> None:
    """With on_fail degraded or ignore on each check there is no UNHEALTHY."""
    several, events, step = history
    soft = [
        ThresholdLimits(limits.healthy, limits.unhealthy, limits.startup_grace, OnFail.DEGRADED)
        if limits.on_fail is OnFail.UNHEALTHY
        else limits
        for limits in several
    ]

    def look(incarnation: Incarnation, _: bool) -> None:
        assert incarnation.report is not Report.UNHEALTHY

    play((soft, events, step), look)


@given(histories, st.data())
def test_ignored_checks_never_change_anything(history: History, data: st.DataObject) -> None:
    """A history with the results of ignored checks taken out has the same end."""
    several, events, step = history
    ignored = {index for index, limits in enumerate(several) if limits.on_fail is OnFail.IGNORE}
    noise = [
        (event[0], data.draw(st.sampled_from(Outcome))) if not isinstance(event, str) and event[0] in ignored else event
        for event in events
    ]
    quiet = play(history, lambda *_: None)
    loud = play((several, noise, step), lambda *_: None)
    assert (quiet.state, quiet.report, quiet.detail) == (loud.state, loud.report, loud.detail)


@given(histories)
def test_unknown_results_never_change_anything(history: History) -> None:
    """A history without them, at the same moments, has the same end."""
    several, events, step = history
    silent: list[tuple[int, Outcome] | str] = []
    incarnation = Incarnation(several, 0, FlapDamping())
    for index, event in enumerate(events):
        if isinstance(event, str):
            incarnation.drain()
        elif event[1] in (P, D, F):
            incarnation.observe(event[0], Result(event[1], ""), index * step)
        silent.append(event)
    assert play((several, silent, step), lambda *_: None).report is incarnation.report


@given(st.lists(st.sampled_from([P, D, F, U]), max_size=60), limits, st.floats(0, 10))
def test_nothing_is_published_before_its_threshold(order: list[Outcome], limits: ThresholdLimits, step: float) -> None:
    """A verdict stands only behind a run of results that is as long as its threshold."""
    threshold = Threshold(limits, 0, FlapDamping())
    seen: list[Outcome] = []
    for index, outcome in enumerate(order):
        if outcome is not U:
            seen.append(outcome)
        if not threshold.observe(outcome, index * step):
            continue
        if threshold.report is Report.UNHEALTHY:
            assert seen[-limits.unhealthy :] == [F] * limits.unhealthy
        elif threshold.report is Report.HEALTHY:
            assert seen[-limits.healthy :] == [P] * limits.healthy
        else:
            assert len(seen) >= min(limits.healthy, limits.unhealthy)


def test_several_checks_are_as_bad_as_the_worst_that_counts() -> None:
    """Nothing is published before each has a verdict, and the detail is that of the check that decides."""
    several = [
        ThresholdLimits(startup_grace=0),
        ThresholdLimits(startup_grace=0, on_fail=OnFail.DEGRADED),
        ThresholdLimits(startup_grace=0, on_fail=OnFail.IGNORE),
    ]
    incarnation = Incarnation(several, 0, FlapDamping())

    def see(check: int, outcome: Outcome, detail: str) -> tuple[Report | None, str]:
        for _ in range(3):
            incarnation.observe(check, Result(outcome, detail), 1)
        return incarnation.report, incarnation.detail

    assert see(0, P, "answers")[0] is None
    assert see(2, F, "ignored")[0] is None
    assert see(1, P, "database") == (Report.HEALTHY, "answers")
    assert see(1, F, "database away") == (Report.DEGRADED, "database away")
    assert see(0, F, "dead") == (Report.UNHEALTHY, "dead")
