"""The connections to PostgreSQL: the pool, transactions, sessions, and the checks of a new connection."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import asyncpg
import structlog
from sqlalchemy import Connection, event, func, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from registry.client_deadline import in_time_for_client
from registry.database_url import DatabaseUrl, current_url, missing_file
from registry.errors import BadSettingsError, ClocksDifferError, RegistryError, UnavailableError, UnsuitableError
from registry.store.driver import Driver, NamedRecord, Statement
from registry.store.failures import ConnectTimeoutError, is_stale, quoted_name, translate_errors

log = structlog.get_logger()

Session = AsyncConnection
"""A connection that background loops keep, and pass to the functions of this package."""

MAX_CLOCK_DIFFERENCE = 60.0
"""Seconds by which PostgreSQL's clock may differ from this process's where rows are deleted by it."""
READING_TIMEOUT = 2.0
"""Seconds within which PostgreSQL answers a reader that does not say how long it waits."""
_CLOSE_TIMEOUT = 2.0
"""Seconds within which PostgreSQL cancels the statement of a connection that is given up."""
_MIN_VERSION = 15
"""The oldest major version of PostgreSQL that the registry runs on."""
_ENCODINGS = ("UTF8", "SQL_ASCII")
"""The encodings that can store all text; SQL_ASCII stores every byte as it is."""
_POOLING_CHECKS = 3
"""Times that two connections are compared to find a pooler between them and PostgreSQL."""
_POOLER_ERRORS = (
    # A statement was prepared in the session of another connection.
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
_TRANSACTION_POOLING = (
    "a pooler between the registry and PostgreSQL pools by transaction, and the registry needs sessions: it prepares"
    " statements, listens and holds a lock; set pool_mode = session (PgBouncer), or connect past it"
)

CHANNEL = "headcount_changes"
"""The channel of notifications; a payload is a service's name and, if known, a space and its change."""
MESH_CHANNEL = "headcount_mesh"
"""The channel of notifications of the mesh configuration; a payload is the number of its change."""
ERRANDS_CHANNEL = "headcount_errands"
"""The channel of notifications of errands; a payload is the id of the errand that was asked or has ended."""

SCHEMA_LOCK = 0x48454144
"""The advisory lock of migrations."""
SWEEP_LOCK = 0x53574545
"""The advisory lock that the leader of the sweepers holds."""
FORGET_LOCK = 0x464F5247
"""The advisory lock for forgetting a service (exclusive) and for creating one (shared, by the trigger)."""

_UNKNOWN_ROLE = "the registry's role"
_BAD_URL = (
    "REGISTRY_DATABASE_URL is no URL that libpq would read, like postgresql://user:password@host:5432/database; "
    "characters like / # ? @ in the password have to be percent-encoded"
)
_NO_AUTHORITY = (
    "REGISTRY_DATABASE_URL: its sslmode verifies PostgreSQL's certificate, and no authority is named; add "
    "sslrootcert=/path/ca.pem (of the system: /etc/ssl/certs/ca-certificates.crt)"
)

# The statements of the hot paths take longer to plan than to run, and by default PostgreSQL plans each for its
# parameters.
_PLAN_ONCE = Statement(text("SET plan_cache_mode = force_generic_plan"))
_BY_INDEX = Statement(text("SET enable_seqscan = off"))
_CLOCK = select(func.extract("epoch", func.clock_timestamp()))


class Database:
    """A bounded pool of connections to one PostgreSQL.

    Args:
        url: a libpq URL with any of its options (several hosts, sslmode, target_session_attrs), or what has it.
        connections: the maximum number of connections.
        timeout: seconds that connecting, a statement or a lock may take.
        unbounded: whether statements may take as long as they need, as those of a migration.
    """

    def __init__(self, url: DatabaseUrl, *, connections: int, timeout: float, unbounded: bool = False) -> None:
        self._url = url
        self._role = _role_of(current_url(url))
        """The role of the newest connection, for error messages. Written by _connect()."""
        self._timeout = timeout
        self._unbounded = unbounded
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout,
            pool_recycle=900,
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        # SQLAlchemy would wait for two seconds for a server that does not answer, and the client with it.
        self._engine.dialect.do_terminate = self._close_aside  # type: ignore[assignment,method-assign]  # its own hook
        self._closing: set[asyncio.Task[None]] = set()
        """The tasks that close connections aside, each for ``_CLOSE_TIMEOUT`` at most."""

    async def _connect(self) -> Any:  # noqa: ANN401  # asyncpg publishes no types
        milliseconds = str(int(self._timeout * 1000))
        url = current_url(self._url)
        self._role = _role_of(url)
        try:
            return await self._open(url, milliseconds)
        except ssl.SSLCertVerificationError:
            # It is a ValueError, but none about the URL.
            raise
        except ValueError as error:
            if "root certificate file" in str(error):
                raise BadSettingsError(_NO_AUTHORITY) from None
            # asyncpg's message quotes the part of the URL that it cannot read, which may be the password.
            raise BadSettingsError(_BAD_URL) from None
        except FileNotFoundError:
            missing = missing_file(url)
            if missing is None:
                raise
            raise BadSettingsError(f"REGISTRY_DATABASE_URL: {missing}") from None

    async def _open(self, url: str, milliseconds: str) -> Any:  # noqa: ANN401  # asyncpg publishes no types
        try:
            connection = await asyncpg.connect(
                url,
                timeout=self._timeout,
                command_timeout=None if self._unbounded else self._timeout,
                record_class=NamedRecord,
                server_settings={"application_name": "headcount-registry"},
            )
        except TimeoutError:
            # Of a connection, and not of a statement that waits for a lock.
            raise ConnectTimeoutError(f"no answer within {self._timeout:g} s") from None
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
            # A host that vanishes closes nothing. Without these, its locks, the sweep lock among them, stay for hours.
            "tcp_keepalives_idle": "5",
            "tcp_keepalives_interval": "2",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": "10000",
        }

    async def check(self) -> None:
        """Check whether a registry can run on this database.

        Raises:
            UnsuitableError: it cannot.
            UnavailableError: PostgreSQL does not answer, or refuses the connection.
        """
        with translate_errors(self._role, quiet=self._unbounded):
            first, second = [await self._connect() for _ in range(2)]
            try:
                await _refuse_transaction_pooling(first, second)
            finally:
                for connection in (first, second):
                    connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that commits at the end of the block.

        Raises:
            UnavailableError: PostgreSQL cannot be reached, is too slow, or refuses writes; or the client of the request
                waits no longer, and then it is not known whether anything was stored.
        """
        async with in_time_for_client(stores=True):
            with translate_errors(self._role, quiet=self._unbounded):
                async with (
                    self._engine.connect() as connection,
                    self._closed_if_unusable(connection),
                    connection.begin(),
                    self._closed_if_unusable(connection),
                ):
                    yield connection

    @asynccontextmanager
    async def driver_transaction(self) -> AsyncIterator[Driver]:
        """Open a transaction on the driver, without SQLAlchemy's overhead: a fifth of the cost of ``transaction``.

        Raises:
            UnavailableError: as for ``transaction``. Nothing was stored when it is a ``RefusedError``.
        """
        committed = False
        try:
            async with in_time_for_client(stores=True):
                with translate_errors(self._role, quiet=self._unbounded):
                    async with self._engine.connect() as connection:
                        driver = await driver_of(connection)
                        transaction = driver.connection.transaction()
                        returnable = False
                        try:
                            await transaction.start()
                            try:
                                yield driver
                            except (RegistryError, asyncpg.PostgresError) as error:
                                # A refusal by the rules or by PostgreSQL leaves the connection usable.
                                await transaction.rollback()
                                returnable = not is_stale(error)
                                if not returnable:
                                    await self._renew()
                                raise
                            await transaction.commit()
                            returnable = committed = True
                        finally:
                            # A connection that does not answer would not answer a rollback either, after as long again.
                            if not returnable:
                                await connection.invalidate()
        except Exception:
            if not committed:
                raise
            # The connection could not be returned to the pool. The transaction is committed, and an error would make
            # the caller repeat it.
            log.exception("connection_not_returned")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection on which each statement commits by itself.

        Raises:
            UnavailableError: as for ``transaction``.
        """
        async with in_time_for_client():
            with translate_errors(self._role, quiet=self._unbounded):
                async with self._engine.connect() as connection, self._closed_if_unusable(connection):
                    yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Lend the same for what a client waits for, until ``READING_TIMEOUT`` where it does not say how long.

        Raises:
            UnavailableError: as for ``transaction``, and when the time is over.
        """
        async with in_time_for_client(READING_TIMEOUT), self.session() as connection:
            yield connection

    async def answers(self) -> bool:
        """Tell whether PostgreSQL answers: if it does, what failed with UnavailableError failed for itself alone."""
        try:
            async with self.session() as connection:
                await read_clock(connection)
        except UnavailableError:
            return False
        return True

    @asynccontextmanager
    async def keep(self, *, by_index: bool = False) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for a long time; its statements are planned once, and it is closed afterwards.

        Args:
            by_index: never scan a whole table where an index can be used. A plan that was made while the table was
                short would scan the grown table as well.

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
                await connection.invalidate()

    @asynccontextmanager
    async def listen(
        self, listeners: Mapping[str, Callable[[str], None]], on_lost: Callable[[], None]
    ) -> AsyncIterator[AsyncConnection]:
        """Listen for notifications of changes for the length of the block.

        Args:
            listeners: for each channel, a function that is called with the payload of each notification.
            on_lost: called when PostgreSQL closes the connection.
        """
        async with self.keep() as connection:
            # pg_stat_activity shows this name, by which the cluster's status counts the processes that follow.
            await connection.execute(text("SET application_name = 'headcount-registry feed'"))
            driver = await driver_of(connection)

            def on_notification(_connection: object, _pid: int, channel: str, payload: str) -> None:
                listeners[channel](payload)

            def on_end(_connection: object) -> None:
                on_lost()

            driver.connection.add_termination_listener(on_end)
            for channel in listeners:
                await driver.connection.add_listener(channel, on_notification)
            try:
                yield connection
            finally:
                driver.connection.remove_termination_listener(on_end)

    async def with_schema_lock(self, work: Callable[[Connection], None]) -> None:
        """Run ``work`` in a transaction that no other process's ``with_schema_lock`` overlaps."""
        async with self.transaction() as connection:
            # Another registry may be migrating for longer than a lock may usually take.
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
            await connection.run_sync(work)

    def _close_aside(self, pooled: DBAPIConnection) -> None:
        """Close a connection that the pool gives up, which cancels its statement; nobody waits for it."""
        connection = cast("Any", pooled).driver_connection
        try:
            task = asyncio.get_running_loop().create_task(_close(connection))
        except RuntimeError:
            # The loop has ended, and the process ends.
            connection.terminate()
            return
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @asynccontextmanager
    async def _closed_if_unusable(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """Close the connection after an error that a new one may not have, or a statement given up."""
        try:
            yield
        except asyncio.CancelledError:
            if not connection.invalidated and not connection.closed:
                await connection.invalidate()
            raise
        except Exception as error:
            if is_stale(error):
                await connection.invalidate()
                await self._renew()
            raise

    async def _renew(self) -> None:
        """Close all connections of the pool, because a stale plan in one of them is stale in each."""
        await self._engine.dispose()

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
        if self._closing:
            await asyncio.wait(self._closing)


def _role_of(url: str) -> str:
    """Return the role that a URL names, for error messages."""
    try:
        user = urlsplit(url).username
        return quoted_name(unquote(user)) if user else _UNKNOWN_ROLE
    except ValueError:
        return _UNKNOWN_ROLE


def _refuse_unsuitable(connection: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
    version = connection.get_server_version()
    if version.major < _MIN_VERSION:
        raise UnsuitableError(f"PostgreSQL is {version.major}; the registry needs {_MIN_VERSION} or newer")
    encoding = connection.get_settings().server_encoding
    if encoding not in _ENCODINGS:
        raise UnsuitableError(
            f"the database's encoding is {encoding}, which cannot store all of what registrars send; create one with"
            " CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


async def _refuse_transaction_pooling(connection: Any, another: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
    """Refuse a pooler that gives the session of an open connection to other connections.

    If the second connection, in a transaction, has the process id that the first one had before, the session was given
    away.
    """
    query = "SELECT pg_backend_pid()"
    try:
        for _ in range(_POOLING_CHECKS):
            pid = await connection.fetchval(query)
            await another.execute("BEGIN")
            other_pid = await another.fetchval(query)
            await another.execute("ROLLBACK")
            if pid == other_pid:
                raise UnsuitableError(_TRANSACTION_POOLING)
    except _POOLER_ERRORS as error:
        raise UnsuitableError(_TRANSACTION_POOLING) from error
    except asyncpg.ConnectionDoesNotExistError as error:
        # PgBouncer closes a connection that begins a transaction when it pools by statement, with an English message.
        if "pooling mode" not in str(error):
            raise
        raise UnsuitableError(_TRANSACTION_POOLING) from error


def _refuse_closed(connection: DBAPIConnection, _record: object, _lent: object) -> None:
    """Let the pool replace a connection that PostgreSQL has closed, as it closes all when it restarts.

    Otherwise each closed connection would fail the request that is lent it.
    """
    if cast("Any", connection).driver_connection.is_closed():
        raise DisconnectionError


async def driver_of(connection: AsyncConnection) -> Driver:
    """Return the connection of the driver, for listeners and for statements without SQLAlchemy's overhead.

    The pool does not notice its failures, so the caller has to invalidate the connection after one.
    """
    return Driver((await connection.get_raw_connection()).driver_connection)


async def is_closed(connection: AsyncConnection) -> bool:
    """Return whether PostgreSQL has closed an idle connection."""
    return (await driver_of(connection)).closed


async def _close(connection: Any) -> None:  # noqa: ANN401  # asyncpg publishes no types
    """Close a connection in order, or at once where PostgreSQL does not answer.

    In order, its statement is cancelled, which would hold its locks otherwise.
    """
    try:
        # asyncpg 0.31 waits without its timeout for the cancellation.
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await connection.close(timeout=_CLOSE_TIMEOUT)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def rows_of(connection: AsyncConnection, statement: Statement, **parameters: object) -> list[NamedRecord]:
    """Run a statement on the driver of a connection on which each statement commits by itself.

    Through SQLAlchemy, 20,000 rows hold the event loop for 0.1 s. After an error the connection is as SQLAlchemy would
    leave it: the pool takes it back unless it is closed.
    """
    driver = await driver_of(connection)
    try:
        return await driver.rows(statement, **parameters)
    except BaseException:
        if driver.closed:
            await connection.invalidate()
        raise


async def read_clock(connection: AsyncConnection) -> float:
    """Return PostgreSQL's time at this moment, which is the clock that all rules go by."""
    return float((await connection.execute(_CLOCK)).scalar_one())


async def read_agreed_clock(connection: AsyncConnection) -> float:
    """Return PostgreSQL's time, if the wall clock of this process agrees: by it is deleted what nothing brings back.

    Raises:
        ClocksDifferError: they differ by more than MAX_CLOCK_DIFFERENCE.
    """
    now = await read_clock(connection)
    difference = now - time.time()
    if abs(difference) > MAX_CLOCK_DIFFERENCE:
        raise ClocksDifferError(difference)
    return now
