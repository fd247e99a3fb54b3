"""Sums of what digests count, over the last minute, ten minutes and hour, for one pair.

One running total has everything since the beginning. When a slot of 10 s with digests is over, the total is kept as it
is then; a window is the total less what it was when the window began. So a digest costs an addition to the total and a
slot that ends costs one encoding, however many windows there are. All times are slot numbers: whole tens of seconds.
"""

from collections.abc import Sequence
from itertools import chain
from operator import add, sub
from typing import NamedTuple, Self

import msgspec

from wire.traffic_digest import MAX_COUNT

SLOT = 10.0
"""Seconds of the shortest slot."""
_LENGTHS = (1, 6, 30)
"""Slots of 10 s in one slot of each level: 10 s, 1 min and 5 min."""
_SLOTS = (6, 10, 12)
"""Slots that are over and in the window of each level: a minute, ten minutes, an hour."""
MINUTE_SLOTS = _SLOTS[0]
"""Slots of 10 s that are over and in the last minute."""
LEVELS = range(3)

_Packed = tuple[list[int], dict[int, int]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_encode_large = msgspec.json.Encoder().encode
_decode_large = msgspec.json.Decoder(_Packed).decode
_LARGE = ord("[")
"""The first byte of sums in JSON, with which no sums in msgpack begin."""


class Sums:
    """A row of counts, and requests by bucket of their latency."""

    __slots__ = ("buckets", "counts")

    def __init__(self, counts: list[int], buckets: dict[int, int]) -> None:
        self.counts = counts
        self.buckets = buckets

    @classmethod
    def zero(cls, width: int) -> Self:
        """Return the sums of nothing."""
        return cls([0] * width, {})

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return sums that ``pack`` has packed."""
        return cls(*(_decode_large if packed[0] == _LARGE else _decode)(packed))

    def pack(self) -> bytes:
        """Return the sums in few bytes."""
        try:
            return _encode((self.counts, self.buckets))
        except OverflowError:
            # The sums of absurd numbers: msgpack has 64 bits.
            return _encode_large((self.counts, self.buckets))

    def add(self, counts: Sequence[int], buckets: Sequence[int]) -> None:
        """Add counts, and buckets as pairs of a bucket and a number."""
        self.counts = list(map(add, self.counts, counts))
        known = self.buckets
        so_far = known.get
        for bucket, count in zip(buckets[::2], buckets[1::2], strict=True):
            known[bucket] = so_far(bucket, 0) + count

    def copy(self) -> "Sums":
        """Return sums that stay as they are now."""
        return Sums(self.counts, self.buckets.copy())

    def since(self, before: "Sums") -> "Sums":
        """Return what was added since the sums were these."""
        earlier = before.buckets.get
        return Sums(
            list(map(sub, self.counts, before.counts)),
            {bucket: more for bucket, count in self.buckets.items() if (more := count - earlier(bucket, 0))},
        )

    def limited(self) -> "Sums":
        """Return the sums with no number above that of a digest.

        msgpack has 64 bits, and readers of JSON have 53.
        """
        counts, buckets = self.counts, self.buckets
        if max(counts) > MAX_COUNT:
            counts = [min(count, MAX_COUNT) for count in counts]
        if buckets and max(buckets.values()) > MAX_COUNT:
            buckets = {bucket: min(count, MAX_COUNT) for bucket, count in buckets.items()}
        return Sums(counts, buckets)

    @property
    def flat_buckets(self) -> tuple[int, ...]:
        """The buckets as pairs of a bucket and a number."""
        return tuple(chain.from_iterable(self.buckets.items()))


class _End(NamedTuple):
    """The end of a slot of 10 s, with what the total was then.

    Attributes:
        slot: the number of the slot.
        first: the first count of the total.
        total: the total, packed.
    """

    slot: int
    first: int
    total: bytes


class WindowSums:
    """The sums of the three windows.

    Args:
        width: the number of counts.
        slot: the number of the slot of 10 s that it is now.
    """

    __slots__ = ("_changed", "_ends", "_slot", "_total", "touched")

    def __init__(self, width: int, slot: int) -> None:
        self._slot = slot
        """The number of the open slot of 10 s."""
        self.touched = slot
        """The slot in which something was added last."""
        self._total = Sums.zero(width)
        """Everything since the beginning, the open slot included."""
        self._changed = False
        """Whether something was added in the open slot."""
        self._ends: tuple[list[_End], ...] = ([], [], [])
        """By level: of each of its slots in the window, the end of the last slot of 10 s in it that had digests, oldest
        first. Once something has left the window, the first is the last end before the window."""

    def add(self, slot: int, counts: Sequence[int], buckets: Sequence[int]) -> None:
        """Add what digests counted in this slot of 10 s; one that is over counts as the open one."""
        if slot > self._slot:
            self.advance(slot)
        self.touched = self._slot
        self._total.add(counts, buckets)
        self._changed = True

    def advance(self, slot: int) -> None:
        """Close the slots that are over, and drop what no window needs any more; time never goes back."""
        if slot <= self._slot:
            return
        if self._changed:
            self._close()
        self._slot = slot
        for level in LEVELS:
            ends = self._ends[level]
            while len(ends) > 1 and self._has_left(level, ends[1]):
                del ends[0]

    def windows(self) -> list[Sums]:
        """Return the sums of the last minute, ten minutes and hour."""
        return [self._window(level).limited() for level in LEVELS]

    def last_hour(self) -> int:
        """Return the first count of the last hour, as of the last time that slots were closed; it is cheap."""
        before = self._before(LEVELS[-1])
        return self._total.counts[0] - (0 if before is None else before.first)

    def last_minute(self, *places: int) -> list[int]:
        """Return some counts of the last minute, as of the last time that slots were closed."""
        counts = self._window(0).counts
        return [counts[place] for place in places]

    def total(self) -> Sums:
        """Return the sums since the beginning."""
        return self._total.copy().limited()

    def _window(self, level: int) -> Sums:
        before = self._before(level)
        return self._total.copy() if before is None else self._total.since(Sums.unpack(before.total))

    def _before(self, level: int) -> _End | None:
        """Return the last end before the window; None if nothing was added before it."""
        ends = self._ends[level]
        return ends[0] if ends and self._has_left(level, ends[0]) else None

    def _has_left(self, level: int, end: _End) -> bool:
        length = _LENGTHS[level]
        return end.slot // length < self._slot // length - _SLOTS[level]

    def _close(self) -> None:
        end = _End(self._slot, self._total.counts[0], self._total.pack())
        for ends, length in zip(self._ends, _LENGTHS, strict=True):
            if ends and ends[-1].slot // length == end.slot // length:
                ends[-1] = end
            else:
                ends.append(end)
        self._changed = False
