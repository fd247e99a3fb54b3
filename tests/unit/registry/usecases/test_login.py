"""The limit on logins; what logins do is in tests/integration/registry/access/test_aws_login.py."""

import asyncio
import ipaddress
from contextlib import AsyncExitStack

import pytest

from registry.auth.access_table import AccessTable
from registry.auth.aws_login import LoginRules
from registry.auth.principal import Principal
from registry.auth.sts_client import StsClient
from registry.auth.subject import Subject
from registry.core.audit import AuditQueue
from registry.core.clock import Clock
from registry.errors import LimitError, NotFoundError, UnauthenticatedError, UnavailableError
from registry.process import RegistryProcess
from registry.settings import load_settings
from registry.store.database import Database
from registry.usecases import login
from registry.usecases.audit import Audit
from registry.usecases.login import LOGIN_BURST, IssuedSession, Login, Logins, login_limit


def logins(*, limited: bool) -> Logins:
    """Return the use case without STS, on a database that is not there."""
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", connections=8, timeout=1.0)
    limit = login_limit([ipaddress.ip_network("10.9.0.0/16")]) if limited else None
    clock = Clock()
    audit = Audit(AuditQueue(), clock)
    return Logins(database, AccessTable(), clock, LoginRules(frozenset(), frozenset()), None, audit, limit)


async def test_one_peer_logs_in_so_often() -> None:
    """Renewals count too. Others, proxies and loopback go on."""
    limited = logins(limited=True)
    for _ in range(LOGIN_BURST - 1):
        with pytest.raises(NotFoundError):
            await limited.login_aws("10.0.0.5", b"")
    with pytest.raises(UnauthenticatedError):
        await limited.renew(Principal("10.0.0.5"))
    with pytest.raises(LimitError) as caught:
        await limited.login_aws("10.0.0.5", b"")
    assert 0 < caught.value.retry_after <= 0.2
    with pytest.raises(LimitError):
        await limited.renew(Principal("10.0.0.5"))
    for other in ("10.0.0.6", *["10.9.0.1"] * 50, *["127.0.0.1"] * 50):
        with pytest.raises(NotFoundError):
            await limited.login_aws(other, b"")


async def test_one_principal_renews_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the mode and the peer: a stolen session cannot fill the table of sessions."""
    monkeypatch.setattr(login, "MAX_WAITING", 0)
    unlimited = logins(limited=False)
    principal = Principal("127.0.0.1", subject=Subject("aws:1:shop/a", session_name="a", credential="b"))
    for _ in range(login.PRINCIPAL_BURST):
        with pytest.raises(UnavailableError):
            await unlimited.renew(principal)
    with pytest.raises(LimitError, match="aws:1:shop/a logs in or renews more than once in 5 s"):
        await unlimited.renew(principal)


async def test_while_access_is_off_there_is_no_limit_of_a_peer() -> None:
    """Before anybody has an identity, those behind one address cannot be told apart."""
    unlimited = logins(limited=False)
    for _ in range(LOGIN_BURST * 3):
        with pytest.raises(NotFoundError):
            await unlimited.login_aws("10.0.0.5", b"")


@pytest.mark.parametrize(("mode", "limited"), [("off", False), ("audit", False), ("on", True)])
def test_the_limit_holds_where_access_is_on(mode: str, *, limited: bool) -> None:
    """REGISTRY_AUTH decides."""
    process = RegistryProcess(load_settings(auth=mode), "postgresql://nobody@127.0.0.1:1/nothing")
    assert (process.logins._limit is not None) is limited


def test_a_login_in_a_traceback_shows_no_token() -> None:
    """A repr is what a log or a traceback has."""
    session = IssuedSession("id", "hcs_id_secret", 1.0)
    assert "secret" not in repr(Login("aws:111122223333:shop/i-0abc", session, session))


async def test_logins_leave_connections_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are stored at once; those behind them wait for so long, and so many of them."""
    monkeypatch.setattr(login, "_STORING_TIMEOUT", 0.05)
    monkeypatch.setattr(login, "MAX_WAITING", 1)
    waiting = logins(limited=False)
    async with waiting._storing(), AsyncExitStack() as stack:
        await stack.enter_async_context(waiting._storing())
        third = asyncio.create_task(stack.enter_async_context(waiting._storing()))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="1 logins wait to be stored already"):
            await stack.enter_async_context(waiting._storing())
        with pytest.raises(UnavailableError, match="logins before this one wait"):
            await third
    async with waiting._storing():
        pass


async def test_without_postgresql_sts_is_not_asked() -> None:
    """The workload's login is not used up, and AWS is not asked for what cannot be stored."""
    away = logins(limited=False)
    away._sts = StsClient("http://127.0.0.1:1")
    away._table.mark_read(0.0)
    for ready in (False, True):
        away._table.ready = ready
        if ready:
            away._table.mark_away()
        with pytest.raises(UnavailableError, match="PostgreSQL does not answer this process"):
            await away.login_aws("10.0.0.5", b"{}")
    away._table.mark_read(1.0)
    with pytest.raises(UnauthenticatedError, match="one key"):
        await away.login_aws("10.0.0.5", b"{}")
    await away._sts.close()
