"""The curve of a shift: what both groups had over time, in as many points as a page draws."""

from collections.abc import Sequence

from msgspec import Struct

from registry.core.shift_statistics import Counts

MAX_POINTS = 120
"""Points of the curve; when there are more, each two of one share become one."""


class Point(Struct, frozen=True, array_like=True):
    """A point of the curve: what both groups had within a short time.

    Attributes:
        after: seconds since the shift began, pauses left out.
        percent: the share of the group then.
        group: what the group had.
        rest: what the others had.
    """

    after: float
    percent: float
    group: Counts
    rest: Counts


def extended(curve: tuple[Point, ...], point: Point, width: float) -> tuple[Point, ...]:
    """Return a curve with a point more, or with a longer last one."""
    if curve and curve[-1].percent == point.percent and point.after - curve[-1].after < width:
        last = curve[-1]
        return (*curve[:-1], Point(last.after, last.percent, last.group + point.group, last.rest + point.rest))
    extended = (*curve, point)
    return extended if len(extended) <= MAX_POINTS else _thinned(extended)


def _thinned(curve: Sequence[Point]) -> tuple[Point, ...]:
    thinned: list[Point] = []
    joined = False
    for point in curve:
        if thinned and not joined and thinned[-1].percent == point.percent:
            last = thinned.pop()
            thinned.append(Point(last.after, last.percent, last.group + point.group, last.rest + point.rest))
            joined = True
        else:
            thinned.append(point)
            joined = False
    return tuple(thinned)
