"""Writes the audit to PostgreSQL in batches, and deletes what is old or too much."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from registry.core.audit import MAX_WAITING, AuditEntry, AuditQueue, Pending
from registry.core.status import AuditState
from registry.errors import RefusedError, UnavailableError
from registry.metrics import AUDIT_LOST
from registry.settings import Settings
from registry.store import audit as store
from registry.store.database import Database
from registry.store.left_out import StoredApart

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between two batches."""
PRUNE_INTERVAL = 60.0
"""Seconds between two deletions of what is old or too much."""
_MAX_BATCH = 1_000
"""Entries of one batch."""
_MAX_COUNTS = 1_000
"""Counts of refusals that are stored again at a time."""
_FINISH_TIMEOUT = 2.0
"""Seconds for which a process that stops waits for its last entries to be stored."""

_Batch = Sequence[tuple[Pending, AuditEntry]]


class AuditWriter:
    """Stores the entries of the audit's queue; while PostgreSQL is away they wait, within the queue's bound.

    Args:
        database: where the audit is.
        queue: the entries that wait.
        settings: how long entries are kept, and how many.
        leads: returns whether this process is the one that deletes for all.
    """

    def __init__(self, database: Database, queue: AuditQueue, settings: Settings, leads: Callable[[], bool]) -> None:
        self._database = database
        self._queue = queue
        self._settings = settings
        self._leads = leads
        self._lost = 0
        """How many lost entries the metric has; written by write()."""
        self._counts = StoredApart[tuple[Pending, int]]("audit_counts", lambda each: f"audit {each[0].id}")

    def state(self) -> AuditState:
        """Return how much waits, and whether anything was lost."""
        queue = self._queue
        lost_ago = None if queue.lost_at is None else time.monotonic() - queue.lost_at
        return AuditState(len(queue), MAX_WAITING, queue.lost, lost_ago)

    async def write(self) -> None:
        """Store what waits.

        Raises:
            UnavailableError: PostgreSQL is away, or takes no entries at all; what waits goes on waiting.
        """
        try:
            while batch := self._queue.batch(_MAX_BATCH):
                await self._store(batch)
            await self._store_counts()
        finally:
            lost, self._lost = self._queue.lost - self._lost, self._queue.lost
            AUDIT_LOST.inc(lost)

    async def finish(self) -> None:
        """Store what waits when the process stops, if PostgreSQL takes it soon."""
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(_FINISH_TIMEOUT):
                await self.write()
        if len(self._queue):
            log.warning("audit_lost", entries=len(self._queue), reason="the process stopped before they were stored")

    async def prune(self) -> None:
        """Delete entries that are old or too many if this process leads."""
        if not self._leads():
            return
        try:
            excess = await store.prune(
                self._database, age=self._settings.audit_retention, most=self._settings.audit_max_rows
            )
        except UnavailableError as error:
            log.warning("audit_not_pruned", reason=error.cause)
            return
        if excess:
            limit = self._settings.audit_max_rows
            log.warning("audit_cut", entries=excess, limit=limit, setting="REGISTRY_AUDIT_MAX_ROWS")

    async def _store(self, batch: _Batch) -> None:
        """Store a batch; an entry that PostgreSQL refuses is found by bisection, and does not stop the others."""
        try:
            async with self._database.transaction() as connection:
                rows: Sequence[int | None] = await store.add_entries(connection, [entry for _, entry in batch])
        except RefusedError as error:
            if not error.row_specific:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._store(batch[:middle])
                await self._store(batch[middle:])
                return
            log.warning("audit_entry_refused", reason=error.cause)
            rows = [None]
        self._queue.settle(batch, rows, time.monotonic())

    async def _store_counts(self) -> None:
        counts = self._queue.counts(time.monotonic(), _MAX_COUNTS)
        if not counts:
            return
        await self._counts.store(counts, self._store_some_counts)
        # A count that was left out stays as it is.
        self._queue.settle_counts(counts, time.monotonic())

    async def _store_some_counts(self, counts: Sequence[tuple[Pending, int]]) -> None:
        async with self._database.transaction() as connection:
            await store.set_counts(connection, [(pending.id or 0, count) for pending, count in counts])
