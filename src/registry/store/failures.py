"""The meaning of errors of PostgreSQL and its driver: an outage, a refusal, or a defect of this program.

An outage ends by itself. A refusal is PostgreSQL's decision, which an operator has to resolve: a missing privilege, an
exhausted sequence, a constraint. Clients get 503 for both, and the log one line. Any other error is a defect of this
program, and is logged with its traceback. Codes are SQLSTATEs (PostgreSQL's documentation, appendix A).
"""

import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import structlog
from msgspec import Struct
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from registry.errors import RefusedError, RegistryError, UnavailableError
from registry.metrics import DATABASE_REFUSALS

log = structlog.get_logger()

Result = TypeVar("Result")

# Classes of SQLSTATE that are outages: connection, resources, operator intervention, system, rollback, transaction
# state, objects in use, and a role or database that is not there yet.
_OUTAGE_CLASSES = ("08", "53", "57", "58", "40", "25", "55", "XX", "28", "3D")
# Classes that concern the row or the statement at hand, and not the next one: cardinality, data,
# integrity, external routine, check option, program limit, what a trigger raises.
_ROW_CLASSES = ("21", "22", "23", "27", "38", "39", "44", "54", "P0")
# sequence_generator_limit_exceeded is in the class of data, but concerns all rows.
_NOT_ROW_STATES = ("2200H",)
# data_corrupted: a block of the disk is damaged, or the large value of a row.
_ROW_STATES = ("XX001",)
# States that a new connection, which prepares its statements again, may not have: invalid_sql_statement_name,
# duplicate_prepared_statement, invalid_cursor_name.
_STALE_STATES = ("26000", "42P05", "34000")
# syntax_error, undefined_parameter, indeterminate_datatype: PostgreSQL cannot parse the statement.
_DEFECT_STATES = ("42601", "42P02", "42P18")

_AWAY = "PostgreSQL is away"
_SLOW = "PostgreSQL is too slow, or another session holds a lock for too long"
_NOT_MIGRATED = "the schema is missing or older than this program: run `registry migrate`"
_READ_ONLY = "PostgreSQL refuses writes: it is a standby, or set to read only"
_NO_PRIMARY = "no PostgreSQL of REGISTRY_DATABASE_URL is of the kind that its target_session_attrs asks for"
_CROWDED = "all connections of this process to PostgreSQL are in use"
_REFUSES = "PostgreSQL refuses what the registry asks of it"
# By SQLSTATE: the message for clients, and what an operator can do about it.
_MESSAGES = {
    # lock_not_available, query_canceled
    "55P03": (_SLOW, ""),
    "57014": (_SLOW, ""),
    # undefined_table, undefined_column, undefined_function
    "42P01": (_NOT_MIGRATED, ""),
    "42703": (_NOT_MIGRATED, ""),
    "42883": (_NOT_MIGRATED, ""),
    # read_only_sql_transaction
    "25006": (
        _READ_ONLY,
        "connect to the primary: with several hosts in REGISTRY_DATABASE_URL add target_session_attrs=read-write",
    ),
    # invalid_password, invalid_authorization_specification, invalid_catalog_name
    "28P01": (
        "PostgreSQL refuses the registry's password",
        "correct the password in REGISTRY_DATABASE_URL, or in PGPASSWORD",
    ),
    "28000": (
        "PostgreSQL does not let the registry's role in",
        "CREATE ROLE {role} LOGIN, or let it in from this host by pg_hba.conf (hostssl needs sslmode=require)",
    ),
    "3D000": (
        "PostgreSQL has no database of the name in REGISTRY_DATABASE_URL",
        "CREATE DATABASE {database} OWNER {role} ENCODING 'UTF8' TEMPLATE template0, or correct the URL",
    ),
    # too_many_connections, cannot_connect_now
    "53300": (
        "PostgreSQL takes no more connections",
        "raise max_connections, or lower REGISTRY_DATABASE_CONNECTIONS or REGISTRY_WORKERS",
    ),
    "57P03": ("PostgreSQL is starting, stopping or recovering, and takes no connections", ""),
}

_OWN = "?options=-csearch_path%3Dheadcount"
_SCHEMA = re.compile(r"permission denied for schema (?P<name>\S+)")
_NOT_OWNER = re.compile(r"must be owner of")
_DATABASE = re.compile(r'database "(?P<name>.+)" does not exist')
_NO_DATABASE = "3D000"
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")


class ConnectTimeoutError(ConnectionError):
    """No PostgreSQL answered within the timeout of a connection."""


_NOBODY_LISTENS = "start PostgreSQL there (listen_addresses), or correct host and port in REGISTRY_DATABASE_URL"
# The fix of a connection that could not be made; the first kind that fits.
_NETWORK_FIXES: tuple[tuple[type[OSError], str], ...] = (
    (socket.gaierror, "correct the host in REGISTRY_DATABASE_URL, or the DNS of this machine"),
    (
        ssl.SSLCertVerificationError,
        "name the authority of its certificate by sslrootcert=/path/ca.pem, and the host as the certificate does",
    ),
    (ssl.SSLError, "see that PostgreSQL and sslmode in REGISTRY_DATABASE_URL agree about TLS and its versions"),
    (ConnectTimeoutError, "see whether a firewall or security group drops the packets, or the machine is overloaded"),
    (ConnectionRefusedError, _NOBODY_LISTENS),
    (FileNotFoundError, _NOBODY_LISTENS),
)

LOCKED_STATES = ("55P03", "40P01")
"""lock_not_available, deadlock_detected: another session holds the lock."""

_LOG_INTERVAL = 10.0
"""Seconds between two log lines of one reason."""
_MAX_REASONS = 100
"""Reasons that are remembered at a time."""


class Diagnosis(Struct, frozen=True):
    """The meaning of an error.

    Attributes:
        message: for clients, without internals.
        fix: what an operator can do, empty if nothing is known.
        refused: PostgreSQL answered and refused; otherwise it is an outage.
        row_specific: PostgreSQL refused these rows, and may accept others.
        stale: the same statement may work on a new connection.
        sqlstate: PostgreSQL's code, empty for an error of the driver.
    """

    message: str
    fix: str = ""
    refused: bool = False
    row_specific: bool = False
    stale: bool = False
    sqlstate: str = ""


def diagnose(error: BaseException) -> Diagnosis | None:
    """Return the meaning of an error; None for a defect of this program."""
    if isinstance(error, DBAPIError):
        return _of_sqlalchemy(error)
    if isinstance(error, asyncpg.PostgresError | asyncpg.InternalClientError | asyncpg.InterfaceError):
        return _of_asyncpg(error)
    # The pool's timeout is a class of SQLAlchemy, and asyncio's is an OSError as well, so both come first.
    if isinstance(error, PoolTimeoutError):
        return Diagnosis(_CROWDED, "raise REGISTRY_DATABASE_CONNECTIONS if that lasts")
    if isinstance(error, TimeoutError):
        return Diagnosis(_SLOW)
    if type(error) is SQLAlchemyError:
        return Diagnosis(_AWAY)
    return _of_network(error) if isinstance(error, OSError) else None


def concerns_rows(error: BaseException) -> bool:
    """Return whether it is the rows that a statement could not take or read, so that others may work.

    PostgreSQL refuses them, or the driver or this program cannot read what is in them.
    """
    if isinstance(error, RegistryError):
        return isinstance(error, RefusedError) and error.row_specific
    diagnosis = diagnose(error)
    return diagnosis is None or diagnosis.row_specific


def is_stale(error: BaseException) -> bool:
    """Return whether the connection of an error has to be closed, because a new one may work."""
    if isinstance(error, UnavailableError):
        return isinstance(error, RefusedError) and error.stale
    diagnosis = diagnose(error)
    return diagnosis is not None and diagnosis.stale


def leaves_connection(error: BaseException) -> bool:
    """Return whether the connection can still be used after an error."""
    diagnosis = diagnose(error)
    return diagnosis is not None and diagnosis.refused and not diagnosis.stale


async def retry_if_stale(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do some work, and repeat it once if it may succeed on a new connection.

    Raises:
        UnavailableError: it could not be done.
    """
    try:
        return await work()
    except RefusedError as error:
        if not error.stale:
            raise
        return await work()


def _of_asyncpg(error: Exception) -> Diagnosis | None:
    return _of_state(error) if isinstance(error, asyncpg.PostgresError) else _of_driver(error)


def _of_network(error: OSError) -> Diagnosis:
    if "SSL upgrade" in str(error):
        return Diagnosis(_AWAY, "turn ssl on in postgresql.conf, or ask for less than sslmode=require")
    if "Connect call failed" in str(error):
        # asyncio's own words, where a name has several addresses.
        return Diagnosis(_AWAY, _NOBODY_LISTENS)
    return Diagnosis(_AWAY, next((fix for kind, fix in _NETWORK_FIXES if isinstance(error, kind)), ""))


def _of_state(error: asyncpg.PostgresError) -> Diagnosis | None:
    state = str(error.sqlstate or "08000")
    if type(error) is asyncpg.DataError and error.severity is None:
        # Raised by the driver: an argument that it cannot encode.
        return None
    if state in _MESSAGES:
        message, fix = _MESSAGES[state]
        if state == _NO_DATABASE and (database := _DATABASE.search(str(error))):
            fix = fix.replace("{database}", _escaped(quoted_name(database["name"])))
        return Diagnosis(message, fix, sqlstate=state)
    if state in _DEFECT_STATES:
        return None
    if state[:2] in _OUTAGE_CLASSES and state not in _ROW_STATES:
        return Diagnosis(_AWAY, sqlstate=state)
    message = f"{_REFUSES} ({_words(error)}, SQLSTATE {state})"
    stale = state in _STALE_STATES or isinstance(error, asyncpg.InvalidCachedStatementError)
    row_specific = (state[:2] in _ROW_CLASSES and state not in _NOT_ROW_STATES) or state in _ROW_STATES
    return Diagnosis(message, _fix(error, state), refused=True, row_specific=row_specific, stale=stale, sqlstate=state)


def _of_sqlalchemy(error: DBAPIError) -> Diagnosis | None:
    cause = None if error.orig is None else error.orig.__cause__
    if isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return diagnose(cause)
    # A ValueError: the driver cannot encode an argument.
    return None if isinstance(cause, ValueError) else Diagnosis(_AWAY)


def _of_driver(error: Exception) -> Diagnosis | None:
    if isinstance(error, ValueError):
        # An argument, or the URL, that the driver cannot read.
        return None
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Diagnosis(
            _NO_PRIMARY, "wait for the fail-over, or correct target_session_attrs in REGISTRY_DATABASE_URL"
        )
    if isinstance(error, asyncpg.InternalClientError) or "another operation" in str(error):
        return Diagnosis(f"{_REFUSES} (a connection is in an unexpected state)", refused=True, stale=True)
    return Diagnosis(_AWAY)


def _fix(error: asyncpg.PostgresError, state: str) -> str:
    if state == "42501":
        schema = _SCHEMA.search(str(error))
        if schema is not None:
            return (
                f"GRANT USAGE, CREATE ON SCHEMA {schema['name']} TO {{role}}; or run `registry migrate` as the role "
                f"that owns the schema; or name a schema of its own: {_OWN}"
            )
        if _NOT_OWNER.search(str(error)):
            return "run `registry migrate` as the role that owns the tables; {role} needs no more than to use them"
        return "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}, or let it own them"
    if state == "3F000":
        return f"CREATE SCHEMA of the name in search_path, or correct it in REGISTRY_DATABASE_URL: {_OWN}"
    if state in _STALE_STATES:
        return "if a pooler is between the registry and PostgreSQL, let it pool by session"
    return _escaped(str(error.hint or ""))


def quoted_name(name: str) -> str:
    """Return a name as SQL has it: in quotes where it is no plain one."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _words(error: asyncpg.PostgresError) -> str:
    """Return the name of a condition as PostgreSQL's documentation has it, by the driver's class."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def first_line(error: BaseException) -> str:
    """Return the first line of the message of PostgreSQL or the driver."""
    original = getattr(error, "orig", None)
    original = (original and original.__cause__) or original or error
    return (str(original).splitlines() or [""])[0] or type(original).__name__


class translate_errors:  # noqa: N801  # reads as a statement: with translate_errors()
    """Turn outages and refusals of PostgreSQL into ``UnavailableError``, and let defects pass.

    Args:
        role: the role of the connection, for the advice to operators.
        quiet: log no refusals, because the caller does.
    """

    def __init__(self, role: str = "the registry's role", *, quiet: bool = False) -> None:
        self._role = role
        self._quiet = quiet

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        diagnosis = None if error is None else diagnose(error)
        if error is None or diagnosis is None:
            return
        cause = f"{diagnosis.message}: {first_line(error)}"
        if diagnosis.fix:
            cause = f"{cause}; {diagnosis.fix.format(role=self._role)}"
        if not diagnosis.refused:
            raise UnavailableError(diagnosis.message, cause=cause) from error
        DATABASE_REFUSALS.labels(diagnosis.sqlstate or "none").inc()
        if not self._quiet:
            _refusal_log.write(cause, time.monotonic())
        raise RefusedError(
            diagnosis.message, cause=cause, row_specific=diagnosis.row_specific, stale=diagnosis.stale
        ) from error


class _RefusalLog:
    """The log of refusals: one line for each reason in ten seconds, since every heartbeat may be refused."""

    def __init__(self) -> None:
        # When each reason was last logged, and how often it occurred since.
        self._logged: dict[str, tuple[float, int]] = {}

    def write(self, reason: str, now: float) -> None:
        logged_at, suppressed = self._logged.get(reason, (-_LOG_INTERVAL, 0))
        if now - logged_at < _LOG_INTERVAL:
            self._logged[reason] = (logged_at, suppressed + 1)
            return
        if len(self._logged) >= _MAX_REASONS:
            self._logged.clear()
        self._logged[reason] = (now, 0)
        log.warning("postgresql_refused", reason=reason, not_logged_since=suppressed)


_refusal_log = _RefusalLog()
