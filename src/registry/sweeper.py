"""The job that expires leases, removes who is gone, ends overrides and prunes; one process does it for all."""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial

import structlog

from registry.changes import Changes
from registry.directory import Directory
from registry.endpoint import Endpoint, Key
from registry.errors import UnavailableError
from registry.guard import WINDOW, Judgement, judge
from registry.leases import credit, removable
from registry.ledger import Ledger
from registry.metrics import CREDITED, LAPSED, LEADER, SUSPECTS, SWEEP_SECONDS, SWEEPS
from registry.settings import Settings
from registry.store import leases, pauses
from registry.store.database import Database, Session, clock
from registry.store.failures import outages
from registry.store.transaction import Committed, change_places, change_service

log = structlog.get_logger()

_LEAST_SILENCE = 5.0
"""Seconds after which a leader that says nothing has lost the lead, at the least."""

_LOCKED_GRACE = 10.0
"""Seconds in which a lease does not lapse after it was found locked: a renewal was kept waiting, and comes again."""


class Sweeper:
    """Sweeps once a call, if this process leads.

    The leader holds an advisory lock on a connection of its own: when the process or the connection dies,
    PostgreSQL gives the lead to the next that asks.

    Args:
        database: where.
        directory: what this process knows of endpoints.
        changes: is told what was changed.
        settings: how often to sweep, and how long to wait.
        failing: returns why leases are to be credited although sweeps are made, once a sweep: registry processes
            cannot take heartbeats. None: they can.
    """

    def __init__(
        self,
        database: Database,
        directory: Directory,
        changes: Changes,
        settings: Settings,
        failing: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._failing = failing
        # Why leases were credited in the last sweep although it was made.
        self._credited_for: str | None = None
        self._database = database
        self._directory = directory
        self._changes = changes
        self._settings = settings
        self._lead = AsyncExitStack()
        self._connection: Session | None = None
        self._swept_at: float | None = None
        self._suspects = 0
        self._locked: dict[int, float] = {}
        self._passed_over: set[str] = set()

    @property
    def leads(self) -> bool:
        """Whether this process sweeps for all."""
        return self._connection is not None

    async def sweep(self) -> None:
        """Look for lapsed leases and departed endpoints, or ask for the lead if nobody has it."""
        try:
            # Who cannot read the state is not to judge it.
            if self._connection is None and self._directory.ready and not self._directory.stale:
                await self._ask_for_lead()
            if self._connection is not None:
                with outages(), SWEEP_SECONDS.time():
                    await self._sweep(self._connection)
        except UnavailableError as error:
            if self.leads:
                log.warning("lost the lead of sweeping", reason=error.cause)
            await self.resign()
        except Exception:
            # Whatever it is, another process may fare better.
            await self.resign()
            raise

    async def prune(self) -> None:
        """Delete old tombstones and old history, if this process leads."""
        if not self.leads:
            return
        try:
            await leases.prune(
                self._database,
                tombstones=self._settings.tombstone_retention,
                history=self._settings.event_retention,
            )
        except UnavailableError as error:
            log.warning("nothing pruned", reason=error.cause)

    async def resign(self) -> None:
        """Give the lead back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # The lock lives as long as the connection: back in the pool, it would keep the lead from everybody.
            await connection.invalidate()
        lead, self._lead = self._lead, AsyncExitStack()
        await lead.aclose()
        LEADER.set(0)

    async def _ask_for_lead(self) -> None:
        async with AsyncExitStack() as stack:
            silence = max(_LEAST_SILENCE, 5 * self._settings.sweep_interval)
            connection = await stack.enter_async_context(self._database.session())
            if await leases.lead(connection, silence):
                self._connection, self._swept_at = connection, None
                self._lead = stack.pop_all()
                LEADER.set(1)
                log.info("this process sweeps")

    async def _sweep(self, connection: Session) -> None:
        now, last = await leases.last_sweep(connection)
        elapsed = None if self._swept_at is None else time.monotonic() - self._swept_at
        moved = credit(last, now, elapsed, self._settings.sweep_interval)
        if moved and last is not None:
            await leases.credit_all(self._database, last, now)
            CREDITED.inc(abs(moved))
            log.warning("leases credited for time in which nobody swept", seconds=round(moved, 1))
            last = now
        await self._credit_for_failures(last, now)
        await self._lapse(connection, now)
        await self._remove(connection, now)
        await self._end_overrides(connection)
        if self._credited_for is None:
            # Otherwise time was counted as swept until ``now``: what this sweep took is credited by the next one.
            await leases.swept(connection)
        self._swept_at = time.monotonic()
        SWEEPS.inc()

    async def _credit_for_failures(self, last: float | None, now: float) -> None:
        """Credit the time since the last sweep while registry processes cannot take heartbeats."""
        reason = None if last is None else self._failing()
        if reason != self._credited_for:
            log.warning("leases_credited_for_failures", reason=reason or "over: the processes take heartbeats again")
        self._credited_for = reason
        if reason is not None and last is not None and now > last:
            await leases.credit_all(self._database, last, now)
            CREDITED.inc(now - last)

    async def _lapse(self, connection: Session, now: float) -> None:
        spared = self._lately_locked()
        verdicts: defaultdict[str, _Verdicts] = defaultdict(_Verdicts)
        expired = []
        for candidate in await leases.expired(connection):
            if candidate.endpoint_id in spared:
                verdicts[candidate.service].spared.add(candidate.endpoint_id)
            else:
                expired.append(candidate)
        judgement = Judgement([], [])
        if expired:
            live, lately = await leases.population(connection, WINDOW)
            paused = await pauses.in_force(connection)
            hold = self._settings.last_endpoint_hold
            judgement = judge(expired, live, lately, paused, now, hold, self._passed_over)
        self._note_suspects(len(judgement.hold))
        for candidate in judgement.lapse:
            verdicts[candidate.service].lapse[candidate.endpoint_id] = candidate.expired_at
        for candidate, reason in judgement.hold:
            # Said once, not once a second.
            if not candidate.suspect:
                verdicts[candidate.service].suspect[candidate.endpoint_id] = reason
        for service, verdict in verdicts.items():
            change = partial(
                change_service,
                self._database,
                service,
                verdict.apply,
                suspected=verdict.ids(),
                lapsing=verdict.lapse,
            )
            if await self._change(connection, service, change):
                self._locked |= dict.fromkeys(verdict.locked, time.monotonic())
                lapsed = len(verdict.lapse.keys() - verdict.locked)
                LAPSED.inc(lapsed)
                if lapsed or verdict.suspect:
                    log.info("leases expired", service=service, lapsed=lapsed, suspected=len(verdict.suspect))

    def _lately_locked(self) -> frozenset[int]:
        now = time.monotonic()
        self._locked = {lease: seen for lease, seen in self._locked.items() if now - seen < _LOCKED_GRACE}
        return frozenset(self._locked)

    async def _change(
        self,
        connection: Session,
        service: str,
        change: Callable[[], Awaitable[dict[str, Committed]]],
    ) -> bool:
        """Change one service; one that cannot be changed now is passed over, so that it holds up no other."""
        # So that the lead is not lost for silence while a lock is waited for.
        await clock(connection)
        try:
            self._announce(await change())
        except UnavailableError as error:
            log.warning("a service could not be swept", service=service, reason=error.cause)
            self._passed_over.add(service)
            return False
        self._passed_over.discard(service)
        return True

    def _note_suspects(self, suspects: int) -> None:
        SUSPECTS.set(suspects)
        if suspects != self._suspects:
            log.warning("mass-expiry guard", suspects=suspects, before=self._suspects)
            self._suspects = suspects

    async def _remove(self, connection: Session, now: float) -> None:
        for service in await leases.departing(connection, self._settings.removal_delay):
            # Judged from memory first: those that are only held back are not worth a transaction a second.
            if self._removable(self._directory.get(service).endpoints.values(), now):
                await self._change(
                    connection, service, partial(change_service, self._database, service, self._remove_due)
                )

    def _remove_due(self, ledger: Ledger, _expired: Collection[int]) -> None:
        for endpoint in self._removable(ledger.all_listed(), ledger.now):
            ledger.remove(endpoint.key)

    def _removable(self, endpoints: Collection[Endpoint], now: float) -> list[Endpoint]:
        return removable(endpoints, now, self._settings.removal_delay, self._settings.last_endpoint_hold)

    async def _end_overrides(self, connection: Session) -> None:
        for key in await leases.ended_overrides(connection):
            change = partial(change_places, self._database, {key[0]}, {key[1:]}, _ender(key))
            await self._change(connection, key[0], change)

    def _announce(self, committed: dict[str, Committed]) -> None:
        for service, numbers in committed.items():
            self._changes.nudge(service, numbers.change)


class _Verdicts:
    """What was decided for the endpoints of one service, by their ids."""

    def __init__(self) -> None:
        self.lapse: dict[int, float] = {}
        self.suspect: dict[int, str] = {}
        # Not judged, so that they take no share of the guard's from those that can lapse; only looked at again.
        self.spared: set[int] = set()
        self.locked: frozenset[int] = frozenset()

    def ids(self) -> list[int]:
        """Return whom this is about."""
        return [*self.lapse, *self.suspect, *self.spared]

    def apply(self, ledger: Ledger, expired: Collection[int]) -> None:
        """Write it down, but for those who renewed meanwhile, or could not because their lease is locked."""
        self.locked = frozenset(self.ids()) - frozenset(expired)
        for endpoint in ledger.all_listed():
            if endpoint.id not in expired:
                continue
            if endpoint.id in self.lapse:
                ledger.lapse(endpoint.key, self.lapse[endpoint.id])
            elif endpoint.id in self.suspect:
                ledger.suspect(endpoint.key, self.suspect[endpoint.id])


def _ender(key: Key) -> Callable[[Ledger], None]:
    def end(ledger: Ledger) -> None:
        ledger.end_override(key)

    return end
