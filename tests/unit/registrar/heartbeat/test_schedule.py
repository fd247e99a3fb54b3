"""When heartbeats leave, in virtual time."""

from hypothesis import given
from hypothesis import strategies as st

from registrar.heartbeat.schedule import HeartbeatSchedule
from registrar.jitter import Backoff


def departures(changes: list[float], until: float, interval: float = 1000.0) -> list[float]:
    """Return when heartbeats leave if changes happen at those moments and each is answered at once."""
    now, left, pending = 0.0, [], sorted(changes)
    pace = HeartbeatSchedule(now)
    pace.sent(now)
    pace.answered(now, interval)
    pace.answered(now, interval)
    while now < until:
        now = min([now + pace.delay(now), *pending[:1], until])
        if pending and pending[0] <= now:
            pace.change(pending.pop(0))
        elif now < until and pace.delay(now) <= 0:
            pace.sent(now)
            pace.answered(now, interval)
            left.append(now)
    return left


def test_changes_within_a_tenth_of_a_second_leave_together() -> None:
    """Three changes in 90 ms make one request, 100 ms after the first."""
    assert departures([1.0, 1.05, 1.09], 10) == [1.1]


def test_a_burst_of_five_and_then_one_a_second() -> None:
    """An app that changes all the time costs five requests at once and then one a second."""
    left = departures([step * 0.15 for step in range(60)], 9)
    assert sum(at < 1 for at in left) == 5
    assert len(left) <= 5 + 9


@given(st.lists(st.floats(0, 20), max_size=80))
def test_never_more_than_the_burst_and_one_a_second(changes: list[float]) -> None:
    """In any stretch of time there are at most five requests and one for each of its seconds."""
    left = departures(changes, 60)
    for first, start in enumerate(left):
        for last in range(first, len(left)):
            assert last - first + 1 <= 5 + (left[last] - start) + 1e-6


@given(st.lists(st.floats(0, 20), min_size=1, max_size=80))
def test_no_change_is_lost(changes: list[float]) -> None:
    """After the last change a request leaves."""
    assert departures(changes, 60)[-1] > max(changes)


@given(st.floats(1, 60))
def test_the_period_is_the_granted_one_within_a_tenth(interval: float) -> None:
    """After the first answer, which chooses a random phase, each pause is the interval ±10 %."""
    pace = HeartbeatSchedule(0)
    pace.answered(0, interval)
    assert 0 <= pace.delay(0) <= interval
    pace.answered(100, interval)
    assert 0.9 * interval <= pace.delay(100) <= 1.1 * interval * (1 + 1e-9)


def test_a_failure_holds_changes_back_too() -> None:
    """Nothing leaves before the pause is over, whatever changes meanwhile."""
    pace = HeartbeatSchedule(0)
    pace.failed(0, 3)
    pace.change(0)
    assert pace.delay(0) == 3


def test_an_interval_of_nothing_is_no_flood() -> None:
    """A registry that grants an interval of 0 gets ten heartbeats a second, not all that fit."""
    pace = HeartbeatSchedule(0)
    pace.answered(0, 0)
    pace.answered(0, 0)
    assert pace.delay(0) >= 0.09


@given(st.integers(1, 2000), st.floats(1, 600))
def test_backoff_stays_below_a_quarter_of_the_ttl(failures: int, ttl: float) -> None:
    """Pauses are between 0 and min(5 s, ttl / 4), after any number of failures."""
    backoff = Backoff()
    pauses = [backoff.failed(ttl) for _ in range(failures)]
    assert 0 <= min(pauses) <= max(pauses) <= min(5.0, ttl / 4)
    assert pauses[0] <= 0.25


@given(st.floats(0, 40))
def test_backoff_waits_as_long_as_it_was_asked_to(asked: float) -> None:
    """Retry-After is the least that is waited, and the fleet does not come back at one moment."""
    pause = Backoff().failed(20, asked)
    assert asked <= pause <= max(0.25, asked * 1.2)


def test_backoff_ignores_a_retry_after_of_hours() -> None:
    """One bad header must not cost a fleet its leases for a day."""
    assert Backoff().failed(20, 86_400) <= 72
