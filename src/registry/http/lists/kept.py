"""A bounded cache of what was encoded: what was not asked for the longest is dropped first."""

from collections import OrderedDict
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

Value = TypeVar("Value", bound="Dated")
Stamp = tuple[object, ...]
"""The state of everything but the time that something was made of."""


class Dated:
    """Something that was made of a state, and is current while the state is that one.

    Args:
        stamp: the state.
        begin: the database's time from which it is current.
        end: the database's time until which it is.
    """

    __slots__ = ("begin", "end", "stamp")

    def __init__(self, stamp: Stamp, begin: float = -inf, end: float = inf) -> None:
        self.stamp = stamp
        self.begin = begin
        self.end = end

    def is_current(self, stamp: Stamp, now: float) -> bool:
        """Return whether it is what would be made of a state at a time."""
        return self.begin <= now < self.end and self.stamp == stamp


class Kept(Generic[Value]):
    """A cache of values with a bound on their size.

    Args:
        max_size: bytes that all values may take together. A larger value is not kept.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        """With their sizes; the value that was asked for last is at the end. A value may be of a former state."""
        self._size = 0
        """The sum of the sizes."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """Return a value, which may be of a former state; None: there is none."""
        entry = self._values.get(key)
        if entry is None:
            return None
        self._values.move_to_end(key)
        return entry[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value in place of the former one, and drop others while there is no room."""
        former = self._values.pop(key, None)
        if former is not None:
            self._size -= former[1]
        if size > self._max_size:
            return
        self._values[key] = value, size
        self._size += size
        while self._size > self._max_size:
            _, (_, dropped) = self._values.popitem(last=False)
            self._size -= dropped
