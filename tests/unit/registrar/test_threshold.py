"""The state machine between results and what is published."""

from hypothesis import given
from hypothesis import strategies as st

from registrar.damping import WINDOW, Damping
from registrar.result import Outcome
from registrar.threshold import Limits, State, Threshold
from wire.model import Report

P, D, F = Outcome.PASSED, Outcome.DEGRADED, Outcome.FAILED
NO_GRACE = Limits(healthy=2, unhealthy=3, startup_grace=0)


def run(outcomes: str, limits: Limits = NO_GRACE) -> Threshold:
    """Return a threshold after results that are one letter and two seconds each."""
    threshold = Threshold(limits, 0)
    for index, letter in enumerate(outcomes):
        threshold.observe({"P": P, "D": D, "F": F}[letter], index * 2.0)
    return threshold


def test_starting_is_published_nowhere() -> None:
    """One pass is no evidence yet: there is nothing to report."""
    threshold = run("P")
    assert (threshold.state, threshold.report) == (State.STARTING, None)


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
    limits = Limits(startup_grace=10)
    assert run("FFFFF", limits).report is None
    assert run("FFFFFFF", limits).report is None
    assert run("FFFFFFFF", limits).report is Report.UNHEALTHY


def test_a_failure_in_the_grace_breaks_a_run_of_passes() -> None:
    """Passes count in a row only, also while failures do not count."""
    assert run("PFPFPF", Limits(startup_grace=100)).report is None


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
    threshold = Threshold(NO_GRACE, 0)
    assert [threshold.observe(one, now) for now, one in enumerate([P, P, P, F, F, F, F])] == [
        False, True, False, False, False, True, False,
    ]  # fmt: skip


def test_a_flapping_endpoint_has_to_pass_longer() -> None:
    """A second transition within a minute doubles the passes that are asked for, and it is counted."""
    threshold = run("PPFFFPP")
    assert (threshold.report, threshold.suppressed) == (Report.UNHEALTHY, 1)
    assert run("PPFFFPPPP").report is Report.HEALTHY


def test_damping_is_over_after_a_minute_of_quiet() -> None:
    """The factor doubles with each transition up to eight, and a minute without any resets it."""
    damping = Damping()
    factors = []
    for now in range(6):
        damping.record(now)
        factors.append(damping.factor(now))
    assert factors == [1, 2, 4, 8, 8, 8]
    assert damping.factor(5 + WINDOW) == 1


@given(interval=st.floats(0.25, 2.0), offset=st.floats(0, 6))
def test_an_app_that_flaps_every_three_seconds_changes_four_times_a_minute_at_most(
    interval: float, offset: float
) -> None:
    """Fault 2: with the default limits no minute has more than four published transitions."""
    threshold = Threshold(Limits(), 0)
    changes = [
        now
        for now in (step * interval for step in range(int(150 / interval)))
        if threshold.observe(P if (now + offset) % 6 < 3 else F, now)
    ]
    assert all(sum(start <= at < start + 60 for at in changes) <= 4 for start in changes)


events = st.lists(st.sampled_from([P, D, F, "drain"]), max_size=60)
limits = st.builds(Limits, st.integers(1, 5), st.integers(1, 5), st.floats(0, 60))


@given(events, limits, st.floats(0, 10))
def test_draining_is_final(order: list[Outcome | str], limits: Limits, step: float) -> None:
    """Whatever results follow a drain, state and report stay what they were at that moment."""
    threshold = Threshold(limits, 0)
    latched: Report | None = None
    drained = False
    for index, event in enumerate(order):
        if isinstance(event, Outcome):
            changed = threshold.observe(event, index * step)
            assert not (drained and changed)
        else:
            threshold.drain()
            latched = latched if drained else threshold.report
            drained = True
        if drained:
            assert (threshold.state, threshold.report) == (State.DRAINING, latched)


@given(events, limits, st.floats(0, 10))
def test_nothing_is_published_before_its_threshold(order: list[Outcome | str], limits: Limits, step: float) -> None:
    """A report stands only behind a run of results that is as long as its threshold."""
    threshold = Threshold(limits, 0)
    seen: list[Outcome] = []
    for index, event in enumerate(order):
        if not isinstance(event, Outcome):
            threshold.drain()
            continue
        seen.append(event)
        if not threshold.observe(event, index * step):
            continue
        if threshold.report is Report.UNHEALTHY:
            assert seen[-limits.unhealthy :] == [F] * limits.unhealthy
        elif threshold.report is Report.HEALTHY:
            assert seen[-limits.healthy :] == [P] * limits.healthy
        else:
            assert len(seen) >= min(limits.healthy, limits.unhealthy)
    if not any(isinstance(event, Outcome) for event in order):
        assert threshold.report is None
