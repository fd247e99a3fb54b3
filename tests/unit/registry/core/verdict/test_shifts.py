"""The rule of the verdict about shifts: which of them somebody has to look at."""

import pytest
from msgspec.structs import replace

from registry.core.shares import Share
from registry.core.shift import Shift, Strength, start
from registry.core.shift_plan import ShiftPlan
from registry.core.verdict.shifts import MAX_HOLD, MAX_PAUSE, trouble_of

NOW = 1_000_000.0
SHIFT = start(
    "shop",
    ShiftPlan("revision=b", (5.0, 100.0), 10.0, 1.0, 200, "anna", ""),
    None,
    (),
    Strength(group_endpoints=1, group=1, rest=3, rest_endpoints=3),
    NOW,
).shift
ABORTED = replace(SHIFT, state="aborted", changed_by="registry", reason="aborted at 5 %: bad")


@pytest.mark.parametrize(
    ("shift", "in_force", "after", "trouble"),
    [
        (SHIFT, SHIFT.shares, 1e6, ""),
        (replace(SHIFT, holding=MAX_HOLD, held="x"), SHIFT.shares, 0.0, "has held at 5 % for 5m: x"),
        (replace(SHIFT, state="paused"), SHIFT.shares, MAX_PAUSE - 1, ""),
        (replace(SHIFT, state="paused"), SHIFT.shares, MAX_PAUSE, "was paused 24h ago by anna"),
        (replace(SHIFT, state="paused"), SHIFT.shares, -MAX_PAUSE, ""),
        (replace(SHIFT, state="paused", changed_by="registry"), SHIFT.shares, 60.0, "was paused 60s ago by registry"),
        (ABORTED, ABORTED.shares, 7200.0, "was taken back 2h ago, and its endpoints get no requests: aborted at 5 %"),
        (ABORTED, (), 0.0, ""),
        (ABORTED, (Share("revision=b", 20.0),), 0.0, ""),
        (replace(ABORTED, changed_by="anna"), ABORTED.shares, 0.0, ""),
        (replace(ABORTED, released=True), (), 0.0, ""),
        (replace(SHIFT, state="done"), SHIFT.shares, 1e6, ""),
        (None, (), 0.0, "its shift cannot be read"),
    ],
)
def test_a_shift_that_stands_still_or_was_taken_back_is_a_trouble(
    shift: Shift | None, in_force: tuple[Share, ...], after: float, trouble: str
) -> None:
    """One that an operator has ended, or that advances, is none; whatever the clock was set to."""
    words = trouble_of(shift, in_force, NOW + after)
    assert (trouble in words) if trouble else (words == "")
