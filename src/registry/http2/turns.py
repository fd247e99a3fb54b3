"""Turns: work that waits is done in small portions, one in each iteration of the event loop.

Polls and heartbeats of other listeners are served in between. 1,000 streams that become ready together take 20 turns.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

MAX_ITEMS_PER_TURN: Final = 50
"""Items of work in one turn: a millisecond where each is a push."""
MAX_TURN: Final = 0.002
"""Seconds of a turn, after which the rest waits: the first answer of a connection takes one, a push 0.02 ms."""


class Work(Protocol):
    """Something that waits for its turn."""

    def run(self, now: float) -> None:
        """Do the work; it raises nothing."""


class Turns:
    """The work that waits, in the order in which it came.

    Args:
        call_soon: calls something in the next iteration of the event loop.
        clock: monotonic seconds.
    """

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._queue: deque[Work] = deque()
        self._scheduled = False
        """Whether a turn comes. Written by add() and _turn()."""

    def add(self, work: Work) -> None:
        """Have work done after all that waits already."""
        self._queue.append(work)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        queue, now = self._queue, self._clock()
        end = now + MAX_TURN
        try:
            for _ in range(min(MAX_ITEMS_PER_TURN, len(queue))):
                queue.popleft().run(now)
                now = self._clock()
                if now >= end:
                    break
        finally:
            self._scheduled = bool(queue)
            if queue:
                self._call_soon(self._turn)
