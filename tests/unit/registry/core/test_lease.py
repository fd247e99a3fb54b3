"""The rules of time: credit and removal."""

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.making import NOW, endpoint, leases, registration

from registry.core.endpoint import Endpoint
from registry.core.lease import (
    MAX_CLOCK_ERROR,
    MAX_FAST_WRITE,
    MAX_RESTORE_HOLD,
    WRITE_WINDOW,
    WRITES_IN_FLIGHT,
    ClockReading,
    Lease,
    Leases,
    SweepTime,
    SweepWatch,
    WriteDurations,
    clock_step,
    credit,
    heartbeat_overdue,
    interval,
    removable,
    restore_hold,
    sweep_overdue,
)
from wire.model import Report

DELAY, HOLD = 10.0, 900.0


@pytest.mark.parametrize(
    ("last", "elapsed", "every", "credited"),
    [
        pytest.param(None, None, 1.0, 0.0, id="the first sweep ever"),
        pytest.param(NOW - 1.0, 1.0, 1.0, 0.0, id="a normal pace"),
        pytest.param(NOW - 2.9, 2.9, 1.0, 0.0, id="a late sweep within the tolerance"),
        pytest.param(NOW - 5.0, 5.0, 5.0, 0.0, id="a slow pace that is meant"),
        pytest.param(NOW - 60.0, 60.0, 60.0, 0.0, id="the slowest pace that is meant"),
        pytest.param(NOW - 120.0, 120.0, 1.0, 120.0, id="this process was frozen"),
        pytest.param(NOW - 301.0, 1.0, 1.0, 301.0, id="the clock jumped forwards"),
        pytest.param(NOW + 299.0, 1.0, 1.0, -299.0, id="the clock jumped backwards"),
        pytest.param(NOW - 0.5, 120.0, 1.0, 0.5, id="frozen, and the clock went back as far"),
        pytest.param(NOW - 1.5, None, 1.0, 0.0, id="the lead changed hands at once"),
        pytest.param(NOW - 300.0, None, 1.0, 300.0, id="nobody led for a while"),
        pytest.param(NOW + 299.0, None, 1.0, -299.0, id="the lead changed hands and the clock went back"),
        pytest.param(NOW + 1.0, None, 1.0, 0.0, id="a new leader and a slightly different clock"),
    ],
)
def test_our_own_outage_expires_nobody(
    last: float | None, elapsed: float | None, every: float, credited: float
) -> None:
    """Time in which nobody swept, and jumps of the clock, are credited; the normal pace is not."""
    assert credit(last, NOW, elapsed, every) == credited


@given(st.floats(0.05, 60), st.floats(0, MAX_CLOCK_ERROR - 0.01), st.booleans())
def test_no_pace_makes_immortals(every: float, late: float, led: bool) -> None:
    """Whatever the sweep interval is, a sweep that is about in time credits nothing."""
    passed = every + late
    assert credit(NOW - passed, NOW, passed if led else None, every) == 0.0


@given(st.floats(-1e4, 1e4), st.none() | st.floats(0, 1e4), st.floats(0.05, 60))
def test_a_credit_leaves_what_a_lease_has_left(passed: float, elapsed: float | None, every: float) -> None:
    """It is all the time that the database's clock says has passed, or nothing: never more than that."""
    assert credit(NOW - passed, NOW, elapsed, every) in (0.0, pytest.approx(passed, abs=1e-6))


@given(st.floats(0.05, 60), st.floats(0, MAX_CLOCK_ERROR - 0.01), st.floats(0, 5))
def test_the_time_of_an_own_write_is_not_credited(every: float, late: float, write: float) -> None:
    """PostgreSQL was slow then, and stored heartbeats as slowly; what lies beyond it is credited whole."""
    passed = every + late + write
    assert credit(NOW - passed, NOW, passed, every, write) == 0.0
    longer = passed + MAX_CLOCK_ERROR + 0.1
    assert credit(NOW - longer, NOW, longer, every, write) == pytest.approx(longer, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 20)), max_size=20), st.floats(0, 100))
def test_a_renewal_under_way_is_allowed_for(writes: list[tuple[float, float]], after: float) -> None:
    """Twice the slowest recent write is allowed, nothing when all were fast, the timeout when none is known."""
    longest, now, durations = 5.0, 0.0, WriteDurations(5.0)
    took: list[tuple[float, float]] = []
    for pause, seconds in writes:
        began, now = now + pause, now + pause + seconds
        durations.record(began, now)
        took.append((now, now - began))
    now += after
    lately = [seconds for ended, seconds in took if ended >= now - WRITE_WINDOW]
    slowest = max(lately, default=longest)
    expected = 0.0 if slowest <= MAX_FAST_WRITE else WRITES_IN_FLIGHT * min(slowest, longest)
    assert durations.allowance(now) == expected
    assert 0.0 <= expected <= WRITES_IN_FLIGHT * longest


_times = st.floats(0, 1e4)


@given(_times, _times, _times, st.floats(-1.0, 1.0), st.floats(0, 1), st.floats(0, 1))
def test_no_step_is_found_where_the_clock_was_not_set(
    first: float, pause: float, second: float, error: float, early: float, late: float
) -> None:
    """However long the readings take and whenever within them PostgreSQL reads its clock, which may drift a little."""
    earlier = ClockReading(NOW + early * first, 0.0, first)
    begun = first + pause
    later = ClockReading(NOW + begun + late * second + error, begun, begun + second)
    assert clock_step(earlier, later) == 0.0


@given(_times, _times, st.floats(0, 1), st.floats(-1e5, 1e5))
def test_a_step_beyond_the_bounds_is_found(took: float, pause: float, share: float, step: float) -> None:
    """A step that is larger than what the readings leave open is found, with its sign, and never overstated."""
    earlier = ClockReading(NOW, 0.0, share * took)
    later = ClockReading(NOW + share * took + pause + step, share * took + pause, took + pause)
    measured = clock_step(earlier, later)
    assert measured == 0.0 or (measured > 0) == (step > 0)
    assert abs(measured) <= abs(step) + 1e-3
    if abs(step) > took + MAX_CLOCK_ERROR + 1e-3:
        assert measured != 0.0


def test_three_heartbeats_fit_into_a_lease() -> None:
    """Two may be lost."""
    assert interval(20.0) == 5.0


def test_a_lease_is_found_by_its_endpoint() -> None:
    """To the microsecond; an endpoint without one has none, whatever its number is."""
    held = leases((7, NOW + 0.25, NOW + 20.000001), (3, NOW, NOW + 9.5))
    assert (held.get(3), held.get(7)) == (Lease(3, NOW, NOW + 9.5), Lease(7, NOW + 0.25, NOW + 20.000001))
    assert [held.get(number) for number in (0, 4, 8)] == [None, None, None]
    assert (len(held), len(Leases.none()), Leases.none().get(3)) == (2, 0, None)


def names(endpoints: list[Endpoint], now: float) -> list[int]:
    """Return the numbers of those that may be left out."""
    return [removed.id for removed in removable(endpoints, now, DELAY, HOLD)]


def test_the_deregistered_go_after_the_delay() -> None:
    """Not before, and also when nothing else is listed: it was on purpose."""
    gone = endpoint(1, leaving_at=NOW)
    assert names([gone], NOW + DELAY - 0.001) == []
    assert names([gone], NOW + DELAY) == [1]


def test_the_lapsed_go_when_there_is_something_better() -> None:
    """A routable endpoint beside it is enough."""
    assert names([endpoint(1, lapsed_at=NOW), endpoint(2)], NOW + DELAY) == [1]


def test_the_last_lapsed_stay_up_to_the_hold() -> None:
    """I3: an answer does not become empty by a loss of contact, and not for ever full of the dead."""
    lost = [endpoint(1, lapsed_at=NOW), endpoint(2, lapsed_at=NOW + 5)]
    assert names(lost, NOW + HOLD - 0.001) == []
    assert names(lost, NOW + HOLD) == [1]
    assert names(lost, NOW + HOLD + 5) == [1, 2]


def test_unhealthy_endpoints_are_nothing_better() -> None:
    """Lapsed endpoints stay beside those that fail their checks."""
    failing = endpoint(2, stored=registration("i-2", health=Report.UNHEALTHY))
    assert names([endpoint(1, lapsed_at=NOW), failing], NOW + DELAY) == []


def test_who_drained_and_lapsed_goes() -> None:
    """It was taken out on purpose; a drain by an operator alone is none of the instance."""
    drained = endpoint(1, stored=registration("i-1", draining=True), lapsed_at=NOW)
    assert names([drained], NOW + DELAY) == [1]


@pytest.mark.parametrize("health", list(Report))
def test_who_holds_a_lease_stays(health: Report) -> None:
    """Unhealthy or draining, an endpoint whose instance speaks is listed."""
    reported = registration("i-1", health=health, draining=True)
    assert names([endpoint(1, stored=reported)], NOW + 10 * HOLD) == []


moments = st.none() | st.floats(NOW - 2000, NOW)
listed = st.builds(
    lambda number, health, draining, lapsed, leaving, unroutable: endpoint(
        number,
        stored=registration(f"i-{number}", health=health, draining=draining),
        lapsed_at=lapsed,
        leaving_at=leaving,
        unroutable_at=unroutable,
    ),
    st.integers(1, 5),
    st.sampled_from(Report),
    st.booleans(),
    moments,
    moments,
    st.floats(NOW - 2000, NOW),
)


@examples(200)
@given(st.lists(listed, max_size=5, unique_by=lambda row: row.id), st.floats(0, 60), st.floats(0, 1000))
def test_removal_has_two_phases_whatever_happened(rows: list[Endpoint], delay: float, hold: float) -> None:
    """Nothing goes that is routable, that speaks, or that was not published as unroutable for the delay."""
    gone = removable(rows, NOW, delay, hold)
    for row in gone:
        assert not row.routable
        assert row.unroutable_at is not None
        assert NOW - row.unroutable_at >= delay
        assert row.leaving_at is not None or row.lapsed_at is not None
    if len(gone) == len(rows):
        held = [row for row in gone if row.leaving_at is None and not row.registration.draining]
        assert all(row.lapsed_at is not None and NOW - row.lapsed_at >= hold for row in held)


_ages = st.floats(0, 1e6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 60), st.floats(-7200, 7200)), max_size=20), _ages)
def test_steps_of_the_database_clock_change_no_age(story: list[tuple[bool, float, float]], first_ago: float) -> None:
    """After the first look only whether somebody swept since counts, and the monotonic time."""
    watch, now, stored, swept_at = SweepWatch(), 1e6, 5e8, 1e6 - first_ago
    watch.observe(SweepTime(stored, first_ago), now)
    for sweeps, passed, ago in story:
        now += passed
        if sweeps:
            stored, swept_at = stored + passed + ago / 1000 + 8, now
        watch.observe(SweepTime(stored, ago), now)
        assert watch.ago(now) == now - swept_at


def test_an_age_that_is_negative_at_the_first_look_is_none() -> None:
    """The clock was set back between the sweep and the first look: the sweep was at most just now."""
    watch = SweepWatch()
    assert watch.ago(7.0) is None
    watch.observe(SweepTime(100.0, -3600.0), 7.0)
    assert watch.ago(9.0) == 2.0
    watch.observe(None, 9.0)
    assert watch.ago(9.0) is None


@pytest.mark.parametrize(
    ("swept_ago", "running", "sweep_interval", "resync_interval", "overdue"),
    [
        (8.0, 100.0, 1.0, 3.0, False),
        (8.1, 100.0, 1.0, 3.0, True),
        (6.0, 100.0, 0.2, 0.5, False),
        (6.1, 100.0, 0.2, 0.5, True),
        (52.0, 100.0, 10.0, 3.0, False),
        (53.1, 100.0, 10.0, 3.0, True),
        (None, 8.0, 1.0, 3.0, False),
        (None, 8.1, 1.0, 3.0, True),
    ],
)
def test_a_sweep_is_overdue_after_five_intervals_and_a_resync(
    swept_ago: float | None, running: float, sweep_interval: float, resync_interval: float, overdue: bool
) -> None:
    """Six seconds are never too many; without any sweep the time since the start counts."""
    assert sweep_overdue(swept_ago, running, sweep_interval, resync_interval) is overdue


@pytest.mark.parametrize(("age", "overdue"), [(0, False), (20, False), (20.1, True), (99, True), (-5, False)])
def test_a_heartbeat_is_overdue_after_half_of_the_lease(age: float, overdue: bool) -> None:  # a case
    """They come at a quarter of it, so one may be lost; a clock that lags behind makes nothing overdue."""
    assert heartbeat_overdue(Lease(1, NOW, NOW + 40), NOW + age) is overdue


@pytest.mark.parametrize(
    ("lease_ttl", "longest_ttl", "restored_ago", "hold"),
    [
        (20, 0, 0, 30),
        (20, 20, 12, 18),
        (20, 600, 0, 151),
        (20, 86_400, 0, MAX_RESTORE_HOLD),
        (86_400, 86_400, 0, MAX_RESTORE_HOLD),
        (20, 0, 31, 0),
        (20, 0, -3600, 30),
    ],
)
def test_a_restored_database_is_held_until_living_endpoints_returned(
    lease_ttl: float, longest_ttl: float, restored_ago: float, hold: float
) -> None:
    """The longest lease that was served counts, up to three minutes; a clock that was set back adds nothing."""
    assert restore_hold(lease_ttl, longest_ttl, 1.0, restored_ago) == hold
