"""What the failures of PostgreSQL and its driver mean: an outage, a refusal, or a defect of ours.

An outage passes by itself. A refusal is PostgreSQL's considered answer, which an operator has to mend: a lost right, an
exhausted sequence, a constraint. Both are told to clients as 503 and to the log as one line. Anything else is a defect
of this program and keeps its trace.
"""

import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import structlog
from msgspec import Struct
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from registry.errors import RefusedError, UnavailableError
from registry.metrics import DATABASE_REFUSALS

log = structlog.get_logger()

Result = TypeVar("Result")

# Classes of SQLSTATE that pass: connection, resources, operator intervention, system, rollback, transaction state,
# objects in use, and a role or database that is not there yet.
_PASSING = ("08", "53", "57", "58", "40", "25", "55", "XX", "28", "3D")
# Classes that say something of the row or the statement at hand, and nothing of the next one: cardinality, data,
# integrity, external routine, check option, program limit, what a trigger raises.
_OF_ONE = ("21", "22", "23", "27", "38", "39", "44", "54", "P0")
# sequence_generator_limit_exceeded is in the class of data, and is true of all.
_OF_ALL = ("2200H",)
# What a fresh connection, which prepares its statements anew, may mend: invalid_sql_statement_name,
# duplicate_prepared_statement, invalid_cursor_name.
_STALE = ("26000", "42P05", "34000")
# syntax_error, undefined_parameter, indeterminate_datatype: PostgreSQL cannot read what we wrote.
_DEFECTS = ("42601", "42P02", "42P18")

_AWAY = "PostgreSQL is away"
_SLOW = "PostgreSQL is too slow, or somebody holds a lock for too long"
_NOT_MIGRATED = "the schema is missing or older than this program: run `registry migrate`"
_READ_ONLY = "PostgreSQL refuses writes: it is a standby, or set to read only"
_NO_PRIMARY = "no PostgreSQL of REGISTRY_DATABASE_URL is of the kind that its target_session_attrs asks for"
_CROWDED = "this process has more to ask of PostgreSQL than its connections carry"
_REFUSES = "PostgreSQL refuses what the registry asks of it"
# By SQLSTATE: what clients are told, and what an operator can do about it.
_KNOWN = {
    # lock_not_available, query_canceled
    "55P03": (_SLOW, ""),
    "57014": (_SLOW, ""),
    # undefined_table, undefined_column, undefined_function
    "42P01": (_NOT_MIGRATED, ""),
    "42703": (_NOT_MIGRATED, ""),
    "42883": (_NOT_MIGRATED, ""),
    # read_only_sql_transaction
    "25006": (_READ_ONLY, "add target_session_attrs=read-write to REGISTRY_DATABASE_URL if it names several hosts"),
    # invalid_password, invalid_authorization_specification, invalid_catalog_name
    "28P01": ("PostgreSQL refuses the registry's password", "mend the password in REGISTRY_DATABASE_URL"),
    "28000": (
        "PostgreSQL does not let the registry's role in",
        "CREATE ROLE {role} LOGIN, or let it in from this host by pg_hba.conf (hostssl needs sslmode=require)",
    ),
    "3D000": (
        "PostgreSQL has no database of the name in REGISTRY_DATABASE_URL",
        "CREATE DATABASE of that name OWNER {role} ENCODING 'UTF8' TEMPLATE template0, or mend the URL",
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

HELD_UP = ("55P03", "40P01")
"""lock_not_available, deadlock_detected: somebody else holds what is asked for."""

_LOG_EVERY = 10.0
"""Seconds between two log lines of one reason."""
_MOST_REASONS = 100


class Diagnosis(Struct, frozen=True):
    """What a failure means.

    Attributes:
        told: to clients, without our internals.
        fix: what an operator can do, empty where there is nothing.
        refused: PostgreSQL answered, and refused; otherwise it is an outage.
        lone: it is about the very rows at hand, and others may be stored.
        stale: a fresh connection may mend it.
        sqlstate: PostgreSQL's code, empty when the driver found it out.
    """

    told: str
    fix: str = ""
    refused: bool = False
    row_specific: bool = False
    stale: bool = False
    sqlstate: str = ""


def diagnose(error: BaseException) -> Diagnosis | None:
    """Return what a failure means; None for a defect of ours."""
    if isinstance(error, DBAPIError):
        return _of_sqlalchemy(error)
    if isinstance(error, asyncpg.PostgresError):
        return _of_state(error)
    if isinstance(error, asyncpg.InternalClientError | asyncpg.InterfaceError):
        return _of_driver(error)
    # One that waits for a connection of the pool is SQLAlchemy's own, and one of the loop is an OSError as well.
    if isinstance(error, PoolTimeoutError):
        return Diagnosis(_CROWDED)
    if isinstance(error, TimeoutError):
        return Diagnosis(_SLOW)
    return Diagnosis(_AWAY) if isinstance(error, OSError) or type(error) is SQLAlchemyError else None


def is_stale(error: BaseException) -> bool:
    """Tell whether the connection that an error came by is to be closed, because a fresh one may do better."""
    if isinstance(error, UnavailableError):
        return isinstance(error, RefusedError) and error.stale
    found = diagnose(error)
    return found is not None and found.stale


def leaves_connection(error: BaseException) -> bool:
    """Tell whether an error is an answer of PostgreSQL after which it takes the next statement as if nothing were."""
    found = diagnose(error)
    return found is not None and found.refused and not found.stale


async def retry_if_stale(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do some work, and once more if a fresh connection may mend its failure.

    Raises:
        UnavailableError: it could not be done.
    """
    try:
        return await work()
    except RefusedError as error:
        if not error.stale:
            raise
        return await work()


def _of_state(error: asyncpg.PostgresError) -> Diagnosis | None:
    state = str(error.sqlstate or "08000")
    if type(error) is asyncpg.DataError and error.severity is None:
        # Of the driver's own: an argument that cannot be put on the wire.
        return None
    if state in _KNOWN:
        told, fix = _KNOWN[state]
        return Diagnosis(told, fix, sqlstate=state)
    if state in _DEFECTS:
        return None
    if state[:2] in _PASSING:
        return Diagnosis(_AWAY, sqlstate=state)
    told = f"{_REFUSES} ({_words(error)}, SQLSTATE {state})"
    stale = state in _STALE or isinstance(error, asyncpg.InvalidCachedStatementError)
    row_specific = state[:2] in _OF_ONE and state not in _OF_ALL
    return Diagnosis(told, _fix(error, state), refused=True, row_specific=row_specific, stale=stale, sqlstate=state)


def _of_sqlalchemy(error: DBAPIError) -> Diagnosis | None:
    cause = None if error.orig is None else error.orig.__cause__
    if isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return diagnose(cause)
    # A ValueError: the driver could not put an argument on the wire, and never will.
    return None if isinstance(cause, ValueError) else Diagnosis(_AWAY)


def _of_driver(error: Exception) -> Diagnosis | None:
    if isinstance(error, ValueError):
        # An argument, or the URL, that the driver cannot read.
        return None
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Diagnosis(_NO_PRIMARY, "wait for the fail-over, or mend target_session_attrs in REGISTRY_DATABASE_URL")
    if isinstance(error, asyncpg.InternalClientError) or "another operation" in str(error):
        return Diagnosis(f"{_REFUSES} (a connection is in disorder)", refused=True, stale=True)
    return Diagnosis(_AWAY)


def _fix(error: asyncpg.PostgresError, state: str) -> str:
    if state == "42501":
        schema = _SCHEMA.search(str(error))
        if schema is not None:
            return f"GRANT USAGE, CREATE ON SCHEMA {schema['name']} TO {{role}}, or name a schema of its own: {_OWN}"
        return "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}, or let it own them"
    if state == "3F000":
        return f"CREATE SCHEMA of the name in search_path, or mend it in REGISTRY_DATABASE_URL: {_OWN}"
    if state in _STALE:
        return "if a pooler is between, let it pool by session"
    return str(error.hint or "").replace("{", "{{").replace("}", "}}")


def _words(error: asyncpg.PostgresError) -> str:
    """Return the name of a condition in PostgreSQL's documentation, of the driver's name for it."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def first_line(error: BaseException) -> str:
    """Return the first line of what was found, as PostgreSQL or the driver put it."""
    original = getattr(error, "orig", None)
    original = (original and original.__cause__) or original or error
    return (str(original).splitlines() or [""])[0] or type(original).__name__


class translate_errors:  # noqa: N801  # reads as a statement: with translate_errors()
    """Turn what PostgreSQL fails or refuses to do into ``UnavailableError``; let defects through.

    Args:
        role: of the connection, for what an operator is told to do about it.
        quiet: log no refusal, because whoever asked says it.
    """

    def __init__(self, role: str = "the registry's role", *, quiet: bool = False) -> None:
        self._role = role
        self._quiet = quiet

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        found = None if error is None else diagnose(error)
        if error is None or found is None:
            return
        cause = f"{found.told}: {first_line(error)}"
        if found.fix:
            cause = f"{cause}; {found.fix.format(role=self._role)}"
        if not found.refused:
            raise UnavailableError(found.told, cause=cause) from error
        DATABASE_REFUSALS.labels(found.sqlstate or "none").inc()
        if not self._quiet:
            _lines.tell(cause, time.monotonic())
        raise RefusedError(found.told, cause=cause, row_specific=found.row_specific, stale=found.stale) from error


class _Lines:
    """Log lines of refusals, one a reason in ten seconds: the same reason may come with every heartbeat."""

    def __init__(self) -> None:
        # When each reason was last logged, and how often it came since.
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, reason: str, now: float) -> None:
        told_at, since = self._told.get(reason, (-_LOG_EVERY, 0))
        if now - told_at < _LOG_EVERY:
            self._told[reason] = (told_at, since + 1)
            return
        if len(self._told) >= _MOST_REASONS:
            self._told.clear()
        self._told[reason] = (now, 0)
        log.warning("postgresql_refused", reason=reason, not_logged_since=since)


_lines = _Lines()
