"""The change feed keeps a process's snapshots as new as the database.

PostgreSQL's notifications make it fast: the transaction that changes a service notifies all processes. A comparison of
all versions once a resync interval makes it certain, since notifications can be lost. ``registry.store.change_feed``
has the statements.

How a change reaches an Envoy is written in four files: this one, ``registry.cache.snapshot_cache`` (replaces the
snapshot and wakes the polls that wait for it), ``registry.xds.discovery`` (answers them) and
``registry.http.fast_protocol`` (writes the responses).
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

import structlog

from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.lease import SweepWatch, restore_hold
from registry.core.snapshot import SnapshotDelta
from registry.errors import RefusedError, UnavailableError
from registry.metrics import FEED_LOST, FEED_STEPS, LEASE_READ_SECONDS, RESYNC_SECONDS
from registry.settings import Settings
from registry.store import change_feed as feed
from registry.store import leases as lease_store
from registry.store import pauses as pause_store
from registry.store.database import CHANNEL, Database, Session, read_clock
from registry.store.failures import concerns_rows
from registry.store.restored import read_identity
from registry.xds import eds

log = structlog.get_logger()

_MAX_SERVICES_PER_READ = 50
"""Services that one statement reads."""
_MAX_APART = 100
"""Services from which on no more are read one by one: where so many cannot be read, it is none of theirs."""
_MAX_OWN_WAIT = 1.0
"""Seconds that a response waits for this process to serve what it has stored."""
_MIN_RETRY_DELAY = 0.1
"""Seconds before the first retry after the connection was lost; each further retry waits twice as long."""
_MAX_RETRY_DELAY = 2.0
"""Seconds between two retries at most."""
_MIN_REST = 0.1
"""Seconds between two attempts at least, however many writes are stored meanwhile."""

_MAX_LEASE_SHARE = 0.1
"""Share of the time in which all leases are read: a million of them take most of a second, here and in PostgreSQL."""

Prepare = Callable[[], Awaitable[None]]
"""The preparation before the first read, such as migrations; it needs the database and is retried until it succeeds."""


class ChangeFeed:
    """The loop that reads changes from PostgreSQL into the snapshot cache.

    One connection listens and reads. All notifications that arrive during a read cost one more read together.

    Args:
        database: the database to follow.
        cache: the snapshots to keep up to date.
        settings: the resync interval, and whether to listen for notifications.
        prepare: called before the first read, until it succeeds.
        settle: called once after the first read.
        listeners: called with the payloads of other channels, whose notifications come over the same connection.
    """

    def __init__(
        self,
        database: Database,
        cache: SnapshotCache,
        settings: Settings,
        prepare: Prepare | None = None,
        settle: Callable[[], None] | None = None,
        listeners: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        self._listeners = dict(listeners or {})
        self._settle = settle
        self._prepare = prepare
        self._database = database
        self._cache = cache
        self._settings = settings
        # Services to read in the next pass; written by notifications, writes and comparisons.
        self._outdated: set[str] = set()
        self._applying: set[str] = set()
        """Services whose changes were read and are not all applied yet. Written by _read()."""
        self._next_pass = 0.0
        """The loop's time from which others may be read while a large service is applied. Written by
        _let_others_pass(), and by _catch_up(), which begins anew."""
        # Services that are served and that the database has lost, with the loop's time at which each was first missed.
        self._missing: dict[str, float] = {}
        # Services whose version PostgreSQL refused to raise; each is logged once.
        self._not_raised: set[str] = set()
        # Services whose changes could not be read or applied; each is logged once.
        self._not_followed: set[str] = set()
        # Services that are read alone, because a read of several failed at the rows of one of them.
        self._apart: set[str] = set()
        self.loss = ""
        """Why the database cannot be followed, for people; empty while it is followed."""
        self.read_only = False
        """Whether the database refused writes at the last comparison."""
        self.swept = SweepWatch()
        """The time of the last sweep of any process, as of the last comparison."""
        # Set when there is something to do: a service to read, or a lost connection to give up.
        self._wake = asyncio.Event()
        # Set when a service was marked for reading since the connection was lost, or since the last attempt to connect.
        self._nudged = asyncio.Event()
        # Whether PostgreSQL has closed the connection that listens.
        self._lost = False
        # Whether the database is followed now; False from a loss until the next complete comparison.
        self._following = False
        # When all leases are to be read again, by the loop's clock; 0.0: at once, as on a new connection.
        self._leases_due = 0.0
        # Seconds before the next attempt to connect.
        self._pause = _MIN_RETRY_DELAY

    def nudge(self, service: str, change: int | None = None) -> None:
        """Read a service again soon, because it has changed or a subscriber claims so.

        Args:
            service: the service's name.
            change: the number of the change; a service that is as new already is not read again. None: not known.
        """
        if change is None or change > self._cache.get(service).change:
            self._outdated.add(service)
            self._wake.set()
            self._nudged.set()

    async def follow_own(self, service: str, change: int) -> None:
        """Read at once what this process has stored, and wait until it serves that: for a second at most.

        The response to a write comes after it. The change stands either way.

        Args:
            service: the service's name.
            change: the number of the change.
        """
        self.nudge(service, change)
        await self._cache.wait_for_change(service, change, _MAX_OWN_WAIT)

    def _on_notification(self, payload: str) -> None:
        # A person may notify without a number.
        service, _, change = payload.partition(" ")
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
                # Without a retry, a defect here would leave this process with old snapshots for ever.
                FEED_LOST.inc()
                log.exception("change_feed_failed")
            await self._pause_before_retry()

    async def _pause_before_retry(self) -> None:
        """Wait before the next attempt to connect, twice as long each time.

        A write of this process that is stored meanwhile ends the wait: it proves that PostgreSQL is back, and its
        client expects to see it.
        """
        await asyncio.sleep(_MIN_REST)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause - _MIN_REST):
                await self._nudged.wait()
        self._pause = min(2 * self._pause, _MAX_RETRY_DELAY)

    def _note_loss(self, error: UnavailableError) -> None:
        if self._following or str(error) != self.loss:
            log.warning("change_feed_lost", reason=error.cause)
        self.loss = str(error)
        FEED_LOST.inc()
        if self._following:
            # Writes before the loss prove nothing; from here on, a write proves that PostgreSQL is back.
            self._nudged.clear()
        self._following = False

    def _note_following(self) -> None:
        if not self._following:
            log.info("change_feed_following", services=len(self._cache.services()))
        self._following, self._pause, self.loss = True, _MIN_RETRY_DELAY, ""
        if self._settle is not None:
            self._settle()
            self._settle = None

    def _connection(self) -> AbstractAsyncContextManager[Session]:
        self._lost = False
        if self._settings.listen_notify:
            return self._database.listen({CHANNEL: self._on_notification, **self._listeners}, self._on_end)
        return self._database.session()

    def _on_end(self) -> None:
        self._lost = True
        self._wake.set()

    async def _follow(self, connection: Session) -> None:
        loop = asyncio.get_running_loop()
        self._leases_due = 0.0
        await self._check_database()
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
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _check_database(self) -> None:
        identity = await read_identity(self._database)
        before = self._cache.database_id
        if identity.id != before:
            await self._await_registrars(identity.restored_ago)
        if self._cache.set_database(identity.id):
            log.warning("database_replaced", before=before, now=identity.id)
            self._missing.clear()
            self._following = False

    async def _await_registrars(self, restored_ago: float | None) -> None:
        """Keep what is served as it is until living endpoints had the time to return to a restored database.

        Their heartbeats are stored meanwhile. Read at once, the database would send Envoys to the endpoints of the day
        of the backup alone.
        """
        if restored_ago is None:
            return
        settings = self._settings
        seconds = restore_hold(settings.lease_ttl, await self._longest_ttl(), settings.sweep_interval, restored_ago)
        if seconds <= 0:
            return
        self.loss = (
            "the database was restored from a backup: it is served when living endpoints had the time to return, and "
            "until then what was served before"
        )
        log.warning("restored_database_held", seconds=round(seconds, 1), services=len(self._cache.services()))
        await asyncio.sleep(seconds)

    async def _longest_ttl(self) -> float:
        """Return the seconds of the longest lease of any endpoint that is served; 0 if none has one."""
        served = (each for snapshot in list(self._cache.services().values()) for each in snapshot.endpoints.values())
        longest = 0.0
        async for endpoint in cooperatively(served):
            longest = max(longest, endpoint.registration.ttl or 0.0)
        return longest

    async def _resynchronise(self, connection: Session) -> None:
        """Compare the version of every service, so that a lost notification delays a change until here at most."""
        with RESYNC_SECONDS.time():
            await self._compare(connection)
        await self._read_leases(connection)
        self._cache.mark_ready(asyncio.get_running_loop().time(), self._not_followed)

    async def _compare(self, connection: Session) -> None:
        asked = time.monotonic()
        self._cache.clock.set(await read_clock(connection), asked, time.monotonic())
        database_id, self.read_only, swept = await feed.read_state(connection)
        if database_id != self._cache.database_id:
            # By `registry restored`, while this connection was open: begin again, as with any other database.
            raise UnavailableError("the database has another id since it was restored, and is read anew")
        self.swept.observe(swept, time.monotonic())
        self._cache.read_pauses(await pause_store.in_force(connection))
        numbers = await feed.service_versions(connection)
        self._not_followed.intersection_update(numbers)
        # A fail-over may have lost them: what nobody can read here is no more gone than what is served from memory.
        self._not_followed |= {name for name in self._cache.unsure if name not in numbers and self._may_return(name)}
        self._apart.intersection_update(numbers)
        await self._drop_forgotten(connection, numbers)
        async for name, snapshot in cooperatively(self._cache.services().items()):
            stored = numbers.get(name)
            if stored is None and self._may_return(name):
                continue
            if stored is None or stored.version < snapshot.version or stored.change < snapshot.change:
                log.warning("served_changes_lost", service=name, served=snapshot.version)
                if await self._raise_above(name, snapshot.version, snapshot.change):
                    self._outdated.add(name)
        self._missing = {name: since for name, since in self._missing.items() if name not in numbers}
        async for name, stored in cooperatively(numbers.items()):
            if stored.change > self._cache.get(name).change:
                self._outdated.add(name)
        await self._catch_up(connection)
        self._refuse_if_none_is_followed(numbers)
        self._cache.read_unlisted_overrides(await feed.unlisted_overrides(connection))

    def _refuse_if_none_is_followed(self, stored: Collection[str]) -> None:
        """Refuse to be ready where several services are stored and none of them can be read.

        Raises:
            UnavailableError: that is so; the cause is then in none of their rows.
        """
        if len(stored) > 1 and self._not_followed.issuperset(stored):
            raise UnavailableError(f"none of the {len(stored)} services can be read; the log says why of each")

    async def _read_leases(self, connection: Session) -> None:
        """Read all leases if that is due, and changes that are notified meanwhile before the rest of them."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._leases_due:
            return
        asked = time.monotonic()
        with LEASE_READ_SECONDS.time():
            leases = await lease_store.all_leases(connection, partial(self._catch_up, connection))
        self._cache.read_leases(leases, asked)
        self._leases_due = began + (loop.time() - began) / _MAX_LEASE_SHARE

    async def _drop_forgotten(self, connection: Session, numbers: Collection[str]) -> None:
        """Drop services that the database has forgotten.

        Only services without endpoints are dropped, and only below the version with which a new service begins. Others
        may have been lost by a fail-over. A dropped service is unknown to subscribers, so none of them is sent an empty
        answer.
        """
        empty = [
            snapshot
            async for name, snapshot in cooperatively(self._cache.services().items())
            if name not in numbers and not snapshot.endpoints and not snapshot.quarantined
        ]
        # Read after the versions: the process that forgot one of these services has raised this number before.
        first = await feed.first_version(connection) if empty else 0
        for snapshot in empty:
            if max(snapshot.version, snapshot.change) <= first:
                self._cache.drop(snapshot.service)
                for names in (self._outdated, self._not_raised, self._not_followed):
                    names.discard(snapshot.service)
                self._missing.pop(snapshot.service, None)

    def _may_return(self, name: str) -> bool:
        """Return whether a service that a fail-over lost altogether may yet be created again by its heartbeats.

        Until then it is answered from memory, because the database's answer would be empty.
        """
        now = asyncio.get_running_loop().time()
        return now - self._missing.setdefault(name, now) < self._settings.last_endpoint_hold

    async def _catch_up(self, connection: Session) -> None:
        outdated, self._outdated = self._outdated, set()
        self._next_pass = 0.0
        try:
            await self._read_all(connection, outdated)
            await self._answer_claims(connection)
        except BaseException:
            self._outdated |= outdated
            raise

    async def _read_all(self, connection: Session, services: Iterable[str]) -> None:
        apart = self._apart.intersection(services)
        names = sorted(apart.symmetric_difference(services))
        # First, since those that can be read leave the others: a batch that fails makes room for its own only then.
        for name in sorted(apart):
            await self._read_apart(name)
        for start in range(0, len(names), _MAX_SERVICES_PER_READ):
            await self._read(connection, names[start : start + _MAX_SERVICES_PER_READ])

    async def _read_apart(self, service: str) -> None:
        """Read a service on a connection of its own, and leave it as it was if it cannot be read."""
        try:
            async with self._database.session() as connection:
                await self._read(connection, [service])
        except Exception as error:
            if not concerns_rows(error):
                raise
            self._note_not_followed(service)
        else:
            self._apart.discard(service)

    async def _read(self, connection: Session, names: Collection[str]) -> None:
        try:
            steps = await feed.steps(connection, self._cache.known_changes(names))
        except Exception as error:
            if concerns_rows(error) and len(self._apart) < _MAX_APART:
                # The connection may be gone. On the next one these are read one by one.
                self._apart.update(names)
            raise
        FEED_STEPS.inc(len(steps))
        for row in (row for step in steps for row in step.quarantined):
            log.warning(
                "endpoint_quarantined",
                service=row.service,
                address=row.address,
                port=row.port,
                reason=row.reason,
            )
        between = partial(self._let_others_pass, connection)
        applying = {step.service for step in steps}
        self._applying |= applying
        try:
            # Large ones last, since the others would wait for them.
            for step in sorted(steps, key=lambda step: len(self._cache.get(step.service).endpoints)):
                await self._apply(step, between)
        finally:
            self._applying -= applying

    async def _let_others_pass(self, connection: Session) -> None:
        """Read and apply what has changed meanwhile of other services, between two turns of a large one.

        They get half of the time, so that a large service is applied however much others change. If they cannot be
        read, the large one is applied first: the next pass reads them, and says why it cannot.
        """
        loop = asyncio.get_running_loop()
        others = self._outdated - self._applying
        began = loop.time()
        if not others or began < self._next_pass:
            return
        self._next_pass = math.inf
        self._outdated -= others
        try:
            await self._read_all(connection, others)
        except Exception:  # noqa: BLE001  # whatever it is, it is none of the large service
            self._outdated |= others
            self._wake.set()
        except BaseException:
            self._outdated |= others
            raise
        else:
            self._next_pass = 2 * loop.time() - began

    async def _apply(self, step: SnapshotDelta, between: Callable[[], Awaitable[None]]) -> None:
        """Apply the changes of one service; a defect with it leaves only this service as it was."""
        try:
            await self._cache.apply_in_turns(step, eds.prepare, between)
        except Exception:  # noqa: BLE001  # logged by what is called
            self._note_not_followed(step.service)
        else:
            self._not_followed.discard(step.service)

    def _note_not_followed(self, service: str) -> None:
        """Take note, while the reason is handled, that what PostgreSQL has of a service cannot be read or applied."""
        if service not in self._not_followed:
            log.exception("service_not_followed", service=service)  # noqa: LOG004  # called while it is handled
        self._not_followed.add(service)
        self._cache.doubt(service)

    async def _raise_above(self, service: str, version: int, change: int) -> bool:
        """Raise a service's version above the one that was served; return whether PostgreSQL did so.

        A service that PostgreSQL refuses to change is answered from memory, and does not delay the others.
        """
        try:
            await feed.raise_above(self._database, service, version, change)
        except RefusedError as error:
            if service not in self._not_raised:
                log.warning("version_not_raised", service=service, reason=error.cause)
            self._not_raised.add(service)
            return False
        self._not_raised.discard(service)
        return True

    async def _answer_claims(self, connection: Session) -> None:
        """Raise versions above those that subscribers bring and the database lost in a fail-over."""
        claims = self._cache.take_claims()
        if not claims:
            return
        try:
            await self._read_all(connection, claims)
            for name, claimed in claims.items():
                snapshot = self._cache.get(name)
                if 0 < snapshot.version < claimed and await self._raise_above(name, claimed, snapshot.change):
                    await self._read_all(connection, [name])
        except BaseException:
            # An edge does not bring a version again before the service changes.
            for name, claimed in claims.items():
                self._cache.claim_ahead(name, claimed)
            raise
