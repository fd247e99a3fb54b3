"""Sums of what digests count, over the last minute, ten minutes and hour, for one pair.

Digests are added to an open slot of 10 s. When it is over, it is added to the sum of the last minute and kept until it
leaves that; six of them are one slot of the ten minutes, and five of these one of the hour. So a digest costs one
addition, and a window is read without going through its slots. All times are slot numbers: whole tens of seconds.
"""

from collections.abc import Iterable, Sequence

import msgspec

from wire.traffic_digest import MAX_COUNT

SLOT = 10.0
"""Seconds of the shortest slot."""
SLOTS_A_MINUTE = 6
_LENGTHS = (1, 6, 30)
"""Slots of 10 s in one slot of each level: 10 s, 1 min and 5 min."""
_KEPT = (6, 10, 12)
"""Slots that each level keeps: a minute, ten minutes, an hour."""
LEVELS = range(3)

_Packed = tuple[list[int], list[int]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


class Sums:
    """A row of counts, and requests by bucket of their latency."""

    __slots__ = ("buckets", "counts")

    def __init__(self, width: int) -> None:
        self.counts = [0] * width
        self.buckets: dict[int, int] = {}

    def add(self, counts: Iterable[int], buckets: Sequence[int]) -> None:
        """Add counts, and buckets as pairs of a bucket and a number."""
        self.counts = [own + more for own, more in zip(self.counts, counts, strict=True)]
        pairs = iter(buckets)
        bucket_counts = self.buckets
        for bucket, count in zip(pairs, pairs, strict=True):
            bucket_counts[bucket] = bucket_counts.get(bucket, 0) + count

    def add_sums(self, other: "Sums") -> None:
        """Add other sums."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def subtract(self, counts: Iterable[int], buckets: Sequence[int]) -> None:
        """Take back what was added."""
        self.counts = [own - less for own, less in zip(self.counts, counts, strict=True)]
        pairs = iter(buckets)
        for bucket, count in zip(pairs, pairs, strict=True):
            left = self.buckets.get(bucket, 0) - count
            if left > 0:
                self.buckets[bucket] = left
            else:
                self.buckets.pop(bucket, None)

    @property
    def flat_buckets(self) -> list[int]:
        """The buckets as pairs of a bucket and a number."""
        return [number for pair in self.buckets.items() for number in pair]

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

    __slots__ = ("_closed", "_kept", "_open", "_slot", "_sums", "touched", "width")

    def __init__(self, width: int, slot: int) -> None:
        self.width = width
        self._slot = slot
        """The number of the open slot of 10 s."""
        self.touched = slot
        """The slot in which something was added last."""
        self._open = tuple(Sums(width) for _ in LEVELS)
        """By level, the slot that is not over. It lacks what is in the open slots of the levels below."""
        self._sums = tuple(Sums(width) for _ in LEVELS)
        """By level, the sum of the slots that are over and still kept."""
        self._closed = Sums(width)
        """The sum of all slots of 10 s that are over, since the beginning."""
        self._kept: tuple[list[tuple[int, bytes]], ...] = tuple([] for _ in LEVELS)
        """By level, the slots that are over with their numbers, oldest first."""

    def add(self, slot: int, counts: Iterable[int], buckets: Sequence[int]) -> None:
        """Add what a digest counted, in this slot of 10 s."""
        self.advance(slot)
        self.touched = self._slot
        self._open[0].add(counts, buckets)

    def advance(self, slot: int) -> None:
        """Close the slots that are over, and drop those that have left their windows; time never goes back."""
        if slot <= self._slot:
            return
        before, self._slot = self._slot, slot
        for level, length in enumerate(_LENGTHS):
            number, current = before // length, slot // length
            if number == current:
                break
            self._close(level, number)
            self._expire(level, current)

    def windows(self) -> list[Sums]:
        """Return the sums of the last minute, ten minutes and hour."""
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
        return self._sums[-1].counts[place] + sum(each.counts[place] for each in self._open)

    def total(self) -> Sums:
        """Return the sums since the beginning."""
        total = Sums(self.width)
        total.add_sums(self._closed)
        total.add_sums(self._open[0])
        total.limit()
        return total

    def _close(self, level: int, number: int) -> None:
        closing = self._open[level]
        if not closing:
            return
        closing.limit()
        if level == 0:
            self._closed.add_sums(closing)
        if level + 1 in LEVELS:
            self._open[level + 1].add_sums(closing)
        self._sums[level].add_sums(closing)
        self._kept[level].append((number, _encode((closing.counts, closing.flat_buckets))))
        closing.clear()

    def _expire(self, level: int, current: int) -> None:
        kept = self._kept[level]
        while kept and kept[0][0] < current - _KEPT[level]:
            counts, buckets = _decode(kept.pop(0)[1])
            self._sums[level].subtract(counts, buckets)
