"""When any process swept last, whatever PostgreSQL's clock is set to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.lease import SweepTime, SweepWatch, sweep_overdue

TIMES = st.floats(0, 1e6)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 60), st.floats(-7200, 7200)), max_size=20), TIMES)
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
