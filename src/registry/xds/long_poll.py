"""A poll that waits."""

import asyncio
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from registry.cache.snapshot_cache import SnapshotCache

Found = TypeVar("Found")


class LongPoll(Generic[Found]):
    """Waits until there is something to say, its time is over, or nobody wants to hear it any more.

    No task and no coroutine: a thousand of them are woken by one change.

    Args:
        cache: where the snapshots are.
        services: of which a change is waited for.
        seconds: the longest that is waited.
        look: returns what there is to say, or None to go on waiting.
        over: called once with that, or with None when the time is over or this process stops.
    """

    __slots__ = ("_cache", "_look", "_over", "_services", "_timer", "_waits", "_watch")

    def __init__(
        self,
        cache: SnapshotCache,
        services: Collection[str],
        seconds: float,
        look: Callable[[], Found | None],
        over: Callable[[Found | None], None],
    ) -> None:
        self._cache = cache
        self._services = services
        self._look = look
        self._over = over
        self._waits = True
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end, None)
        self._watch = cache.watch(services, self._on_change)

    def cancel(self) -> bool:
        """Wait no more, and call nobody; return False when it was over already."""
        waited, self._waits = self._waits, False
        self._timer.cancel()
        self._watch.cancel()
        return waited

    def _on_change(self) -> None:
        found = self._look()
        if found is None and not self._cache.closing:
            self._watch = self._cache.watch(self._services, self._on_change)
        else:
            self._end(found)

    def end(self) -> None:
        """Say now that there is nothing to say."""
        self._end(None)

    def _end(self, found: Found | None) -> None:
        if self.cancel():
            self._over(found)
