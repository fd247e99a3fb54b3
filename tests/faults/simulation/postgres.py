"""A PostgreSQL in memory: what its tables hold, whether it can be reached, and what time it says."""

from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal

import asyncpg
from faults.simulation.clock import Clock
from msgspec import Struct
from msgspec.structs import replace

from registry.core.endpoint import Endpoint, Key, Override
from registry.core.evidence import Statement
from registry.core.expiry_guard import Pause
from registry.core.processes import StoredReport
from registry.errors import UnavailableError
from registry.store.failures import translate_errors

_EPOCH = 1_000_000.0
_REMEMBERED = 4.0
"""Seconds of commits that a fail-over may lose."""


class Numbers(Struct, frozen=True, gc=False):
    """A row of ``services``."""

    version: int = 0
    change: int = 0
    floor: int = 0
    timeline: int = 0


class Held(Struct, frozen=True, gc=False):
    """A row of ``leases``; ``silence`` is the witness's, and as old as the row: see there."""

    incarnation: int
    renewed_at: float
    expires_at: float
    ttl: float
    change: int
    silence: float = 0.0


class Refusal(Struct, frozen=True, gc=False, eq=False):
    """An error that PostgreSQL answers some statements with although it is there.

    ``statements`` are names of functions of ``registry.store``. ``database`` is that of the one process that gets the
    error, None for all processes.
    """

    error: asyncpg.PostgresError
    statements: frozenset[str]
    database: object | None = None


ServiceRefusal = Literal["events", "services"]
"""What of one service cannot be stored: its events, so that none of its endpoints changes, or even its own row."""
REFUSED_OF_SERVICE: tuple[ServiceRefusal, ...] = ("events", "services")

EVENTS_REFUSED = asyncpg.CheckViolationError('new row for relation "events" violates check constraint "planted"')
ROW_REFUSED = asyncpg.NumericValueOutOfRangeError("bigint out of range")


def refuse(error: asyncpg.PostgresError) -> None:
    """Raise an error of PostgreSQL as the functions of ``registry.store`` raise it."""
    with translate_errors():
        # A new object each time, because a traceback grows with each raise; the severity says that it is PostgreSQL's.
        answer = type(error)(*error.args)
        answer.severity = "ERROR"
        raise answer


class Tables:
    """Everything that a commit can change.

    For the witness, ``left`` says which incarnations left for good, ``owner`` which start of an instance owns an
    address, and ``lost`` from which it was taken; a fail-over may lose that too.
    """

    def __init__(self) -> None:
        self.services: dict[str, Numbers] = {}
        self.endpoints: dict[int, Endpoint] = {}
        self.leases: dict[int, Held] = {}
        self.overrides: dict[Key, Override] = {}
        self.pauses: dict[str, Pause] = {}
        self.expelled: dict[str, tuple[float, ...]] = {}
        self.processes: dict[str, StoredReport] = {}
        self.statements: dict[str, tuple[Statement, ...]] = {}
        self.last_sweep: float | None = None
        self.next_id = 1
        self.left: dict[tuple[Key, str], int] = {}
        self.owner: dict[tuple[Key, str], int] = {}
        self.lost: dict[tuple[Key, str], tuple[int, ...]] = {}

    def copy(self) -> "Tables":
        """Return tables that later commits do not touch; rows are immutable."""
        twin = Tables.__new__(Tables)
        for name, value in vars(self).items():
            setattr(twin, name, value.copy() if isinstance(value, dict) else value)
        return twin

    def listed(self, service: str | None = None) -> list[Endpoint]:
        """Return the endpoints that are not tombstones, in the order of their ids."""
        return [
            row
            for row in self.endpoints.values()
            if row.removed_at is None and (service is None or row.service == service)
        ]

    def listed_and_lost(self, service: str) -> list[Endpoint]:
        """Return the endpoints of a service that are listed or lost, with their overrides."""
        rows = [row for row in self.endpoints.values() if row.service == service]
        return [self.joined(row) for row in rows if row.removed_at is None or row.lost_at is not None]

    def joined(self, row: Endpoint) -> Endpoint:
        """Return a row with its override, and without anything that a reader may have kept in it."""
        return replace(row, override=self.overrides.get(row.key))


class Postgres:
    """One primary at a time.

    ``life`` counts its crashes and fail-overs: connections of an older one are dead. ``timeline`` counts the fail-overs
    alone. ``offset`` is what its clock is wrong by. ``lead`` is the holder of the sweeper's advisory lock. ``fsync`` is
    how many seconds each commit of a sweep takes. ``refusals`` are the statements that it refuses, and
    ``refused_services`` the services of which it refuses to store something.
    """

    def __init__(self, clock: Clock) -> None:
        self.tables = Tables()
        self.away = False
        self.unwritable = False
        self.life = 0
        self.timeline = 0
        self.offset = 0.0
        self.lead: object | None = None
        self.fsync = 0.0
        self.refusals: list[Refusal] = []
        self.refused_services: dict[str, ServiceRefusal] = {}
        self._clock = clock
        self._before: deque[tuple[float, Tables]] = deque()

    @property
    def now(self) -> float:
        """What its clock says."""
        return _EPOCH + self._clock.now + self.offset

    @property
    def real(self) -> float:
        """What a clock says that nobody sets."""
        return self._clock.now

    def reach(self, *, write: bool) -> None:
        """Raise UnavailableError unless it answers."""
        if self.away:
            raise UnavailableError("PostgreSQL is away")
        if write and self.unwritable:
            raise UnavailableError("PostgreSQL is away: the disk is full")

    def store_events(self, services: Collection[str]) -> None:
        """Raise what PostgreSQL answers to new events of services, if it refuses those of one."""
        if any(name in self.refused_services for name in services):
            refuse(EVENTS_REFUSED)

    def store_numbers(self, services: Collection[str]) -> None:
        """Raise what PostgreSQL answers to new numbers of services, if it refuses those of one."""
        if any(self.refused_services.get(name) == "services" for name in services):
            refuse(ROW_REFUSED)

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        """Lend the tables; what was done to them is undone by an exception."""
        before, moment = self.tables.copy(), self._clock.now
        try:
            yield self.tables
        except BaseException:
            self.tables = before
            raise
        self._before.append((moment, before))
        while self._before[0][0] < moment - _REMEMBERED:
            self._before.popleft()

    def crash(self) -> None:
        """End every connection; nothing that was committed is lost."""
        self._begin_anew()
        self.away = True

    def promote(self, lost: float, offset: float) -> None:
        """Let a standby take over that has not heard of the last ``lost`` seconds and has another clock."""
        for moment, before in self._before:
            if moment >= self._clock.now - lost:
                self.tables = before.copy()
                break
        self._before.clear()
        self.offset += offset
        self.timeline += 1
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.life += 1
        self.lead = None
        # The table is unlogged.
        self.tables.processes = {}
