"""The gRPC streams of all processes: each tells the others of its own through PostgreSQL, and reads theirs.

A row is a stream, and is written when what it asks for changes, or what of it may not be current: so a change of a
service under a thousand streams writes nothing.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.stream_subscriber import SeenRow, StreamReport, StreamRow, Trouble, evaluate_stream, trouble_of
from registry.core.subscriber import MAX_NAME, SUBSCRIBER_TIMEOUT
from registry.core.subscriber_status import ServiceVersion, State, SubscriberFilter
from registry.store import stream_subscribers as store
from registry.store.database import Database
from registry.store.left_out import StoredApart
from registry.xds.grpc.observer import Record
from registry.xds.grpc.streams import ReportMaker, StreamEntry, Streams, client_of, troubled_names
from registry.xds.resources import ENDPOINTS
from wire.node import printable

MAX_NAMES_PUBLISHED = 1_000_000
"""Services of all streams of a process that it tells the others of, each about 20 bytes in PostgreSQL."""
_MAX_ROWS_PUBLISHED = 500
"""Streams that a process tells of in one turn."""
_MAX_NAMES_A_TURN = 50_000
"""Services of these streams, whose encoding holds up the event loop for two milliseconds."""
_CLEANUP_INTERVAL = 60.0
"""Seconds between two deletions of the streams of dead processes, and between two comparisons with what is stored."""


class _Told(Struct, frozen=True):
    """A stream as the others were told of it: its number, its services, and all else as one value.

    Attributes:
        number: of its row.
        services: how many it asks for.
        substance: all else that is told.
        stored: whether it has a row.
        left_out: whether PostgreSQL did not take the newest row.
    """

    number: int
    services: int = 0
    substance: object = None
    stored: bool = True
    left_out: bool = False


class StreamSync:
    """Tells the other processes of this one's streams, and collects those of all.

    Args:
        database: through which processes tell each other.
        cache: the services.
        streams: the streams of this process.
        process_id: the random id of this process, by which others see that it lives.
        process: the name of this process.
    """

    def __init__(
        self, database: Database, cache: SnapshotCache, streams: Streams, process_id: str, process: str
    ) -> None:
        self._database = database
        self._cache = cache
        self._streams = streams
        self._process_id = process_id
        self._process = process
        self._apart = StoredApart[StreamRow]("streams", lambda row: f"{row.node_id} at {row.address}")
        self._maker = ReportMaker(process, cache.clock, lambda: cache.database_id)
        self._published: dict[StreamEntry, _Told] = {}
        """What the others were told of each stream. Written by publish()."""
        self._next_number = 0
        """The number of the stream that is told of next."""
        self._next_stream = 0
        """The index of the stream with which the next turn begins. Written by publish()."""
        self._checked_at = 0.0
        """Monotonic time of the last comparison with what is stored."""
        self._database_id = ""
        """The database that was told of the streams. Written by publish()."""
        self._overlooked_at: float | None = None
        """Monotonic time at which a stream was last left out: no room, or PostgreSQL did not take it."""

    async def publish(self) -> None:
        """Tell of streams that are new or have changed, and take back those that have ended.

        Raises:
            UnavailableError: PostgreSQL is away. Rows of before are compared with what is stored afterwards.
        """
        now = time.monotonic()
        ended = [entry for entry in self._published if entry.stream is None]
        if ended:
            numbers = [self._published[entry].number for entry in ended]
            await store.delete_streams(self._database, self._process_id, numbers)
            for entry in ended:
                del self._published[entry]
        await self._check_stored(now)
        rows: list[StreamRow] = []
        published: dict[StreamEntry, _Told] = {}
        names_of_rows = 0
        names = sum(each.services for each in self._published.values())
        entries = list(self._streams)
        begin = self._next_stream if self._next_stream < len(entries) else 0
        async for index, entry in cooperatively(enumerate(entries[begin:] + entries[:begin], begin)):
            record = _endpoints_of(entry)
            if record is None:
                continue
            # Names that it does not hold yet are told as well, because all else counts as acknowledged.
            names_told = {*troubled_names(record, now), *record.unheld}
            troubles = [trouble_of(each) for each in self._maker.reports(entry, record, names_told, now)]
            substance = _substance(record, troubles)
            before = self._published.get(entry) or _Told(self._next_number)
            if before.substance == substance:
                continue
            added = len(record.names) - before.services
            if names + added > MAX_NAMES_PUBLISHED:
                self._overlooked_at = now
                continue
            names_of_rows += len(record.names)
            if len(rows) >= _MAX_ROWS_PUBLISHED or (rows and names_of_rows > _MAX_NAMES_A_TURN):
                # The rest follows in the next turn, which begins here.
                self._next_stream = index % len(entries)
                break
            names += added
            self._next_number = max(self._next_number, before.number + 1)
            rows.append(self._row_of(entry, record, before.number, troubles))
            published[entry] = _Told(before.number, len(record.names), substance)
        entries_of = {state.number: entry for entry, state in published.items()}

        def note(done: Sequence[StreamRow], stored: bool) -> None:
            entries = [entries_of[row.stream] for row in done]
            self._note_published({entry: published[entry] for entry in entries}, stored, now)

        await self._apart.store(rows, lambda some: store.store_streams(self._database, some), note)

    def _note_published(self, published: Mapping[StreamEntry, _Told], stored: bool, now: float) -> None:
        """Note what the others were told, or what PostgreSQL did not take."""
        if stored:
            self._published.update(published)
            return
        self._overlooked_at = now
        for entry, newest in published.items():
            before = self._published.get(entry)
            self._published[entry] = replace(newest, left_out=True, stored=before is not None and before.stored)

    async def withdraw(self) -> None:
        """Take back all streams of this process, which stops.

        Raises:
            UnavailableError: PostgreSQL is away. The others see that this process is gone.
        """
        if self._published:
            await store.delete_streams(self._database, self._process_id, None)

    def overlooked_ago(self, now: float) -> float | None:
        """Return the seconds since the others were last not told of a stream, for want of room; None: not lately."""
        ago = None if self._overlooked_at is None else now - self._overlooked_at
        return ago if ago is not None and ago <= SUBSCRIBER_TIMEOUT else None

    async def of_others(self, wanted: SubscriberFilter) -> list[SeenRow]:
        """Return the streams of the other processes that match a filter.

        Raises:
            UnavailableError: they cannot be read.
        """
        return await store.streams_of_others(self._database, self._process_id, wanted)

    async def of_clusters(self, clusters: Collection[str]) -> list[SeenRow]:
        """Return the streams of the other processes whose node has one of these clusters.

        Raises:
            UnavailableError: they cannot be read.
        """
        return await store.streams_of_clusters(self._database, self._process_id, clusters)

    async def own_reports(self, wanted: SubscriberFilter, limit: int | None = None) -> AsyncIterator[StreamReport]:
        """Yield reports about the services of this process's streams that match a filter.

        Args:
            wanted: which.
            limit: reports about services that are current, at most; None: all.
        """
        now = time.monotonic()
        left = limit
        async for entry in cooperatively(self._streams):
            record = _endpoints_of(entry)
            if record is None or not wanted.fits(entry.node):
                continue
            names = record.names
            if wanted.service is not None:
                names = [wanted.service] if wanted.service in names else []
            elif left is not None:
                if len(names) > left:
                    names = list(troubled_names(record, now))
                else:
                    left -= len(names)
            for report in self._maker.reports(entry, record, names, now):
                yield report

    async def name_count(self, wanted: SubscriberFilter) -> int:
        """Return how many services the streams of this process ask for that match a filter."""
        count = 0
        async for entry in cooperatively(self._streams):
            record = _endpoints_of(entry)
            if record is not None and wanted.fits(entry.node):
                count += len(record.names)
        return count

    async def states(self) -> Counter[State]:
        """Return the number of services on this process's streams in each state."""
        counts: Counter[State] = Counter()
        now = time.monotonic()
        async for entry in cooperatively(self._streams):
            record = _endpoints_of(entry)
            if record is None:
                continue
            troubled = list(troubled_names(record, now))
            counts["current"] += len(record.names) - len(troubled)
            counts.update(
                evaluate_stream(report, self._version_of(report.service), self._cache.clock.at(now)).state
                for report in self._maker.reports(entry, record, troubled, now)
            )
        return counts

    def _version_of(self, service: str) -> ServiceVersion:
        snapshot = self._cache.get(service)
        return ServiceVersion(snapshot.version, self._cache.clock.at(snapshot.since))

    async def _check_stored(self, now: float) -> None:
        """Tell of all streams again if PostgreSQL has lost some of them, or is a copy of an earlier time.

        A restored backup has streams of this process that have ended since, and others as they were then.
        """
        database_id = self._cache.database_id
        restored = database_id != self._database_id
        if not restored and now - self._checked_at < _CLEANUP_INTERVAL:
            return
        self._checked_at = now
        await store.delete_orphans(self._database)
        stored = await store.count_streams(self._database, self._process_id)
        for entry, published in self._published.items():
            if published.left_out:
                self._published[entry] = replace(published, substance=None)
        if restored or stored != sum(each.stored for each in self._published.values()):
            if stored:
                await store.delete_streams(self._database, self._process_id, None)
            self._published = {
                entry: replace(each, substance=None, stored=False) for entry, each in self._published.items()
            }
        self._database_id = database_id

    def _row_of(self, entry: StreamEntry, record: Record, number: int, troubles: Sequence[Trouble]) -> StreamRow:
        node, stream = entry.node, entry.stream
        return StreamRow(
            process_id=self._process_id,
            stream=number,
            process=self._process,
            node_id=node.id,
            address=printable(entry.address),
            api="grpc-delta" if stream is not None and stream.delta else "grpc",
            cluster=node.cluster,
            zone=node.zone,
            envoy=client_of(entry),
            opened_at=self._cache.clock.at(entry.opened_at),
            services=[printable(name) for name in record.names if len(name) <= MAX_NAME],
            troubles=troubles,
        )


def _endpoints_of(entry: StreamEntry) -> Record | None:
    """Return the record of a stream's endpoints; None if it asks for none, or has ended."""
    records: Iterable[Record] = () if entry.stream is None else entry.stream.records
    return next((record for record in records if record.type is ENDPOINTS and record.names), None)


def _substance(record: Record, troubles: Iterable[Trouble]) -> object:
    """Return what changes with what the others have to know; times are left out, because the clock drifts."""
    facts = tuple(
        (each.service, each.version, each.offered, each.rejected_version, each.error, each.refusal, each.oversized)
        for each in troubles
    )
    return hash(frozenset(record.names)), facts
