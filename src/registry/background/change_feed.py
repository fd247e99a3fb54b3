"""Following the database: notifications for speed, comparison of all versions for certainty."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress

import structlog

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.lease import SweepWatch
from registry.core.snapshot import SnapshotDelta
from registry.errors import RefusedError, UnavailableError
from registry.metrics import FEED_LOST, FEED_STEPS, RESYNC_SECONDS
from registry.settings import Settings
from registry.store import change_feed as feed
from registry.store import leases as lease_store
from registry.store.database import Database, Session, read_clock

log = structlog.get_logger()

_SERVICES_A_READ = 50
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_LEAST_REST = 0.1
"""Seconds between two attempts at least, however much is written meanwhile."""


Prepare = Callable[[], Awaitable[None]]
"""What has to be done once before the database can be read, and can be done only when it is there."""


class ChangeFeed:
    """Keeps a directory as new as the database.

    One connection listens and reads; what is notified during a read costs one more read, however much it is.

    Args:
        database: where.
        cache: what is kept new.
        settings: how often all of it is compared, and whether notifications are followed.
        prepare: what has to be done before the first reading.
        settle: what has to be done once after it.
    """

    def __init__(
        self,
        database: Database,
        cache: SnapshotCache,
        settings: Settings,
        prepare: Prepare | None = None,
        settle: Callable[[], None] | None = None,
    ) -> None:
        self._settle = settle
        self._prepare = prepare
        self._database = database
        self._cache = cache
        self._settings = settings
        self._dirty: set[str] = set()
        self._missing: dict[str, float] = {}
        # Services whose numbers PostgreSQL refuses to raise, and those that could not be taken over: each logged once.
        self._refused: set[str] = set()
        self._spoilt: set[str] = set()
        # Why the database cannot be followed, for people; empty while it is.
        self.loss = ""
        # At the last comparison the database refused writes.
        self.read_only = False
        self.swept = SweepWatch()
        """When any process swept last, as of the last comparison."""
        # Something is to be done: a service to be read, or a connection to be given up.
        self._stir = asyncio.Event()
        # A service was to be read since the connection was lost, or since the last attempt to make one began.
        self._nudged = asyncio.Event()
        self._lost = False
        self._following = False
        self._losses = 0
        self._pause = _SHORTEST_PAUSE

    def nudge(self, service: str, change: int | None = None) -> None:
        """Read a service again soon: it is known, or claimed, to have changed.

        Args:
            service: its name.
            change: up to which it is to be read, if that is known: then it may have been.
        """
        if change is None or change > self._cache.get(service).change:
            self._dirty.add(service)
            self._stir.set()
            self._nudged.set()

    def _on_notification(self, told: str) -> None:
        # By hand, a service is named without a number.
        service, _, change = told.partition(" ")
        self.nudge(service, int(change) if change.isdigit() else None)

    async def run(self) -> None:
        """Follow the database until cancelled, across its outages."""
        while True:
            try:
                if self._prepare is not None:
                    await self._prepare()
                    self._prepare = None
                self._nudged.clear()
                async with self._connection() as connection:
                    await self._follow(connection)
            except UnavailableError as error:
                self._note_loss(error)
            except Exception:
                # A defect here would leave this process with the past for ever.
                FEED_LOST.inc()
                log.exception("change_feed_failed")
            await self._rest()

    async def _rest(self) -> None:
        """Wait before the next attempt, the longer the more failed; a write that was stored since this one ends it.

        It says that PostgreSQL is there, and its client is about to look for what it wrote.
        """
        await asyncio.sleep(_LEAST_REST)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause - _LEAST_REST):
                await self._nudged.wait()
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _note_loss(self, error: UnavailableError) -> None:
        if self._following or str(error) != self.loss:
            log.warning("change_feed_lost", reason=error.cause)
        self.loss = str(error)
        FEED_LOST.inc()
        if self._following:
            # Of before; from here on a write tells that PostgreSQL is there.
            self._nudged.clear()
        self._following, self._losses = False, self._losses + 1

    def _note_following(self) -> None:
        if not self._following:
            log.info("change_feed_following", services=len(self._cache.services()))
        self._following, self._losses, self._pause, self.loss = True, 0, _SHORTEST_PAUSE, ""
        if self._settle is not None:
            self._settle()
            self._settle = None

    def _connection(self) -> AbstractAsyncContextManager[Session]:
        self._lost = False
        if self._settings.listen_notify:
            return self._database.listen(self._on_notification, self._on_end)
        return self._database.session()

    def _on_end(self) -> None:
        self._lost = True
        self._stir.set()

    async def _follow(self, connection: Session) -> None:
        loop = asyncio.get_running_loop()
        await self._recognise()
        await self._resynchronise(connection)
        self._note_following()
        due = loop.time() + self._settings.resync_interval
        while True:
            await self._wait_for_news(due - loop.time())
            if self._lost:
                raise UnavailableError("PostgreSQL closed the connection that listens")
            if loop.time() >= due:
                await self._resynchronise(connection)
                due = loop.time() + self._settings.resync_interval
            else:
                await self._catch_up(connection)

    async def _wait_for_news(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stir.wait()
        except TimeoutError:
            return
        self._stir.clear()

    async def _recognise(self) -> None:
        before, identity = self._cache.database_id, await feed.database_id(self._database)
        if self._cache.set_database(identity):
            log.warning("database_replaced", before=before, now=identity)
            self._missing.clear()
            self._following = False

    async def _resynchronise(self, connection: Session) -> None:
        """Compare every service's numbers: a lost notification costs no more than the time until here."""
        with RESYNC_SECONDS.time():
            await self._compare(connection)
        self._cache.mark_ready(asyncio.get_running_loop().time())

    async def _compare(self, connection: Session) -> None:
        asked = time.monotonic()
        self._cache.clock.set(await read_clock(connection), asked, time.monotonic())
        self.read_only, swept = await feed.read_state(connection)
        self.swept.observe(swept, time.monotonic())
        numbers = await feed.service_versions(connection)
        await self._drop_forgotten(connection, numbers)
        for name, snapshot in self._cache.services().items():
            stored = numbers.get(name)
            if stored is None and self._hopes_for(name):
                continue
            if stored is None or stored.version < snapshot.version or stored.change < snapshot.change:
                log.warning("served_changes_lost", service=name, served=snapshot.version)
                if await self._raise_above(name, snapshot.version, snapshot.change):
                    self._dirty.add(name)
        self._missing = {name: since for name, since in self._missing.items() if name not in numbers}
        self._dirty.update(name for name, stored in numbers.items() if stored.change > self._cache.get(name).change)
        await self._catch_up(connection)
        self._cache.read_leases(await lease_store.all_leases(connection))

    async def _drop_forgotten(self, connection: Session, numbers: Collection[str]) -> None:
        """Forget services that the database has forgotten.

        Only what is held without endpoints, and below the numbers with which a service may begin: anything else may
        have been lost by a fail-over. To subscribers it is then unknown, so that none of them is emptied.
        """
        empty = [
            snapshot
            for name, snapshot in self._cache.services().items()
            if name not in numbers and not snapshot.endpoints and not snapshot.quarantined
        ]
        # Read after the numbers: whoever forgot one of these has raised it before.
        first = await feed.first_version(connection) if empty else 0
        for snapshot in empty:
            if max(snapshot.version, snapshot.change) <= first:
                self._cache.drop(snapshot.service)
                for known in (self._dirty, self._refused, self._spoilt):
                    known.discard(snapshot.service)
                self._missing.pop(snapshot.service, None)

    def _hopes_for(self, name: str) -> bool:
        """Tell whether a service that was lost with its founding may yet be founded again by its heartbeats.

        Until then it is answered from memory: to say what the database says would empty it.
        """
        now = asyncio.get_running_loop().time()
        return now - self._missing.setdefault(name, now) < self._settings.last_endpoint_hold

    async def _catch_up(self, connection: Session) -> None:
        dirty, self._dirty = self._dirty, set()
        try:
            names = sorted(dirty)
            for start in range(0, len(names), _SERVICES_A_READ):
                await self._read(connection, names[start : start + _SERVICES_A_READ])
            await self._answer_claims(connection)
        except BaseException:
            self._dirty |= dirty
            raise

    async def _read(self, connection: Session, names: Collection[str]) -> None:
        steps = await feed.steps(connection, self._cache.known_changes(names))
        FEED_STEPS.inc(len(steps))
        for quarantined_row in (one for step in steps for one in step.quarantined):
            log.warning(
                "endpoint_quarantined",
                service=quarantined_row.service,
                address=quarantined_row.address,
                port=quarantined_row.port,
                reason=quarantined_row.reason,
            )
        for step in steps:
            self._apply(step)

    def _apply(self, step: SnapshotDelta) -> None:
        """Take over what became of one service; a defect with one keeps only that one as it was."""
        try:
            self._cache.apply([step])
        except Exception:
            if step.service not in self._spoilt:
                log.exception("service_not_followed", service=step.service)
            self._spoilt.add(step.service)
        else:
            self._spoilt.discard(step.service)

    async def _raise_above(self, service: str, version: int, change: int) -> bool:
        """Raise a service's numbers above those that were served; return whether PostgreSQL did so.

        A service that it refuses to change goes on from memory, and keeps nothing from all others.
        """
        try:
            await feed.raise_above(self._database, service, version, change)
        except RefusedError as error:
            if service not in self._refused:
                log.warning("version_not_raised", service=service, reason=error.cause)
            self._refused.add(service)
            return False
        self._refused.discard(service)
        return True

    async def _answer_claims(self, connection: Session) -> None:
        """Outbid versions that subscribers hold and nobody stored: they come from before a fail-over."""
        claims = self._cache.take_claims()
        if not claims:
            return
        await self._read(connection, list(claims))
        for name, claimed in claims.items():
            snapshot = self._cache.get(name)
            if 0 < snapshot.version < claimed and await self._raise_above(name, claimed, snapshot.change):
                await self._read(connection, [name])
