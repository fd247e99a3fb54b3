"""The history of changes: pages, a stream that continues for its reader, and services at a past time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from msgspec.structs import replace

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.history import EventFilter, Position, RecordedEvent
from registry.core.status_counts import StatusCounts, status_counts
from registry.errors import UnavailableError, UnknownServiceError
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


class EventStream:
    """Events as they happen, for one reader; it holds one of the process's places until it is closed.

    Args:
        read_events: returns the events that a filter asks for.
        wanted: which events, and behind which one the stream begins.
        cache: tells when this process stops, which ends the stream.
        places: one of which the stream holds.
    """

    def __init__(
        self,
        read_events: Callable[[EventFilter], Awaitable[Sequence[RecordedEvent]]],
        wanted: EventFilter,
        cache: SnapshotCache,
        places: asyncio.Semaphore,
    ) -> None:
        self._read_events = read_events
        self._wanted = wanted
        self._cache = cache
        self._places = places

    async def batches(self) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Yield events as they come, the oldest first, and an empty batch when none came for a while."""
        quiet = 0.0
        while not self._cache.closing:
            events = await self._read_events(self._wanted)
            if events:
                self._wanted, quiet = replace(self._wanted, after=events[-1].position), 0.0
                yield events
                continue
            await asyncio.sleep(_LOOK_INTERVAL)
            quiet += _LOOK_INTERVAL
            if quiet >= _KEEP_ALIVE:
                quiet = 0.0
                yield []

    def close(self) -> None:
        """Give the place back; to be called once, however the stream ended."""
        self._places.release()


class History:
    """Reads what happened, why and by whom; PostgreSQL has it.

    Args:
        policy: decides who may read.
        database: where the history is.
        cache: tells which services are known, and when this process stops.
        reads: held while the history is read: people and consoles share few connections, so that heartbeats always
            have theirs.
    """

    def __init__(self, policy: Policy, database: Database, cache: SnapshotCache, reads: asyncio.Semaphore) -> None:
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
        self._policy.allow(principal, Verb.READ, wanted.service or "")
        async with self._reads:
            return await store.find_events(self._database, wanted)

    async def follow(self, principal: Principal, wanted: EventFilter, after: Position | None) -> EventStream:
        """Begin a stream of events, behind a position or with what happens from now on.

        Its place is taken here: a reader for whom there is none is refused, rather than held.

        Raises:
            UnavailableError: there is no place, or PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, wanted.service or "")
        if self._places.locked():
            raise UnavailableError(
                f"too many event streams are open on this process (limit {MAX_STREAMS}); retry later", 10
            )
        await self._places.acquire()
        try:
            async with self._reads:
                after = after or await store.newest_position(self._database)
        except BaseException:
            self._places.release()
            raise
        wanted = replace(wanted, newest_first=False, settled=True, after=after, limit=_BATCH)
        return EventStream(self._look, wanted, self._cache, self._places)

    async def latest_events_at(self, principal: Principal, service: str, at: float) -> Sequence[RecordedEvent]:
        """Return, for each endpoint that was listed at a past time, the event that made it what it was then.

        Raises:
            UnknownServiceError: the service is not known.
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, service)
        self._check_known(service)
        async with self._reads:
            return await store.latest_events_at(self._database, service, at)

    async def status_counts(self, principal: Principal, service: str, since: float, until: float) -> StatusCounts:
        """Return the counts of a service over a time, or over its last part if too much happened.

        Raises:
            UnknownServiceError: the service is not known.
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, service)
        self._check_known(service)
        wanted = EventFilter(service=service, since=since, limit=_MAX_COUNTED)
        async with self._reads:
            events = await store.find_events(self._database, wanted)
            if len(events) == _MAX_COUNTED:
                since = events[-1].at
            standing = await store.latest_events_at(self._database, service, since)
        later = [event for event in reversed(events) if event.at > since]
        return await asyncio.to_thread(status_counts, standing, later, since, until)

    def _check_known(self, service: str) -> None:
        if not self._cache.knows(service):
            raise UnknownServiceError(service)

    async def _look(self, wanted: EventFilter) -> Sequence[RecordedEvent]:
        try:
            async with self._reads:
                return await store.find_events(self._database, wanted)
        except UnavailableError:
            # The reader keeps its place; what happens meanwhile is in the history when PostgreSQL is back.
            return []
