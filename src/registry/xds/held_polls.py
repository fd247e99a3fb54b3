"""The polls of Envoys and edges that one process holds: how many there may be, and how they end."""

import asyncio
import time
from collections.abc import Callable
from itertools import islice

from registry.auth.principal import Principal
from registry.metrics import POLLS_HELD
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.held_refusals import HeldRefusals
from registry.xds.long_poll import LongPoll
from registry.xds.peer_polls import PeerPolls
from registry.xds.resource_cache import Watch

_ANSWER_MARGIN = 0.25
"""Seconds by which a held poll is answered before Envoy's own time-out."""
_MAX_HOLD = 55.0
"""Seconds for which a poll is held at most."""
NO_HOLD = 0.0
"""Seconds for which a poll is held whose sender does not say how long it waits."""
_MAX_ENDED_PER_TURN = 50
"""Held polls that are answered in one turn of the event loop when this process stops."""


class HeldPolls:
    """The polls that are held now, and the refused ones that wait for their response.

    Args:
        max_names: names of held polls at a time; beyond it an unchanged poll is answered 304 at once.
        peer_polls: the names of the held polls of each peer; None while access is not closed.
    """

    def __init__(self, max_names: int, peer_polls: PeerPolls | None = None) -> None:
        self._max_names = max_names
        self._peer_polls = peer_polls
        self._names = 0
        """Names of the polls that are held now. Written by hold() and _forget()."""
        self._polls: dict[LongPoll[DiscoveryResponse], None] = {}
        """The polls that are held now, the oldest first. Written by hold() and _forget()."""
        self._holds_again_at = 0.0
        """No poll is held until then (monotonic), because connections are scarce. Written by hold_none()."""
        self._closing = False
        """Set by release(), for good: this process stops, and holds no poll any more."""
        self._refusals = HeldRefusals()
        """Refused polls that wait for their response."""

    def __len__(self) -> int:
        """Return how many polls are held, without the refused ones."""
        return len(self._polls)

    def has_room(self, principal: Principal, names: int, now: float) -> bool:
        """Return whether this process, and the peer of a poll, have room for its names."""
        if now < self._holds_again_at or self._closing or self._names + names > self._max_names:
            return False
        return self._peer_polls is None or self._peer_polls.has_room(principal, names, now)

    def hold(
        self,
        principal: Principal,
        names: int,
        seconds: float,
        watch: Callable[[Callable[[], None]], Watch],
        look: Callable[[], DiscoveryResponse | None],
        over: Callable[[DiscoveryResponse | None], None],
    ) -> Callable[[], bool]:
        """Hold a poll for which there is room.

        Args:
            principal: the sender.
            names: how many it asks for.
            seconds: how long it is held at most.
            watch: begins to watch what it waits for, as `LongPoll` has it.
            look: returns what there is to answer, or None to wait on.
            over: called once with that, or with None when there is nothing.

        Returns:
            A function that gives it up; it returns False when the poll was over already.
        """

        def end(response: DiscoveryResponse | None) -> None:
            self._forget(poll, principal, names)
            over(response)

        def give_up() -> bool:
            waited = poll.cancel()
            if waited:
                self._forget(poll, principal, names)
            return waited

        poll = LongPoll(watch, seconds, look, end)
        self._polls[poll] = None
        self._names += names
        if self._peer_polls is not None:
            self._peer_polls.take(principal, names)
        POLLS_HELD.inc()
        return give_up

    def hold_refusal(self, peer: str, timeout_header: str | None, answer: Callable[[], None]) -> Callable[[], None]:
        """Hold a refused poll for a moment, because its sender asks again at once.

        Args:
            peer: the address that the poll came from.
            timeout_header: ``x-envoy-expected-rq-timeout-ms``; without it the poll is answered at once.
            answer: sends the refusal; called perhaps before this returns.

        Returns:
            A function to call when the subscriber has disconnected; harmless after the answer.
        """
        seconds = hold_time(timeout_header)
        scarce = time.monotonic() < self._holds_again_at or self._closing
        if seconds <= NO_HOLD or scarce or self._refusals.is_full(peer):
            answer()
            return nothing
        return self._refusals.hold(peer, seconds, answer)

    async def delay_refusal(self, peer: str, timeout_header: str | None) -> bool:
        """Wait as long as ``hold_refusal`` holds a refused poll, and return True."""
        over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            # As in answered().
            if not over.done():
                over.set_result(True)

        give_up = self.hold_refusal(peer, timeout_header, settle)
        try:
            return await over
        finally:
            give_up()

    def release(self) -> None:
        """Answer all held polls, some in each turn of the event loop, and hold none any more: this process stops."""
        self._closing = True
        self.release_oldest(_MAX_ENDED_PER_TURN)
        if self._polls or self._refusals:
            asyncio.get_running_loop().call_soon(self.release)

    def release_oldest(self, count: int) -> None:
        """Answer the polls that are held for the longest, as if their time were over; refused ones before others."""
        ended = self._refusals.end_oldest(count)
        for poll in list(islice(self._polls, count - ended)):
            poll.end()

    def hold_none(self, seconds: float) -> None:
        """Answer each poll at once for so many seconds, because connections are scarce."""
        self._holds_again_at = time.monotonic() + seconds

    def _forget(self, poll: LongPoll[DiscoveryResponse], principal: Principal, names: int) -> None:
        del self._polls[poll]
        self._names -= names
        if self._peer_polls is not None:
            self._peer_polls.give(principal, names)
        POLLS_HELD.dec()


async def answered(
    hold: Callable[[Callable[[DiscoveryResponse], None]], Callable[[], None]],
) -> DiscoveryResponse:
    """Return the response to a poll that is held.

    Args:
        hold: holds the poll, calls its argument once with the response, and returns what gives the poll up.
    """
    response: asyncio.Future[DiscoveryResponse] = asyncio.get_running_loop().create_future()

    def settle(value: DiscoveryResponse) -> None:
        # A task may be cancelled in the very turn of the event loop in which its poll is answered.
        if not response.done():
            response.set_result(value)

    give_up = hold(settle)
    try:
        return await response
    except asyncio.CancelledError:
        give_up()
        raise


def nothing() -> None:
    """Give up a poll that was answered at once."""


def hold_time(timeout_header: str | None) -> float:
    """Return the seconds for which a poll may be held: Envoy's time-out, less a margin for the way back."""
    if timeout_header is None or not (timeout_header.isascii() and timeout_header.isdigit()):
        return NO_HOLD
    return min(int(timeout_header[:9]) / 1000 - _ANSWER_MARGIN, _MAX_HOLD)
