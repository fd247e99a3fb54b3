"""The exchange of subscribers between processes: each publishes its own through PostgreSQL, and reads the others'.

The rules are in ``registry.core.subscriber_status``, the statements in ``registry.store.subscribers``.
"""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial

from msgspec.structs import replace

from registry.background.stream_sync import StreamSync
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.stream_subscriber import SeenRow, StreamReport, evaluate_stream, reports_of_rows
from registry.core.subscriber import SUBSCRIBER_TIMEOUT, Subscribers, Subscription
from registry.core.subscriber_status import (
    MAX_REPORTS_PUBLISHED,
    REPORT_LAG,
    ClusterSubscribers,
    ServiceVersion,
    State,
    SubscriberFilter,
    SubscriberReport,
    SubscriberStatus,
    evaluate,
    merge_reports,
    report_lag,
)
from registry.errors import UnavailableError
from registry.store import subscribers as store
from registry.store.database import Database
from registry.store.left_out import StoredApart
from registry.store.subscribers import SubscriberMemory
from registry.xds.grpc.streams import Streams
from registry.xds.resources import ENDPOINTS
from registry.xds.version_info import parse_version_info
from wire.node import printable

_CLEANUP_INTERVAL = 60.0
"""Seconds between two deletions of outdated reports."""
_MEMORY_REPORT_INTERVAL = 60.0
"""Seconds after which the use of the memory is published again although it has not changed."""
_QUERY_TIMEOUT = 1.5
"""Seconds to wait for the reports of other processes; pages ask every two seconds."""
MAX_STREAM_REPORTS = 100_000
"""Services of streams that are current, in one list of all services: a thousand Envoys may ask for a thousand each.

Beyond it those in trouble are listed, and the others counted; a list of one service has all."""
_MAX_QUERIES = 2
"""Queries for the reports of other processes at a time."""
_CACHE_SECONDS_PER_REPORT = 0.000_1
"""Seconds for which a list is answered again, for each report in it; collecting one takes a third of that."""


class SubscriberSync:
    """The subscribers of all processes: those of this process from memory, the others' from PostgreSQL."""

    def __init__(
        self, database: Database, cache: SnapshotCache, subscribers: Subscribers, streams: Streams, process_id: str
    ) -> None:
        self._database = database
        self._cache = cache
        self._subscribers = subscribers
        # Monotonic time at which this process last deleted outdated reports.
        self._cleaned_at = 0.0
        # The index of the subscription with which the next publication begins.
        self._next_subscription = 0
        # The use of the memory as it was published last (its sightings, and when one was refused), and the monotonic
        # time.
        self._published_memory: tuple[int, float | None] | None = None
        self._memory_published_at = 0.0
        # However many lists are asked for at once, most connections are left to heartbeats.
        self._queries = asyncio.Semaphore(_MAX_QUERIES)
        # Lists that are being collected, or are answered again for a moment; with the monotonic time of their end.
        self._cached_lists: dict[SubscriberFilter, asyncio.Task[tuple[ClusterSubscribers, float]]] = {}
        self._apart = StoredApart[SubscriberReport](
            "subscribers", lambda report: f"{report.node_id} at {report.address} of {report.service}"
        )
        # Monotonic time at which PostgreSQL last did not take the report of a subscriber.
        self._left_out_at: float | None = None
        self.process = f"{socket.gethostname()}:{os.getpid()}"
        """The name of this process, which its reports carry."""
        self.streams = StreamSync(database, cache, streams, process_id, self.process)
        """The subscribers over gRPC streams."""

    async def publish(self) -> None:
        """Publish new reports to the other processes, a bounded number at a time.

        Reports that could not be stored count as published. A subscriber that keeps polling is published again in any
        case, and to repeat at once what PostgreSQL could not store would add to its load.
        """
        now = time.monotonic()
        self._drop_outdated(now)
        for step in (self._publish_reports, self._publish_memory, self._clean_up, self._publish_streams):
            try:
                await step(now)
            except UnavailableError:
                # Logged by the change feed. Here it only makes lists incomplete, and they say so themselves.
                if not await self._database.answers():
                    return

    async def _publish_reports(self, now: float) -> None:
        reports = await self._due_reports(now)
        if not reports:
            return
        merged = await asyncio.to_thread(merge_reports, reports)
        at = self._cache.clock.at(now)
        if await self._apart.store(merged, lambda some: store.store_reports(self._database, some, at)):
            self._left_out_at = now

    async def _clean_up(self, now: float) -> None:
        if now - self._cleaned_at > _CLEANUP_INTERVAL:
            await store.delete_old(self._database, self._cache.clock.at(now))
            self._cleaned_at = now

    async def _publish_streams(self, _now: float) -> None:
        await self.streams.publish()

    async def _due_reports(self, now: float) -> list[SubscriberReport]:
        """Return the reports that are due, beginning after those that were published last."""
        subscriptions = list(self._subscribers)
        begin = self._next_subscription if self._next_subscription < len(subscriptions) else 0
        reports: list[SubscriberReport] = []
        full = False
        async for number, subscription in cooperatively(
            enumerate(subscriptions[begin:] + subscriptions[:begin], begin)
        ):
            if full or not subscription.is_news(now):
                continue
            if len(reports) + len(subscription.names) > MAX_REPORTS_PUBLISHED:
                full, self._next_subscription = True, number % len(subscriptions)
                continue
            reports += self._reports_of(subscription)
            subscription.published, subscription.published_at = subscription.substance, now
        return reports

    async def _publish_memory(self, now: float) -> None:
        """Publish the use of the memory when it has changed or was published long ago."""
        refused_ago = self._own_refused_ago(now)
        memory_state = (self._subscribers.sightings, None if refused_ago is None else now - refused_ago)
        if memory_state != self._published_memory or now - self._memory_published_at > _MEMORY_REPORT_INTERVAL:
            self._published_memory, self._memory_published_at = memory_state, now
            refused_at = None if refused_ago is None else self._cache.clock.at(now - refused_ago)
            memory = SubscriberMemory(self._subscribers.sightings, refused_at)
            await store.store_memory(self._database, self.process, memory, self._cache.clock.at(now))

    async def list_subscribers(self, query: SubscriberFilter) -> ClusterSubscribers:
        """Return the subscribers of all processes, or of this one alone if PostgreSQL does not answer in time.

        A list is cached for a time that grows with its length. So a process spends a bounded share of its time on
        lists, however often they are requested.
        """
        self._drop_outdated(time.monotonic())
        task = self._cached_lists.get(query)
        if task is None:
            task = self._cached_lists[query] = asyncio.create_task(self._collect(query))
        # The caller that started the task may be cancelled while others wait for it.
        subscribers, _ = await asyncio.shield(task)
        return subscribers

    async def states(self) -> Counter[State]:
        """Return the number of this process's subscribers in each state."""
        polling = [
            self._evaluate(report, {}).evaluation.state async for report in self._polling_reports(SubscriberFilter())
        ]
        return Counter(polling) + await self.streams.states()

    def _drop_outdated(self, now: float) -> None:
        """Drop the lists that are no longer answered again."""
        self._cached_lists = {key: task for key, task in self._cached_lists.items() if not _is_outdated(task, now)}

    async def _collect(self, query: SubscriberFilter) -> tuple[ClusterSubscribers, float]:
        now = time.monotonic()
        reports = [report async for report in self.own_reports(query, MAX_STREAM_REPORTS)]
        others, streams = store.ReportsOfOthers([], {}), list[SeenRow]()
        others_asked = False
        try:
            async with asyncio.timeout(_QUERY_TIMEOUT), self._queries:
                others = await store.reports_of_others(self._database, self.process, query)
                streams = await self.streams.of_others(query)
            others_asked = True
        except (UnavailableError, TimeoutError):
            pass
        reports += others.sightings
        reports += [each async for each in cooperatively(reports_of_rows(streams, query.service, MAX_STREAM_REPORTS))]
        merged = await asyncio.to_thread(merge_reports, reports)
        lags = {process: report_lag(memory.sightings) for process, memory in others.memories.items()}
        statuses = [self._evaluate(report, lags) async for report in cooperatively(merged)]
        unlisted = 0
        if query.service is None:
            asked_for = await self.streams.name_count(query) + sum(len(seen.row.services) for seen in streams)
            unlisted = max(0, asked_for - sum(isinstance(report, StreamReport) for report in reports))
        subscribers = ClusterSubscribers(
            statuses, others_asked, self._refused_ago(now, others.memories.values()), unlisted
        )
        return subscribers, time.monotonic() + _CACHE_SECONDS_PER_REPORT * len(reports)

    def _refused_ago(self, now: float, others: Iterable[SubscriberMemory]) -> float | None:
        """Return the seconds since any process had no memory left for a subscriber; None: not lately."""
        at = self._cache.clock.at(now)
        of_others = (max(0.0, at - memory.refused_at) for memory in others if memory.refused_at is not None)
        return min((ago for ago in (self._own_refused_ago(now), *of_others) if ago is not None), default=None)

    def _own_refused_ago(self, now: float) -> float | None:
        """Return the seconds since this process did not remember a subscriber, or PostgreSQL did not take its report.

        None: not lately.
        """
        left_out_ago = None if self._left_out_at is None else now - self._left_out_at
        if left_out_ago is not None and left_out_ago > SUBSCRIBER_TIMEOUT:
            left_out_ago = None
        each = (self._subscribers.refused_ago(now), self.streams.overlooked_ago(now), left_out_ago)
        return min((ago for ago in each if ago is not None), default=None)

    async def own_reports(
        self, query: SubscriberFilter, max_current: int | None = None
    ) -> AsyncIterator[SubscriberReport]:
        """Yield this process's reports about the subscribers that match a query, over polls and over streams.

        Args:
            query: which subscribers.
            max_current: reports of streams about services that are current, at most; None: all.
        """
        async for report in self._polling_reports(query):
            yield report
        async for report in self.streams.own_reports(query, max_current):
            yield report

    async def _polling_reports(self, query: SubscriberFilter) -> AsyncIterator[SubscriberReport]:
        subscriptions = self._subscribers if query.service is None else self._subscribers.of(query.service)
        matching = [
            subscription async for subscription in cooperatively(subscriptions) if query.fits(subscription.node)
        ]
        async for report in cooperatively(
            report for subscription in matching for report in self._reports_of(subscription)
        ):
            if query.service in (None, report.service):
                yield report

    def _evaluate(self, report: SubscriberReport, lags: Mapping[str, float]) -> SubscriberStatus:
        """Evaluate a report; ``lags`` has the maximum age of the reports of each other process, in seconds."""
        snapshot = self._cache.get(report.service)
        current = ServiceVersion(snapshot.version, self._cache.clock.at(snapshot.since))
        lag = 0.0 if report.process == self.process else lags.get(report.process, REPORT_LAG)
        now = self._cache.clock.now()
        if not isinstance(report, StreamReport):
            return SubscriberStatus(report, current, evaluate(report, current, now, lag))
        if report.settled:
            report = replace(report, version=current.version)
        return SubscriberStatus(report, current, evaluate_stream(report, current, now, lag))

    def _reports_of(self, subscription: Subscription) -> Iterator[SubscriberReport]:
        """Yield a report about a subscription for each service that it names."""
        at = self._cache.clock.at
        unknown = [None] * len(subscription.names)
        database_id = self._cache.database_id
        read = partial(parse_version_info, database_id, subscription.names, resource_type=ENDPOINTS)
        versions, offered = read(subscription.brought) or unknown, read(subscription.offered) or unknown
        for number, service in enumerate(subscription.names):
            yield SubscriberReport(
                process=self.process,
                node_id=subscription.node.id,
                cluster=subscription.node.cluster,
                zone=subscription.node.zone,
                envoy=subscription.node.version,
                address=printable(subscription.address),
                service=printable(service),
                api=subscription.api,
                version_info=printable(subscription.brought),
                version=versions[number],
                offered=offered[number],
                status=subscription.status or None,
                answered_at=at(subscription.answered_at) if subscription.status else None,
                polled_at=at(subscription.polled_at),
                first_seen=at(subscription.first_seen),
                held=subscription.held > 0,
                pause=subscription.pause,
                refusals=subscription.refusals,
                refused_since=at(subscription.refused_since) if subscription.refusals else None,
                started_at=None if subscription.started_at is None else at(subscription.started_at),
                edge=subscription.edge,
            )


def _is_outdated(task: asyncio.Task[tuple[ClusterSubscribers, float]], now: float) -> bool:
    """Return whether a list is no longer answered again."""
    return task.done() and (task.cancelled() or task.exception() is not None or task.result()[1] <= now)
