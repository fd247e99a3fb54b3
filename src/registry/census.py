"""Telling the other processes who polls this one, and asking them who polls them."""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from msgspec import Struct

from registry.directory import Directory
from registry.errors import UnavailableError
from registry.store import subscribers as store
from registry.store.database import Database
from registry.store.subscribers import Sought
from registry.subscribers import (
    LAG,
    Sighting,
    Standing,
    State,
    Subscribers,
    Subscription,
    Verdict,
    judge,
    merge,
    printable,
)
from registry.turns import in_turns
from registry.xds.discovery import Discovery

_FORGET_EVERY = 60.0
_MOST_AT_ONCE = 5_000
_PATIENCE = 1.5
"""Seconds to wait for what other processes know; pages ask for it every two."""
_ASKED_AT_ONCE = 2
_TOLD_AGAIN_EACH = 0.000_1
"""Seconds for which a roll is told again, for each sighting in it: to take it costs a third of that."""


class Counted(Struct, frozen=True):
    """A subscriber, what its service is at, and how it keeps up."""

    seen: Sighting
    ours: Standing
    verdict: Verdict


class Roll(Struct, frozen=True):
    """The subscribers that were asked for; ``complete`` unless other processes could not be asked."""

    counted: list[Counted]
    complete: bool


class Census:
    """Everybody's subscribers: those of this process from memory, those of the others from PostgreSQL."""

    def __init__(
        self, database: Database, directory: Directory, subscribers: Subscribers, discovery: Discovery
    ) -> None:
        self._database = database
        self._directory = directory
        self._subscribers = subscribers
        self._discovery = discovery
        self._forgotten_at = 0.0
        # However many are asked for at once, most connections are left to heartbeats.
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._taken: dict[Sought, asyncio.Task[tuple[Roll, float]]] = {}
        self.process = f"{socket.gethostname()}:{os.getpid()}"

    async def publish(self) -> None:
        """Tell the other processes what is new; while PostgreSQL is away it is kept for later."""
        now = time.monotonic()
        self._subscribers.forget(now)
        self._drop_taken(now)
        news = [one async for one in in_turns(self._subscribers) if one.is_news(now)][:_MOST_AT_ONCE]
        told = [(one, one.substance) for one in news]
        try:
            if news:
                sightings = [sighting async for one in in_turns(news) for sighting in self._sightings(one)]
                merged = await asyncio.to_thread(merge, sightings)
                await store.tell(self._database, merged, self._directory.clock.at(now))
                for one, substance in told:
                    one.told, one.told_at = substance, now
            if now - self._forgotten_at > _FORGET_EVERY:
                await store.forget(self._database, self._directory.clock.at(now))
                self._forgotten_at = now
        except UnavailableError:
            # Said by those whose work it stops; this only makes a list shorter, which says so itself.
            return

    async def take(self, sought: Sought) -> Roll:
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
        return Counter([self._count(one).verdict.state async for one in self._own(Sought())])

    def _drop_taken(self, now: float) -> None:
        """Forget rolls that are not told again any more."""
        self._taken = {key: one for key, one in self._taken.items() if not _is_over(one, now)}

    async def _take(self, sought: Sought) -> tuple[Roll, float]:
        found = [one async for one in self._own(sought)]
        complete = True
        try:
            async with asyncio.timeout(_PATIENCE), self._asking:
                found += await store.told_by_others(self._database, self.process, sought)
        except (UnavailableError, TimeoutError):
            complete = False
        merged = await asyncio.to_thread(merge, found)
        roll = Roll([self._count(one) async for one in in_turns(merged)], complete)
        return roll, time.monotonic() + _TOLD_AGAIN_EACH * len(found)

    async def _own(self, sought: Sought) -> AsyncIterator[Sighting]:
        """Yield what this process knows of those that are asked for."""
        among = self._subscribers if sought.service is None else self._subscribers.of(sought.service)
        async for subscription in in_turns(among):
            if sought.fits(subscription.node):
                for one in self._sightings(subscription):
                    if sought.service in (None, one.service):
                        yield one

    def _count(self, seen: Sighting) -> Counted:
        snapshot = self._directory.get(seen.service)
        ours = Standing(snapshot.version, self._directory.clock.at(snapshot.since))
        lag = 0.0 if seen.process == self.process else LAG
        return Counted(seen, ours, judge(seen, ours, self._directory.clock.now(), lag))

    def _sightings(self, one: Subscription) -> Iterator[Sighting]:
        """Yield what is known of a subscription, for each service that it is for."""
        at = self._directory.clock.at
        nothing = [None] * len(one.names)
        versions = self._discovery.versions(one.names, one.brought) or nothing
        offered = self._discovery.versions(one.names, one.offered) or nothing
        for number, service in enumerate(one.names):
            yield Sighting(
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


def _is_over(taken: asyncio.Task[tuple[Roll, float]], now: float) -> bool:
    """Tell whether a roll is no longer told again."""
    return taken.done() and (taken.cancelled() or taken.exception() is not None or taken.result()[1] <= now)
