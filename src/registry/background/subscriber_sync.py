"""Telling the other processes who polls this one, and asking them who polls them."""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.subscriber import (
    MAX_REPORTS_PUBLISHED,
    REPORT_LAG,
    ClusterSubscribers,
    ServiceVersion,
    State,
    SubscriberFilter,
    SubscriberReport,
    Subscribers,
    SubscriberStatus,
    Subscription,
    evaluate,
    merge_reports,
    printable,
    report_lag,
)
from registry.errors import UnavailableError
from registry.store import subscribers as store
from registry.store.database import Database
from registry.store.subscribers import SubscriberMemory
from registry.xds.version_info import parse_version_info

_FORGET_EVERY = 60.0
_MEMORY_TOLD_AGAIN = 60.0
"""Seconds after which it is told again how full the memory is, though it is the same."""
_PATIENCE = 1.5
"""Seconds to wait for what other processes know; pages ask for it every two."""
_ASKED_AT_ONCE = 2
_TOLD_AGAIN_EACH = 0.000_1
"""Seconds for which a roll is told again, for each sighting in it: to take it costs a third of that."""


class SubscriberSync:
    """Everybody's subscribers: those of this process from memory, those of the others from PostgreSQL."""

    def __init__(self, database: Database, cache: SnapshotCache, subscribers: Subscribers) -> None:
        self._database = database
        self._cache = cache
        self._subscribers = subscribers
        self._forgotten_at = 0.0
        self._next = 0
        """Where the next turn of telling begins, among all subscriptions in their order."""
        self._memory: tuple[int, float | None] | None = None
        """What the other processes were told last: sightings, and when one was refused."""
        self._memory_told_at = 0.0
        # However many are asked for at once, most connections are left to heartbeats.
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._taken: dict[SubscriberFilter, asyncio.Task[tuple[ClusterSubscribers, float]]] = {}
        self.process = f"{socket.gethostname()}:{os.getpid()}"

    async def publish(self) -> None:
        """Tell the other processes what is new, a bounded part of it each time.

        A part that could not be stored counts as told. Who goes on polling is told of again in any case, and to repeat
        at once what PostgreSQL could not take would make it worse.
        """
        now = time.monotonic()
        self._drop_taken(now)
        news = await self._news(now)
        try:
            if news:
                merged = await asyncio.to_thread(merge_reports, news)
                await store.store_reports(self._database, merged, self._cache.clock.at(now))
            await self._publish_memory(now)
            if now - self._forgotten_at > _FORGET_EVERY:
                await store.delete_old(self._database, self._cache.clock.at(now))
                self._forgotten_at = now
        except UnavailableError:
            # Said by those whose work it stops; this only makes a list shorter, which says so itself.
            return

    async def _news(self, now: float) -> list[SubscriberReport]:
        """Return what is to be told now; begins behind what was told last, so that everybody's turn comes.

        Who is no subscriber any more is dropped on the way.
        """
        everyone = list(self._subscribers)
        begin = self._next if self._next < len(everyone) else 0
        news: list[SubscriberReport] = []
        full = False
        async for number, one in cooperatively(enumerate(everyone[begin:] + everyone[:begin], begin)):
            self._subscribers.forget(one, now)
            if full or not one.is_news(now):
                continue
            if len(news) + len(one.names) > MAX_REPORTS_PUBLISHED:
                full, self._next = True, number % len(everyone)
                continue
            news += self._sightings(one)
            one.told, one.told_at = one.substance, now
        return news

    async def _publish_memory(self, now: float) -> None:
        """Tell how full the memory is, when that has changed or was told long ago."""
        ago = self._subscribers.refused_ago(now)
        told = (self._subscribers.sightings, None if ago is None else now - ago)
        if told != self._memory or now - self._memory_told_at > _MEMORY_TOLD_AGAIN:
            self._memory, self._memory_told_at = told, now
            refused_at = None if ago is None else self._cache.clock.at(now - ago)
            memory = SubscriberMemory(self._subscribers.sightings, refused_at)
            await store.store_memory(self._database, self.process, memory, self._cache.clock.at(now))

    async def list_subscribers(self, sought: SubscriberFilter) -> ClusterSubscribers:
        """Return who polls any process; without what the others know where PostgreSQL does not tell it soon.

        What was found is told again for a moment, the longer the more it is: however many ask how often, a process
        spends a bounded share of its time on it.
        """
        self._drop_taken(time.monotonic())
        taken = self._taken.get(sought)
        if taken is None:
            taken = self._taken[sought] = asyncio.create_task(self._take(sought))
        # Who asked first may leave first.
        roll, _ = await asyncio.shield(taken)
        return roll

    async def states(self) -> Counter[State]:
        """Return how many of those who poll this process are in each state."""
        return Counter([self._count(one, {}).verdict.state async for one in self._own(SubscriberFilter())])

    def _drop_taken(self, now: float) -> None:
        """Forget rolls that are not told again any more."""
        self._taken = {key: one for key, one in self._taken.items() if not _is_over(one, now)}

    async def _take(self, sought: SubscriberFilter) -> tuple[ClusterSubscribers, float]:
        now = time.monotonic()
        found = [one async for one in self._own(sought)]
        told = store.ReportsOfOthers([], {})
        asked = False
        try:
            async with asyncio.timeout(_PATIENCE), self._asking:
                told = await store.reports_of_others(self._database, self.process, sought)
            asked = True
        except (UnavailableError, TimeoutError):
            pass
        found += told.sightings
        merged = await asyncio.to_thread(merge_reports, found)
        lags = {process: report_lag(memory.sightings) for process, memory in told.memories.items()}
        counted = [self._count(one, lags) async for one in cooperatively(merged)]
        roll = ClusterSubscribers(counted, asked, self._refused_ago(now, told.memories.values()))
        return roll, time.monotonic() + _TOLD_AGAIN_EACH * len(found)

    def _refused_ago(self, now: float, others: Iterable[SubscriberMemory]) -> float | None:
        """Return the seconds since this process or another one did not remember a subscriber."""
        at = self._cache.clock.at(now)
        theirs = (max(0.0, at - one.refused_at) for one in others if one.refused_at is not None)
        own = self._subscribers.refused_ago(now)
        return min((ago for ago in (own, *theirs) if ago is not None), default=None)

    async def _own(self, sought: SubscriberFilter) -> AsyncIterator[SubscriberReport]:
        """Yield what this process knows of those that are asked for."""
        among = self._subscribers if sought.service is None else self._subscribers.of(sought.service)
        fitting = [one async for one in cooperatively(among) if sought.fits(one.node)]
        async for sighting in cooperatively(sighting for one in fitting for sighting in self._sightings(one)):
            if sought.service in (None, sighting.service):
                yield sighting

    def _count(self, seen: SubscriberReport, lags: Mapping[str, float]) -> SubscriberStatus:
        """Judge a subscriber; ``lags`` has by how much what each other process told may be old."""
        snapshot = self._cache.get(seen.service)
        ours = ServiceVersion(snapshot.version, self._cache.clock.at(snapshot.since))
        lag = 0.0 if seen.process == self.process else lags.get(seen.process, REPORT_LAG)
        return SubscriberStatus(seen, ours, evaluate(seen, ours, self._cache.clock.now(), lag))

    def _sightings(self, one: Subscription) -> Iterator[SubscriberReport]:
        """Yield what is known of a subscription, for each service that it is for."""
        at = self._cache.clock.at
        nothing = [None] * len(one.names)
        database_id = self._cache.database_id
        versions = parse_version_info(database_id, one.names, one.brought) or nothing
        offered = parse_version_info(database_id, one.names, one.offered) or nothing
        for number, service in enumerate(one.names):
            yield SubscriberReport(
                process=self.process,
                node_id=one.node.id,
                cluster=one.node.cluster,
                zone=one.node.zone,
                envoy=one.node.version,
                address=printable(one.address),
                service=printable(service),
                api=one.api,
                version_info=printable(one.brought),
                version=versions[number],
                offered=offered[number],
                status=one.status or None,
                answered_at=at(one.answered_at) if one.status else None,
                polled_at=at(one.polled_at),
                first_seen=at(one.first_seen),
                held=one.held > 0,
                pause=one.pause,
                refusals=one.refusals,
                refused_since=at(one.refused_since) if one.refusals else None,
            )


def _is_over(taken: asyncio.Task[tuple[ClusterSubscribers, float]], now: float) -> bool:
    """Tell whether a roll is no longer told again."""
    return taken.done() and (taken.cancelled() or taken.exception() is not None or taken.result()[1] <= now)
