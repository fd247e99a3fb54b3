"""A bounded table of several owners: when it is full, those with the most entries give way first.

An owner is a principal and one of its callers. A principal that invents callers competes with its own callers alone,
and a caller that invents entries with its own entries alone; so a flood costs nobody but its sender.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Owner = tuple[str, str]
"""The principal that sent the entry first, and the caller that it names."""

_ROOM = 0.05
"""The part of a full table that is dropped at once, since each time goes through all owners."""
_MAX_RANKED = 1_000
"""Entries that are compared at once, so that a large table does not stop the process: all entries of some owners, and
not some of each, since busy ones would be dropped beside idle ones. The other owners have their turn later."""
_MAX_PART = 0.25
"""The part of its entries that an owner loses at once for others whose turn is later."""


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
        self._keys: dict[Owner, dict[Key, None]] = {}
        """By owner: its keys."""
        self._turn = 0
        """The times that an owner's entries were compared: of very many, other ones each time."""
        self.dropped: dict[Owner, int] = {}
        """By owner: the entries that were dropped since somebody emptied this."""

    def __len__(self) -> int:
        return len(self._values)

    def add(self, key: Key, value: Value, owner: Owner) -> None:
        """Add the value of a new key; in a full table those with the most entries give way."""
        if len(self._values) >= self._limit:
            self._make_room(max(1, int(self._limit * _ROOM)))
        self._values[key] = value
        self._owners[key] = owner
        self._keys.setdefault(owner, {})[key] = None

    def discard(self, key: Key) -> None:
        """Remove a key, if it is there."""
        if self._values.pop(key, None) is not None:
            owner = self._owners.pop(key)
            keys = self._keys[owner]
            del keys[key]
            if not keys:
                del self._keys[owner]

    def items(self) -> Iterator[tuple[Key, Value]]:
        """Yield keys and values as of now; others may be added and dropped in between."""
        yield from list(self._values.items())

    def forget_in_steps(self, is_old: Callable[[Value], bool]) -> Iterator[None]:
        """Remove what is old, a step for each entry."""
        for key, value in self.items():
            if is_old(value):
                self.discard(key)
            yield

    def _make_room(self, number: int) -> None:
        callers: dict[str, dict[str, int]] = {}
        for (principal, caller), keys in self._keys.items():
            callers.setdefault(principal, {})[caller] = len(keys)
        sizes = {principal: sum(of.values()) for principal, of in callers.items()}
        losses = [
            ((principal, caller), less)
            for principal, fewer in excess(sizes, number).items()
            for caller, less in excess(callers[principal], fewer).items()
        ]
        in_turn = sum(len(self._keys[owner]) for owner, _ in losses) > _MAX_RANKED
        ranked = 0
        for owner, less in losses:
            size = len(self._keys[owner])
            ranked += min(size, _MAX_RANKED)
            if not number or ranked > _MAX_RANKED:
                # The other owners have more now than those that lost some, and lose theirs the next time.
                break
            lost = min(number, max(less, int(size * _MAX_PART))) if in_turn else less
            self._drop(owner, lost)
            number -= lost

    def _drop(self, owner: Owner, number: int) -> None:
        """Drop the smallest of an owner's entries; of very many, the smallest of some that are spread over all."""
        keys = self._keys[owner]
        step = -(-len(keys) // _MAX_RANKED)
        compared = list(islice(keys, self._turn % step, None, step))
        self._turn += 1
        if step > 1:
            number = min(number, max(1, int(len(compared) * _MAX_PART)))
        dropped = nsmallest(number, compared, key=lambda key: self._rank(self._values[key]))
        for key in dropped:
            self.discard(key)
        self.dropped[owner] = self.dropped.get(owner, 0) + len(dropped)


def excess(sizes: Mapping[Key, int], number: int) -> dict[Key, int]:
    """Return by how many entries each of the largest shrinks, so that they end alike, for a number in all.

    Args:
        sizes: the entries of each.
        number: the entries that go; of fewer entries all go.
    """
    largest = sorted(sizes, key=lambda key: -sizes[key])
    together = count = 0
    for count, key in enumerate(largest, start=1):
        together += sizes[key]
        following = sizes[largest[count]] if count < len(largest) else 0
        if together - count * following >= number:
            break
    if not count:
        return {}
    kept, one_more = divmod(max(0, together - number), count)
    shrinking = {key: sizes[key] - kept - (place < one_more) for place, key in enumerate(largest[:count])}
    return {key: fewer for key, fewer in shrinking.items() if fewer}


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
