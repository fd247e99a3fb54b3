"""Connections to PostgreSQL, and their limits."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import structlog
from sqlalchemy import Connection, event, func, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from registry.errors import BadSettingsError, RegistryError, UnsuitableError
from registry.store.driver import Driver, NamedRecord, Statement
from registry.store.failures import is_stale, translate_errors

log = structlog.get_logger()

Session = AsyncConnection
"""A connection, as the loops that keep one hand it back to the functions of this folder."""

_OLDEST = 15
_ENCODINGS = ("UTF8", "SQL_ASCII")
"""The second one takes every byte as it is."""
_TRIES = 3
_OF_POOLERS = (
    # What was prepared is in the session of another connection.
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
_POOLED = (
    "a pooler between the registry and PostgreSQL pools by transaction, and the registry needs sessions: it prepares"
    " statements, listens and holds a lock; set pool_mode = session (PgBouncer), or connect past it"
)

CHANNEL = "headcount_changes"
"""Notifications carry the name of a service that changed and, if whoever sent it knows, its change after a space."""

_SCHEMA_LOCK = 0x48454144
SWEEP_LOCK = 0x53574545
FORGET_LOCK = 0x464F5247
"""Held alone while a service is forgotten, and shared by the trigger that begins one."""

_BAD_URL = (
    "REGISTRY_DATABASE_URL is no URL that libpq would read, like postgresql://user:password@host:5432/database; "
    "characters like / # ? @ in the password have to be percent-encoded"
)

# The statements of the hot paths take longer to plan than to run, and PostgreSQL would plan each for its parameters.
_PLAN_ONCE = Statement(text("SET plan_cache_mode = force_generic_plan"))
_BY_INDEX = Statement(text("SET enable_seqscan = off"))


class Database:
    """A bounded pool of connections to one PostgreSQL.

    Args:
        url: libpq URL, with everything that libpq knows (several hosts, sslmode, target_session_attrs).
        connections: most connections at a time.
        timeout: seconds that connecting, a statement or a lock may take.
        patient: whether statements may take as long as they need, as those of a migration.
    """

    def __init__(self, url: str, *, connections: int, timeout: float, patient: bool = False) -> None:
        self._url = url
        self._role = _role_of(url)
        self._timeout = timeout
        self._patient = patient
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout,
            pool_recycle=900,
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)

    async def _connect(self) -> Any:  # noqa: ANN401  # asyncpg publishes no types
        milliseconds = str(int(self._timeout * 1000))
        try:
            return await self._open(milliseconds)
        except ValueError:
            # asyncpg quotes the part of the URL that it could not read, which may be the password.
            raise BadSettingsError(_BAD_URL) from None

    async def _open(self, milliseconds: str) -> Any:  # noqa: ANN401  # asyncpg publishes no types
        connection = await asyncpg.connect(
            self._url,
            timeout=self._timeout,
            command_timeout=None if self._patient else self._timeout,
            record_class=NamedRecord,
            server_settings={"application_name": "headcount-registry"},
        )
        try:
            _refuse_unsuitable(connection)
            # After connecting: PgBouncer refuses most parameters in the first packet, and passes these on.
            await connection.execute(
                "; ".join(f"SET {name} = '{value}'" for name, value in self._parameters(milliseconds).items())
            )
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _parameters(self, milliseconds: str) -> dict[str, str]:
        return {
            "jit": "off",
            "lock_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            # A host that vanished says nothing: without these its locks, the lead among them, stay for hours.
            "tcp_keepalives_idle": "5",
            "tcp_keepalives_interval": "2",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": "10000",
        }

    async def check(self) -> None:
        """Find out whether a registry can run on this database, as far as PostgreSQL answers.

        Raises:
            UnsuitableError: it cannot.
            UnavailableError: PostgreSQL does not answer, or does not let the registry in.
        """
        with translate_errors(self._role, quiet=self._patient):
            one, other = [await self._connect() for _ in range(2)]
            try:
                await _refuse_transaction_pooling(one, other)
            finally:
                for connection in (one, other):
                    connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that commits at the end of the block.

        Raises:
            UnavailableError: PostgreSQL cannot be reached, is too slow, or refuses writes.
        """
        with translate_errors(self._role, quiet=self._patient):
            async with self._engine.connect() as connection, self._renewed_if_stale(connection), connection.begin():
                yield connection

    @asynccontextmanager
    async def driver_transaction(self) -> AsyncIterator[Driver]:
        """Open a transaction of the driver itself, for changes: as ``transaction``, at a fifth of the cost.

        Raises:
            UnavailableError: as for ``transaction``. Nothing was stored when it is a ``RefusedError``.
        """
        committed = False
        try:
            with translate_errors(self._role, quiet=self._patient):
                async with self._engine.connect() as connection:
                    driver = await driver_of(connection)
                    transaction = driver.connection.transaction()
                    over = False
                    try:
                        await transaction.start()
                        try:
                            yield driver
                        except (RegistryError, asyncpg.PostgresError) as error:
                            # What the rules or PostgreSQL refused leaves a connection that is good.
                            await transaction.rollback()
                            over = not is_stale(error)
                            if not over:
                                await self._renew()
                            raise
                        await transaction.commit()
                        over = committed = True
                    finally:
                        # One that does not answer would not answer to a rollback either, but after as long again.
                        if not over:
                            await discard(connection, driver)
        except Exception:
            if not committed:
                raise
            # The connection could not be given back. The work is done, and to say otherwise would have it done again.
            log.exception("connection_not_returned")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection whose statements commit one by one.

        Raises:
            UnavailableError: as for ``transaction``.
        """
        with translate_errors(self._role, quiet=self._patient):
            async with self._engine.connect() as connection, self._renewed_if_stale(connection):
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def keep(self, *, by_index: bool = False) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for good: its few statements are planned once, and nobody else is given it afterwards.

        Args:
            by_index: never read a whole table where an index would do. A plan that was made while the table was short
                would go on reading all of it.

        Raises:
            UnavailableError: as for ``transaction``.
        """
        async with self.session() as connection:
            driver = await driver_of(connection)
            try:
                await driver.run(_PLAN_ONCE)
                if by_index:
                    await driver.run(_BY_INDEX)
                yield connection
            finally:
                await discard(connection, driver)

    @asynccontextmanager
    async def listen(self, heard: Callable[[str], None], lost: Callable[[], None]) -> AsyncIterator[AsyncConnection]:
        """Follow the notifications of changes for the length of the block.

        Args:
            heard: called with what each notification says.
            lost: called when PostgreSQL closes the connection.
        """
        async with self.keep() as connection:
            # So that pg_stat_activity tells it from the connections that come and go.
            await connection.execute(text("SET application_name = 'headcount-registry feed'"))
            driver = await driver_of(connection)

            def on_notification(_connection: object, _pid: int, _channel: str, payload: str) -> None:
                heard(payload)

            def on_end(_connection: object) -> None:
                lost()

            driver.connection.add_termination_listener(on_end)
            await driver.connection.add_listener(CHANNEL, on_notification)
            try:
                yield connection
            finally:
                driver.connection.remove_termination_listener(on_end)

    async def with_schema_lock(self, work: Callable[[Connection], None]) -> None:
        """Run ``work`` in a transaction that no other process's ``with_schema_lock`` overlaps."""
        async with self.transaction() as connection:
            # Another registry may be migrating for longer than a lock may usually take.
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            await connection.run_sync(work)

    @asynccontextmanager
    async def _renewed_if_stale(self, connection: AsyncConnection) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            if is_stale(error):
                await connection.invalidate()
                await self._renew()
            raise

    async def _renew(self) -> None:
        """Give up all connections that are in the pool: what is stale in one of them is stale in each."""
        await self._engine.dispose()

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _role_of(url: str) -> str:
    """Return the role of a URL, for people."""
    try:
        return urlsplit(url).username or "the registry's role"
    except ValueError:
        return "the registry's role"


def _refuse_unsuitable(connection: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
    version = connection.get_server_version()
    if version.major < _OLDEST:
        raise UnsuitableError(f"PostgreSQL is {version.major}; the registry needs {_OLDEST} or newer")
    encoding = connection.get_settings().server_encoding
    if encoding not in _ENCODINGS:
        raise UnsuitableError(
            f"the database's encoding is {encoding}, which cannot store all of what registrars send; create one with"
            " CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


async def _refuse_transaction_pooling(one: Any, other: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
    """Refuse a pooler that gives a connection's session to others while it is open.

    That of the one is asked first; if the other one, in a transaction, has the same, it was given away.
    """
    ask = "SELECT pg_backend_pid()"
    try:
        for _ in range(_TRIES):
            first = await one.fetchval(ask)
            await other.execute("BEGIN")
            second = await other.fetchval(ask)
            await other.execute("ROLLBACK")
            if first == second:
                raise UnsuitableError(_POOLED)
    except _OF_POOLERS as error:
        raise UnsuitableError(_POOLED) from error
    except asyncpg.ConnectionDoesNotExistError as error:
        # PgBouncer ends a connection that begins a transaction where it pools by statement; it speaks English alone.
        if "pooling mode" not in str(error):
            raise
        raise UnsuitableError(_POOLED) from error


def _refuse_closed(connection: DBAPIConnection, _record: object, _lent: object) -> None:
    """Have the pool make a new connection in place of one that PostgreSQL closed meanwhile, as its restart does to all.

    Else each would be found out by whoever is lent it.
    """
    if cast("Any", connection).driver_connection.is_closed():
        raise DisconnectionError


async def driver_of(connection: AsyncConnection) -> Driver:
    """Return the driver's own connection: its listeners, and statements without what SQLAlchemy adds to each.

    The pool sees nothing of its failures; whoever uses it has to ``discard`` the connection then.
    """
    return Driver((await connection.get_raw_connection()).driver_connection)


async def is_closed(connection: AsyncConnection) -> bool:
    """Tell whether PostgreSQL closed a connection while nobody asked it anything."""
    return (await driver_of(connection)).closed


async def discard(connection: AsyncConnection, driver: Driver) -> None:
    """Close a connection of which nobody knows what became of it, and let the pool make a new one."""
    # First: SQLAlchemy would say goodbye to PostgreSQL, and wait two seconds for one that does not hear it.
    driver.connection.terminate()
    await connection.invalidate()


async def read_clock(connection: AsyncConnection) -> float:
    """Return PostgreSQL's time at this moment, not at the transaction's begin: the one clock that rules go by."""
    return float((await connection.execute(select(func.extract("epoch", func.clock_timestamp())))).scalar_one())
