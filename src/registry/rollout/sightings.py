"""The Envoys that polled any process for the mesh configuration, for the rules of roll-outs.

Each process tells the others of the Envoys that poll it, through PostgreSQL, once a second where there is news. The
rules are in ``registry.core.mesh_subscriber``, the statements in ``registry.store.mesh_subscribers``.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from meshconfig.phases import Subscriber
from registry.cooperative import cooperatively
from registry.core.clock import Clock
from registry.core.mesh import KINDS
from registry.core.mesh_subscriber import MeshReport, ProcessWatch, certainty, gather, one_of_each
from registry.core.processes import ProcessReport, SilentProcess
from registry.core.stream_subscriber import SeenRow, reports_of
from registry.core.subscriber import Subscribers, Subscription
from registry.core.subscriber_status import MAX_REPORTS_PUBLISHED, SubscriberReport
from registry.errors import UnavailableError
from registry.rollout.stream_reports import StreamReports, substance_of
from registry.store import mesh_subscribers as store
from registry.store.database import Database
from registry.store.left_out import StoredApart
from registry.xds.grpc.streams import StreamEntry, Streams
from registry.xds.resource_cache import ResourceCache
from registry.xds.resources import MESH_TYPES, ResourceType
from registry.xds.version_info import parse_version_info
from wire.node import printable

TELL_INTERVAL = 1.0
"""Seconds between two turns of telling."""
_WATCH_INTERVAL = 3.0
"""Seconds after which a process says again for how long it has watched."""
_CLEANUP_INTERVAL = 60.0
"""Seconds between two deletions of outdated reports, and between two notes of the versions of Envoys."""
_STREAM_INTERVAL = 300.0
"""Seconds after which the others are told of a stream again that has not changed: what is older is deleted."""
_MIN_CLOCK_STEP = 1.0
"""Seconds by which the database's clock has to move against monotonic time to count as set."""


class ProcessList(Protocol):
    """The registry processes, as `registry.background.process_reports` knows them."""

    @property
    def process_id(self) -> str:
        """The random id of this process."""

    def all(self) -> list[ProcessReport]:
        """Return the reports of all processes that live, this one among them."""

    def silent(self) -> list[SilentProcess]:
        """Return the processes that have gone without saying so."""


EndpointReports = Callable[[str], AsyncIterator[SubscriberReport]]
"""Yields this process's reports about the Envoys that ask for the endpoints of a service."""
StreamRows = Callable[[Collection[str]], Awaitable[list[SeenRow]]]
"""Returns the streams of the other processes whose node has one of these clusters."""


class StreamSightings(Struct, frozen=True):
    """Everything about gRPC streams that sightings are made of.

    Attributes:
        streams: those of this process.
        caches: the resources of each type as they are served, by its name.
        rows: returns those of the other processes, with the endpoints that they ask for.
    """

    streams: Streams
    caches: Mapping[str, ResourceCache]
    rows: StreamRows


class Observation(Struct, frozen=True):
    """Everything that is known of the subscribers of some node.clusters at one time.

    Attributes:
        now: the database's time.
        subscribers: by node.cluster.
        watched: whether every process has taken polls for long enough to have seen each Envoy.
        overlooked: whether Envoys that poll may be unknown.
    """

    now: float
    subscribers: Mapping[str, Sequence[Subscriber]]
    watched: bool
    overlooked: bool


class Sightings:
    """Tells the other processes of this one's subscribers, and collects those of all.

    Args:
        database: through which processes tell each other.
        clock: the database's time.
        subscribers: those of this process, by the name of their resource type.
        processes: the registry processes.
        endpoint_reports: what this process has seen of the Envoys that ask for endpoints.
        streams: the gRPC streams.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        subscribers: Mapping[str, Subscribers],
        processes: ProcessList,
        endpoint_reports: EndpointReports,
        streams: StreamSightings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._subscribers = subscribers
        self._process = processes.process_id
        self._processes = processes
        self._endpoint_reports = endpoint_reports
        self._streams = streams
        self._stream_reports = StreamReports(processes.process_id, clock, streams.caches)
        self._told_streams: dict[StreamEntry, tuple[object, list[MeshReport]]] = {}
        """What the others were told of each stream last, and what it was made of. Written by _due_reports()."""
        self._database_id = ""
        """The database whose versions are read. Written by tell()."""
        self._watching_since: float | None = None
        """Monotonic time since when this process tells of its subscribers; None: it does not yet. Written by tell()."""
        self._watch_told_at = 0.0
        """Monotonic time at which this process last said for how long it has watched."""
        self._left_out_at: float | None = None
        """Monotonic time at which PostgreSQL last did not take what was told of a subscriber. Written by tell()."""
        self._apart = StoredApart[MeshReport](
            "mesh_subscribers", lambda report: f"{report.node_id} at {report.address}"
        )
        self._envoys_apart = StoredApart[tuple[str, str]]("mesh_envoys", " ".join)
        self._cleaned_at = 0.0
        """Monotonic time of the last deletion of outdated reports."""
        self._offset: float | None = None
        """The database's time less monotonic time, at the last turn; None before the first. Written by tell()."""
        self._clock_set_at: float | None = None
        """Monotonic time at which the database's clock was found to be set; None: never. Written by tell()."""

    async def tell(self, database_id: str) -> None:
        """Tell of subscribers that have changed; tell of all when what was told before may be lost.

        Args:
            database_id: the database whose versions are read.
        """
        now = time.monotonic()
        self._database_id = database_id
        anew = self._note_clock(now)
        try:
            anew |= await self._tell_watch(now)
            if anew:
                self._forget_told()
            ended = self._ended_streams()
            reports = await self._due_reports(now)
            at = self._clock.at(now)
            if await self._apart.store(reports, lambda some: store.store_reports(self._database, some, at)):
                self._left_out_at = now
            for entry in ended:
                # Only now: while PostgreSQL is away, the end of a stream waits to be told.
                del self._told_streams[entry]
            if now - self._cleaned_at > _CLEANUP_INTERVAL:
                self._cleaned_at = now
                await store.delete_old(self._database, self._process, self._clock.at(now))
                await self._note_envoys()
        except UnavailableError:
            # Nothing that was told lately is certain to be stored. The change feed logs that PostgreSQL is away.
            self._watch_told_at = 0.0
            self._forget_told()

    async def observe(self, services: Mapping[str, Collection[str]]) -> Observation:
        """Return what is known of the subscribers of some node.clusters.

        Args:
            services: by node.cluster, the services whose endpoints its Envoys are to show.

        Raises:
            UnavailableError: the reports of the others cannot be read.
        """
        async with self._database.session() as connection:
            watches = await store.read_watches(connection)
            reports = await store.reports_of_others(connection, self._process, services)
            endpoints = await store.endpoint_reports(connection, services)
        now = time.monotonic()
        for kind, resource_type in zip(KINDS, _TYPES_OF_KINDS, strict=True):
            async for subscription in cooperatively(self._subscribers[kind]):
                if subscription.node.cluster in services and subscription.names:
                    reports += self._reports_of(subscription, resource_type)
        reports += [report async for report in self._reports_of_streams(services, now)]
        async for row in cooperatively(await self._rows(services)):
            names = services[row.row.cluster] if row.alive else ()
            endpoints += [report for name in names for report in reports_of(row, name)]
        for service in {name for each in services.values() for name in each}:
            # Newer than what this process has told the others.
            endpoints += [report async for report in self._endpoint_reports(service)]
        at = self._clock.at(now)
        set_ago = float("inf") if self._clock_set_at is None else now - self._clock_set_at
        certain = certainty(
            [process.id for process in self._processes.all()],
            [*(watch for watch in watches if watch.process != self._process), self._own_watch(now)],
            [process.seconds for process in self._processes.silent()],
            set_ago,
        )
        return Observation(at, await _gather(reports, endpoints, at), certain.watched, certain.overlooked)

    async def _rows(self, services: Mapping[str, Collection[str]]) -> list[SeenRow]:
        """Return the streams of the other processes that may show the endpoints of services: one statement for all."""
        clusters = [cluster for cluster, names in services.items() if names]
        return await self._streams.rows(clusters) if clusters else []

    async def all_subscribers(self) -> list[MeshReport]:
        """Return the reports of all processes about all node.clusters.

        Raises:
            UnavailableError: the reports of the others cannot be read.
        """
        async with self._database.session() as connection:
            reports = await store.reports_of_others(connection, self._process, None)
        for kind, resource_type in zip(KINDS, _TYPES_OF_KINDS, strict=True):
            async for subscription in cooperatively(self._subscribers[kind]):
                reports += self._reports_of(subscription, resource_type)
        return reports + [report async for report in self._reports_of_streams(None, time.monotonic())]

    async def subscribers_of(self, cluster: str) -> list[MeshReport]:
        """Return the reports of all processes about one node.cluster.

        Raises:
            UnavailableError: the reports of the others cannot be read.
        """
        async with self._database.session() as connection:
            reports = await store.reports_of_others(connection, self._process, (cluster,))
        for kind, resource_type in zip(KINDS, _TYPES_OF_KINDS, strict=True):
            async for subscription in cooperatively(self._subscribers[kind]):
                if subscription.node.cluster == cluster and subscription.names:
                    reports += self._reports_of(subscription, resource_type)
        return reports + [report async for report in self._reports_of_streams((cluster,), time.monotonic())]

    def _note_clock(self, now: float) -> bool:
        """Return whether the database's clock was set since the last turn."""
        offset = self._clock.at(now) - now
        was_set = self._offset is not None and abs(offset - self._offset) > _MIN_CLOCK_STEP
        self._offset = offset
        if was_set:
            self._clock_set_at = now
        return was_set

    def _own_watch(self, now: float) -> ProcessWatch:
        """Return for how long this process has watched."""
        since = now if self._watching_since is None else self._watching_since
        refused = [each.refused_ago(now) for each in self._subscribers.values()]
        if self._left_out_at is not None:
            refused.append(now - self._left_out_at)
        overlooked = min((ago for ago in refused if ago is not None), default=None)
        return ProcessWatch(self._process, now - since, overlooked, 0.0)

    async def _tell_watch(self, now: float) -> bool:
        """Say for how long this process has watched; return whether PostgreSQL has lost what it said before."""
        if self._watching_since is not None and now - self._watch_told_at < _WATCH_INTERVAL:
            return False
        unheard = await store.store_watch(self._database, self._own_watch(now))
        if self._watching_since is None or unheard:
            self._watching_since = now
        self._watch_told_at = now
        return unheard

    def _forget_told(self) -> None:
        """Tell of all subscribers again, as far as they are remembered."""
        for kind in KINDS:
            for subscription in self._subscribers[kind]:
                subscription.published = None
        self._told_streams = {entry: (None, reports) for entry, (_, reports) in self._told_streams.items()}

    async def _due_reports(self, now: float) -> list[MeshReport]:
        reports = await self._due_reports_of_streams(now)
        for kind, resource_type in zip(KINDS, _TYPES_OF_KINDS, strict=True):
            async for subscription in cooperatively(self._subscribers[kind]):
                if len(reports) >= MAX_REPORTS_PUBLISHED:
                    return reports
                if subscription.names and subscription.is_news(now):
                    reports += self._reports_of(subscription, resource_type)
                    subscription.published, subscription.published_at = subscription.substance, now
        return reports

    async def _due_reports_of_streams(self, now: float) -> list[MeshReport]:
        """Return what is new of this process's streams, those that have ended among them."""
        due: list[MeshReport] = []
        at = self._clock.at(now)
        for entry in self._ended_streams():
            _, last = self._told_streams[entry]
            due += [replace(report, held=False, polled_at=at, seen_at=at) for report in last]
        async for entry in cooperatively(self._streams.streams):
            if len(due) >= MAX_REPORTS_PUBLISHED:
                break
            facts = substance_of(entry, self._streams.caches)
            # Streams that began together are told of again at different times.
            substance = (facts, (now + hash(entry) % _STREAM_INTERVAL) // _STREAM_INTERVAL)
            before, _ = self._told_streams.get(entry, (None, []))
            if facts and substance != before:
                reports = list(self._stream_reports.reports(entry, now))
                self._told_streams[entry] = (substance, reports)
                due += reports
        return one_of_each(due)

    def _ended_streams(self) -> list[StreamEntry]:
        """Return the streams that the others take for open, and that have ended."""
        return [entry for entry in self._told_streams if entry.stream is None]

    async def _reports_of_streams(self, clusters: Collection[str] | None, now: float) -> AsyncIterator[MeshReport]:
        """Yield the reports about the streams of some node.clusters; None: of all."""
        async for entry in cooperatively(self._streams.streams):
            if clusters is None or entry.node.cluster in clusters:
                for report in self._stream_reports.reports(entry, now):
                    yield report

    async def _note_envoys(self) -> None:
        versions = {
            (printable(subscription.node.cluster), subscription.node.version)
            for subscription in self._subscribers["clusters"]
            if subscription.node.version and time.monotonic() - subscription.seen_at <= 2 * _CLEANUP_INTERVAL
        }
        versions |= {
            (entry.node.cluster, entry.node.version)
            for entry in self._streams.streams
            if entry.client == "envoy" and entry.node.version and entry.node.cluster
        }
        await self._envoys_apart.store(sorted(versions), lambda some: store.store_envoys(self._database, some))
        await store.delete_old_envoys(self._database)

    def _reports_of(self, subscription: Subscription, resource_type: ResourceType) -> Iterator[MeshReport]:
        """Yield a report about a subscription for each of its names."""
        at = self._clock.at
        unknown = [None] * len(subscription.names)
        versions, refused = (
            parse_version_info(self._database_id, subscription.names, text, resource_type) or unknown
            for text in (subscription.brought, subscription.refused_offer)
        )
        for number, name in enumerate(subscription.names):
            yield MeshReport(
                process=self._process,
                kind=resource_type.name,
                name="" if resource_type.wildcard else printable(name),
                node_id=subscription.node.id,
                address=printable(subscription.address),
                cluster=subscription.node.cluster,
                envoy=subscription.node.version,
                version=versions[number],
                refused=refused[number],
                refused_at=at(subscription.refused_offer_at) if subscription.refused_offer else None,
                denied=subscription.status in (401, 403),
                started_at=None if subscription.started_at is None else at(subscription.started_at),
                first_seen=at(subscription.first_seen),
                polled_at=at(subscription.polled_at),
                seen_at=at(subscription.seen_at),
                held=subscription.held > 0,
                pause=subscription.pause,
            )


async def _gather(
    reports: Sequence[MeshReport], endpoints: Sequence[SubscriberReport], now: float
) -> Mapping[str, Sequence[Subscriber]]:
    """Join the reports of one node.cluster at a time, so that polls are answered in between."""
    of_mesh: defaultdict[str, list[MeshReport]] = defaultdict(list)
    of_endpoints: defaultdict[str, list[SubscriberReport]] = defaultdict(list)
    async for report in cooperatively(reports):
        of_mesh[report.cluster].append(report)
    async for eds in cooperatively(endpoints):
        of_endpoints[eds.cluster].append(eds)
    subscribers: dict[str, Sequence[Subscriber]] = {}
    async for cluster in cooperatively(of_mesh):
        subscribers.update(gather(of_mesh[cluster], of_endpoints[cluster], now))
    return subscribers


_TYPES_OF_KINDS = tuple(next(each for each in MESH_TYPES if each.name == kind) for kind in KINDS)
