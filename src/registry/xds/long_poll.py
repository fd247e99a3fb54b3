"""A poll that waits for a change; ``registry.xds.discovery`` says what it is answered, and for how long it may wait."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from registry.xds.resource_cache import Watch

Response = TypeVar("Response")


class LongPoll(Generic[Response]):
    """Waits until there is something to answer, the time is over, or the client has disconnected.

    It needs no task and no coroutine: one change wakes a thousand of them.

    Args:
        watch: begins to watch what the poll waits for; its argument is called back once, at the next change.
        seconds: the longest time to wait.
        look: returns what there is to answer, or None to wait on.
        over: called once with that, or with None when the time is over or `end` is called.
    """

    __slots__ = ("_begin_watch", "_look", "_over", "_timer", "_waits", "_watch")

    def __init__(
        self,
        watch: Callable[[Callable[[], None]], Watch],
        seconds: float,
        look: Callable[[], Response | None],
        over: Callable[[Response | None], None],
    ) -> None:
        self._begin_watch = watch
        self._look = look
        self._over = over
        self._waits = True
        """Whether neither `over` was called nor the poll was cancelled."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)
        self._watch = watch(self._on_change)

    def cancel(self) -> bool:
        """Stop waiting, and call nobody; return False when the poll was over already."""
        waited, self._waits = self._waits, False
        self._timer.cancel()
        self._watch.cancel()
        # Both refer to this poll again: without them it is freed at once, and leaves nothing to the garbage collector.
        self._look, self._over = _nothing, _nobody
        return waited

    def end(self) -> None:
        """Answer now that nothing has changed."""
        self._end(None)

    def _on_change(self) -> None:
        response = self._look()
        if response is None:
            self._watch = self._begin_watch(self._on_change)
        else:
            self._end(response)

    def _end(self, response: Response | None) -> None:
        over = self._over
        if self.cancel():
            over(response)


def _nothing() -> None:
    """Return None, in place of what there is to answer once a poll is over."""


def _nobody(_response: object) -> None:
    """Take no response, in place of the caller once a poll is over."""
