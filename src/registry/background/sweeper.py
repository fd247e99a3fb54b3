"""The job that expires leases, removes who is gone, ends overrides and prunes; one process does it for all."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Concatenate, ParamSpec

import msgspec
import structlog

from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key
from registry.core.expiry_guard import EVERYWHERE, GUARD_WINDOW, Candidate, GuardDecision, evaluate_guard
from registry.core.lease import TOLERANCE, ClockReading, WriteDurations, clock_step, credit, removable
from registry.core.sweep_refusals import Refusal, Refusals, Task
from registry.errors import ClockSteppedError, UnavailableError
from registry.metrics import (
    CREDITED,
    EVENTS_CUT,
    LAPSED,
    LEADER,
    LEASES_REPLACED,
    SERVICES_NOT_SWEPT,
    SUSPECTS,
    SWEEP_REFUSALS,
    SWEEP_SECONDS,
    SWEEPS,
)
from registry.settings import Settings
from registry.store import leases, pauses
from registry.store.database import Database, Session, read_clock
from registry.store.failures import translate_errors
from registry.store.transaction import StoredVersion, change_at_addresses, change_service
from wire.address import format_endpoint

log = structlog.get_logger()

_LEAST_SILENCE = 5.0
"""Seconds after which a leader that says nothing has lost the lead, at the least."""
_PING_INTERVAL = 1.0
"""Seconds between two signs of life on the connection of the lead while a change is made on another one."""
_PING_TIMEOUT = 2.0
"""Seconds after which a connection that does not answer holds no lead."""
_LEAD_TIMEOUT = 30.0
"""Seconds after which a process that completed no sweep gives the lead to another one, which may fare better."""

_MAX_NAMES = 20
"""Services that a metric names."""

_ALL_REMOVALS = Task(EVERYWHERE, "removal")
_ALL_OVERRIDES = Task(EVERYWHERE, "override_end")
_ALL_MISSING_LEASES = Task(EVERYWHERE, "missing_lease")

_MISSING_LEASE_INTERVAL = 5.0
"""Seconds between two looks for endpoints without a lease."""

_LOCKED_GRACE = 10.0
"""Seconds in which a lease does not lapse after it was found locked, or after a refusal of its service has ended: a
renewal was kept waiting, and comes again."""


class Sweeper:
    """Sweeps once a call, if this process leads.

    The leader holds an advisory lock on a connection of its own: when the process or the connection dies,
    PostgreSQL gives the lead to the next that asks.

    Args:
        database: where.
        cache: what this process knows of endpoints.
        change_feed: is told what was changed.
        settings: how often to sweep, and how long to wait.
        failing: returns why leases are to be credited although sweeps are made, once a sweep: registry processes
            cannot take heartbeats. None: they can.
    """

    def __init__(
        self,
        database: Database,
        cache: SnapshotCache,
        change_feed: ChangeFeed,
        settings: Settings,
        failing: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._failing = failing
        # Why leases were credited in the last sweep although it was made.
        self._credited_for: str | None = None
        self._database = database
        self._cache = cache
        self._change_feed = change_feed
        self._settings = settings
        self._lead = AsyncExitStack()
        self._connection: Session | None = None
        self._swept: ClockReading | None = None
        # Seconds that it took to store the end of the last sweep, 0.0 before the first one of this lead.
        self._write = 0.0
        self._writes = WriteDurations(settings.database_timeout)
        # Monotonic time of the end of the last sweep, or of the beginning of the lead.
        self._completed_at = 0.0
        # Why the sweeps since the last one that was completed were given up, so that each reason is logged once.
        self._given_up_for = ""
        # Monotonic time of the next look for endpoints without a lease.
        self._look_for_missing_at = 0.0
        self.leases_replaced = 0
        """Endpoints without a lease that this process has given one."""
        self._suspects = 0
        self._locked: dict[int, float] = {}
        # The endpoints that the leader before this one should have judged and did not, by their ids.
        self._inherited: frozenset[int] = frozenset()
        self._refusals = Refusals()
        self._refused_names = _Names()
        self._pending: set[Task] = set()
        # When (monotonic) events were deleted before their retention was over; None: never by this process.
        self._history_cut_at: float | None = None

    @property
    def leads(self) -> bool:
        """Whether this process sweeps for all."""
        return self._connection is not None

    @property
    def refusals(self) -> list[Refusal]:
        """What sweeps of this process could not change, in the order of services."""
        return list(self._refusals)

    def history_cut_ago(self) -> float | None:
        """Return the seconds since this process deleted events before their retention was over; None: it did not."""
        return None if self._history_cut_at is None else time.monotonic() - self._history_cut_at

    async def sweep(self) -> None:
        """Look for lapsed leases and departed endpoints, or ask for the lead if nobody has it."""
        try:
            # Who cannot read the state is not to judge it.
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
            # Whatever it is, another process may fare better.
            await self.resign()
            raise

    async def _resign_if_lost(self, error: UnavailableError) -> None:
        """Keep the lead after a sweep that failed, unless its connection is lost or no sweep succeeds for long."""
        connection = self._connection
        late = time.monotonic() - self._completed_at > _LEAD_TIMEOUT
        if connection is not None and not late and await _answers(connection):
            # It does not count, so the next one credits the time since the last that did.
            if self._given_up_for != error.cause:
                log.warning("sweep_given_up", reason=error.cause)
            self._given_up_for = error.cause
            return
        if connection is not None:
            log.warning("sweep_lead_lost", reason=error.cause)
        await self.resign()

    async def prune(self) -> None:
        """Delete old tombstones and old history, if this process leads."""
        if not self.leads:
            return
        try:
            excess = await leases.prune(
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
            # The lock lives as long as the connection: back in the pool, it would keep the lead from everybody.
            await connection.invalidate()
        lead, self._lead = self._lead, AsyncExitStack()
        await lead.aclose()
        LEADER.set(0)
        SERVICES_NOT_SWEPT.set(0)

    async def _ask_for_lead(self) -> None:
        async with AsyncExitStack() as stack:
            silence = max(_LEAST_SILENCE, 5 * self._settings.sweep_interval)
            connection = await stack.enter_async_context(self._database.session())
            if await leases.try_lead(connection, silence):
                self._connection, self._swept, self._write = connection, None, 0.0
                # What was slow under an earlier lead says nothing of now.
                self._writes = WriteDurations(self._settings.database_timeout)
                self._completed_at = time.monotonic()
                self._lead = stack.pop_all()
                LEADER.set(1)
                log.info("sweep_lead_gained")

    async def _sweep(self, connection: Session) -> None:
        now, last = await self._read_clock(connection)
        last = await self._credit(connection, last, now)
        await self._credit_for_failures(connection, last, now.database)
        self._pending = set()
        await self._lapse(connection, now)
        for task, step in (
            (_ALL_REMOVALS, self._remove),
            (_ALL_OVERRIDES, self._end_overrides),
            (_ALL_MISSING_LEASES, self._replace_missing_leases),
        ):
            # Neither is what leases are judged by: what cannot be read here makes no sweep that credits everybody.
            await self._attempt(task, partial(step, connection, now))
        ended, _ = await self._read_clock(connection)
        _refuse_step(now, ended)
        if self._credited_for is None:
            # Otherwise time was counted as swept until ``now``: what this sweep took is credited by the next one.
            await self._store_end(connection, ended.database)
            self._writes.note(ended.answered, time.monotonic())
        self._completed_at = time.monotonic()
        self._write = self._completed_at - ended.answered
        self._swept, self._given_up_for = ended, ""
        self._refusals.end_sweep(self._pending, time.monotonic())
        SERVICES_NOT_SWEPT.set(len(self._refusals.services))
        SWEEPS.inc()

    async def _store_end(self, connection: Session, ended: float) -> None:
        """Store the end of a sweep, on another connection: one that waits too long for the disk is closed."""
        async with _kept_alive(connection):
            try:
                await leases.store_sweep_time(self._database, ended)
            except UnavailableError as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                # The disk takes longer than the time-out. That is told by the heartbeats that fail, whoever fails.
                await leases.store_sweep_time(self._database, ended, durable=False)

    async def _read_clock(self, connection: Session) -> tuple[ClockReading, float | None]:
        asked = time.monotonic()
        now, last = await leases.last_sweep(connection)
        return ClockReading(now, asked, time.monotonic()), last

    async def _credit(self, connection: Session, last: float | None, now: ClockReading) -> float:
        """Move all leases by the time in which the registry, not the instances, was away.

        Returns:
            the database's time until which nothing is left to credit.
        """
        if last is None:
            # So that a step of the clock in the first sweep of all is credited by the second one.
            await self._store_end(connection, now.database)
            return now.database
        elapsed = None if self._swept is None else now.answered - self._swept.answered
        moved = credit(last, now.database, elapsed, self._settings.sweep_interval, self._write)
        if moved:
            async with _kept_alive(connection):
                await leases.credit_all(self._database, last, now.database)
            CREDITED.inc(abs(moved))
            log.warning("leases_credited", seconds=round(moved, 1))
            return now.database
        return last

    async def _credit_for_failures(self, connection: Session, last: float | None, now: float) -> None:
        """Credit the time since the last sweep while registry processes cannot take heartbeats."""
        reason = None if last is None else self._failing()
        if reason != self._credited_for:
            log.warning("leases_credited_for_failures", reason=reason or "over: the processes take heartbeats again")
        self._credited_for = reason
        if reason is not None and last is not None and now > last:
            async with _kept_alive(connection):
                await leases.credit_all(self._database, last, now)
            CREDITED.inc(now - last)

    async def _lapse(self, connection: Session, now: ClockReading) -> None:
        verdicts = await self._judge(connection, now)
        for task in self._refusals.ordered(Task(service, "expiry") for service in verdicts):
            verdict = verdicts[task.service]
            doubted = task in self._refusals or not self._inherited.isdisjoint(verdict.expiries)
            if doubted:
                verdict.doubt("PostgreSQL refused to change the service, so heartbeats may have been refused too")
            change = partial(
                change_service,
                self._database,
                task.service,
                _at_time(now, verdict.apply),
                expiries=verdict.expiries,
                lapsing=verdict.lapse,
            )
            if await self._change(connection, task, change):
                unheard = verdict.ids() if doubted else verdict.locked
                self._inherited -= verdict.expiries.keys()
                self._locked |= dict.fromkeys(unheard, time.monotonic())
                lapsed = len(verdict.lapse - verdict.locked)
                LAPSED.inc(lapsed)
                if lapsed or verdict.suspect:
                    log.info("leases_expired", service=task.service, lapsed=lapsed, suspected=len(verdict.suspect))

    async def _judge(self, connection: Session, now: ClockReading) -> "Mapping[str, _Verdicts]":
        """Return what is to be written down of expired leases, by service."""
        spared = self._lately_locked()
        verdicts: defaultdict[str, _Verdicts] = defaultdict(_Verdicts)
        expired = []
        candidates = await leases.expired_leases(connection, now.database)
        self._note_inherited(candidates, now)
        judged_before = now.database - self._writes.allowance(now.answered)
        for candidate in candidates:
            if candidate.expired_at >= judged_before:
                continue
            if candidate.endpoint_id in spared:
                verdicts[candidate.service].spare(candidate)
            else:
                expired.append(candidate)
        judgement = GuardDecision([], [])
        if expired:
            live, lately = await leases.count_endpoints(connection, now.database, GUARD_WINDOW)
            paused = await pauses.in_force(connection, now.database)
            hold = self._settings.last_endpoint_hold
            judgement = evaluate_guard(expired, live, lately, paused, now.database, hold, self._refusals.services)
        self._note_suspects(len(judgement.hold))
        for candidate in judgement.lapse:
            verdicts[candidate.service].let_lapse(candidate)
        for candidate, reason in judgement.hold:
            # Said once, not once a second.
            if not candidate.suspect:
                verdicts[candidate.service].hold(candidate, reason)
        return verdicts

    def _note_inherited(self, candidates: Collection[Candidate], now: ClockReading) -> None:
        """Find in the first sweep of a lead whom the leader before did not judge, and forget who is judged since.

        A leader looks at each expired lease at once, and marks as a suspect whom it holds. One that expired earlier and
        whose endpoint is no suspect belongs to a service that PostgreSQL refused to change: only that leader knew.
        """
        if self._swept is None:
            looked_at = now.database - self._settings.sweep_interval - TOLERANCE
            self._inherited = frozenset(
                one.endpoint_id for one in candidates if not one.suspect and one.expired_at < looked_at
            )
        self._inherited &= {one.endpoint_id for one in candidates}

    def _lately_locked(self) -> frozenset[int]:
        now = time.monotonic()
        self._locked = {lease: seen for lease, seen in self._locked.items() if now - seen < _LOCKED_GRACE}
        return frozenset(self._locked)

    async def _change(
        self,
        connection: Session,
        task: Task,
        change: Callable[[], Awaitable[dict[str, StoredVersion]]],
    ) -> bool:
        """Make one change; return whether it was made.

        A change that is refused is passed over, so that it holds up no other.
        """
        self._pending.add(task)
        if not self._refusals.is_due(task, time.monotonic()):
            return False
        # So that the lead is not lost for silence while a lock is waited for.
        await read_clock(connection)

        async def announce() -> None:
            self._announce(await change())

        async with _kept_alive(connection):
            return await self._attempt(task, announce)

    async def _attempt(self, task: Task, work: Callable[[], Awaitable[None]]) -> bool:
        """Do a part of the sweep; whatever refuses it, but a step of the clock, stops no other part."""
        began = time.monotonic()
        try:
            with translate_errors():
                await work()
        except ClockSteppedError:
            raise
        except Exception as error:  # noqa: BLE001  # PostgreSQL, or a defect of ours, fails for this one alone
            self._pending.add(task)
            self._note_refusal(task, error, began)
            return False
        if self._refusals.accept(task):
            log.info("sweep_resumed", **msgspec.structs.asdict(task))
        return True

    def _note_refusal(self, task: Task, error: Exception, began: float) -> None:
        """Count a refusal; log it when it is new or has another reason, not each second."""
        reason = str(error) if isinstance(error, UnavailableError) else None
        SWEEP_REFUSALS.labels(self._refused_names.label(task.service)).inc()
        if self._refusals.refuse(task, reason or repr(error), began, time.monotonic()):
            cause = error.cause if isinstance(error, UnavailableError) else reason
            # A traceback only for what is not PostgreSQL's word, and so a defect.
            log.warning(
                "sweep_refused",
                **msgspec.structs.asdict(task),
                reason=cause or repr(error),
                exc_info=error if reason is None else None,
            )

    def _note_suspects(self, suspects: int) -> None:
        SUSPECTS.set(suspects)
        if suspects != self._suspects:
            log.warning("guard_suspects_changed", suspects=suspects, before=self._suspects)
            self._suspects = suspects

    async def _remove(self, connection: Session, now: ClockReading) -> None:
        services = await leases.services_with_departed(connection, now.database, self._settings.removal_delay)
        for task in self._refusals.ordered(Task(service, "removal") for service in services):
            # Judged from memory first: those that are only held back are not worth a transaction a second.
            if self._removable(self._cache.get(task.service).endpoints.values(), now):
                remove = _at_time(now, partial(self._remove_due, now))
                await self._change(connection, task, partial(change_service, self._database, task.service, remove))

    def _remove_due(self, now: ClockReading, changeset: Changeset, _expired: Collection[int]) -> None:
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
        """Give endpoints without a lease a whole one: whose registrar renews stays, all others lapse after it.

        To let them lapse at once would expire live endpoints after rows of leases were lost.
        """
        if time.monotonic() < self._look_for_missing_at:
            # What was refused is still to be done.
            self._pending |= {one.task for one in self._refusals if one.task.action == "missing_lease"}
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
            log.warning("leases_replaced", service=service, endpoints=len(granted), ids=granted[:_MAX_NAMES])
        return {}

    def _announce(self, committed: dict[str, StoredVersion]) -> None:
        for service, numbers in committed.items():
            self._change_feed.nudge(service, numbers.change)


@asynccontextmanager
async def _kept_alive(connection: Session) -> AsyncIterator[None]:
    """Give signs of life on a connection while the block waits for another one.

    Raises:
        UnavailableError: the connection is lost.
    """
    over = asyncio.Event()
    pings = asyncio.create_task(_ping(connection, over))
    try:
        yield
    finally:
        over.set()
        # Waited for, not cancelled: that would leave the connection in the middle of a statement.
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
    """Tell whether a connection is there and answers."""
    if connection.invalidated:
        return False
    try:
        async with asyncio.timeout(_PING_TIMEOUT):
            with translate_errors():
                await read_clock(connection)
    except (UnavailableError, TimeoutError):
        return False
    return True


class _Verdicts:
    """What was decided for the endpoints of one service, by their ids.

    Attributes:
        expiries: when the lease of each expired.
        lapse: who lapses.
        suspect: who is held, and why.
        locked: once applied: who renewed meanwhile, or could not because the lease is locked.
    """

    def __init__(self) -> None:
        self.expiries: dict[int, float] = {}
        self.lapse: set[int] = set()
        self.suspect: dict[int, str] = {}
        self.locked: frozenset[int] = frozenset()

    def spare(self, candidate: Candidate) -> None:
        """Only look again at one whose lease was locked, so that it takes no share of the guard's from others."""
        self.expiries[candidate.endpoint_id] = candidate.expired_at

    def let_lapse(self, candidate: Candidate) -> None:
        """Let one lapse."""
        self.spare(candidate)
        self.lapse.add(candidate.endpoint_id)

    def hold(self, candidate: Candidate, reason: str) -> None:
        """Hold one as a suspect."""
        self.spare(candidate)
        self.suspect[candidate.endpoint_id] = reason

    def doubt(self, reason: str) -> None:
        """Hold as suspects those who would lapse: a heartbeat that could not be stored comes again in a moment."""
        self.suspect |= dict.fromkeys(self.lapse, reason)
        self.lapse.clear()

    def ids(self) -> list[int]:
        """Return whom this is about."""
        return list(self.expiries)

    def apply(self, changeset: Changeset, expired: Collection[int]) -> None:
        """Write it down, but for those who renewed meanwhile, or could not because their lease is locked."""
        self.locked = frozenset(self.expiries) - frozenset(expired)
        for endpoint in changeset.all_listed():
            if endpoint.id not in expired:
                continue
            if endpoint.id in self.lapse:
                changeset.lapse(endpoint.key, self.expiries[endpoint.id])
            elif endpoint.id in self.suspect:
                changeset.suspect(endpoint.key, self.suspect[endpoint.id])


class _Names:
    """The first services that were refused, as labels of a metric: no more of them than it can bear."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, service: str) -> str:
        """Return the name itself, or ``other`` once there are many."""
        if len(self._known) < _MAX_NAMES:
            self._known.add(service)
        return service if service in self._known else "other"


def _ending(key: Key) -> Task:
    service, address, port = key
    return Task(service, "override_end", format_endpoint(address, port))


_Decided = ParamSpec("_Decided")


def _at_time(
    judged_at: ClockReading, decide: Callable[Concatenate[Changeset, _Decided], None]
) -> Callable[Concatenate[Changeset, _Decided], None]:
    """Return ``decide`` for a transaction that is given up when PostgreSQL's clock was set since ``judged_at``."""
    asked = time.monotonic()

    def decide_at_time(changeset: Changeset, /, *given: _Decided.args, **named: _Decided.kwargs) -> None:
        _refuse_step(judged_at, ClockReading(changeset.now, asked, time.monotonic()))
        decide(changeset, *given, **named)

    return decide_at_time


def _refuse_step(earlier: ClockReading, later: ClockReading) -> None:
    step = clock_step(earlier, later)
    if step:
        raise ClockSteppedError(step)
