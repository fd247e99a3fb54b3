"""A registry process's way to PostgreSQL: stands for ``registry.store.database``."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from faults.simulation.postgres import Postgres, refuse

from registry.errors import UnavailableError

Stall = Callable[[str], Awaitable[None]]
"""What may happen between the answer to a statement and what its process does next; gets the statement's name."""
Wait = Callable[[float], Awaitable[None]]


class Database:
    """The connections of one process.

    ``cut`` keeps it from reaching PostgreSQL. ``mute`` loses that many answers to commits: what was committed stands,
    and who asked is told that nothing is known. ``closed`` says that the process is gone.
    """

    def __init__(self, postgres: Postgres, stall: Stall, wait: Wait) -> None:
        self.postgres = postgres
        self.stall = stall
        self.wait = wait
        self.cut = False
        self.closed = False
        self.mute = 0

    @property
    def database(self) -> "Database":
        """Itself: statements take a pool or a connection."""
        return self

    def reach(self, *, write: bool = False) -> None:
        """Raise UnavailableError unless a statement can be made."""
        if self.cut or self.closed:
            raise UnavailableError("PostgreSQL is away: no route")
        self.postgres.reach(write=write)

    def check(self, statement: str) -> None:
        """Raise what PostgreSQL refuses a statement with, if it does."""
        for refusal in self.postgres.refusals:
            if statement in refusal.statements and refusal.database in (None, self):
                refuse(refusal.error)

    async def fsync(self) -> None:
        """Wait for the disk."""
        if self.postgres.fsync:
            await self.wait(self.postgres.fsync)

    def committed(self) -> None:
        """Lose the answer to a commit if one is to be lost."""
        if self.mute:
            self.mute -= 1
            raise UnavailableError("PostgreSQL is away: the connection broke before COMMIT was answered")

    @asynccontextmanager
    async def session(self) -> AsyncIterator["Session"]:
        """Lend a connection."""
        self.reach()
        session = Session(self)
        try:
            yield session
        finally:
            session.close()

    def keep(self, *, by_index: bool) -> AbstractAsyncContextManager["Session"]:
        """Lend a connection for good."""
        return self.session()


class Session:
    """A connection; it dies with the primary that it was made to, and once it is idle for longer than ``silence``."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.silence = math.inf
        self._life = database.postgres.life
        self._used_at = database.postgres.real
        self._open = True

    @property
    def idle(self) -> bool:
        """Whether PostgreSQL has ended it for saying nothing."""
        return self.database.postgres.real - self._used_at > self.silence

    @property
    def closed(self) -> bool:
        """Whether it is over, or the primary is that it was made to."""
        return not self._open or self._life != self.database.postgres.life

    def reach(self, *, write: bool = False) -> None:
        """Raise UnavailableError unless a statement can be made."""
        if self.idle:
            self.close()
        if self.closed:
            raise UnavailableError("PostgreSQL is away: the connection is closed")
        self.database.reach(write=write)
        self._used_at = self.database.postgres.real

    def close(self) -> None:
        """End it, and with it the lead, if it holds that."""
        self._open = False
        if self.database.postgres.lead is self:
            self.database.postgres.lead = None

    @property
    def invalidated(self) -> bool:
        """Whether it was ended for good, as SQLAlchemy tells it."""
        return not self._open

    async def invalidate(self) -> None:
        """End it for good, as SQLAlchemy calls it."""
        self.close()
