"""Refused polls that are held before they are answered.

An Envoy asks again right after a refusal, as after any error: three times a second with a refresh_delay of 0.2 s. It
knows no backoff and ignores Retry-After, so the registry slows it down.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from itertools import islice

MIN_REFUSAL_HOLD, MAX_REFUSAL_HOLD = 1.0, 2.0
"""Seconds for which a refused poll is held, at random in between: Envoys that were refused together part."""
MAX_HELD_REFUSALS = 4_096
"""Refused polls that one process holds at a time. Each keeps its connection busy."""
MAX_HELD_REFUSALS_OF_PEER = 256
"""Refused polls of one peer that are held at a time: an Envoy has one for each of its clusters."""


class _Refusal:
    """A refused poll: its peer, how to answer it, and the timer that does."""

    __slots__ = ("answer", "peer", "timer")

    def __init__(self, peer: str, answer: Callable[[], None]) -> None:
        self.peer = peer
        self.answer = answer
        self.timer: asyncio.TimerHandle | None = None


class HeldRefusals:
    """The refused polls that this process holds now, each without a task."""

    def __init__(self) -> None:
        self._held: dict[_Refusal, None] = {}
        """The refused polls that wait, the oldest first. Written by hold() and _forget()."""
        self._of_peer: Counter[str] = Counter()
        """How many of them each peer has; a peer without any is not in it. Written by hold() and _forget()."""

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._held)

    def is_full(self, peer: str) -> bool:
        """Return whether another refused poll of a peer has to be answered at once."""
        return len(self._held) >= MAX_HELD_REFUSALS or self._of_peer[peer] >= MAX_HELD_REFUSALS_OF_PEER

    def hold(self, peer: str, max_seconds: float, answer: Callable[[], None]) -> Callable[[], None]:
        """Call ``answer`` in one to two seconds, or sooner if the client waits for less.

        Args:
            peer: the address that the poll came from.
            max_seconds: how long the client waits at most.
            answer: sends the refusal.

        Returns:
            A function to call when the client has disconnected; harmless after the answer.
        """
        refusal = _Refusal(peer, answer)
        self._held[refusal] = None
        self._of_peer[peer] += 1
        seconds = min(random.uniform(MIN_REFUSAL_HOLD, MAX_REFUSAL_HOLD), max_seconds)  # noqa: S311  # no secret
        refusal.timer = asyncio.get_running_loop().call_later(seconds, self._end, refusal)

        def give_up() -> None:
            self._forget(refusal)

        return give_up

    def end_oldest(self, count: int) -> int:
        """Answer those that are held for the longest; return how many these were."""
        oldest = list(islice(self._held, count))
        for refusal in oldest:
            self._end(refusal)
        return len(oldest)

    def _end(self, refusal: _Refusal) -> None:
        if self._forget(refusal):
            refusal.answer()

    def _forget(self, refusal: _Refusal) -> bool:
        """Hold a poll no longer; return False when it was not held any more."""
        if refusal not in self._held:
            return False
        del self._held[refusal]
        self._of_peer[refusal.peer] -= 1
        if not self._of_peer[refusal.peer]:
            del self._of_peer[refusal.peer]
        if refusal.timer is not None:
            refusal.timer.cancel()
        return True
