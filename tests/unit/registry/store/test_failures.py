"""The meaning of errors of PostgreSQL and its driver: an outage, a refusal, or a defect."""

import socket
import ssl
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError

from registry.errors import RefusedError, UnavailableError
from registry.store.failures import ConnectTimeoutError, diagnose, retry_if_stale, translate_errors


def answer(state: str, message: str = "no", **fields: str) -> asyncpg.PostgresError:
    """Return the error that the driver makes of PostgreSQL's answer."""
    message_fields = {"S": "ERROR", "V": "ERROR", "C": state, "M": message, **fields}
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(message_fields)
    return error


def raised(error: BaseException) -> BaseException:
    """Return what is raised in its place."""
    with pytest.raises(BaseException) as caught, translate_errors():  # noqa: PT011  # any is looked at
        raise error
    return caught.value


STALE_PLAN = answer("0A000", "cached plan must not change result type", R="RevalidateCachedQuery")
BUSY = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")


@pytest.mark.parametrize(
    ("error", "row_specific", "stale"),
    [
        (answer("42501", "permission denied for table leases"), False, False),
        (answer("2200H", "nextval: reached maximum value of sequence"), False, False),
        (answer("26000", 'prepared statement "__asyncpg_1__" does not exist'), False, True),
        (answer("42P05", "prepared statement already exists"), False, True),
        (STALE_PLAN, False, True),
        (BUSY, False, True),
        (asyncpg.OutdatedSchemaCacheError("the type is gone"), False, True),
        (answer("23514", "violates check constraint"), True, False),
        (answer("22P05", "character has no equivalent in encoding LATIN1"), True, False),
        (answer("54000", "commit refused"), True, False),
        (answer("P0001", "a trigger says no"), True, False),
        (answer("99999", "of an extension that nobody knows"), False, False),
    ],
    ids=str,
)
def test_refusals(error: Exception, row_specific: bool, stale: bool) -> None:
    """They are 503, and say whether they are true of all and whether a fresh connection may do better."""
    refusal = raised(error)
    assert isinstance(refusal, RefusedError)
    assert (refusal.row_specific, refusal.stale) == (row_specific, stale)
    assert str(refusal).startswith("PostgreSQL refuses what the registry asks of it (")
    assert refusal.retry_after >= 1
    assert str(error).splitlines()[0] in refusal.cause


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (answer("28P01", 'password authentication failed for user "hcu"'), "refuses the registry's password"),
        (answer("28000", "no pg_hba.conf entry for host"), "does not let the registry's role in"),
        (answer("3D000", 'database "hc" does not exist'), "has no database of the name"),
        (answer("53300", "too many connections for role"), "takes no more connections"),
        (answer("57P03", "the database system is in recovery mode"), "starting, stopping or recovering"),
        (answer("25006", "cannot execute UPDATE in a read-only transaction"), "refuses writes"),
        (answer("42P01", 'relation "leases" does not exist'), "run `registry migrate`"),
        (answer("55P03", "canceling statement due to lock timeout"), "too slow"),
        (answer("57P01", "terminating connection"), "is away"),
        (ConnectionRefusedError(111, "Connection refused"), "is away"),
        (TimeoutError(), "too slow"),
        (asyncpg.InterfaceError("connection is closed"), "is away"),
        (asyncpg.TargetServerAttributeNotMatched("none of the hosts match"), "target_session_attrs"),
    ],
    ids=str,
)
def test_outages(error: Exception, message: str) -> None:
    """Each is called what it is, and not a refusal."""
    outage = raised(error)
    assert isinstance(outage, UnavailableError)
    assert not isinstance(outage, RefusedError)
    assert message in str(outage)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (socket.gaierror(-2, "Name or service not known"), "correct the host in REGISTRY_DATABASE_URL"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "correct host and port"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0)"), "correct host and port"),
        (FileNotFoundError(2, "No such file or directory"), "correct host and port"),
        (ConnectTimeoutError("no answer within 2 s"), "a firewall or security group"),
        (ConnectionError('PostgreSQL server at "db:5432" rejected SSL upgrade'), "turn ssl on"),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), "sslrootcert=/path/ca.pem"),
        (ssl.SSLError(1, "tlsv1 alert protocol version"), "agree about TLS"),
        (answer("3D000", 'database "No-Such" does not exist'), "CREATE DATABASE \"No-Such\" OWNER app ENCODING 'UTF8'"),
        (answer("3D000", 'database "{x}" does not exist'), 'CREATE DATABASE "{x}" OWNER app'),
        (answer("42501", "permission denied for schema public"), "GRANT USAGE, CREATE ON SCHEMA public TO app"),
        (answer("42501", "must be owner of table events"), "as the role that owns the tables; app needs no more"),
        (answer("42501", "permission denied for table events"), "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"),
    ],
    ids=str,
)
def test_each_has_its_remedy_in_one_line(error: Exception, fix: str) -> None:
    """An operator who starts a registry reads what to run, with the names of the role and of the database."""
    with pytest.raises(UnavailableError) as caught, translate_errors("app"):
        raise error
    assert fix in caught.value.cause
    assert len(caught.value.cause.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a bug"),
        KeyError("a bug"),
        answer("42601", "syntax error"),
        asyncpg.DataError("invalid input for query argument $1"),
        asyncpg.ClientConfigurationError("invalid DSN"),
    ],
    ids=str,
)
def test_defects_keep_their_trace(error: Exception) -> None:
    """A bug of ours is never called an outage."""
    assert raised(error) is error
    assert diagnose(error) is None


def test_errors_by_way_of_sqlalchemy_mean_the_same() -> None:
    """They are judged by what the driver said."""
    for error, kind in ((answer("42501"), RefusedError), (BUSY, RefusedError), (answer("08006"), UnavailableError)):
        wrapped: Any = Exception("as SQLAlchemy's dialect has it")
        wrapped.__cause__ = error
        assert type(raised(DBAPIError("SELECT 1", {}, wrapped))) is kind
    lost: Any = Exception("the connection is closed")
    assert type(raised(InterfaceError("SELECT 1", {}, lost))) is UnavailableError


async def test_only_what_a_fresh_connection_may_mend_is_tried_again() -> None:
    """Once: a pooler between would have it fail for ever."""
    for stale, times in ((True, 2), (False, 1)):
        tried = 0

        async def work(stale: bool = stale) -> None:
            nonlocal tried
            tried += 1
            raise RefusedError("no", cause="no", stale=stale)

        with pytest.raises(RefusedError):
            await retry_if_stale(work)
        assert tried == times
