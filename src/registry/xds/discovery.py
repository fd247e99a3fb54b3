"""Answering discovery polls from memory: what to send, when to wait, when nothing is new.

``version_info`` is ``<database>:<version>``, with several names ``<database>:<version>.<version>…@<names>`` in their
order, where the checksum of the names keeps the numbers of one question from being read as those of another.
It is the same in every process, and grows; so equal means equal content, and a process that is behind a
subscriber can tell, and never answers with what is older.
"""

import asyncio
import time
import zlib
from collections.abc import Callable, Sequence
from enum import Enum, auto
from itertools import islice

from msgspec import Struct

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import Snapshot
from registry.core.subscriber import MAX_NAMES, Subscribers, Subscription
from registry.core.versions import MAX_VERSIONS_AHEAD
from registry.errors import UnavailableError
from registry.metrics import POLLS, POLLS_HELD, PROPAGATION
from registry.xds.discovery_request import DiscoveryRequest, read_request
from registry.xds.eds import TYPE_URL, Api, encoded, resource, response
from registry.xds.long_poll import LongPoll
from registry.xds.node import read_node

_MARGIN = 0.25
_LONGEST_HOLD = 55.0
_NO_HOLD = 0.0
_MOST_HELD_NAMES = 100
"""Envoy asks for one at a time; whoever asks for more costs a waiter each."""


class DiscoveryResponse(Struct, frozen=True):
    """An HTTP answer: 200 with a body and the version in it, or 304 with neither."""

    status: int
    body: bytes = b""
    version_info: str = ""


_UNCHANGED = DiscoveryResponse(304)
_COUNT: dict[tuple[Api, int], Callable[[], None]] = {
    (api, status): POLLS.labels(api, str(status)).inc for api in TYPE_URL for status in (200, 304)
}
"""Bound once: to find a counter by its labels takes as long as to read a poll."""


class _Standing(Enum):
    """How what a subscriber holds compares with what this process holds."""

    FOREIGN = auto()
    OLDER = auto()
    EQUAL = auto()
    NEWER = auto()


class Discovery:
    """The one place that answers EDS polls, whichever door they came through.

    Args:
        cache: where the snapshots are.
        subscribers: where each poll and its answer is noted.
        most_held: polls of one name that may wait at a time, one for several names counts as so many; beyond it an
            unchanged poll is answered 304 at once.
    """

    def __init__(self, cache: SnapshotCache, subscribers: Subscribers, most_held: int) -> None:
        self._cache = cache
        self._subscribers = subscribers
        self._most_held = most_held
        self._held_names = 0
        # The oldest first.
        self._holds: dict[LongPoll[DiscoveryResponse], None] = {}
        # No poll is held until then (monotonic), because connections are scarce.
        self._holds_again_at = 0.0

    def read(self, api: Api, *parts: bytes) -> DiscoveryRequest:
        """Read a poll. What is held later is this, and not the body, which is four hundred times as large.

        Args:
            api: of the path that was asked.
            parts: the body, in the pieces that it came in.

        Raises:
            UnavailableError: this process has not read the database yet; an Envoy keeps what it has.
            UnreadableError: the body is no DiscoveryRequest.
            InvalidError: it asks for something else.
        """
        if not self._cache.ready:
            POLLS.labels(api, "503").inc()
            raise UnavailableError("this process has not read the registry's state yet")
        poll = read_request(api, *parts)
        poll.node = read_node(*parts)
        return poll

    def now(self, api: Api, poll: DiscoveryRequest, peer: str) -> DiscoveryResponse | None:
        """Return what there is to say at once; None while the subscriber is up to date.

        Args:
            api: of the path that was asked.
            poll: what was asked.
            peer: the address of who asks.
        """
        now = time.monotonic()
        subscription = poll.subscription = self._subscribers.find(poll.node, peer, poll.names, api, now)
        subscription.poll(self._noted(poll.names, poll.version_info), now)
        answer = self._news(api, poll)
        return None if answer is None else self._answered(api, poll.names, subscription, answer, now)

    async def later(self, api: Api, poll: DiscoveryRequest, peer: str, timeout_header: str | None) -> DiscoveryResponse:
        """Hold a poll whose version is current for what the subscriber's own time-out allows.

        Args:
            api: of the path that was asked.
            poll: what was asked.
            peer: the address of who asks.
            timeout_header: ``x-envoy-expected-rq-timeout-ms``; without it nothing is held.
        """
        answered: asyncio.Future[DiscoveryResponse] = asyncio.get_running_loop().create_future()

        def settle(answer: DiscoveryResponse) -> None:
            # Who is cancelled in the turn of the loop that answers it hears nothing any more.
            if not answered.done():
                answered.set_result(answer)

        give_up = self.hold(api, poll, peer, timeout_header, settle)
        try:
            return await answered
        except asyncio.CancelledError:
            give_up()
            raise

    def hold(
        self,
        api: Api,
        poll: DiscoveryRequest,
        peer: str,
        timeout_header: str | None,
        answer: Callable[[DiscoveryResponse], None],
    ) -> Callable[[], None]:
        """Hold a poll as ``later`` does, without a task: ``answer`` is called, perhaps before this returns.

        Returns:
            What to call when the subscriber has hung up; harmless after the answer.
        """
        now = time.monotonic()
        names = poll.names
        subscription = poll.subscription or self._subscribers.find(poll.node, peer, names, api, now)

        def over(found: DiscoveryResponse | None) -> None:
            self._forget(hold, subscription, len(names))
            answer(self._answered(api, names, subscription, found or _UNCHANGED, time.monotonic()))

        def give_up() -> None:
            if hold.cancel():
                self._forget(hold, subscription, len(names))

        seconds = _budget(timeout_header)
        crowded = self._held_names + len(names) > self._most_held or len(names) > _MOST_HELD_NAMES
        if seconds <= _NO_HOLD or crowded or now < self._holds_again_at or self._cache.closing:
            answer(self._answered(api, names, subscription, _UNCHANGED, now))
            return _nothing
        hold = LongPoll(self._cache, names, seconds, lambda: self._news(api, poll), over)
        self._holds[hold] = None
        self._held_names += len(names)
        subscription.held += 1
        POLLS_HELD.inc()
        return give_up

    def release_oldest(self, count: int) -> None:
        """Answer the polls that are held for the longest, as if their time were over."""
        for hold in list(islice(self._holds, count)):
            hold.end()

    def hold_none(self, seconds: float) -> None:
        """Answer each poll at once for so long, because connections are scarce."""
        self._holds_again_at = time.monotonic() + seconds

    def _forget(self, hold: LongPoll[DiscoveryResponse], subscription: Subscription, names: int) -> None:
        del self._holds[hold]
        self._held_names -= names
        subscription.held -= 1
        POLLS_HELD.dec()

    def _answered(
        self, api: Api, names: Sequence[str], subscription: Subscription, answer: DiscoveryResponse, now: float
    ) -> DiscoveryResponse:
        """Account for an answered poll: every one passes here, whichever door it came through."""
        _COUNT[api, answer.status]()
        # A poll that is not remembered may refuse its answer again and again, and would be observed each time.
        if answer.status == 200 and subscription.brought and subscription.remembered and not subscription.refusals:
            self._observe(subscription, now)
        subscription.answer(answer.status, self._noted(names, answer.version_info), now)
        return answer

    def _noted(self, names: Sequence[str], version_info: str) -> str:
        """Return the version_info to remember: that of the names that are remembered."""
        if len(names) <= MAX_NAMES:
            return version_info
        held = self.versions(names, version_info)
        return version_info if held is None else self._token(names[:MAX_NAMES], held[:MAX_NAMES])

    def _observe(self, subscription: Subscription, now: float) -> None:
        """Count how long the oldest change that this answer brings was on its way.

        Who comes without a version starts, and who refuses would be counted again and again: neither tells of it.
        """
        held = self.versions(subscription.names, subscription.brought) or ()
        for service, version in zip(subscription.names, held, strict=False):
            made = self._cache.get(service).made_after(version)
            if made is not None:
                PROPAGATION.observe(max(0.0, self._cache.clock.at(now) - made))

    def versions(self, names: Sequence[str], version_info: str) -> list[int] | None:
        """Return the number of each name in a version_info of ours for these names; None if it is none."""
        identity, colon, numbers = version_info.partition(":")
        mark = _mark(names)
        if not colon or identity != self._cache.database_id or not numbers.endswith(mark):
            return None
        parts = numbers.removesuffix(mark).split(".")
        if not all(part.isascii() and part.isdigit() and len(part) <= 16 for part in parts):
            return None
        return [int(part) for part in parts] if len(parts) == len(names) else None

    def _news(self, api: Api, poll: DiscoveryRequest) -> DiscoveryResponse | None:
        if len(poll.names) == 1:
            snapshot = self._cache.get(poll.names[0])
            if snapshot.version:
                return self._news_of(api, poll, snapshot)
        snapshots = [self._cache.get(name) for name in poll.names]
        if self._is_current(poll, snapshots):
            return None
        # v2's contract lists a service that was never registered as empty; but a subscriber that brings the
        # version of another registry or database has endpoints, and to empty it would cut its traffic.
        emptied = api == "v2" and not poll.version_info
        resources = [resource(api, one) for one in snapshots if one.version or emptied]
        token = self._token(poll.names, [one.version for one in snapshots])
        return DiscoveryResponse(200, response(api, token, resources), token)

    def _news_of(self, api: Api, poll: DiscoveryRequest, snapshot: Snapshot) -> DiscoveryResponse | None:
        """Return what is new of one service, as nearly every Envoy asks: its answer is there in bytes."""
        known = encoded(api, snapshot, self._cache.database_id)
        if poll.version_info == known.version_info:
            return None
        if poll.version_info and self._is_current(poll, [snapshot]):
            return None
        return DiscoveryResponse(200, known.body, known.version_info)

    def _is_current(self, poll: DiscoveryRequest, snapshots: list[Snapshot]) -> bool:
        """Tell whether a subscriber has all that this process has; what it is ahead by is looked into."""
        standing = self._compare(poll, snapshots)
        if standing is _Standing.NEWER:
            self._claim(poll, snapshots)
        return standing in (_Standing.EQUAL, _Standing.NEWER)

    def _token(self, names: Sequence[str], versions: Sequence[int]) -> str:
        return f"{self._cache.database_id}:{'.'.join(map(str, versions))}{_mark(names)}"

    def _compare(self, poll: DiscoveryRequest, snapshots: list[Snapshot]) -> _Standing:
        held = self.versions(poll.names, poll.version_info)
        if held is None:
            return _Standing.FOREIGN
        # Of a service that is not known here, because it was forgotten or because this process is behind, there is
        # nothing to say; that must not keep the others' changes from who asks for several.
        pairs = [(theirs, one.version) for theirs, one in zip(held, snapshots, strict=True) if one.version]
        if any(theirs > ours for theirs, ours in pairs):
            # One that no lost commits explain is not to be outbid: ours would become as absurd for good.
            furthest = max(theirs - ours for theirs, ours in pairs)
            return _Standing.NEWER if furthest <= MAX_VERSIONS_AHEAD else _Standing.FOREIGN
        return _Standing.EQUAL if all(theirs == ours for theirs, ours in pairs) else _Standing.OLDER

    def _claim(self, poll: DiscoveryRequest, snapshots: list[Snapshot]) -> None:
        held = self.versions(poll.names, poll.version_info) or []
        for theirs, one in zip(held, snapshots, strict=True):
            if theirs > one.version:
                self._cache.claim_ahead(one.service, theirs)


def _mark(names: Sequence[str]) -> str:
    return f"@{zlib.crc32(' '.join(names).encode()):08x}" if len(names) > 1 else ""


def _nothing() -> None:
    """Give up a poll that was answered at once."""


def _budget(timeout_header: str | None) -> float:
    """Return the seconds a poll may be held: what Envoy waits, less a margin for the way back."""
    if timeout_header is None or not (timeout_header.isascii() and timeout_header.isdigit()):
        return _NO_HOLD
    return min(int(timeout_header[:9]) / 1000 - _MARGIN, _LONGEST_HOLD)
