"""All snapshots of this process, and who waits for the next one."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice

from registry.core.clock import Clock
from registry.core.endpoint import Endpoint, Key
from registry.core.lease import Leases
from registry.core.snapshot import Snapshot, SnapshotDelta

_MOST_CLAIMS = 1000
"""Services of which it is remembered, between two readings, that a subscriber was ahead."""


_WOKEN_AT_ONCE = 50
"""Of many who wait for one service; then others have their turn at the loop."""


class Watch:
    """Somebody who waits for the next change of some services, and is called once."""

    __slots__ = ("_cache", "_services", "_wake")

    def __init__(self, cache: "SnapshotCache", services: Collection[str], wake: Callable[[], None]) -> None:
        self._cache = cache
        self._services = services
        self._wake: Callable[[], None] | None = wake

    def cancel(self) -> None:
        """Wait no more; harmless when it is over already."""
        self._wake = None
        self._cache.remove_watch(self, self._services)

    def wake(self) -> None:
        """Call whoever waits, unless that was done or it waits no more."""
        wake = self._wake
        if wake is not None:
            self.cancel()
            wake()


class SnapshotCache:
    """What this process knows of all services; reads are answered from here and never from PostgreSQL.

    ``database_id`` tells versions of one database from those of another; ``ready`` becomes true with the first
    complete reading and stays true, because a good snapshot remains the best answer while PostgreSQL is away.
    ``stale`` says that it came from disk and the database was not read since. ``advances`` grows with each change.
    ``clock`` is the database's.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.database_id = ""
        self.ready = False
        self.stale = False
        self.advances = 0
        self.synchronised_at = 0.0
        self.leases = Leases.none()
        self.lease_reading = 0
        self.closing = False
        self._endpoints = 0
        self._snapshots: dict[str, Snapshot] = {}
        self._watches: dict[str, dict[Watch, None]] = {}
        self._ahead: dict[str, int] = {}

    def get(self, service: str) -> Snapshot:
        """Return the newest snapshot; one of version 0 for a service that never had an endpoint, or was forgotten."""
        return self._snapshots.get(service) or Snapshot(service)

    def knows(self, service: str) -> bool:
        """Tell whether the service has, or had, an endpoint, and is not forgotten."""
        return self.get(service).version > 0

    def services(self) -> Mapping[str, Snapshot]:
        """Return the newest snapshot of every service that is known."""
        return {name: snapshot for name, snapshot in self._snapshots.items() if snapshot.version}

    def service_count(self) -> int:
        """Return how many services there are."""
        return len(self._snapshots)

    def endpoint_count(self) -> int:
        """Return how many endpoints are listed, in all services."""
        return self._endpoints

    def find(self, key: Key) -> Endpoint | None:
        """Return a listed endpoint."""
        service, address, port = key
        snapshot = self._snapshots.get(service)
        return snapshot.endpoints.get((address, port)) if snapshot else None

    def held(self, names: Collection[str]) -> dict[str, int]:
        """Return for each service the change up to which it is known."""
        return {name: self.get(name).change for name in names}

    def apply(self, steps: Iterable[SnapshotDelta]) -> None:
        """Swap in the snapshots after these steps and wake who waits for them."""
        now = time.monotonic()
        for step in steps:
            before = self.get(step.service)
            after = before.advance(step)
            if after is not before:
                if after.version != before.version:
                    after.since = now
                self._snapshots[step.service] = after
                self._endpoints += len(after.endpoints) - len(before.endpoints)
                self.advances += 1
                self._wake(step.service)

    def drop(self, service: str) -> None:
        """Forget a service, as if it had never had an endpoint, and wake who waits for it."""
        before = self._snapshots.pop(service, None)
        if before is not None:
            self._endpoints -= len(before.endpoints)
            self.advances += 1
            self._wake(service)

    def restore(self, database_id: str, snapshots: Mapping[str, Snapshot]) -> None:
        """Begin with what another process knew at its end; better than nothing, and marked as such."""
        self.database_id = database_id
        self._snapshots = dict(snapshots)
        self._endpoints = sum(len(snapshot.endpoints) for snapshot in snapshots.values())
        self.ready = self.stale = True

    def forget(self) -> None:
        """Drop everything: the database is another one, and its numbers mean something else. Not ready until read."""
        self.ready = False
        self._snapshots.clear()
        self._endpoints = 0
        self.read_leases(Leases.none())
        for service in list(self._watches):
            self._wake(service)

    def read_leases(self, leases: Leases) -> None:
        """Take note of the leases as they are now."""
        self.lease_reading += 1
        self.leases = leases

    async def wait(self, services: Collection[str], seconds: float) -> bool:
        """Wait until one of the services changes; return False when the time is over first."""
        if self.closing:
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
        """Have ``wake`` called once, in a later turn of the loop, when one of the services changes."""
        watch = Watch(self, services, wake)
        for service in services:
            self._watches.setdefault(service, {})[watch] = None
        return watch

    def remove_watch(self, watch: Watch, services: Collection[str]) -> None:
        """Forget a watch, and the names that nobody watches any more: subscribers may ask for any name there is."""
        for service in services:
            watches = self._watches.get(service, {})
            watches.pop(watch, None)
            if not watches:
                self._watches.pop(service, None)

    async def reached(self, service: str, change: int, seconds: float) -> bool:
        """Wait until this process knows a service up to ``change``; return False when the time is over first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.get(service).change < change:
            if not await self.wait((service,), deadline - loop.time()):
                return False
        return True

    def release(self) -> None:
        """Wake everybody who waits, for good: this process stops."""
        self.closing = True
        for service in list(self._watches):
            self._wake(service)

    def claim_ahead(self, service: str, version: int) -> None:
        """Take note that a subscriber holds a version that this process has not heard of."""
        if service in self._ahead or len(self._ahead) < _MOST_CLAIMS:
            self._ahead[service] = max(version, self._ahead.get(service, 0))

    def take_claims(self) -> dict[str, int]:
        """Return, and forget, which versions subscribers hold that were ahead of this process."""
        claims, self._ahead = self._ahead, {}
        return claims

    def _wake(self, service: str) -> None:
        watches = self._watches.pop(service, None)
        if watches:
            _wake_some(iter(watches))


def _wake_some(watches: Iterator[Watch]) -> None:
    loop = asyncio.get_running_loop()
    some = list(islice(watches, _WOKEN_AT_ONCE))
    for watch in some:
        loop.call_soon(watch.wake)
    if len(some) == _WOKEN_AT_ONCE:
        loop.call_soon(_wake_some, watches)
