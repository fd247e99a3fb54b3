"""The job that expires leases, removes departed endpoints and ends overrides, in one leading process for all.

Six files say what happens when a lease lapses; read them in this order:

1. here, ``Sweeper.sweep``: once a sweep interval the leading process looks for expired leases;
2. ``registry.store.leases``: which leases have expired (``expired_leases``), and how many endpoints each service has
   (``count_endpoints``);
3. ``registry.core.expiry_guard``: which endpoints lapse now, and which stay served as suspects, with the evidence about
   each (``registry.core.evidence``);
4. ``registry.store.transaction``, ``change_service``: lock the service, load its endpoints, skip leases that were
   renewed meanwhile, store what changed, and notify the other processes;
5. ``registry.core.changeset``: what lapsing, and later the removal, does to one endpoint;
6. ``registry.core.lease``: when a lapsed endpoint may leave the answers (``removable``), and how much time leases are
   credited for outages of the registry itself (``credit``).

From there ``registry.background.change_feed`` takes the change to each process, and from it to Envoy.

The leader is elected by a PostgreSQL advisory lock that dies with its session, as Patroni's leader key dies with its
time to live in etcd.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Concatenate, ParamSpec

import msgspec
import structlog
from msgspec.structs import replace

from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key
from registry.core.evidence import NO_EVIDENCE, Evidence, Sureness
from registry.core.expiry_guard import EVERYWHERE, GUARD_WINDOW, Candidate, GuardDecision, evaluate_guard
from registry.core.lease import MAX_CLOCK_ERROR, ClockReading, WriteDurations, clock_step, credit, removable
from registry.core.sweep_refusals import Refusal, Refusals, Task
from registry.errors import ClockSteppedError, UnavailableError
from registry.metrics import (
    CREDITED,
    EVENTS_CUT,
    LAPSED,
    LAPSED_BY_EVIDENCE,
    LEADER,
    LEASES_REPLACED,
    SERVICES_NOT_SWEPT,
    SWEEP_REFUSALS,
    SWEEP_SECONDS,
    SWEEPS,
)
from registry.settings import Settings
from registry.store import leases, pauses, pruning
from registry.store.database import Database, Session, read_clock
from registry.store.failures import translate_errors
from registry.store.service_locks import StoredVersion
from registry.store.transaction import change_at_addresses, change_service, change_unroutable
from wire.address import format_endpoint

log = structlog.get_logger()

_MIN_LEAD_SILENCE = 5.0
"""Seconds of silence after which PostgreSQL closes the leader's connection, at the least."""
_PING_INTERVAL = 1.0
"""Seconds between two statements on the leader's connection while a change is made on another connection."""
_PING_TIMEOUT = 2.0
"""Seconds after which a leader's connection that does not answer is given up."""
_LEAD_TIMEOUT = 30.0
"""Seconds without a completed sweep after which the leader resigns, so that another process may try."""

_MAX_LABELS = 20
"""Services that a metric names, and endpoints that a log line names, at most."""

_ALL_REMOVALS = Task(EVERYWHERE, "removal")
_ALL_OVERRIDES = Task(EVERYWHERE, "override_end")
_ALL_MISSING_LEASES = Task(EVERYWHERE, "missing_lease")

_MISSING_LEASE_INTERVAL = 5.0
"""Seconds between two searches for endpoints without a lease."""

_LOCKED_LEASE_GRACE = 10.0
"""Seconds for which a lease does not lapse after it was locked, or after its service could be changed again.

Its renewal had to wait or was refused, and the registrar sends it again within this time."""


EvidenceSource = Callable[[Collection[Candidate], float], Awaitable[Mapping[int, Evidence]]]
"""Returns the evidence about candidates, by endpoint id, at a time of PostgreSQL's clock."""


class Sweeper:
    """The sweeper expires leases, removes departed endpoints and ends overrides while its process leads.

    The leader holds an advisory lock on a connection of its own. When the process or the connection dies,
    PostgreSQL gives the lock to the next process that asks.

    Args:
        database: the database to sweep.
        cache: the endpoints as this process knows them.
        change_feed: reads the changed services again, so that this process serves its own changes at once.
        settings: the intervals and delays.
        credit_reason: called once a sweep; returns why leases are to be credited although sweeps take place, which
            is that registry processes cannot take heartbeats, or None.
        evidence: returns the evidence about endpoints whose leases expired, by id; it never raises.
    """

    def __init__(
        self,
        database: Database,
        cache: SnapshotCache,
        change_feed: ChangeFeed,
        settings: Settings,
        credit_reason: Callable[[], str | None] = lambda: None,
        evidence: EvidenceSource | None = None,
    ) -> None:
        self._evidence = evidence
        self._credit_reason = credit_reason
        # Why the last sweep credited leases for registry processes that cannot take heartbeats; None: it did not.
        self._credited_for: str | None = None
        self._database = database
        self._cache = cache
        self._change_feed = change_feed
        self._settings = settings
        # Returns the leader's connection to the pool when it is closed; empty while another process leads.
        self._lead = AsyncExitStack()
        # The connection that holds the advisory lock; None while another process leads.
        self._connection: Session | None = None
        # How many times this process has gained the lead.
        self._leads_gained = 0
        # PostgreSQL's clock at the end of the last sweep of this lead; None before the first one.
        self._swept: ClockReading | None = None
        # Seconds that it took to store the end of the last sweep; 0.0 before the first one of this lead.
        self._last_write_seconds = 0.0
        # The durations of this lead's writes of the end of a sweep.
        self._writes = WriteDurations(settings.database_timeout)
        # Monotonic time of the end of the last sweep, or of the start of this lead.
        self._completed_at = 0.0
        # Why the sweeps since the last completed one were given up; each reason is logged once.
        self._given_up_for = ""
        # Monotonic time of the next search for endpoints without a lease.
        self._look_for_missing_at = 0.0
        self.leases_replaced = 0
        """Endpoints without a lease to which this process has granted one since its start."""
        # The number of suspects that was logged last.
        self._logged_suspects = 0
        # Monotonic time at which the lease of an endpoint, by its id, was last found locked when it was to lapse.
        self._locked_at: dict[int, float] = {}
        # Ids of endpoints with an expired lease that the previous leader left undecided, because PostgreSQL refused to
        # change their services; set by the first sweep of this lead.
        self._inherited: frozenset[int] = frozenset()
        # The changes that PostgreSQL refuses now; kept across leads.
        self._refusals = Refusals()
        self._refused_names = _ServiceLabels()
        # The tasks of the sweep under way; refusals of other tasks are dropped at its end.
        self._pending: set[Task] = set()
        # Monotonic time at which this process last deleted events before their retention was over; None: never.
        self._history_cut_at: float | None = None

    @property
    def leads(self) -> bool:
        """Whether this process holds the lead and sweeps for all processes."""
        return self._connection is not None

    @property
    def lead(self) -> int:
        """The number of the lead that this process holds, which is another one after each loss; 0: it leads not."""
        return self._leads_gained if self.leads else 0

    @property
    def refusals(self) -> list[Refusal]:
        """Changes that PostgreSQL refused to this process's sweeps, in the order of services."""
        return list(self._refusals)

    def history_cut_ago(self) -> float | None:
        """Return the seconds since this process deleted events early for REGISTRY_MAX_EVENTS; None: it never did."""
        return None if self._history_cut_at is None else time.monotonic() - self._history_cut_at

    async def sweep(self) -> None:
        """Sweep once if this process leads, or else ask for the lead."""
        try:
            # A process that cannot read the current state must not decide by it.
            if self._connection is None and self._cache.ready and not self._cache.stale:
                await self._ask_for_lead()
            if self._connection is not None:
                with translate_errors(), SWEEP_SECONDS.time():
                    await self._sweep(self._connection)
        except ClockSteppedError as error:
            # The sweep does not count, so the next one credits the step to all leases.
            log.warning("sweep_given_up", reason=str(error))
        except UnavailableError as error:
            await self._resign_if_lost(error)
        except Exception:
            # The cause is unknown, and another process may not have it.
            await self.resign()
            raise

    async def _resign_if_lost(self, error: UnavailableError) -> None:
        """Keep the lead after a failed sweep, unless its connection is lost or sweeps have failed for too long."""
        connection = self._connection
        late = time.monotonic() - self._completed_at > _LEAD_TIMEOUT
        if connection is not None and not late and await _answers(connection):
            # The failed sweep does not count: the next one credits the time since the last completed sweep.
            if self._given_up_for != error.cause:
                log.warning("sweep_given_up", reason=error.cause)
            self._given_up_for = error.cause
            return
        if connection is not None:
            log.warning("sweep_lead_lost", reason=error.cause)
        await self.resign()

    async def prune(self) -> None:
        """Delete old tombstones and old events if this process leads."""
        if not self.leads:
            return
        try:
            excess = await pruning.prune(
                self._database,
                tombstones=self._settings.tombstone_retention,
                history=self._settings.event_retention,
                most_events=self._settings.max_events,
            )
            if excess:
                EVENTS_CUT.inc(excess)
                self._history_cut_at = time.monotonic()
                log.warning(
                    "history_cut", events=excess, limit=self._settings.max_events, setting="REGISTRY_MAX_EVENTS"
                )
        except UnavailableError as error:
            log.warning("prune_failed", reason=error.cause)

    async def resign(self) -> None:
        """Give the lead back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # The lock lives as long as the connection. Back in the pool, it would keep the lead from all processes.
            await connection.invalidate()
        lead, self._lead = self._lead, AsyncExitStack()
        await lead.aclose()
        LEADER.set(0)
        SERVICES_NOT_SWEPT.set(0)

    async def _ask_for_lead(self) -> None:
        async with AsyncExitStack() as stack:
            silence = max(_MIN_LEAD_SILENCE, 5 * self._settings.sweep_interval)
            connection = await stack.enter_async_context(self._database.session())
            if await leases.try_lead(connection, silence):
                self._connection, self._swept, self._last_write_seconds = connection, None, 0.0
                # Writes that were slow under an earlier lead say nothing about the present.
                self._writes = WriteDurations(self._settings.database_timeout)
                self._completed_at = time.monotonic()
                self._lead = stack.pop_all()
                self._leads_gained += 1
                LEADER.set(1)
                log.info("sweep_lead_gained")

    async def _sweep(self, connection: Session) -> None:
        now, last = await self._read_clock(connection)
        last = await self._credit(connection, last, now)
        await self._credit_for_failures(connection, last, now.database)
        self._pending = set()
        await self._expire_leases(connection, now)
        for task, step in (
            (_ALL_REMOVALS, self._remove),
            (_ALL_OVERRIDES, self._end_overrides),
            (_ALL_MISSING_LEASES, self._replace_missing_leases),
        ):
            # Leases do not depend on any of these. So a read that fails here does not fail the sweep, after which the
            # next one would credit all leases.
            await self._attempt(task, partial(step, connection, now))
        ended, _ = await self._read_clock(connection)
        _refuse_step(now, ended)
        if self._credited_for is None:
            # Otherwise ``now`` is stored as the end of the sweep, and the next one credits the time that this one took.
            await self._store_end(connection, ended.database)
            self._writes.record(ended.answered, time.monotonic())
        self._completed_at = time.monotonic()
        self._last_write_seconds = self._completed_at - ended.answered
        self._swept, self._given_up_for = ended, ""
        self._refusals.end_sweep(self._pending, time.monotonic())
        SERVICES_NOT_SWEPT.set(len(self._refusals.services))
        SWEEPS.inc()

    async def _store_end(self, connection: Session, ended: float) -> None:
        """Store the end of a sweep on another connection, because one that waits too long for the disk is closed."""
        async with _keep_alive(connection):
            try:
                await leases.store_sweep_time(self._database, ended)
            except UnavailableError as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                # The disk takes longer than the timeout. Failing heartbeats report that, so the sweep does not fail
                # too.
                await leases.store_sweep_time(self._database, ended, durable=False)

    async def _read_clock(self, connection: Session) -> tuple[ClockReading, float | None]:
        asked = time.monotonic()
        now, last = await leases.last_sweep(connection)
        return ClockReading(now, asked, time.monotonic()), last

    async def _credit(self, connection: Session, last: float | None, now: ClockReading) -> float:
        """Extend all leases by the time for which the registry, not the instances, was away.

        Returns:
            the database's time up to which all time is credited.
        """
        if last is None:
            # So that the second sweep of all credits a step of the clock in the first one.
            await self._store_end(connection, now.database)
            return now.database
        elapsed = None if self._swept is None else now.answered - self._swept.answered
        moved = credit(last, now.database, elapsed, self._settings.sweep_interval, self._last_write_seconds)
        if moved:
            async with _keep_alive(connection):
                await leases.credit_all(self._database, last, now.database)
            CREDITED.inc(abs(moved))
            log.warning("leases_credited", seconds=round(moved, 1))
            return now.database
        return last

    async def _credit_for_failures(self, connection: Session, last: float | None, now: float) -> None:
        """Credit the time since the last sweep to all leases while registry processes cannot take heartbeats."""
        reason = None if last is None else self._credit_reason()
        if reason != self._credited_for:
            log.warning("leases_credited_for_failures", reason=reason or "over: the processes take heartbeats again")
        self._credited_for = reason
        if reason is not None and last is not None and now > last:
            async with _keep_alive(connection):
                await leases.credit_all(self._database, last, now)
            CREDITED.inc(now - last)

    async def _expire_leases(self, connection: Session, now: ClockReading) -> None:
        """Let expired leases lapse, or mark their endpoints as suspects, one transaction a service."""
        decisions = await self._decide(connection, now)
        for task in self._refusals.ordered(Task(service, "expiry") for service in decisions):
            decided = decisions[task.service]
            doubted = task in self._refusals or not self._inherited.isdisjoint(decided.expiries)
            if doubted:
                decided.hold_all("PostgreSQL refused to change the service, so heartbeats may have been refused too")
            change = partial(
                change_service,
                self._database,
                task.service,
                _at_time(now, decided.apply),
                expiries=decided.expiries,
                lapsing=decided.lapse,
            )
            if await self._change(connection, task, change):
                unheard = decided.ids() if doubted else decided.locked
                self._inherited -= decided.expiries.keys()
                self._locked_at |= dict.fromkeys(unheard, time.monotonic())
                lapsed = len(decided.lapse - decided.locked)
                LAPSED.inc(lapsed)
                for sure, count in decided.lapsed_by_evidence().items():
                    LAPSED_BY_EVIDENCE.labels(sure).inc(count)
                if lapsed or decided.suspect:
                    log.info("leases_expired", service=task.service, lapsed=lapsed, suspected=len(decided.suspect))

    async def _decide(self, connection: Session, now: ClockReading) -> "Mapping[str, _ServiceDecisions]":
        """Return the decisions about all expired leases, by service."""
        recently_locked = self._recently_locked()
        decisions: defaultdict[str, _ServiceDecisions] = defaultdict(_ServiceDecisions)
        expired = []
        candidates = await leases.expired_leases(connection, now.database)
        self._note_inherited(candidates, now)
        expired_before = now.database - self._writes.allowance(now.answered)
        for candidate in candidates:
            if candidate.expired_at >= expired_before:
                continue
            if candidate.endpoint_id in recently_locked:
                decisions[candidate.service].spare(candidate)
            else:
                expired.append(candidate)
        decision = GuardDecision([], [])
        if expired:
            live, lapsed_recently = await leases.count_endpoints(connection, now.database, GUARD_WINDOW)
            pauses_in_force = await pauses.in_force(connection, now.database)
            hold = self._settings.last_endpoint_hold
            expired = await self._with_evidence(expired, now.database)
            decision = evaluate_guard(
                expired, live, lapsed_recently, pauses_in_force, now.database, hold, self._refusals.services
            )
        self._note_suspects(len(decision.hold))
        for candidate in decision.lapse:
            decisions[candidate.service].let_lapse(candidate)
        for candidate, reason in decision.hold:
            # An endpoint that is a suspect already needs no other event.
            if not candidate.suspect:
                decisions[candidate.service].hold(candidate, reason)
        return decisions

    async def _with_evidence(self, expired: list[Candidate], now: float) -> list[Candidate]:
        if self._evidence is None:
            return expired
        evidence = await self._evidence(expired, now)
        return [replace(each, evidence=evidence.get(each.endpoint_id, NO_EVIDENCE)) for each in expired]

    def _note_inherited(self, candidates: Collection[Candidate], now: ClockReading) -> None:
        """Find the endpoints that the previous leader left undecided, in the first sweep of a lead.

        A leader decides about each expired lease within one sweep, and marks as suspects the endpoints that it holds.
        An endpoint whose lease expired earlier and that is no suspect belongs to a service that PostgreSQL refused to
        change, which only that leader remembered.
        """
        if self._swept is None:
            looked_at = now.database - self._settings.sweep_interval - MAX_CLOCK_ERROR
            self._inherited = frozenset(
                candidate.endpoint_id
                for candidate in candidates
                if not candidate.suspect and candidate.expired_at < looked_at
            )
        self._inherited &= {candidate.endpoint_id for candidate in candidates}

    def _recently_locked(self) -> frozenset[int]:
        now = time.monotonic()
        self._locked_at = {lease: seen for lease, seen in self._locked_at.items() if now - seen < _LOCKED_LEASE_GRACE}
        return frozenset(self._locked_at)

    async def _change(
        self,
        connection: Session,
        task: Task,
        change: Callable[[], Awaitable[dict[str, StoredVersion]]],
    ) -> bool:
        """Make one change and return whether it was made.

        A refused change is skipped, so that it does not delay the others.
        """
        self._pending.add(task)
        if not self._refusals.is_due(task, time.monotonic()):
            return False
        # A statement now, so that PostgreSQL does not close the leader's connection as silent during a lock wait.
        await read_clock(connection)

        async def announce() -> None:
            self._announce(await change())

        async with _keep_alive(connection):
            return await self._attempt(task, announce)

    async def _attempt(self, task: Task, work: Callable[[], Awaitable[None]]) -> bool:
        """Do a part of the sweep; its failure stops no other part, except when PostgreSQL's clock was set."""
        began = time.monotonic()
        try:
            with translate_errors():
                await work()
        except ClockSteppedError:
            raise
        except Exception as error:  # noqa: BLE001  # PostgreSQL or a defect fails this part alone
            self._pending.add(task)
            self._note_refusal(task, error, began)
            return False
        if self._refusals.accept(task):
            log.info("sweep_resumed", **msgspec.structs.asdict(task))
        return True

    def _note_refusal(self, task: Task, error: Exception, began: float) -> None:
        """Count a refusal, and log it when it is new or has another reason."""
        reason = str(error) if isinstance(error, UnavailableError) else None
        SWEEP_REFUSALS.labels(self._refused_names.label(task.service)).inc()
        if self._refusals.refuse(task, reason or repr(error), began, time.monotonic()):
            cause = error.cause if isinstance(error, UnavailableError) else reason
            # A traceback only for a defect, not for an error that PostgreSQL reported.
            log.warning(
                "sweep_refused",
                **msgspec.structs.asdict(task),
                reason=cause or repr(error),
                exc_info=error if reason is None else None,
            )

    def _note_suspects(self, suspects: int) -> None:
        if suspects != self._logged_suspects:
            log.warning("guard_suspects_changed", suspects=suspects, before=self._logged_suspects)
            self._logged_suspects = suspects

    async def _remove(self, connection: Session, now: ClockReading) -> None:
        services = await leases.services_with_departed(connection, now.database, self._settings.removal_delay)
        for task in self._refusals.ordered(Task(service, "removal") for service in services):
            # Checked in memory first: endpoints that are held back are not worth a transaction in each sweep.
            if self._removable(self._cache.get(task.service).endpoints.values(), now):
                remove = _at_time(now, partial(self._remove_due, now))
                await self._change(connection, task, partial(change_unroutable, self._database, task.service, remove))

    def _remove_due(self, now: ClockReading, changeset: Changeset) -> None:
        for endpoint in self._removable(changeset.all_listed(), now):
            changeset.remove(endpoint.key)

    def _removable(self, endpoints: Collection[Endpoint], now: ClockReading) -> list[Endpoint]:
        return removable(endpoints, now.database, self._settings.removal_delay, self._settings.last_endpoint_hold)

    async def _end_overrides(self, connection: Session, now: ClockReading) -> None:
        ended = {_ending(key): key for key in await leases.ended_overrides(connection, now.database)}
        for task in self._refusals.ordered(ended):
            key = ended[task]
            end = _at_time(now, partial(Changeset.end_override, key=key))
            await self._change(connection, task, partial(change_at_addresses, self._database, {key[0]}, {key[1:]}, end))

    async def _replace_missing_leases(self, connection: Session, now: ClockReading) -> None:
        """Grant a full lease to each endpoint without one; those that are not renewed lapse when it ends.

        To let them lapse at once would expire live endpoints after rows of leases were lost.
        """
        if time.monotonic() < self._look_for_missing_at:
            # Tasks that were refused earlier are still due.
            self._pending |= {refusal.task for refusal in self._refusals if refusal.task.action == "missing_lease"}
            return
        missing = await leases.endpoints_without_lease(connection)
        for task in self._refusals.ordered(Task(service, "missing_lease") for service in missing):
            grant = partial(self._replace_leases, task.service, missing[task.service], now.database)
            await self._change(connection, task, grant)
        self._look_for_missing_at = time.monotonic() + _MISSING_LEASE_INTERVAL

    async def _replace_leases(self, service: str, ids: Collection[int], now: float) -> dict[str, StoredVersion]:
        granted = await leases.grant_missing(self._database, service, ids, now)
        if granted:
            self.leases_replaced += len(granted)
            LEASES_REPLACED.inc(len(granted))
            log.warning("leases_replaced", service=service, endpoints=len(granted), ids=granted[:_MAX_LABELS])
        return {}

    def _announce(self, committed: dict[str, StoredVersion]) -> None:
        for service, numbers in committed.items():
            self._change_feed.nudge(service, numbers.change)


@asynccontextmanager
async def _keep_alive(connection: Session) -> AsyncIterator[None]:
    """Send a statement on a connection at intervals while the block waits for another connection.

    Raises:
        UnavailableError: the connection is lost.
    """
    over = asyncio.Event()
    pings = asyncio.create_task(_ping(connection, over))
    try:
        yield
    finally:
        over.set()
        # Awaited, not cancelled: cancelling would leave the connection in the middle of a statement.
        await pings


async def _ping(connection: Session, over: asyncio.Event) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PING_INTERVAL):
                await over.wait()
        if over.is_set():
            return
        with translate_errors():
            await read_clock(connection)


async def _answers(connection: Session) -> bool:
    """Return whether a connection is open and answers."""
    if connection.invalidated:
        return False
    try:
        async with asyncio.timeout(_PING_TIMEOUT):
            with translate_errors():
                await read_clock(connection)
    except (UnavailableError, TimeoutError):
        return False
    return True


class _ServiceDecisions:
    """The decisions about the endpoints of one service whose leases expired, by endpoint id.

    Attributes:
        expiries: the database's time at which each lease expired.
        lapse: the endpoints that lapse.
        evidence: the evidence about each endpoint that lapses.
        suspect: the endpoints that stay served as suspects, each with the reason.
        locked: set when applied: endpoints whose lease was renewed meanwhile, or is locked by a renewal.
    """

    def __init__(self) -> None:
        self.expiries: dict[int, float] = {}
        self.lapse: set[int] = set()
        self.evidence: dict[int, Evidence] = {}
        self.suspect: dict[int, str] = {}
        self.locked: frozenset[int] = frozenset()

    def spare(self, candidate: Candidate) -> None:
        """Only check again whether a lease is locked, so that its endpoint uses none of the guard's limit."""
        self.expiries[candidate.endpoint_id] = candidate.expired_at

    def let_lapse(self, candidate: Candidate) -> None:
        """Let an endpoint lapse."""
        self.spare(candidate)
        self.lapse.add(candidate.endpoint_id)
        self.evidence[candidate.endpoint_id] = candidate.evidence

    def hold(self, candidate: Candidate, reason: str) -> None:
        """Keep an endpoint served as a suspect."""
        self.spare(candidate)
        self.suspect[candidate.endpoint_id] = reason

    def hold_all(self, reason: str) -> None:
        """Keep all of them served as suspects: registrars send a heartbeat that could not be stored again."""
        self.suspect |= dict.fromkeys(self.lapse, reason)
        self.lapse.clear()

    def lapsed_by_evidence(self) -> Counter[Sureness]:
        """Return the number of endpoints that lapsed, by the evidence about them."""
        return Counter(self.evidence[each].sure for each in self.lapse - self.locked)

    def ids(self) -> list[int]:
        """Return the ids of all endpoints that this is about."""
        return list(self.expiries)

    def apply(self, changeset: Changeset, expired: Collection[int]) -> None:
        """Apply the decisions to a changeset, except where the lease was renewed meanwhile or is locked."""
        self.locked = frozenset(self.expiries) - frozenset(expired)
        for endpoint in changeset.all_listed():
            if endpoint.id not in expired:
                continue
            if endpoint.id in self.lapse:
                words = self.evidence[endpoint.id].words
                changeset.lapse(endpoint.key, self.expiries[endpoint.id], words)
            elif endpoint.id in self.suspect:
                changeset.suspect(endpoint.key, self.suspect[endpoint.id])


class _ServiceLabels:
    """The names of the first services that were refused, as values of a label, whose number is bounded."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def label(self, service: str) -> str:
        """Return the name of a service, or ``other`` once there are ``_MAX_LABELS`` names."""
        if len(self._names) < _MAX_LABELS:
            self._names.add(service)
        return service if service in self._names else "other"


def _ending(key: Key) -> Task:
    service, address, port = key
    return Task(service, "override_end", format_endpoint(address, port))


_Decided = ParamSpec("_Decided")


def _at_time(
    judged_at: ClockReading, decide: Callable[Concatenate[Changeset, _Decided], None]
) -> Callable[Concatenate[Changeset, _Decided], None]:
    """Return ``decide`` for a transaction that fails when PostgreSQL's clock was set since ``judged_at``."""
    asked = time.monotonic()

    def decide_at_time(changeset: Changeset, /, *given: _Decided.args, **named: _Decided.kwargs) -> None:
        _refuse_step(judged_at, ClockReading(changeset.now, asked, time.monotonic()))
        decide(changeset, *given, **named)

    return decide_at_time


def _refuse_step(earlier: ClockReading, later: ClockReading) -> None:
    step = clock_step(earlier, later)
    if step:
        raise ClockSteppedError(step)
