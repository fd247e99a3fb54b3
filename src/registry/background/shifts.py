"""The job that advances shifts of traffic, in the process that sweeps for all.

At each look it takes what Envoys counted since the step began, asks the rule (`registry.core.shift`) and stores what
follows. A step, or an abort, is stored with the shares in one transaction, whose notification lets all processes serve
them. What was counted meanwhile is stored every few seconds, so that another leader goes on from there. A shift that
cannot be looked at keeps back no other, and while PostgreSQL is away all of them hold.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from msgspec import Struct

from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.shift import Change, Look, Shift, Strength, look, strength_of
from registry.core.shift_counts import StepCounts
from registry.core.shift_statistics import Counts
from registry.errors import ShiftConflictError, UnavailableError
from registry.metrics import SHIFT_FAILURES, SHIFT_STEPS, SHIFTS_RUNNING
from registry.store import shifts as store
from registry.store.database import Database, read_clock
from registry.store.shifts import RunningShift

log = structlog.get_logger()

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the shifts that are running."""
_NOTE_INTERVAL = 5.0
"""Seconds after which what was counted is stored although nothing else has changed."""
_FIRST_PAUSE = 5.0
"""Seconds for which a shift is left alone after a failure: it takes as long until a row that is locked is given up."""
_MAX_PAUSE = 30.0
"""Seconds for which a shift that fails again and again is left alone; each pause before is half as long."""


class EndpointTotals(Struct, frozen=True):
    """The attempts that Envoys counted at the endpoints of one service within some seconds.

    Attributes:
        endpoints: the counts by endpoint (``address:port``).
        callers: the Envoys that have traffic to the service.
        reporting: those of them that count its endpoints.
    """

    endpoints: Mapping[str, Counts]
    callers: int
    reporting: int


EndpointFigures = Callable[[str, float], Awaitable[EndpointTotals]]
"""Returns what Envoys counted for the endpoints of a service within so many seconds."""


class _Watched(Struct):
    """A running shift as the leader knows it between two looks.

    Attributes:
        shift: the shift, with what was counted since it was stored.
        noted_at: monotonic time at which it was last stored.
        looked_at: monotonic time of the last look, or of the reading of its row.
        strength: what is routable, as of ``change``.
        counts: what the endpoints had since the step began; another process that leads begins anew.
        change: the service's change that ``strength`` was computed from.
    """

    shift: Shift
    noted_at: float
    looked_at: float
    counts: StepCounts
    strength: Strength = Strength(0, 0, 0, 0)
    change: int = -1


class _Failure(Struct, frozen=True):
    """The last failure of a shift.

    Attributes:
        reason: why it could not be looked at or stored.
        serial: of the row that failed; another one, which an order made, is looked at at once.
        pause: seconds from the failure to the next look, so that others are not kept waiting at each look.
        again_at: monotonic time of the next look.
    """

    reason: str
    serial: int
    pause: float
    again_at: float


def _failed(before: _Failure | None, row: RunningShift, reason: str, now: float) -> _Failure:
    """Return the failure of a shift that has failed before, or has not."""
    repeated = before is not None and before.serial == row.serial
    pause = min(2 * before.pause, _MAX_PAUSE) if before is not None and repeated else _FIRST_PAUSE
    return _Failure(reason, row.serial, pause, now + pause)


class Shifts:
    """Advances and aborts shifts while this process leads.

    Args:
        database: where they are.
        cache: the endpoints as this process knows them.
        change_feed: reads at once what was stored.
        leads: returns whether this process sweeps for all.
        figures: what Envoys counted.
    """

    def __init__(
        self,
        database: Database,
        cache: SnapshotCache,
        change_feed: ChangeFeed,
        leads: Callable[[], bool],
        figures: EndpointFigures,
    ) -> None:
        self._database = database
        self._cache = cache
        self._change_feed = change_feed
        self._leads = leads
        self._figures = figures
        self._watched: dict[str, _Watched] = {}
        """The running shifts by service, as of the last look; emptied while another process leads."""
        self._failures: dict[str, _Failure] = {}
        """The shifts whose last look failed; each reason is logged once."""

    async def advance(self) -> None:
        """Look at all running shifts once, if this process leads and knows the present state.

        Raises:
            UnavailableError: PostgreSQL is away; all shifts hold until it is back.
        """
        if not self._leads() or self._cache.stale:
            self._watched.clear()
            self._note_failures({})
            SHIFTS_RUNNING.set(0)
            return
        async with self._database.session() as connection:
            rows = await store.running(connection)
            SHIFTS_RUNNING.set(len(rows))
            if not rows and not self._watched:
                return
            now = await read_clock(connection)
            await self._follow(rows, await store.read(connection, self._unread(rows)))
        failures: dict[str, _Failure] = {}
        # A row that is locked is waited for: the others have their turn before those that failed last time.
        rows.sort(key=lambda row: row.service in self._failures)
        async for row in cooperatively(rows):
            before = self._failures.get(row.service)
            if before is not None and before.serial == row.serial and time.monotonic() < before.again_at:
                failures[row.service] = before
                continue
            try:
                await self._advance(row, now)
            except Exception as error:  # one shift that fails keeps back no other
                if isinstance(error, UnavailableError) and not await self._database.answers():
                    raise
                reason = error.cause if isinstance(error, UnavailableError) else repr(error)
                failures[row.service] = _failed(before, row, reason, time.monotonic())
        self._note_failures(failures)

    def _unread(self, rows: Iterable[RunningShift]) -> list[str]:
        """Return the services whose shift is another one than that of the last look."""
        return [
            row.service
            for row in rows
            if (watched := self._watched.get(row.service)) is None or watched.shift.serial != row.serial
        ]

    async def _follow(self, rows: Iterable[RunningShift], read: Mapping[str, Shift | None]) -> None:
        followed = {}
        for row in rows:
            before, shift = self._watched.get(row.service), read.get(row.service)
            if row.service not in read and before is not None:
                followed[row.service] = before
            elif shift is not None and shift.state == "running":
                # A step begins when it is read here: what was attempted since the last look may be of before it.
                moment = time.monotonic()
                followed[row.service] = _Watched(shift, moment, moment, StepCounts(shift.plan.selector))
        self._watched = followed

    async def _advance(self, row: RunningShift, now: float) -> None:
        watched = self._watched.get(row.service)
        if watched is None:
            raise ValueError("its row cannot be read: start the shift anew, which replaces it")
        change = look(watched.shift, await self._look(watched, row), now)
        if change.publishes:
            await self._publish(row, change)
            return
        news = change.event is not None or bool(change.shift.held) != bool(watched.shift.held)
        watched.shift = change.shift
        if news or time.monotonic() - watched.noted_at >= _NOTE_INTERVAL:
            await store.note(self._database, change)
            watched.noted_at = time.monotonic()

    async def _look(self, watched: _Watched, row: RunningShift) -> Look:
        """Return what is known now, and remember what the next look is compared with.

        Raises:
            UnavailableError: this process cannot read the service.
        """
        # Without endpoints it would be aborted, although it may have all of them.
        self._cache.check_sure(row.service)
        shift, moment = watched.shift, time.monotonic()
        elapsed = moment - watched.looked_at
        figures = await self._figures(row.service, shift.step_age + elapsed)
        self._cache.check_sure(row.service)
        watched.looked_at = moment
        snapshot = self._cache.get(row.service)
        if snapshot.change != watched.change:
            strength = strength_of(snapshot.endpoints.values(), shift.plan.selector, shift.plan.others)
            watched.strength, watched.change = strength, snapshot.change
        group, rest = watched.counts.sums(figures.endpoints, snapshot.endpoints)
        return Look(elapsed, group, rest, figures.callers, figures.reporting, watched.strength, row.shares)

    async def _publish(self, row: RunningShift, change: Change) -> None:
        """Store a step or the end of a shift, unless somebody has changed it since it was read."""
        serial = row.serial

        def decide(stored: Shift | None, *_: object) -> Change:
            if stored is None or stored.serial != serial or stored.state != "running":
                raise ShiftConflictError("the shift was changed meanwhile")
            return change

        try:
            stored = await store.change_shift(self._database, row.service, decide)
        except ShiftConflictError:
            return
        if stored is None:
            return
        self._change_feed.nudge(row.service, stored.numbers.change)
        event = change.event
        if event is not None:
            SHIFT_STEPS.labels(event.kind).inc()
            log.info(event.kind, service=row.service, percent=stored.shift.percent, reason=event.reason)

    def _note_failures(self, failures: Mapping[str, _Failure]) -> None:
        for service, failure in failures.items():
            before = self._failures.get(service)
            if before is None or before.reason != failure.reason:
                log.error("shift_failed", service=service, reason=failure.reason)
        SHIFT_FAILURES.set(len(failures))
        self._failures = dict(failures)
