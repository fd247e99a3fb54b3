"""Telling the other processes who polls this one, and asking them who polls them."""

import os
import socket
import time
from collections.abc import Iterator

from msgspec import Struct

from registry.directory import Directory
from registry.errors import UnavailableError
from registry.store import subscribers as store
from registry.store.database import Database
from registry.store.subscribers import Sought
from registry.subscribers import LAG, Sighting, Standing, Subscribers, Subscription, Verdict, judge, merge, printable
from registry.xds.discovery import Discovery

_FORGET_EVERY = 60.0
_MOST_AT_ONCE = 5_000


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
        self.process = f"{socket.gethostname()}:{os.getpid()}"

    async def publish(self) -> None:
        """Tell the other processes what is new; while PostgreSQL is away it is kept for later."""
        now = time.monotonic()
        self._subscribers.forget(now)
        news = [one for one in self._subscribers if one.is_news(now)][:_MOST_AT_ONCE]
        told = [(one, one.substance) for one in news]
        try:
            if news:
                sightings = merge(sighting for one in news for sighting in self._sightings(one))
                await store.tell(self._database, sightings, self._directory.clock.at(now))
                for one, substance in told:
                    one.told, one.told_at = substance, now
            if now - self._forgotten_at > _FORGET_EVERY:
                await store.forget(self._database, self._directory.clock.at(now))
                self._forgotten_at = now
        except UnavailableError:
            # Said by those whose work it stops; this only makes a list shorter, which says so itself.
            return

    async def take(self, sought: Sought) -> Roll:
        """Return who polls any process."""
        own = [one for subscription in self._subscribers for one in self._sightings(subscription) if sought.fits(one)]
        others: list[Sighting] = []
        complete = True
        try:
            others = await store.told_by_others(self._database, self.process, sought)
        except UnavailableError:
            complete = False
        return Roll([self._count(one) for one in merge([*own, *others])], complete)

    def own(self) -> list[Counted]:
        """Return who polls this process."""
        return [self._count(one) for subscription in self._subscribers for one in self._sightings(subscription)]

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
