"""The AWS login against a registry that answers it, refuses it, or is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest
from harness.fake_registry import FakeRegistry

from registrar.credentials import aws_login
from registrar.credentials.aws_login import AwsLogin, FailureKind, LoginFailure
from registrar.credentials.session import begin
from registrar.credentials.sigv4 import AwsKeys
from registrar.errors import AwsIdentityUnavailable, RegistryRefused, RegistryUnavailable
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.login_answer import IssuedToken, LoginAnswer
from registrar.registry_client.registries import RegistryUrls
from wire.model import Heartbeat, Registration, Report
from wire.problem import CONTENT_TYPE, Problem

BEAT = Heartbeat("shop", "10.0.0.5:8080", Registration("task-1", 1, Report.HEALTHY))
UNAUTHENTICATED = Problem("Unauthenticated", 401, "STS says: ExpiredToken")
NOT_ALLOWED = Problem("Not allowed", 403, "no identity for the role shop-task-role")
AWAY = Problem("Unavailable", 503, "AWS's STS does not answer")


class Keys:
    """A source of keys that a test can take away."""

    def __init__(self) -> None:
        self.there = True
        self.asked = 0

    async def find(self, _: Mapping[str, str]) -> AwsKeys:
        """Return the keys."""
        self.asked += 1
        if not self.there:
            raise AwsIdentityUnavailable("IMDSv2: 404", "give the instance a profile")
        return AwsKeys("ASIAFAKE", "secret", f"session-{self.asked}")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """A registry with access control."""
    async with FakeRegistry() as fake:
        fake.closed = True
        yield fake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(aws_login, "_BACKOFF_BASE", 0.02)
    monkeypatch.setattr(aws_login, "_MAX_BACKOFF", 0.1)


@contextlib.asynccontextmanager
async def logging_in(
    *registries: FakeRegistry, keys: Keys | None = None
) -> AsyncIterator[tuple[AwsLogin, RegistryClient]]:
    """A login that runs, and the client that sends its session."""
    login = AwsLogin("eu-central-1", "headcount", "task-1", {}, (keys or Keys()).find)
    async with RegistryClient(RegistryUrls(*(each.url for each in registries)), credential=login) as client:
        task = asyncio.create_task(login.run(client))
        try:
            yield login, client
        finally:
            task.cancel()
            await asyncio.wait({task})


async def has(condition: object, limit: float = 5.0) -> None:
    """Wait until a function returns something."""
    async with asyncio.timeout(limit):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_the_session_of_a_login_is_sent(registry: FakeRegistry) -> None:
    """The proof is for this registry, instance and moment, and the heartbeats carry the registrar's token."""
    async with logging_in(registry) as (login, client):
        await login.attempted.wait()
        await client.heartbeats([BEAT])
        assert registry.headers["authorization"] == "Bearer hcs_registrar-1"
        assert login.envoy_token is not None
        assert login.envoy_token.token == "hcs_envoy-1"
    ((_, headers),) = registry.logins
    assert (headers["x-registry-audience"], headers["x-registry-instance"]) == ("headcount", "task-1")
    assert len(bytes.fromhex(headers["x-registry-nonce"])) * 8 >= 128
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert signed == sorted(set(headers) - {"authorization"})
    assert {"content-type", "host", "x-amz-date", "x-amz-security-token"} <= set(signed)


async def test_it_is_renewed_at_half_its_life(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token changes without another login, and the new one is sent."""
    monkeypatch.setattr(aws_login, "_RENEWAL_SHARE", 0.1 / 3600)
    async with logging_in(registry) as (login, client):
        await has(lambda: login.counts["renewed"] >= 3)
        await client.heartbeats([BEAT])
    assert registry.renewals[:2] == ["hcs_registrar-1", "hcs_registrar-2"]
    assert len(registry.logins) == 1


async def test_a_refused_renewal_is_followed_by_a_login(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once; the old session serves meanwhile."""
    monkeypatch.setattr(aws_login, "_RENEWAL_SHARE", 0.1 / 3600)
    registry.refuse_renewal = NOT_ALLOWED
    async with logging_in(registry) as (login, _):
        await has(lambda: len(registry.logins) >= 2)
        assert login.failure is None
    assert len(registry.renewals) in (1, 2)


async def test_a_renewal_that_fails_is_repeated_and_the_session_goes_on(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 is told apart from a refusal; no login is tried meanwhile, and the session is back with a renewal."""
    monkeypatch.setattr(aws_login, "_RENEWAL_SHARE", 0.1 / 3600)
    registry.refuse_renewal = AWAY
    async with logging_in(registry) as (login, client):
        await has(lambda: len(registry.renewals) >= 3)
        assert login.failure is not None
        assert (login.failure.kind, "503" in login.failure.reason) == (FailureKind.UNAVAILABLE, True)
        await client.heartbeats([BEAT])
        registry.refuse_renewal = None
        await has(lambda: login.counts["renewed"])
        await has(lambda: login.failure is None)
    assert len(registry.logins) == 1


async def test_a_401_leads_to_one_login(registry: FakeRegistry) -> None:
    """A session that is revoked is replaced once, however many requests were refused; they are to be repeated."""
    async with logging_in(registry) as (login, client):
        await login.attempted.wait()
        await client.heartbeats([BEAT])
        registry.tokens.clear()
        results = await asyncio.gather(*(client.heartbeats([BEAT]) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, RegistryUnavailable) for result in results)
        await has(lambda: login.counts["accepted"] == 2)
        await client.heartbeats([BEAT])
        await asyncio.sleep(0.1)
    assert len(registry.logins) == 2


async def test_the_late_refusal_of_an_old_token_is_no_reason_to_log_in(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is repeated with the token that is there already; one that works for a while ends the pauses."""
    registry.refuse_login = AWAY
    async with logging_in(registry) as (login, client):
        await has(lambda: len(registry.logins) >= 3)
        registry.refuse_login = None
        await has(lambda: login.session)
        await client.heartbeats([BEAT])
        assert login._backoff._failures >= 3
        monkeypatch.setattr(aws_login, "_SETTLED_AGE", 0.0)
        await client.heartbeats([BEAT])
        assert login._backoff._failures == 0
        before = len(registry.logins)
        assert login.refused("hcs_before")
        await asyncio.sleep(0.1)
        assert len(registry.logins) == before


async def test_a_session_that_cannot_be_renewed_is_not_renewed_again(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no login is possible either, the session serves, and only the login is repeated."""
    monkeypatch.setattr(aws_login, "_RENEWAL_SHARE", 0.1 / 3600)
    registry.refuse_renewal = NOT_ALLOWED
    async with logging_in(registry) as (login, client):
        await login.attempted.wait()
        registry.refuse_login = AWAY
        await has(lambda: len(registry.logins) >= 4)
        await client.heartbeats([BEAT])
    assert len(registry.renewals) == 1


async def test_sessions_that_are_never_accepted_are_no_storm(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins that are answered, and whose sessions are refused all the same, become rarer."""
    monkeypatch.setattr(aws_login, "_MAX_BACKOFF", 60.0)
    monkeypatch.setattr(aws_login, "_BACKOFF_BASE", 0.5)
    refusal = (401, {"content-type": CONTENT_TYPE}, msgspec.json.encode(UNAUTHENTICATED))
    async with logging_in(registry) as (login, client):
        await login.attempted.wait()
        for _ in range(100):
            registry.failures.append(refusal)
            with pytest.raises(RegistryUnavailable):
                await client.heartbeats([BEAT])
            await asyncio.sleep(0.01)
    # Refusals that come meanwhile do not put the next login off, and no two proofs have the same nonce.
    assert 2 <= len(registry.logins) <= 8
    assert len({headers["x-registry-nonce"] for _, headers in registry.logins}) == len(registry.logins)


async def test_refusals_that_come_meanwhile_are_one_failure() -> None:
    """Ten requests with a new session put the next login off once; none is needed once the session works."""
    login = AwsLogin("eu-central-1", "headcount", "task-1", {}, Keys().find)
    login._take(begin(LoginAnswer(IssuedToken("hcs_1", 3600.0)), 0.0, asyncio.get_running_loop().time()))
    for _ in range(10):
        assert login.refused("hcs_1")
    assert login._backoff._failures == 1
    login._fail(LoginFailure(FailureKind.UNAVAILABLE, "AWS's STS does not answer"), "http://registry")
    login.accepted("hcs_1")
    assert login.failure is None


async def test_a_refused_login_is_said_with_the_registrys_words(
    registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """403 is a refusal, logged once; requests are refused and not repeated in haste; a grant mends it."""
    registry.refuse_login = NOT_ALLOWED
    async with logging_in(registry) as (login, client):
        await has(lambda: len(registry.logins) >= 3)
        assert login.failure is not None
        assert (login.failure.kind, login.failure.status) == (FailureKind.REFUSED, 403)
        with pytest.raises(RegistryRefused):
            await client.heartbeats([BEAT])
        assert "authorization" not in registry.headers
        events = [record for record in caplog.records if record.getMessage() == "login_refused"]
        assert len(events) == 1
        assert NOT_ALLOWED.detail in vars(events[0])["fields"]["reason"]
        registry.refuse_login = None
        await has(lambda: login.session)
        await client.heartbeats([BEAT])


async def test_an_open_registry_needs_no_login(registry: FakeRegistry) -> None:
    """A registry of an older version knows no login; heartbeats go on without a credential."""
    registry.closed, registry.refuse_login = False, Problem("Not found", 404, "no route /v1/login/aws")
    async with logging_in(registry) as (login, client):
        await login.attempted.wait()
        assert login.failure is not None
        await client.heartbeats([BEAT])
        assert "authorization" not in registry.headers


async def test_keys_that_are_away_end_no_session(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the end of the renewals a login is tried first; the session is renewed where it is impossible or refused."""
    monkeypatch.setattr(aws_login, "_RENEWAL_SHARE", 0.1 / 43_200)
    registry.session_life = 43_200
    keys = Keys()
    async with logging_in(registry, keys=keys) as (login, client):
        await has(lambda: keys.asked >= 2)
        keys.there = False
        await has(lambda: registry.renewals)
        await has(lambda: login.counts["impossible"])
        await client.heartbeats([BEAT])
        renewed, keys.there, registry.refuse_login = login.counts["renewed"], True, NOT_ALLOWED
        await has(lambda: login.counts["refused"] and login.counts["renewed"] > renewed + 1)


async def test_a_session_works_at_every_registry(registry: FakeRegistry) -> None:
    """The login is at one, the heartbeats at another when that one goes away."""
    async with FakeRegistry() as other:
        other.closed, other.tokens = True, registry.tokens
        async with logging_in(registry, other) as (login, client):
            await login.attempted.wait()
            await client.heartbeats([BEAT])
            first = registry if registry.logins else other
            first.failures.append((503, {}, b""))
            with pytest.raises(RegistryUnavailable):
                await client.heartbeats([BEAT])
            await client.heartbeats([BEAT])
            await client.heartbeats([BEAT])
    assert len(registry.logins) + len(other.logins) == 1


async def test_a_registry_that_refuses_every_session_takes_none_from_the_others(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins become rare, and the session that the other registry accepts goes on."""
    monkeypatch.setattr(aws_login, "_BACKOFF_BASE", 1.0)
    monkeypatch.setattr(aws_login, "_MAX_BACKOFF", 60.0)
    async with FakeRegistry() as stale:
        stale.closed, stale.refuse_login = True, AWAY
        async with logging_in(registry, stale) as (login, client):
            await has(lambda: login.session)
            for _ in range(60):
                with contextlib.suppress(RegistryUnavailable):
                    await client.heartbeats([BEAT])
                    # The next connection is to the other one, as after the age of this one.
                    client._transport._turn()
                await asyncio.sleep(0.01)
            assert len(stale.batches) >= 10
            assert len(registry.accepted) >= 20
    assert len(registry.logins) <= 3


async def test_a_wrong_clock_is_corrected_by_the_registrys(registry: FakeRegistry) -> None:
    """After a refusal the proof is signed with the registry's time; the session lives an hour by any clock."""
    registry.clock, registry.refuse_login = 86_400.0, UNAUTHENTICATED
    async with logging_in(registry) as (login, _):
        await has(lambda: registry.logins)
        registry.refuse_login = None
        await has(lambda: login.session)
        assert login.session is not None
        left = login.session.registrar.ends_at - asyncio.get_running_loop().time()
        assert 3590 < left <= 3601
    days = [headers["x-amz-date"][:8] for _, headers in registry.logins]
    assert int(days[-1]) > int(days[0])


async def test_an_answer_that_makes_no_sense_is_no_login(
    registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A document without a token, or with one that would forge a header, is a failure, and its token is not logged."""
    login = AwsLogin("eu-central-1", "headcount", "task-1", {}, Keys().find)
    bodies = [b"{}", b'{"registrar": {"token": "s3cret\\r\\nx: y", "expires_at": 1}}', b"<html>", b'{"registrar": {}}']
    for body in bodies:
        async with RegistryClient(RegistryUrls(registry.url), credential=login) as client:
            registry._session = lambda *_, body=body: (200, {}, body)  # type: ignore[method-assign]
            with pytest.raises(RegistryUnavailable) as error:
                await client.login({})
            assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("region", "instance_id"), [("", "task-1"), ("eu-central-1", "müller"), ("eu-central-1", "a  b")]
)
async def test_what_cannot_be_proven_is_said(registry: FakeRegistry, region: str, instance_id: str) -> None:
    """Without a region, or with an id that no header can have, no request is made and the fix is named."""
    login = AwsLogin(region, "headcount", instance_id, {}, Keys().find)
    async with RegistryClient(RegistryUrls(registry.url), credential=login) as client:
        task = asyncio.create_task(login.run(client))
        await login.attempted.wait()
        task.cancel()
        assert login.failure is not None
        assert (login.failure.kind, "set " in login.failure.reason) == (FailureKind.IMPOSSIBLE, True)
    assert registry.logins == []
