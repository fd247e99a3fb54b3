"""Watches of things by their keys: called back once, at the next change of a key, or at each."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from itertools import islice

from registry.cache.standing_watches import StandingWatches

_MAX_WOKEN_PER_TURN = 50
"""Watches of one key that are woken in one turn of the event loop; then other work has its turn."""


class Watch:
    """Waits for the next change of some keys, and calls back once."""

    __slots__ = ("_keys", "_wake", "_watches")

    def __init__(self, watches: "Watches", keys: Collection[str], wake: Callable[[], None]) -> None:
        self._watches = watches
        self._keys = keys
        self._wake: Callable[[], None] | None = wake

    def cancel(self) -> None:
        """Stop waiting; harmless when the watch has called back already."""
        self._wake = None
        self._watches.remove(self, self._keys)

    def wake(self) -> None:
        """Call back, unless that was done or the watch was cancelled."""
        wake = self._wake
        if wake is not None:
            self.cancel()
            wake()


class Watches:
    """The watches of one cache, by their keys."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[Watch, None]] = {}
        """Only keys that are watched, because subscribers may ask for any name there is."""
        self.standing = StandingWatches()
        """The watches that are called back at each change."""

    def add(self, keys: Collection[str], wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once, in a later turn of the event loop, when one of the keys changes."""
        watch = Watch(self, keys, wake)
        for key in keys:
            self._by_key.setdefault(key, {})[watch] = None
        return watch

    def remove(self, watch: Watch, keys: Collection[str]) -> None:
        """Remove a watch, and the keys that have no other watch."""
        for key in keys:
            watches = self._by_key.get(key, {})
            watches.pop(watch, None)
            if not watches:
                self._by_key.pop(key, None)

    def wake(self, key: str) -> None:
        """Wake the watches of a key."""
        self.standing.note(key)
        self._wake_once(key)

    def wake_all(self) -> None:
        """Wake every watch."""
        self.standing.note_all()
        for key in list(self._by_key):
            self._wake_once(key)

    def _wake_once(self, key: str) -> None:
        watches = self._by_key.pop(key, None)
        if watches:
            _wake_some(iter(watches))


def _wake_some(watches: Iterator[Watch]) -> None:
    loop = asyncio.get_running_loop()
    turn = list(islice(watches, _MAX_WOKEN_PER_TURN))
    for watch in turn:
        loop.call_soon(watch.wake)
    if len(turn) == _MAX_WOKEN_PER_TURN:
        loop.call_soon(_wake_some, watches)
