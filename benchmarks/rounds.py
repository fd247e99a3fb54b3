"""Rounds: the sides of a comparison take turns, so that whatever else the machine does meets all of them."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Side = TypeVar("Side")


def interleaved(sides: Sequence[Side], rounds: int) -> Iterator[Side]:
    """Return each side once a round, each round beginning with another one."""
    for number in range(rounds):
        first = number % len(sides)
        yield from (*sides[first:], *sides[:first])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the values (0 to 1) do not exceed.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no values were measured")
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
