"""Events of what clients have rejected over their streams: one for each version of a service that anybody rejects."""

import datetime as dt
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from registry.core.clock import Clock
from registry.core.stream_subscriber import MAX_ERROR
from registry.errors import UnavailableError
from registry.store import mesh as store
from registry.store.database import Database
from registry.store.left_out import StoredApart
from registry.xds.grpc.observer import Rejection
from registry.xds.grpc.streams import StreamEntry
from registry.xds.resources import ENDPOINTS, ResourceType
from registry.xds.version_info import parse_version_info

WRITE_INTERVAL = 1.0
"""Seconds between two batches."""
_MAX_WAITING = 100
"""Events that wait while PostgreSQL is away; later ones are in the log alone."""
_MAX_REMEMBERED = 1_000
"""Versions of which is remembered that they were noted: a client that comes again rejects the same one again."""


class _Event(Struct, frozen=True):
    """A rejection that is to be stored."""

    service: str
    version: int
    reason: str
    actor: str
    at: float


class RejectionEvents:
    """Stores the first rejection of each version of a service.

    Args:
        database: where events are.
        clock: the database's time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[_Event] = deque()
        """Events to be stored, the oldest first. Written by note() and _drop()."""
        self._noted: OrderedDict[tuple[str, str], None] = OrderedDict()
        """The names and versions that were noted last. Written by note()."""
        self._apart = StoredApart[_Event]("rejections", lambda event: event.reason)

    def note(self, entry: StreamEntry, resource_type: ResourceType, rejection: Rejection, database_id: str) -> None:
        """Note a rejection; of an answer with several services none is: each of them is sent again by itself."""
        if resource_type is not ENDPOINTS or len(rejection.versions) != 1:
            return
        ((service, version),) = rejection.versions.items()
        numbers = parse_version_info(database_id, (service,), version, ENDPOINTS)
        if numbers is None or not numbers[0] or (service, version) in self._noted:
            return
        self._noted[service, version] = None
        if len(self._noted) > _MAX_REMEMBERED:
            self._noted.popitem(last=False)
        if len(self._waiting) < _MAX_WAITING:
            words = rejection.message[:MAX_ERROR] or "it gave no reason"
            actor = f"{entry.node.id or 'a client without a node id'} at {entry.address}"
            reason = f"{actor} refuses version {numbers[0]} of {service}: {words}"
            self._waiting.append(_Event(service, numbers[0], reason, actor, self._clock.at(rejection.at)))

    async def write(self) -> None:
        """Store what waits; while PostgreSQL is away it waits on."""
        with suppress(UnavailableError):
            await self._apart.store(list(self._waiting), self._store, self._drop)

    def _drop(self, events: Sequence[_Event], _stored: bool) -> None:
        """Let stored events wait no longer, nor those that PostgreSQL does not take."""
        for event in events:
            self._waiting.remove(event)

    async def _store(self, events: Sequence[_Event]) -> None:
        async with self._database.transaction() as connection:
            for event in events:
                await store.add_event(
                    connection,
                    (event.service,),
                    "update_rejected",
                    event.reason,
                    event.actor,
                    dt.datetime.fromtimestamp(event.at, dt.UTC),
                    event.version,
                )
