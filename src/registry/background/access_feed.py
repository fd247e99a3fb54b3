"""Follows the credentials and identities in PostgreSQL, and keeps the table of this process as new.

It asks once a second whether anything has changed. A notification would be faster, and could be lost; a revocation has
to be everywhere in five seconds, and one short query a second is cheaper than to be wrong.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from registry.auth.access_table import AccessTable
from registry.core.clock import Clock
from registry.core.token_bucket import TokenBucket
from registry.errors import UnavailableError
from registry.store import credentials as store
from registry.store.database import Database

INTERVAL = 1.0
"""Seconds between two looks at PostgreSQL."""
_MAX_SEARCHES = 50
"""Unknown sessions that are searched in PostgreSQL in a second: made-up ones must not keep it busy."""
_MISS_TTL = 5.0
"""Seconds for which a session that was not found is not searched again."""
_MAX_MISSES = 10_000
"""Sessions that were not found and are remembered."""
_USED_INTERVAL = 60.0
"""Seconds between two notes of which credentials were used."""
_PRUNE_INTERVAL = 600.0
"""Seconds between two deletions of credentials that ended long ago."""


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
        """The generation of the table as it was last read; None: it was not read yet. Written by follow()."""
        self._searches: dict[str, asyncio.Task[bool]] = {}
        """The searches that run now, by the id of the session; several requests share one."""
        self._misses: dict[str, float] = {}
        """When sessions were last not found (monotonic), by their id."""
        self._searches_allowed = TokenBucket(_MAX_SEARCHES, _MAX_SEARCHES, time.monotonic())
        """The searches that may begin now."""
        self._used_due = 0.0
        """When used credentials are noted next (monotonic)."""
        self._prune_due = 0.0
        """When ended credentials are deleted next (monotonic)."""

    def expire(self) -> None:
        """End the credentials that have expired; needs no PostgreSQL."""
        self._table.expire(self._clock.now())

    async def follow(self) -> None:
        """Read what has changed since the last time.

        Raises:
            UnavailableError: PostgreSQL is away; the table stays as it is.
        """
        try:
            await self._read()
        except UnavailableError:
            self._table.away = True
            raise
        self._table.away = False

    async def refresh(self) -> None:
        """Read at once what a request has stored; if that fails, it is read within a second."""
        with suppress(UnavailableError):
            await self._read()

    async def find_session(self, session_id: str) -> bool:
        """Search a session that this process has not read; return whether there is one.

        Raises:
            UnavailableError: it cannot be searched now.
        """
        now = time.monotonic()
        missed_at = self._misses.get(session_id)
        if missed_at is not None and now - missed_at < _MISS_TTL:
            return False
        search = self._searches.get(session_id)
        if search is None:
            if not self._searches_allowed.take(now):
                raise UnavailableError("too many sessions that this process does not know are sent; try again")
            search = self._searches[session_id] = asyncio.create_task(self._search(session_id))
            search.add_done_callback(lambda _: self._searches.pop(session_id, None))
        return await asyncio.shield(search)

    async def _read(self) -> None:
        async with self._database.session() as connection:
            state = await store.read_access_state(connection)
            if state.generation != self._generation:
                rows = await store.read_access(connection)
                self._table.replace(rows.tokens, rows.identities, rows.revoked)
                self._generation = state.generation
            await self._keep(connection)

    async def _keep(self, connection: Any) -> None:  # noqa: ANN401  # the store's own type
        """Note what was used, and delete what ended long ago."""
        now = time.monotonic()
        if now >= self._used_due and self._table.used:
            used, self._table.used = self._table.used, set()
            self._used_due = now + _USED_INTERVAL
            await store.note_used(connection, used)
        if now >= self._prune_due:
            self._prune_due = now + _PRUNE_INTERVAL
            await store.prune_credentials(connection)

    async def _search(self, session_id: str) -> bool:
        async with self._database.session() as connection:
            session = await store.find_session(connection, session_id)
        if session is None or session.revoked_at is not None:
            self._note_miss(session_id)
            return False
        self._table.add_session(session)
        return True

    def _note_miss(self, session_id: str) -> None:
        if len(self._misses) >= _MAX_MISSES:
            self._misses.clear()
        self._misses[session_id] = time.monotonic()
