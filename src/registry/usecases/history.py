"""The history of changes: pages, a stream that continues for its reader, and services at a past time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from msgspec.structs import replace

from registry.auth.grants import Reach
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.client_deadline import in_time_for_client
from registry.core.chart_marks import Mark, chart_marks
from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import EVERYWHERE
from registry.core.history import EventFilter, Position, RecordedEvent, without_hidden
from registry.core.peer_limit import PeerSlots, ReachedLimits
from registry.core.status_counts import StatusCounts, status_counts
from registry.errors import LimitError, RegistryError, UnavailableError, UnknownServiceError
from registry.metrics import PEER_LIMITS_REACHED
from registry.store import history as store
from registry.store.database import Database

MAX_STREAMS = 100
"""Readers that follow the history on one process at a time."""
_LOOK_INTERVAL = 0.25
"""Seconds between two looks of a stream for new events."""
_KEEP_ALIVE = 15.0
"""Seconds without an event after which a stream says that it is still there."""
_BATCH = 500
"""Events that a stream reads at a time."""
_MAX_COUNTED = 2000
"""Events of which the counts of a service over time are made."""
_MAX_NAMED = 500
"""Services that are searched each by itself, for a reader who may read no others."""

_STREAMS = "event_streams"
"""The name of the limit on the streams of a peer, as the metric has it."""


class ServiceChart(StatusCounts, frozen=True):
    """The counts of a service over a time, and the marks of what happened."""

    marks: list[Mark]


Identify = Callable[[], Awaitable[Principal]]
"""Returns the principal of a request anew, when its credential has ended or has other grants."""


class EventStream:
    """Events as they happen, for one reader; it holds one of the process's places until it is closed.

    It ends within seconds when the reader may not read any more, and goes on with what a reader whose grants have
    changed may read.

    Args:
        reader: reads the events, and decides who may.
        principal: the sender of the request.
        identify: returns that sender anew.
        wanted: which events, and behind which one the stream begins.
    """

    def __init__(
        self,
        reader: "History",
        principal: Principal,
        identify: Identify,
        wanted: EventFilter,
    ) -> None:
        self._reader = reader
        self._principal = principal
        self._identify = identify
        self._wanted = wanted

    async def batches(self) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Yield events as they come, the oldest first, and an empty batch when none came for a while."""
        quiet = 0.0
        newest: Position | None = None
        while not self._reader.closing and await self._may_read():
            events = await self._reader.look(self._principal, self._wanted)
            if events:
                self._wanted, quiet = replace(self._wanted, after=events[-1].position), 0.0
                yield events
                continue
            if events is not None and newest is not None:
                # Nothing up to there is wanted, so that the next looks need not read it again.
                self._wanted, newest = replace(self._wanted, after=newest), None
            await asyncio.sleep(_LOOK_INTERVAL)
            quiet += _LOOK_INTERVAL
            if quiet >= _KEEP_ALIVE:
                quiet, newest = 0.0, await self._reader.newest()
                yield []

    async def _may_read(self) -> bool:
        """Return whether the reader may go on; asks again only when its credential has ended or changed."""
        if not self._principal.subject.ended:
            return True
        self._principal = await self._identify()
        try:
            self._reader.check(self._principal, self._wanted)
        except RegistryError:
            return False
        return True

    def close(self) -> None:
        """Give the place back; to be called once, however the stream ended."""
        self._reader.leave(self._principal)


class PeerStreams:
    """Counts the event streams of each peer.

    Args:
        slots: what each peer holds.
        most: streams of one peer.
        reached: where it is noted when a stream was refused.
    """

    def __init__(self, slots: PeerSlots, most: int, reached: ReachedLimits) -> None:
        self._slots = slots
        self._most = most
        self._reached = reached

    def check(self, address: str, now: float) -> None:
        """Return when a peer may follow another stream.

        Raises:
            LimitError: it follows as many as it may.
        """
        if self._slots.has_room(address, 1, self._most):
            return
        PEER_LIMITS_REACHED.labels(_STREAMS).inc()
        self._reached.note(_STREAMS, now)
        raise LimitError(
            f"{self._most} event streams of {address} are open on this process, and REGISTRY_MAX_PEER_STREAMS allows "
            "no more. Close one; or name the address in REGISTRY_PEER_LIMIT_EXEMPT if many clients share it",
            _STREAMS,
        )

    def take(self, address: str) -> None:
        """Note that a peer follows one more."""
        self._slots.take(address, 1)

    def give(self, address: str) -> None:
        """Note that a peer follows one less."""
        self._slots.give(address, 1)


class History:
    """Reads what happened, why and by whom; PostgreSQL has it.

    Args:
        policy: decides who may read.
        database: where the history is.
        cache: tells which services are known, and when this process stops.
        reads: held while the history is read: people and consoles share few connections, so that heartbeats always
            have theirs.
        streams: the streams of each peer; None while access is not closed.
    """

    def __init__(
        self,
        policy: Policy,
        database: Database,
        cache: SnapshotCache,
        reads: asyncio.Semaphore,
        streams: PeerStreams | None = None,
    ) -> None:
        self._streams = streams
        self._policy = policy
        self._database = database
        self._cache = cache
        self._reads = reads
        self._places = asyncio.Semaphore(MAX_STREAMS)

    async def events(self, principal: Principal, wanted: EventFilter) -> Sequence[RecordedEvent]:
        """Return events, the newest first.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        self.check(principal, wanted)
        reach = self._policy.reach(principal, Verb.READ)
        if wanted.service is None and not reach.everything:
            services = [EVERYWHERE, *self._policy.readable(principal, self._cache.services())]
            wanted = replace(wanted, reach=reach, services=services if len(services) <= _MAX_NAMED else ())
        async with in_time_for_client(), self._reads:
            return _shown(await store.find_events(self._database, wanted), reach)

    async def follow(
        self, principal: Principal, identify: Identify, wanted: EventFilter, after: Position | None
    ) -> EventStream:
        """Begin a stream of events, behind a position or with what happens from now on.

        Its place is taken here: a reader for whom there is none is refused, rather than held.

        Args:
            principal: the sender of the request.
            identify: returns that sender anew; called when its credential has ended or changed.
            wanted: which events.
            after: the position; None: from now on.

        Raises:
            LimitError: the peer follows as many streams as it may.
            UnavailableError: there is no place, or PostgreSQL is away.
        """
        self.check(principal, wanted)
        if self._streams is not None:
            self._streams.check(principal.address, time.monotonic())
        if self._places.locked():
            raise UnavailableError(
                f"too many event streams are open on this process (limit {MAX_STREAMS}); retry later", 10
            )
        await self._places.acquire()
        if self._streams is not None:
            self._streams.take(principal.address)
        try:
            async with in_time_for_client(), self._reads:
                after = after or await store.newest_position(self._database)
        except BaseException:
            self.leave(principal)
            raise
        wanted = replace(wanted, newest_first=False, settled=True, after=after, limit=_BATCH)
        return EventStream(self, principal, identify, wanted)

    def leave(self, principal: Principal) -> None:
        """Give the place of a stream back."""
        self._places.release()
        if self._streams is not None:
            self._streams.give(principal.address)

    def check(self, principal: Principal, wanted: EventFilter) -> None:
        """Return when a principal may read events that a filter asks for, and raise otherwise."""
        self._policy.allow(principal, Verb.READ, wanted.service or "")

    @property
    def closing(self) -> bool:
        """Whether this process stops, which ends the streams."""
        return self._cache.closing

    async def newest(self) -> Position | None:
        """Return where the history ends now; None while PostgreSQL is away."""
        try:
            async with in_time_for_client(), self._reads:
                return await store.newest_position(self._database)
        except UnavailableError:
            return None

    async def look(self, principal: Principal, wanted: EventFilter) -> Sequence[RecordedEvent] | None:
        """Return the next events of a stream whose reader was checked; None while PostgreSQL is away."""
        reach = self._policy.reach(principal, Verb.READ)
        if wanted.service is None and not reach.everything:
            # By the grants and not by the services that this process knows: no event of a new one may be passed over.
            wanted = replace(wanted, reach=reach)
        try:
            async with in_time_for_client(), self._reads:
                return _shown(await store.find_events(self._database, wanted), reach)
        except UnavailableError:
            # The reader keeps its place; what happens meanwhile is in the history when PostgreSQL is back.
            return None

    async def latest_events_at(self, principal: Principal, service: str, at: float) -> Sequence[RecordedEvent]:
        """Return, for each endpoint that was listed at a past time, the event that made it what it was then.

        Raises:
            UnknownServiceError: the service is not known.
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, service)
        self._check_known(service)
        async with in_time_for_client(), self._reads:
            events = await store.latest_events_at(self._database, service, at)
        return _shown(events, self._policy.reach(principal, Verb.READ))

    async def status_counts(self, principal: Principal, service: str, since: float, until: float) -> ServiceChart:
        """Return the counts and marks of a service over a time, or over its last part if too much happened.

        Raises:
            UnknownServiceError: the service is not known.
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, service)
        self._check_known(service)
        wanted = EventFilter(service=service, since=since, limit=_MAX_COUNTED)
        async with in_time_for_client(), self._reads:
            events = await store.find_events(self._database, wanted)
            if len(events) == _MAX_COUNTED:
                since = events[-1].at
            standing = await store.latest_events_at(self._database, service, since)
        later = [event for event in reversed(events) if event.at > since]
        endpoints = list(self._cache.get(service).endpoints.values())
        return await asyncio.to_thread(_chart, standing, later, endpoints, since, until)

    def _check_known(self, service: str) -> None:
        if not self._cache.knows(service):
            raise UnknownServiceError(service)


def _chart(
    standing: Sequence[RecordedEvent],
    later: Sequence[RecordedEvent],
    endpoints: Sequence[Endpoint],
    since: float,
    until: float,
) -> ServiceChart:
    counts = status_counts(standing, later, since, until)
    return ServiceChart(counts.at, counts.statuses, chart_marks(later, endpoints, since, until))


def _shown(events: Sequence[RecordedEvent], reach: Reach) -> Sequence[RecordedEvent]:
    """Return events without what their reader may not read."""
    return events if reach.everything else [without_hidden(event, reach) for event in events]
