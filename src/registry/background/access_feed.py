"""Follows the credentials and identities in PostgreSQL, and keeps the table of this process as new.

It asks once a second whether anything has changed. A notification would be faster, and could be lost; a revocation has
to be everywhere in five seconds, and one short query a second is cheaper than to be wrong.
"""

import asyncio
import time
from collections.abc import Collection
from itertools import islice

import structlog

from registry.auth.access_table import AccessTable
from registry.core.clock import Clock
from registry.errors import ClocksDifferError, UnavailableError
from registry.metrics import ACCESS_READ_FAILURES, ACCESS_ROWS_UNREADABLE
from registry.store import credentials as store
from registry.store.database import Database

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between two looks at PostgreSQL."""
_RESYNC_INTERVAL = 30.0
"""Seconds after which everything is read, whether the generation has changed or not: a person may have written it."""
_MAX_BATCH = 1_000
"""Credentials that one statement searches."""
_SEARCH_INTERVAL = 0.02
"""Seconds between two searches: made-up credentials must not keep PostgreSQL busy."""
_MAX_WAITING = 20_000
"""Credentials that wait to be searched; beyond it requests are refused for the moment."""
_FAILURE_TTL = 1.0
"""Seconds after a search that failed in which no other one is tried, so that no request waits for PostgreSQL."""
_MISS_TTL = 5.0
"""Seconds for which a credential that was not found is not searched again."""
_MAX_MISSES = 10_000
"""Credentials that were not found and are remembered."""
_USED_INTERVAL = 60.0
"""Seconds between two notes of which tokens were used."""
_LOOK_AGAIN_INTERVAL = 1_800.0
"""Seconds after which long connections are identified again, so that a token in steady use is noted as used."""
_PRUNE_INTERVAL = 600.0
"""Seconds between two deletions of credentials that ended long ago."""

_Outcome = bool | UnavailableError
"""The outcome of a search: whether the credential was found, or why that is not known."""


class AccessFeed:
    """Reads credentials and identities, and finds sessions of logins at other processes.

    Args:
        database: where they are.
        table: what this process knows of them.
        clock: PostgreSQL's time.
    """

    def __init__(self, database: Database, table: AccessTable, clock: Clock) -> None:
        self._database = database
        self._table = table
        self._clock = clock
        self._generation: int | None = None
        """The generation of the table as it was last read; None: it has to be read, whatever it is."""
        self._reading = asyncio.Lock()
        """Held while the table is read: an older state must not replace a newer one."""
        self._resync_due = 0.0
        """When everything is read next (monotonic)."""
        self._following = False
        """Whether the last look succeeded; for the log. Written by follow()."""
        self._waiting: dict[str, asyncio.Future[_Outcome]] = {}
        """Credentials to search, by their id; several requests share one. Emptied by _search_all()."""
        self._search: asyncio.Task[None] | None = None
        """Searches until nothing waits; None: nothing does."""
        self._failed_at = -_FAILURE_TTL
        """When a search last failed (monotonic)."""
        self._misses: dict[str, float] = {}
        """When credentials were last not found (monotonic), by their id."""
        self._used_due = 0.0
        """When used tokens are noted next (monotonic)."""
        self._look_again_due = time.monotonic() + _LOOK_AGAIN_INTERVAL
        """When long connections are identified again next (monotonic)."""
        self._clocks_differ = False
        """Whether the last deletion was left out, because PostgreSQL's clock is not that of this process; for the log.
        Written by _prune()."""
        self._prune_due = 0.0
        """When ended credentials are deleted next (monotonic)."""

    def expire(self) -> None:
        """End the credentials that have expired; needs no PostgreSQL."""
        self._table.expire(self._clock.now())
        now = time.monotonic()
        if now >= self._look_again_due:
            self._look_again_due = now + _LOOK_AGAIN_INTERVAL
            self._table.look_again()

    async def load(self) -> None:
        """Read the credentials before anything is answered by them.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        await self._read()

    async def follow(self) -> None:
        """Read what has changed since the last time; while PostgreSQL is away, the table stays as it is.

        Any other error is a defect and no outage: it is counted, and the job that calls this logs it.
        """
        try:
            await self._read()
            # Where PostgreSQL refuses writes no session can be renewed, which is the same as away.
            await self._keep()
        except UnavailableError as error:
            self._table.mark_away()
            # After a fail-over the same number may stand for something else.
            self._generation = None
            if self._following:
                log.warning("access_feed_lost", reason=error.cause)
            self._following = False
        except Exception:
            ACCESS_READ_FAILURES.inc()
            raise
        else:
            self._table.mark_read(self._clock.now())
            if not self._following:
                log.info("access_feed_following", tokens=len(self._table.tokens()))
            self._following = True

    async def refresh(self) -> None:
        """Read at once what a request has stored; if that fails, it is read within a second.

        No error comes out of here: what was stored stands, and the request must not be answered as if it did not.
        """
        try:
            await self._read()
        except UnavailableError as error:
            log.info("access_not_refreshed", reason=error.cause)
        except Exception:
            ACCESS_READ_FAILURES.inc()
            log.exception("access_not_refreshed")

    async def find_credential(self, credential_id: str) -> bool:
        """Search a credential that this process has not read; return whether there is one.

        All that wait are searched by one statement, so that a process that has just started finds the sessions of
        10,000 registrars in a second.

        Raises:
            UnavailableError: it cannot be searched now.
        """
        now = time.monotonic()
        missed_at = self._misses.get(credential_id)
        if missed_at is not None and now - missed_at < _MISS_TTL:
            return False
        waiting = self._waiting.get(credential_id)
        if waiting is None:
            waiting = self._begin_search(credential_id, now)
        outcome = await asyncio.shield(waiting)
        if isinstance(outcome, UnavailableError):
            raise UnavailableError(str(outcome))
        return outcome

    async def stop(self) -> None:
        """End a search that is under way."""
        search = self._search
        if search is not None:
            search.cancel()
            await asyncio.wait([search])

    def _begin_search(self, credential_id: str, now: float) -> "asyncio.Future[_Outcome]":
        if now - self._failed_at < _FAILURE_TTL:
            raise UnavailableError("the credential is not known to this process, and PostgreSQL is away")
        if len(self._waiting) >= _MAX_WAITING:
            raise UnavailableError("too many credentials that this process does not know are sent; try again")
        waiting = self._waiting[credential_id] = asyncio.get_running_loop().create_future()
        if self._search is None:
            self._search = asyncio.create_task(self._search_all())
        return waiting

    async def _search_all(self) -> None:
        """Search until nothing waits."""
        try:
            while self._waiting:
                await self._search_batch(list(islice(self._waiting, _MAX_BATCH)))
                await asyncio.sleep(_SEARCH_INTERVAL)
        finally:
            self._search = None
            self._settle(list(self._waiting), UnavailableError("this process is stopping"))

    async def _search_batch(self, ids: Collection[str]) -> None:
        try:
            await self._find(ids)
        except UnavailableError as error:
            self._failed_at = time.monotonic()
            self._settle(ids, error)
        except Exception:
            log.exception("credentials_not_searched")
            self._settle(ids, UnavailableError("the credential cannot be read"))
        else:
            self._settle(ids, None)

    def _settle(self, ids: Collection[str], error: UnavailableError | None) -> None:
        """Answer those who wait for credentials; without an error, by what is in the table."""
        for credential_id in ids:
            exists = self._table.has(credential_id)
            if error is None and not exists:
                self._note_miss(credential_id)
            waiting = self._waiting.pop(credential_id)
            if not waiting.done():
                waiting.set_result(exists if error is None else error)

    async def _find(self, ids: Collection[str]) -> None:
        """Read credentials into the table, as far as they exist."""
        async with self._database.session() as connection:
            sessions = await store.find_sessions(connection, ids)
        identities = self._table.identities()
        if len(sessions) < len(ids) or any(session.identity not in identities for session in sessions):
            # A token, or the identity of a session, may have been made at another process within the last second.
            await self._read()
        for session in sessions:
            self._table.add_session(session)

    async def _read(self) -> None:
        async with self._reading, self._database.session() as connection:
            state = await store.read_access_state(connection)
            now = time.monotonic()
            if state.generation == self._generation and now < self._resync_due:
                return
            rows = await store.read_access(connection)
            self._table.replace(rows.tokens, rows.identities, rows.revoked)
            self._generation, self._resync_due = state.generation, now + _RESYNC_INTERVAL
            self._note_unreadable(rows.unreadable)

    def _note_unreadable(self, unreadable: dict[str, str]) -> None:
        """Log each row that cannot be read once, for as long as its reason is the same."""
        for row, reason in unreadable.items():
            if self._table.unreadable.get(row) != reason:
                log.error("access_row_unreadable", row=row, reason=reason)
        ACCESS_ROWS_UNREADABLE.set(len(unreadable))
        self._table.unreadable = unreadable

    async def _keep(self) -> None:
        """Note what was used, and delete what ended long ago."""
        now = time.monotonic()
        if now >= self._used_due and self._table.used:
            used, self._table.used = self._table.used, set()
            try:
                async with self._database.session() as connection:
                    await store.note_used(connection, used)
            except UnavailableError:
                # Tried again in a second, which tells when PostgreSQL takes writes again.
                self._table.used |= used
                raise
            self._used_due = now + _USED_INTERVAL
        if now >= self._prune_due:
            await self._prune()
            self._prune_due = now + _PRUNE_INTERVAL

    async def _prune(self) -> None:
        try:
            async with self._database.session() as connection:
                await store.prune_credentials(connection)
        except ClocksDifferError as error:
            if not self._clocks_differ:
                log.warning("credentials_not_pruned", reason=str(error))
            self._clocks_differ = True
        else:
            self._clocks_differ = False

    def _note_miss(self, credential_id: str) -> None:
        if len(self._misses) >= _MAX_MISSES:
            self._misses.clear()
        self._misses[credential_id] = time.monotonic()
