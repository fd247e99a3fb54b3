"""The drawing of a shift's curve: within its frame, whatever was counted."""

from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st

from registry.console.shift_curve import HEIGHT, WIDTH, shift_curve
from registry.core.shift_curve import Point
from registry.core.shift_statistics import Counts

counts = st.builds(
    lambda requests, part: Counts(requests, int(requests * part)), st.integers(0, 10_000), st.floats(0, 1)
)
points = st.lists(st.tuples(st.floats(0, 1000), st.sampled_from([5.0, 25.0]), counts, counts), max_size=120).map(
    lambda rows: [Point(*row) for row in sorted(rows, key=lambda row: row[:2])]
)


@examples(100)
@given(points, st.floats(0, 100), st.floats(0, 1))
def test_every_line_is_within_the_frame(curve: list[Point], abort_above: float, rest: float) -> None:
    """A group without requests at a moment has no point there: no traffic is not 0 %."""
    drawn = shift_curve(curve, 0.0, abort_above, rest)
    for line, of in ((drawn.group, "group"), (drawn.rest, "rest")):
        at = [tuple(map(float, point.split(","))) for point in line.split()]
        counted = sum(bool(getattr(point, of).requests) for point in curve)
        assert len(at) == (counted + 1 if counted else 0)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in at)
    assert drawn.limit is None or 0 <= drawn.limit <= HEIGHT
    assert all(0 <= step.x <= WIDTH for step in drawn.steps)


def test_a_curve_has_its_steps_and_its_limit() -> None:
    """The limit is above the errors of the rest."""
    curve = [Point(10.0, 5.0, Counts(100, 1), Counts(900, 9)), Point(20.0, 25.0, Counts(100, 4), Counts(900, 9))]
    drawn = shift_curve(curve, 20.0, 1.0, 0.01)
    assert [(step.x, step.percent) for step in drawn.steps] == [(500.0, 5.0), (1000.0, 25.0)]
    assert (drawn.top, drawn.limit, drawn.seconds) == (5.0, 132.0, 20.0)
    assert drawn.group == "0.0,176.0 500.0,176.0 1000.0,44.0"
    assert shift_curve([], 4.0, 1.0, 0.0).group == ""
