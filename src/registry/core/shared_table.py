"""A bounded table of several owners: when it is full, those with the most entries give way first.

An owner is a principal and one of its callers. A principal that invents callers competes with its own callers alone,
and a caller that invents entries with its own entries alone; so a flood costs nobody but its sender.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Owner = tuple[str, str]
"""The principal that sent the entry first, and the caller that it names."""

_ROOM = 0.05
"""The part of a full table that is dropped at once, at most."""
_MAX_DROPPED = 16
"""Entries that are dropped at once, at most: an entry that is added waits for no more."""
_MAX_RANKED = 64
"""Entries of an owner that are compared at once, and those of all owners after which no further one's are."""
_MAX_TIMES = 2
"""Times that room is made for the entries of one sender at once; its further ones are left out."""
_MAX_PART = 0.25
"""The part of those that are compared which is dropped, at most: others of the owner may be less busy."""


class _Sizes(Generic[Key]):
    """The sizes of some owners, with the largest at hand; a change costs the same however many owners there are."""

    def __init__(self) -> None:
        self._sizes: dict[Key, int] = {}
        self._by_size: dict[int, dict[Key, None]] = {}
        """By size: the owners that have it; no size without owners."""
        self._largest = 0

    def change(self, owner: Key, by: int) -> None:
        """Change the size of an owner; at 0 it is forgotten."""
        before = self._sizes.get(owner, 0)
        size = before + by
        if before:
            alike = self._by_size[before]
            del alike[owner]
            if not alike:
                del self._by_size[before]
        if size:
            self._sizes[owner] = size
            self._by_size.setdefault(size, {})[owner] = None
        else:
            del self._sizes[owner]
        self._largest = max(self._largest, size)
        while self._largest and self._largest not in self._by_size:
            self._largest -= 1

    @property
    def largest(self) -> Key:
        """The owner with the greatest size, of several the one that has had it longest."""
        return next(iter(self._by_size[self._largest]))

    def __bool__(self) -> bool:
        return bool(self._sizes)


class SharedTable(Generic[Key, Value]):
    """Values by key, each with an owner, up to a limit.

    Args:
        limit: the entries that are kept.
        rank: by which an owner's entries are compared; those with the smallest are dropped first.
    """

    def __init__(self, limit: int, rank: Callable[[Value], Any]) -> None:
        self._limit = limit
        self._rank = rank
        self._values: dict[Key, Value] = {}
        self.get = self._values.get
        """Return the value of a key; None if there is none."""
        self._owners: dict[Key, Owner] = {}
        """By key: who added it."""
        self._keys: dict[Owner, list[Key]] = {}
        """By owner: its keys, in no order."""
        self._places: dict[Key, int] = {}
        """By key: its place among those of its owner."""
        self._principals: _Sizes[str] = _Sizes()
        """The entries of each principal."""
        self._callers: dict[str, _Sizes[Owner]] = {}
        """By principal: the entries of each of its callers."""
        self._growing: Owner = ("", "")
        """The owner whose entries are added now: a digest brings up to 200 of one."""
        self._grown = 0
        """Its entries that were added and are not in the sizes yet."""
        self._times = 0
        """The times that room was made since ``begin``."""
        self._turn = 0
        """The times that an owner's entries were compared: of very many, other ones each time."""
        self.dropped: dict[Owner, int] = {}
        """By owner: the entries that were dropped since somebody emptied this."""

    def __len__(self) -> int:
        return len(self._values)

    def begin(self) -> None:
        """Begin with what one sender brings at once, for which ``admits`` lets room be made a few times."""
        self._times = 0

    def admits(self, owner: Owner) -> bool:
        """Return whether another entry of what was begun may be added; one that may not is counted as dropped."""
        if len(self._values) < self._limit or self._times < _MAX_TIMES:
            return True
        self._count_dropped(owner, 1)
        return False

    def add(self, key: Key, value: Value, owner: Owner) -> None:
        """Add the value of a new key; in a full table those with the most entries give way."""
        if len(self._values) >= self._limit:
            self._make_room()
        keys = self._keys.setdefault(owner, [])
        self._values[key], self._owners[key], self._places[key] = value, owner, len(keys)
        keys.append(key)
        if owner != self._growing:
            self._count_grown()
            self._growing = owner
        self._grown += 1

    def discard(self, key: Key) -> None:
        """Remove a key, if it is there."""
        if key in self._values:
            self._count_grown()
            self._resize(self._take_out(key), -1)

    def items(self) -> Iterator[tuple[Key, Value]]:
        """Yield keys and values as of now; others may be added and dropped in between."""
        yield from list(self._values.items())

    def forget_in_steps(self, is_old: Callable[[Value], bool]) -> Iterator[None]:
        """Remove what is old, a step for each entry."""
        for key, value in self.items():
            if is_old(value):
                self.discard(key)
            yield

    def _make_room(self) -> None:
        """Drop the least busy of some entries of the largest owners: of the largest principal the largest caller's."""
        self._count_grown()
        self._times += 1
        left = max(1, min(_MAX_DROPPED, int(self._limit * _ROOM)))
        ranked = 0
        while left and self._values and ranked < _MAX_RANKED:
            owner = self._callers[self._principals.largest].largest
            keys = self._keys[owner]
            # Of very many, some that are spread over all, and other ones each time.
            step = -(-len(keys) // _MAX_RANKED)
            compared = sorted(keys[self._turn % step :: step], key=self._rank_of)
            ranked += len(compared)
            self._turn += 1
            number = min(left, max(1, int(len(compared) * _MAX_PART)))
            for key in compared[:number]:
                self._take_out(key)
            self._resize(owner, -number)
            self._count_dropped(owner, number)
            left -= number

    def _rank_of(self, key: Key) -> Any:  # noqa: ANN401  # whatever can be compared
        return self._rank(self._values[key])

    def _count_dropped(self, owner: Owner, number: int) -> None:
        self.dropped[owner] = self.dropped.get(owner, 0) + number

    def _take_out(self, key: Key) -> Owner:
        """Remove a key that is there and return its owner, whose size is to be changed."""
        del self._values[key]
        owner, place = self._owners.pop(key), self._places.pop(key)
        keys = self._keys[owner]
        last = keys.pop()
        if last != key:
            keys[place] = last
            self._places[last] = place
        elif not keys:
            del self._keys[owner]
        return owner

    def _count_grown(self) -> None:
        if self._grown:
            self._resize(self._growing, self._grown)
            self._grown = 0

    def _resize(self, owner: Owner, by: int) -> None:
        principal = owner[0]
        self._principals.change(principal, by)
        callers = self._callers.setdefault(principal, _Sizes())
        callers.change(owner, by)
        if not callers:
            del self._callers[principal]


class FairBudget:
    """A number of requests in each slot of time, of which everybody may have an equal part at least.

    While the budget lasts nobody is refused. Beyond it those who had more than their part are, and the others may have
    theirs; so there are at most twice as many requests.

    Args:
        limit: requests in a slot.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slot = -1
        self._spent: dict[str, int] = {}
        """By sender: its requests in the slot."""
        self._total = 0

    def spend(self, sender: str, slot: int) -> bool:
        """Count a request; False if it is beyond the budget and the sender's part of it, and was not counted."""
        if slot != self._slot:
            self._slot, self._spent, self._total = slot, {}, 0
        own = self._spent.get(sender, 0)
        if self._total >= self._limit and own >= self._limit / max(1, len(self._spent)):
            return False
        self._spent[sender] = own + 1
        self._total += 1
        return True


def most_dropped(dropped: Mapping[Owner, int], number: int) -> Collection[tuple[Owner, int]]:
    """Return the owners that lost the most entries, with how many."""
    return sorted(dropped.items(), key=lambda item: -item[1])[:number]
