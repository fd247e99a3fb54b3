"""The curve of a shift as points of a drawing: the errors of both groups in percent over time."""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from registry.core.shift_curve import Point
from registry.core.shift_statistics import Counts

WIDTH, HEIGHT = 1000, 220
"""The drawing's units, whatever its size on the screen."""
_MIN_TOP = 2.0
"""Percent that the height of the drawing stands for at least."""
_TOPS = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


class StepLine(Struct, frozen=True):
    """The beginning of a step in the drawing.

    Attributes:
        x: where it is.
        percent: the share from there on.
    """

    x: float
    percent: float


class ShiftCurve(Struct, frozen=True):
    """The curve of a shift, ready to be drawn.

    Attributes:
        group: the points of the group's line; empty: it had no requests.
        rest: the points of the others' line.
        steps: where steps begin.
        limit: the height of the limit above the others' errors of the last step; None: it is above the drawing.
        top: the percentage at the upper edge.
        seconds: the time at the right edge.
    """

    group: str
    rest: str
    steps: Sequence[StepLine]
    limit: float | None
    top: float
    seconds: float


def shift_curve(points: Sequence[Point], age: float, abort_above: float, rest_ratio: float) -> ShiftCurve:
    """Return the curve of a shift.

    Args:
        points: what both groups had over time.
        age: seconds since the shift began, pauses left out.
        abort_above: the limit in percentage points.
        rest_ratio: the part of the others' requests that failed in the last step.
    """
    seconds = max((point.after for point in points), default=0.0)
    seconds = max(seconds, age) or 1.0
    limit = abort_above + 100 * rest_ratio
    highest = max((100 * counts.ratio for point in points for counts in (point.group, point.rest)), default=0.0)
    top = next(top for top in _TOPS if top >= min(100.0, max(highest, limit * 1.1, _MIN_TOP)))

    def x(after: float) -> float:
        return round(WIDTH * after / seconds, 1)

    def y(percent: float) -> float:
        return round(HEIGHT * (1 - percent / top), 1)

    def line(counts_of: Callable[[Point], Counts]) -> str:
        drawn = [(point.after, counts_of(point)) for point in points if counts_of(point).requests]
        # From the left edge, so that a shift which ended with its first figures has a line too.
        begun = [(0.0, counts) for _, counts in drawn[:1]]
        return " ".join(f"{x(after)},{y(100 * counts.ratio)}" for after, counts in (*begun, *drawn))

    return ShiftCurve(
        line(lambda point: point.group),
        line(lambda point: point.rest),
        list(_steps(points, x)),
        y(limit) if limit <= top else None,
        top,
        seconds,
    )


def _steps(points: Iterable[Point], x: Callable[[float], float]) -> Iterable[StepLine]:
    percent = None
    for point in points:
        if point.percent != percent:
            percent = point.percent
            yield StepLine(x(point.after), percent)
