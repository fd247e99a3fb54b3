"""The snapshots of all services in memory, and the watches of their next change.

``registry.background.change_feed`` replaces snapshots; ``registry.xds.discovery`` reads and watches them for polls.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence

from registry.cache.standing_watches import Changed, StandingWatch
from registry.cache.watches import Watch, Watches
from registry.cooperative import in_turns
from registry.core.clock import Clock
from registry.core.ecs_services import EcsService
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.expiry_guard import Pause
from registry.core.lease import Leases
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.errors import UnavailableError

Prepare = Callable[[Snapshot, str], Generator[None, None, None]]
"""Encodes a snapshot, of which the database is given, in turns with other work."""

_MAX_CLAIMS = 1000
"""Services for which a newer version that a subscriber holds is remembered, between two readings of the database."""


class SnapshotCache:
    """Everything that this process knows of all services; reads are answered from here and never from PostgreSQL.

    It owns its state: others read it by properties, and change it by the methods that say what happened.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        """The database's clock. The change feed sets it with each complete reading."""
        self._database_id = ""
        """Written by set_database() and restore(); empty before the first of them."""
        self._ready = False
        """Set by mark_ready() and restore(), cleared for another database. It stays set while PostgreSQL is away: a
        good snapshot remains the best answer."""
        self._stale = False
        """Set by restore(), cleared by mark_ready()."""
        self._synchronised_at = 0.0
        """Written by mark_ready(). As old as the last complete reading: changes that were notified since are newer."""
        self._closing = False
        """Set by release(), for good."""
        self._advances = 0
        """Raised by apply() and drop()."""
        self._leases = Leases.none()
        """Written by read_leases(). As old as the last reading of all leases: renewals since then are missing."""
        self._lease_reading = 0
        """Raised by read_leases()."""
        self._leases_read_at = 0.0
        """Written by read_leases(), by the database's clock: a heartbeat since then may not be in them."""
        self._leases_asked_at = 0.0
        """The same moment by the monotonic clock."""
        self._pauses: Mapping[str, Pause] = {}
        """By scope. Written by read_pauses(), and as old as the last complete reading: a pause may have ended since."""
        self._unlisted_overrides: Mapping[Key, Override] = {}
        """Written by read_unlisted_overrides(). As old as the last complete reading."""
        self._desired_counts: Mapping[EcsService, int] = {}
        """Written by read_desired_counts(). As old as `registry.core.ecs_services.MAX_AGE` at most."""
        self._desired_changes = 0
        """Raised by read_desired_counts() when they are others than before."""
        self._snapshots: dict[str, Snapshot] = {}
        """By service. Written by apply(), drop() and restore(), emptied for another database. Behind the database by
        what the change feed has yet to read, and as long as PostgreSQL is away by everything since."""
        self._unsure: frozenset[str] = frozenset()
        """Services that exist, and of which this process has no snapshot: the copy on disk, or what PostgreSQL has of
        them, cannot be read. Written by restore(), doubt() and mark_ready(); a snapshot of a service takes it out."""
        self._outdated: frozenset[str] = frozenset()
        """Services that are served as they were, because what PostgreSQL has of them now cannot be read. Written as
        `_unsure` is."""
        self._endpoints = 0
        """Endpoints in all snapshots, carried on with each of their changes."""
        self._names: tuple[str, ...] | None = ()
        """The names of all services that are known or unsure, in order; None: to be sorted when next asked for. Written
        by names(), cleared whenever a service becomes known or unknown."""
        self._watches = Watches()
        """The watches of services."""
        self._ahead: dict[str, int] = {}
        """Newer versions that subscribers hold, by service. Raised by claim_ahead(), emptied by take_claims()."""

    @property
    def database_id(self) -> str:
        """The database whose versions these are: equal numbers of two databases mean different things."""
        return self._database_id

    @property
    def ready(self) -> bool:
        """Whether there is anything to answer from: a complete reading of the database, or the snapshot on disk."""
        return self._ready

    @property
    def stale(self) -> bool:
        """Whether the state came from disk, and the database was not read since."""
        return self._stale

    @property
    def synchronised_at(self) -> float:
        """When the last complete reading of the database ended, by the event loop's clock; 0 before the first."""
        return self._synchronised_at

    @property
    def closing(self) -> bool:
        """Whether this process stops."""
        return self._closing

    @property
    def advances(self) -> int:
        """The number of changes so far: while it is the same, so are all snapshots."""
        return self._advances

    @property
    def unsure(self) -> frozenset[str]:
        """The services that exist, and of which this process can say nothing; about all others it is sure."""
        return self._unsure

    @property
    def outdated(self) -> frozenset[str]:
        """The services that are served as they were, because what PostgreSQL has of them now cannot be read."""
        return self._outdated

    @property
    def leases(self) -> Leases:
        """The leases as of their last reading, which takes place less often than others where they are very many."""
        return self._leases

    @property
    def lease_reading(self) -> int:
        """The number of readings of the leases so far: while it is the same, so are the leases."""
        return self._lease_reading

    @property
    def leases_read_at(self) -> float:
        """When the leases were read, by the database's clock; 0 before that."""
        return self._leases_read_at

    @property
    def leases_asked_at(self) -> float:
        """When the leases were read, by the monotonic clock; 0 before that."""
        return self._leases_asked_at

    @property
    def pauses(self) -> Mapping[str, Pause]:
        """The pauses of expiry that were in force at the last complete reading, by scope."""
        return self._pauses

    @property
    def unlisted_overrides(self) -> Mapping[Key, Override]:
        """Overrides whose endpoint was not listed at the last complete reading; they wait for its return."""
        return self._unlisted_overrides

    @property
    def desired_counts(self) -> Mapping[EcsService, int]:
        """The desired counts of ECS services, as far as ECS was asked and has said something."""
        return self._desired_counts

    @property
    def desired_changes(self) -> int:
        """The number of changes of the desired counts so far: while it is the same, so are they."""
        return self._desired_changes

    def set_database(self, database_id: str) -> bool:
        """Set the database whose versions these are, and drop everything that came from another one.

        Returns:
            Whether another database was replaced.
        """
        replaced = self._database_id not in ("", database_id)
        if replaced:
            self._forget()
        self._database_id = database_id
        return replaced

    def mark_ready(self, now: float, unread: Collection[str] = ()) -> None:
        """Take note that the database was read completely; wake all watches if nothing could be answered before.

        Args:
            now: the event loop's time.
            unread: the services that cannot be read, or that a fail-over may have lost; about the others this process
                is sure now.
        """
        self._stale = False
        self._synchronised_at = now
        cleared = self._unsure.difference(unread)
        self._set_unsure(self._unsure - cleared)
        self._outdated = self._outdated.intersection(unread)
        self._become_ready()
        for service in cleared:
            self._watches.wake(service)

    def get(self, service: str) -> Snapshot:
        """Return the newest snapshot; of version 0 for a service that never had an endpoint, or was forgotten."""
        return self._snapshots.get(service) or Snapshot(service)

    def is_shifted(self, service: str) -> bool:
        """Return whether the service is under a shift; asked for each callee of a digest, most of which are not."""
        snapshot = self._snapshots.get(service)
        return snapshot is not None and snapshot.shares is not None and snapshot.shares.shift is not None

    def knows(self, service: str) -> bool:
        """Return whether the service has, or had, an endpoint, and is not forgotten.

        Raises:
            UnavailableError: this process is not sure of the service.
        """
        if self.get(service).version > 0:
            return True
        self.check_sure(service)
        return False

    def check_sure(self, service: str) -> None:
        """Refuse to conclude anything from the absence of a service of which this process is not sure.

        Raises:
            UnavailableError: it is not sure. An Envoy keeps what it has.
        """
        if service in self._unsure:
            raise UnavailableError(f"this process cannot read the service {service}; its log says why")

    def doubt(self, service: str) -> None:
        """Take note that a service of the database cannot be read; a snapshot of it that is known goes on."""
        if service in self._snapshots:
            self._outdated |= {service}
        else:
            self._set_unsure(self._unsure | {service})

    def services(self) -> Mapping[str, Snapshot]:
        """Return the newest snapshot of every service that is known."""
        return {name: snapshot for name, snapshot in self._snapshots.items() if snapshot.version}

    def names(self) -> Sequence[str]:
        """Return the names of all services that are known or unsure, in order."""
        if self._names is None:
            known = (name for name, snapshot in self._snapshots.items() if snapshot.version)
            self._names = tuple(sorted(self._unsure.union(known)))
        return self._names

    def service_count(self) -> int:
        """Return the number of services."""
        return len(self._snapshots)

    def endpoint_count(self) -> int:
        """Return the number of listed endpoints of all services."""
        return self._endpoints

    def find(self, key: Key) -> Endpoint | None:
        """Return a listed endpoint by its key; None if there is none."""
        service, address, port = key
        snapshot = self._snapshots.get(service)
        return snapshot.endpoints.get((address, port)) if snapshot else None

    def at(self, address: str, port: int) -> list[Endpoint]:
        """Return the listed endpoints at an address, of all services; it looks into each of them."""
        listed = (snapshot.endpoints.get((address, port)) for snapshot in self._snapshots.values())
        return [endpoint for endpoint in listed if endpoint is not None]

    def known_changes(self, names: Collection[str]) -> dict[str, int]:
        """Return for each service the change up to which this process knows it."""
        return {name: self.get(name).change for name in names}

    def apply(self, deltas: Iterable[SnapshotDelta]) -> None:
        """Replace the snapshots that these deltas advance, and wake the watches of their services."""
        for delta in deltas:
            self._replace(self.get(delta.service).advance(delta))

    async def apply_in_turns(
        self, delta: SnapshotDelta, prepare: Prepare, between: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Replace the snapshot that a delta advances, as ``apply``, in turns with other work where it is large.

        Args:
            delta: the delta.
            prepare: encodes the snapshot before anybody gets it, in turns as well.
            between: done between two turns; it may not apply anything to the same service.
        """
        snapshot = await in_turns(self.get(delta.service).advance_in_turns(delta), between)
        await in_turns(prepare(snapshot, self._database_id), between)
        self._replace(snapshot)

    def _replace(self, after: Snapshot) -> None:
        before = self.get(after.service)
        if after is before or after.change <= before.change:
            return
        if after.version != before.version:
            after.since = time.monotonic()
        self._snapshots[after.service] = after
        if after.service in self._unsure:
            self._set_unsure(self._unsure - {after.service})
        if after.service in self._outdated:
            self._outdated -= {after.service}
        if (after.version > 0) != (before.version > 0):
            self._names = None
        self._endpoints += len(after.endpoints) - len(before.endpoints)
        self._advances += 1
        self._watches.wake(after.service)

    def drop(self, service: str) -> None:
        """Drop a service, as if it had never had an endpoint, and wake its watches."""
        before = self._snapshots.pop(service, None)
        if before is not None:
            self._names = None
            self._endpoints -= len(before.endpoints)
            self._advances += 1
            self._watches.wake(service)

    def restore(self, database_id: str, snapshots: Mapping[str, Snapshot], unsure: Iterable[str] = ()) -> None:
        """Begin with the state that an earlier process kept on disk, mark it as stale, and wake all watches.

        Services that were read from the database already stay as they are: they are not older.

        Args:
            database_id: the database whose versions these are.
            snapshots: the services by name.
            unsure: those that are on disk as well, and cannot be read.

        Raises:
            ValueError: the database was found to be another one meanwhile.
        """
        if self._database_id not in ("", database_id):
            raise ValueError(f"the snapshot is of the database {database_id}, and this one is {self._database_id}")
        self._database_id = database_id
        self._snapshots = {**snapshots, **self._snapshots}
        self._set_unsure(self._unsure.union(unsure).difference(self._snapshots))
        self._names = None
        self._endpoints = sum(len(snapshot.endpoints) for snapshot in self._snapshots.values())
        self._stale = True
        self._become_ready()

    def _set_unsure(self, unsure: frozenset[str]) -> None:
        if unsure != self._unsure:
            self._unsure = unsure
            self._names = None
            # Lists of services are others now.
            self._advances += 1

    def _become_ready(self) -> None:
        """Wake all watches if this process was not ready: whatever they were woken for before could not be answered."""
        if not self._ready:
            self._ready = True
            self._watches.wake_all()

    def _forget(self) -> None:
        """Drop everything: the database is another one, and its numbers mean something else. Not ready until read."""
        self._ready = False
        self._snapshots.clear()
        self._unsure = self._outdated = frozenset()
        self._names = ()
        self._endpoints = 0
        self.read_leases(Leases.none(), 0.0)
        self.read_pauses({})
        self.read_unlisted_overrides({})
        self._watches.wake_all()

    def read_leases(self, leases: Leases, asked: float) -> None:
        """Replace the leases by those that were just read.

        Args:
            leases: the leases, each at least as new as ``asked``.
            asked: the monotonic time at which the reading began.
        """
        self._lease_reading += 1
        self._leases = leases
        self._leases_read_at, self._leases_asked_at = self.clock.at(asked), asked

    def read_pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Replace the pauses of expiry by those that were just read."""
        self._pauses = pauses

    def read_desired_counts(self, desired: Mapping[EcsService, int]) -> None:
        """Replace the desired counts of ECS services, which are mostly the same: they are read every second."""
        if desired != self._desired_counts:
            self._desired_counts = desired
            self._desired_changes += 1

    def read_unlisted_overrides(self, overrides: Mapping[Key, Override]) -> None:
        """Replace the overrides without a listed endpoint by those that were just read."""
        self._unlisted_overrides = overrides

    async def wait(self, services: Collection[str], seconds: float) -> bool:
        """Wait until one of the services changes; return False when the seconds are over first."""
        if self._closing:
            return False
        changed = asyncio.Event()
        watch = self.watch(services, changed.set)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await changed.wait()
        except TimeoutError:
            return False
        finally:
            watch.cancel()

    def watch(self, services: Collection[str], wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once, in a later turn of the event loop, when one of the services changes."""
        return self._watches.add(services, wake)

    def standing_watch(self, services: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of one of the services, in a later turn; None: of any.

        It is called with None, for anything may have changed, when this process gets ready, when the database is
        replaced, and when the process begins to stop. It goes on after that, until it is cancelled.
        """
        return self._watches.standing.add(services, changed)

    async def wait_for_change(self, service: str, change: int, seconds: float) -> bool:
        """Wait until this process knows a service up to ``change``; return False when the seconds are over first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.get(service).change < change:
            if not await self.wait((service,), deadline - loop.time()):
                return False
        return True

    def release(self) -> None:
        """Wake all watches, for good: this process stops."""
        self._closing = True
        self._watches.wake_all()

    def claim_ahead(self, service: str, version: int) -> None:
        """Take note that a subscriber holds a version that this process has not read yet."""
        if service in self._ahead or len(self._ahead) < _MAX_CLAIMS:
            self._ahead[service] = max(version, self._ahead.get(service, 0))

    def take_claims(self) -> dict[str, int]:
        """Return, and forget, the newer versions that subscribers hold, by service."""
        claims, self._ahead = self._ahead, {}
        return claims
