"""Standing watches: each is entered once, for some names or for all, and called back at each change.

A watch of a held poll is spent by one change, and is entered under each of its names anew. A stream of a hundred names
would pay for all of them at each change of one; a standing watch pays for the names that changed.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import islice

import structlog

log = structlog.get_logger()

Changed = Callable[[AbstractSet[str] | None], None]
"""Called with the watched names that have changed; None: any of them may have.

A change that the watcher has read meanwhile is named all the same, so it compares versions. Changes that follow each
other closely are named together.
"""

_MAX_STEPS_PER_TURN = 50
"""Watches that are called back, and names that are looked up, in one turn of the event loop."""


class StandingWatch:
    """Watches a set of names, or all of them, until it is cancelled."""

    __slots__ = ("_changed", "_watches", "names")

    def __init__(self, watches: "StandingWatches", names: Iterable[str] | None, changed: Changed) -> None:
        self._watches = watches
        self._changed: Changed | None = changed
        """What to call back; None once the watch is cancelled."""
        self.names: set[str] | None = None if names is None else set()
        """The watched names, to read only: add() and remove() write them. None: all names."""
        if names is not None:
            self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Watch further names; their changes so far are not called back."""
        if self.names is not None and self._changed is not None:
            new = [name for name in names if name not in self.names]
            self.names.update(new)
            self._watches.enter(self, new)

    def remove(self, names: Iterable[str]) -> None:
        """Stop watching names; a change of them that was not called back yet is not called back any more."""
        if self.names is not None:
            gone = self.names.intersection(names)
            self.names -= gone
            self._watches.leave(self, gone)

    def cancel(self) -> None:
        """Stop watching: it is not called back any more, not even for changes before this."""
        if self._changed is not None:
            self._changed = None
            self._watches.discard(self)
            self.names = None if self.names is None else set()

    def call_back(self, batch: frozenset[str] | None) -> None:
        """Call back for what is watched of a batch of changed names; None: anything may have changed."""
        if self._changed is None:
            return
        mine: AbstractSet[str] | None = batch
        if batch is not None and self.names is not None:
            mine = batch & self.names
            if not mine:
                return
        try:
            self._changed(mine)
        except Exception:
            # One that fails must not cost the others their change.
            log.exception("watch_failed")


class StandingWatches:
    """The standing watches of one cache, by their names."""

    def __init__(self) -> None:
        self._watches: dict[StandingWatch, None] = {}
        """All watches, the oldest first. Written by add() and discard()."""
        self._by_name: dict[str, dict[StandingWatch, None]] = {}
        """Only names that are watched, because subscribers may ask for any name. Written by enter() and leave()."""
        self._of_all: dict[StandingWatch, None] = {}
        """The watches of all names. Written by add() and discard()."""
        self._changed: dict[str, None] = {}
        """Watched names that have changed since the batch began that is called back now; the next batch takes them."""
        self._all_changed = False
        """Whether any name may have changed since then. Set by note_all(), cleared by the next batch."""
        self._calling = False
        """Whether a batch is called back now, or will be in the next turn of the event loop."""

    def __len__(self) -> int:
        """Return the number of watches."""
        return len(self._watches)

    @property
    def name_count(self) -> int:
        """The number of different names that are watched."""
        return len(self._by_name)

    def add(self, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of one of the names, in a later turn; None: of any name."""
        watch = StandingWatch(self, names, changed)
        self._watches[watch] = None
        if names is None:
            self._of_all[watch] = None
        return watch

    def enter(self, watch: StandingWatch, names: Iterable[str]) -> None:
        """Enter a watch under names that are new to it."""
        for name in names:
            self._by_name.setdefault(name, {})[watch] = None

    def leave(self, watch: StandingWatch, names: Iterable[str]) -> None:
        """Remove a watch from its names, and the names that have no other watch."""
        for name in names:
            watches = self._by_name.get(name, {})
            watches.pop(watch, None)
            if not watches:
                self._by_name.pop(name, None)

    def discard(self, watch: StandingWatch) -> None:
        """Forget a watch that was cancelled."""
        self.leave(watch, watch.names or ())
        self._of_all.pop(watch, None)
        self._watches.pop(watch, None)

    def note(self, name: str) -> None:
        """Note that a name has changed, and call its watches back soon."""
        if name in self._by_name or self._of_all:
            self._changed[name] = None
            self._begin()

    def note_all(self) -> None:
        """Note that any name may have changed, and call all watches back soon."""
        if self._watches:
            self._all_changed = True
            self._begin()

    def _begin(self) -> None:
        if not self._calling:
            self._calling = True
            asyncio.get_running_loop().call_soon(self._call_batch)

    def _call_batch(self) -> None:
        """Call back for everything that has changed so far; what changes meanwhile is the next batch."""
        batch = None if self._all_changed else frozenset(self._changed)
        steps = iter(list(self._watches)) if batch is None else self._steps(batch)
        self._changed, self._all_changed = {}, False
        self._call_some(batch, steps)

    def _steps(self, batch: Iterable[str]) -> Iterator[StandingWatch | None]:
        """Yield each watch of these names once, and None after each name, whose looking up is work as well."""
        seen = set(self._of_all)
        yield from list(seen)
        for name in batch:
            new = [watch for watch in self._by_name.get(name, ()) if watch not in seen]
            seen.update(new)
            yield from new
            yield None

    def _call_some(self, batch: frozenset[str] | None, steps: Iterator[StandingWatch | None]) -> None:
        turn = list(islice(steps, _MAX_STEPS_PER_TURN))
        for watch in turn:
            if watch is not None:
                watch.call_back(batch)
        loop = asyncio.get_running_loop()
        if len(turn) == _MAX_STEPS_PER_TURN:
            loop.call_soon(self._call_some, batch, steps)
        elif self._changed or self._all_changed:
            loop.call_soon(self._call_batch)
        else:
            self._calling = False
