"""Publishes the endpoints of services where Envoys and edges find them while every registry is away.

The process that sweeps publishes for all, at most each ten seconds, one object a service. A service that fails keeps no
other one from being published. Nothing is published from doubt, and a service without endpoints keeps its last object:
old hosts, of which Envoy ejects the dead, are better than none for a task that starts while all else is away.

The objects that are there are listed every ten minutes. A rule of the bucket deletes what is old, also where it is
still right, and the last request of a process that was frozen while it led may arrive after the next leader's.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from registry.background.publish_target import PublishTarget, is_same, object_name
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import Snapshot
from registry.metrics import PUBLISH_FAILURES, PUBLISH_LAG, PUBLISHED
from registry.xds.discovery_response import encode_response
from registry.xds.eds import TYPE_URL, resource
from registry.xds.version_info import format_version

Result = TypeVar("Result")

log = structlog.get_logger()

PUBLISH_INTERVAL = 10.0
"""Seconds between two rounds."""
VERIFY_INTERVAL = 600.0
"""Seconds between two looks at what is there."""
_COUNT_INTERVAL = 1.0
"""Seconds between two updates of the gauges during a round, which takes hours where S3 does not answer."""
_MAX_AT_ONCE = 8
"""Objects that are stored at a time."""
_MAX_LOGGED = 5
"""Services of one round whose failure is logged; the others fail for the same reason."""


class _Published(NamedTuple):
    """A service as it was published: its version, and the digest of its object."""

    version: str
    digest: bytes


class Publisher:
    """Publishes what has changed since it was published last.

    Args:
        target: where to.
        cache: the endpoints.
        leads: returns whether this process is the one that publishes for all.
    """

    def __init__(self, target: PublishTarget, cache: SnapshotCache, leads: Callable[[], bool]) -> None:
        self._target = target
        self._cache = cache
        self._leads = leads
        self._threads = ThreadPoolExecutor(_MAX_AT_ONCE, "publish")
        """Threads of its own: a place that does not answer must not hold up what else waits for a disk."""
        self._published: dict[str, _Published] = {}
        """What was published of each service under this lead. Written by publish() and _publish_one()."""
        self._there: Mapping[str, bytes] | None = None
        """The digests of the objects that were there when this process began to lead; None: it does not."""
        self._verify_at = 0.0
        """Monotonic time of the next look at what is there. Written by publish()."""
        self._count_at = 0.0
        """Monotonic time of the next update of the gauges within a round. Written by _publish_one()."""
        self._failing: dict[str, str] = {}
        """Why each service could not be published at the last attempt. Written by _publish_one()."""
        self._outdated_since: dict[str, float] = {}
        """Monotonic time since when each service is to be published. Written by publish()."""

    @property
    def failing(self) -> Mapping[str, str]:
        """The services that could not be published, and why."""
        return self._failing

    async def publish(self) -> None:
        """Publish what has changed, if this process leads and is sure of it."""
        if not self._leads():
            self._forget()
            return
        if not self._cache.ready or self._cache.stale:
            return
        now = time.monotonic()
        if self._there is None:
            self._there, self._verify_at = await self._digests() or {}, now + VERIFY_INTERVAL
        elif now >= self._verify_at:
            self._verify_at = now + VERIFY_INTERVAL
            await self._verify()
        due = self._due()
        self._count()
        slots = asyncio.Semaphore(_MAX_AT_ONCE)
        await asyncio.gather(*(self._publish_one(slots, snapshot) for snapshot in due))
        for service in list(self._failing)[:_MAX_LOGGED] if due else ():
            log.warning("service_not_published", service=service, reason=self._failing[service])
        self._count()

    def _due(self) -> list[Snapshot]:
        """Return the services to publish, those that wait for the longest first."""
        now, database_id = time.monotonic(), self._cache.database_id
        due = []
        services = self._cache.services()
        for service, snapshot in services.items():
            published = self._published.get(service)
            version = format_version(database_id, snapshot.version)
            if snapshot.endpoints and (published is None or published.version != version):
                self._outdated_since.setdefault(service, now)
                due.append(snapshot)
            else:
                self._outdated_since.pop(service, None)
                self._failing.pop(service, None)
        for service in self._outdated_since.keys() - services.keys():
            del self._outdated_since[service]
            self._failing.pop(service, None)
        return sorted(due, key=lambda snapshot: self._outdated_since[snapshot.service])

    async def _publish_one(self, slots: asyncio.Semaphore, snapshot: Snapshot) -> None:
        async with slots:
            if not self._leads():
                return
            service, version = snapshot.service, format_version(self._cache.database_id, snapshot.version)
            try:
                digest = await self._in_thread(partial(self._store, snapshot, version))
            except Exception as error:  # noqa: BLE001  # of a disk or of botocore: one service's failure is its own
                PUBLISHED.labels("failed").inc()
                self._failing[service] = f"{type(error).__name__}: {error}"
                return
            finally:
                now = time.monotonic()
                if now >= self._count_at:
                    self._count_at = now + _COUNT_INTERVAL
                    self._count()
            PUBLISHED.labels("stored").inc()
            self._published[service] = _Published(version, digest)
            self._failing.pop(service, None)
            self._outdated_since.pop(service, None)

    def _store(self, snapshot: Snapshot, version: str) -> bytes:
        """Encode a service, store it unless it is there already, and return the digest of its object; blocks."""
        # Not kept at the snapshot: most of these services nobody polls here.
        body = encode_response(TYPE_URL["v3"], version, (resource("v3", snapshot),))
        name = object_name(snapshot.service)
        there = self._there or {}
        if is_same(there, name, body) and snapshot.service not in self._published:
            return there[name]
        return self._target.put(name, body)

    async def _verify(self) -> None:
        """Have those services published again whose object is gone, or is not the one that was stored."""
        there = await self._digests()
        if there is None:
            return
        gone = [service for service, each in self._published.items() if there.get(object_name(service)) != each.digest]
        for service in gone:
            # Stored again whatever was there when this process began to lead.
            self._published[service] = _Published("", b"")
        if gone:
            log.warning("published_objects_changed", objects=len(gone), services=gone[:_MAX_LOGGED])

    async def _digests(self) -> Mapping[str, bytes] | None:
        """Return the digests of what is there; None: they cannot be read, and everything is stored."""
        try:
            return await self._in_thread(self._target.digests)
        except Exception as error:  # noqa: BLE001  # as above
            log.warning("published_not_listed", reason=f"{type(error).__name__}: {error}")
            return None

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _forget(self) -> None:
        """Forget what was published: another process publishes now."""
        self._there = None
        self._published.clear()
        self._failing.clear()
        self._outdated_since.clear()
        self._count()

    def _count(self) -> None:
        oldest = min(self._outdated_since.values(), default=None)
        PUBLISH_FAILURES.set(len(self._failing))
        PUBLISH_LAG.set(0.0 if oldest is None else time.monotonic() - oldest)
