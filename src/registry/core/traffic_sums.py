"""Sums of what digests count, over the last minute, ten minutes and hour, for one pair.

Digests are kept as they come until the open slot of 10 s is read or over, or has many, and are added up then: at once
they cost half as much. A slot that is over is added to the sum of the last minute and kept until it leaves that; six of
them are one slot of the ten minutes, and five of these one of the hour. So a window is read without going through its
slots. All times are slot numbers: whole tens of seconds.
"""

from collections.abc import Sequence
from itertools import chain
from operator import add, sub

import msgspec

from wire.traffic_digest import MAX_COUNT

SLOT = 10.0
"""Seconds of the shortest slot."""
_LENGTHS = (1, 6, 30)
"""Slots of 10 s in one slot of each level: 10 s, 1 min and 5 min."""
_KEPT = (6, 10, 12)
"""Slots that each level keeps: a minute, ten minutes, an hour."""
LEVELS = range(3)
_MAX_WAITING = 16
"""Digests that are added up at once at most, which bounds their memory."""

Row = tuple[Sequence[int], Sequence[int]]
"""The counts of a digest, and its buckets as pairs of a bucket and a number."""
_Packed = tuple[list[int], tuple[int, ...]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


class Sums:
    """A row of counts, and requests by bucket of their latency."""

    __slots__ = ("buckets", "counts")

    def __init__(self, width: int) -> None:
        self.counts = [0] * width
        self.buckets: dict[int, int] = {}

    def add(self, counts: Sequence[int], buckets: Sequence[int]) -> None:
        """Add counts, and buckets as pairs of a bucket and a number."""
        self.add_rows(((counts, buckets),))

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Add several of them."""
        self.counts = list(map(sum, zip(self.counts, *(counts for counts, _ in rows), strict=True)))
        known = self.buckets
        numbers = chain.from_iterable([buckets for _, buckets in rows])
        for bucket, count in zip(numbers, numbers, strict=True):
            known[bucket] = known.get(bucket, 0) + count

    def add_sums(self, other: "Sums") -> None:
        """Add other sums."""
        self.counts = list(map(add, self.counts, other.counts))
        known = self.buckets
        if not known:
            self.buckets = other.buckets.copy()
            return
        for bucket, count in other.buckets.items():
            known[bucket] = known.get(bucket, 0) + count

    def subtract(self, counts: Sequence[int], buckets: Sequence[int]) -> None:
        """Take back what was added."""
        self.counts = list(map(sub, self.counts, counts))
        pairs = iter(buckets)
        for bucket, count in zip(pairs, pairs, strict=True):
            left = self.buckets.get(bucket, 0) - count
            if left > 0:
                self.buckets[bucket] = left
            else:
                self.buckets.pop(bucket, None)

    @property
    def flat_buckets(self) -> tuple[int, ...]:
        """The buckets as pairs of a bucket and a number."""
        return tuple(chain.from_iterable(self.buckets.items()))

    def clear(self) -> None:
        """Begin again."""
        self.counts = [0] * len(self.counts)
        self.buckets = {}

    def limit(self) -> None:
        """Let no number be larger than one of a digest: msgpack has 64 bits, and readers of JSON have 53."""
        if max(self.counts) > MAX_COUNT:
            self.counts = [min(count, MAX_COUNT) for count in self.counts]
        if self.buckets and max(self.buckets.values()) > MAX_COUNT:
            self.buckets = {bucket: min(count, MAX_COUNT) for bucket, count in self.buckets.items()}

    def __bool__(self) -> bool:
        return any(self.counts) or bool(self.buckets)


class WindowSums:
    """The sums of the three windows.

    Args:
        width: the number of counts.
        slot: the number of the slot of 10 s that it is now.
    """

    __slots__ = ("_closed", "_kept", "_open", "_slot", "_sums", "_waiting", "touched", "width")

    def __init__(self, width: int, slot: int) -> None:
        self.width = width
        self._slot = slot
        """The number of the open slot of 10 s."""
        self.touched = slot
        """The slot in which something was added last."""
        self._waiting: list[Row] = []
        """What the open slot of 10 s lacks yet."""
        self._open = tuple(Sums(width) for _ in LEVELS)
        """By level, the slot that is not over. It lacks what is in the open slots of the levels below."""
        self._sums = tuple(Sums(width) for _ in LEVELS)
        """By level, the sum of the slots that are over and still kept."""
        self._closed = Sums(width)
        """The sum of all slots of 5 min that are over, since the beginning."""
        self._kept: tuple[list[tuple[int, bytes]], ...] = tuple([] for _ in LEVELS)
        """By level, the slots that are over with their numbers, oldest first."""

    def add(self, slot: int, counts: Sequence[int], buckets: Sequence[int]) -> None:
        """Add what a digest counted, in this slot of 10 s."""
        if slot > self._slot:
            self.advance(slot)
        self.touched = self._slot
        self._waiting.append((counts, buckets))
        if len(self._waiting) >= _MAX_WAITING:
            self._add_up()

    def advance(self, slot: int) -> None:
        """Close the slots that are over, and drop those that have left their windows; time never goes back."""
        if slot <= self._slot:
            return
        self._add_up()
        before, self._slot = self._slot, slot
        for level, length in enumerate(_LENGTHS):
            number, current = before // length, slot // length
            if number == current:
                break
            self._close(level, number)
            self._expire(level, current)

    def windows(self) -> list[Sums]:
        """Return the sums of the last minute, ten minutes and hour."""
        self._add_up()
        current = Sums(self.width)
        windows = []
        for level in LEVELS:
            current.add_sums(self._open[level])
            window = Sums(self.width)
            window.add_sums(current)
            window.add_sums(self._sums[level])
            window.limit()
            windows.append(window)
        return windows

    def longest(self, place: int) -> int:
        """Return one count of the last hour, as of the last time that slots were closed; it is cheap."""
        self._add_up()
        return self._sums[-1].counts[place] + sum(each.counts[place] for each in self._open)

    def last_minute(self, *places: int) -> list[int]:
        """Return some counts of the last minute, as of the last time that slots were closed; it is cheap."""
        self._add_up()
        return [self._sums[0].counts[place] + self._open[0].counts[place] for place in places]

    def total(self) -> Sums:
        """Return the sums since the beginning."""
        self._add_up()
        total = Sums(self.width)
        for sums in (self._closed, *self._open):
            total.add_sums(sums)
        total.limit()
        return total

    def _add_up(self) -> None:
        if self._waiting:
            self._open[0].add_rows(self._waiting)
            self._waiting = []

    def _close(self, level: int, number: int) -> None:
        closing = self._open[level]
        if not closing:
            return
        closing.limit()
        (self._open[level + 1] if level + 1 in LEVELS else self._closed).add_sums(closing)
        self._sums[level].add_sums(closing)
        self._kept[level].append((number, _encode((closing.counts, closing.flat_buckets))))
        closing.clear()

    def _expire(self, level: int, current: int) -> None:
        kept = self._kept[level]
        while kept and kept[0][0] < current - _KEPT[level]:
            counts, buckets = _decode(kept.pop(0)[1])
            self._sums[level].subtract(counts, buckets)
