"""Single requests to a registry over real HTTP."""

import asyncio
import contextlib

import msgspec
import pytest
from harness.fake_registry import FakeRegistry

from registrar.errors import RegistryRefused, RegistryRequestError, RegistryUnavailable
from registrar.registry_client.client import Listed, RegistryClient
from registrar.registry_client.endpoint_ref import EndpointRef
from registrar.registry_client.registries import RegistryUrls
from wire.model import Health, Heartbeat, Registration, Report
from wire.probe_report import ProbeReport, ProbeResult
from wire.problem import Problem

BEAT = Heartbeat("shop", "10.0.0.5:8080", Registration("i-1", 7, metadata={"tier": "web"}))


def client(*urls: str, timeout: float = 2.0) -> RegistryClient:
    """Return a client of these registries."""
    return RegistryClient(RegistryUrls(*urls), timeout)


async def test_heartbeats_go_out_whole_and_come_back_in_order(registry: FakeRegistry) -> None:
    """The registry reads the sent heartbeats, and each of them has its result."""
    other = Heartbeat("admin", "[2001:db8::5]:9", Registration("i-1", 7))
    async with client(registry.url) as it:
        answers = await it.heartbeats([BEAT, other])
    assert registry.heartbeats == [BEAT, other]
    assert [answer.endpoint for answer in answers] == [BEAT.endpoint, other.endpoint]


async def test_one_connection_serves_many_requests(registry: FakeRegistry) -> None:
    """Heartbeats reuse their connection."""
    async with client(registry.url) as it:
        for _ in range(3):
            await it.heartbeats([BEAT])
        assert len(registry._connections) == 1


async def test_after_a_failure_the_next_registry_is_asked(registry: FakeRegistry, unused_tcp_port: int) -> None:
    """A registry that is away costs one attempt; nothing was sent, so nothing was stored."""
    async with client(f"http://127.0.0.1:{unused_tcp_port}", registry.url) as it:
        with pytest.raises(RegistryUnavailable) as raised:
            await it.heartbeats([BEAT])
        assert not raised.value.perhaps_stored
        assert it.registry == registry.url
        await it.heartbeats([BEAT])


async def test_a_silent_registry_costs_one_timeout(registry: FakeRegistry) -> None:
    """An attempt ends after its timeout, and may have been stored."""
    registry.silent = True
    started = asyncio.get_running_loop().time()
    async with client(registry.url, timeout=0.2) as it:
        with pytest.raises(RegistryUnavailable) as raised:
            await it.heartbeats([BEAT])
    assert raised.value.perhaps_stored
    assert asyncio.get_running_loop().time() - started < 1


@pytest.mark.parametrize(
    "failure",
    [
        (429, {"retry-after": "9"}, msgspec.json.encode(Problem("busy", 429, "too many digests"))),
        (413, {"content-type": "application/problem+json"}, msgspec.json.encode(Problem("large", 413, "64 kB"))),
        (503, {}, b""),
        (404, {}, b"<html>not found"),
        (200, {}, b"<html>sign in"),
        None,
    ],
    ids=lambda failure: "silence" if failure is None else f"{failure[0]}",
)
async def test_a_digest_or_a_probe_that_fails_says_nothing_of_heartbeats(
    registry: FakeRegistry, unused_tcp_port: int, failure: tuple[int, dict[str, str], bytes] | None
) -> None:
    """They go on to the registry that renews them, over the connection that they have."""
    report = ProbeReport("shop", "10.0.0.5:8080", "i-1", [ProbeResult("10.0.0.6:8080", 7, "refused", 3, 0.1)])
    async with client(registry.url, f"http://127.0.0.1:{unused_tcp_port}", timeout=0.3) as it:
        await it.heartbeats([BEAT])
        for send in (lambda: it.report_traffic(b"{}"), lambda: it.report_probes(report)):
            if failure is None:
                registry.silent = True
            else:
                registry.failures.append(failure)
            with contextlib.suppress(RegistryRequestError):
                await send()
            registry.silent = False
            assert it.registry == registry.url
            await it.heartbeats([BEAT])


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"retry-after": "7"}, b"", 7),
        ({}, msgspec.json.encode(Problem("busy", 503, "later", retry_after=0.5)), 0.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"", None),
        ({}, b"<html>bad gateway", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_an_overloaded_registry_says_when_to_come_back(
    registry: FakeRegistry, status: int, headers: dict[str, str], body: bytes, expected: float | None
) -> None:
    """Header or problem name the seconds; a date is ignored because clocks differ."""
    registry.failures.append((status, headers, body))
    async with client(registry.url) as it:
        with pytest.raises(RegistryUnavailable) as raised:
            await it.heartbeats([BEAT])
    assert raised.value.retry_after == expected


async def test_a_refused_batch_carries_the_problem(registry: FakeRegistry) -> None:
    """The problem document of a 4xx reaches the caller whole."""
    problem = Problem("bad", 422, "no such thing", pointer="$.heartbeats[0]")
    registry.failures.append((422, {}, msgspec.json.encode(problem)))
    async with client(registry.url) as it:
        with pytest.raises(RegistryRefused) as raised:
            await it.heartbeats([BEAT])
    assert raised.value.problem == problem


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"results": []}', b'{"results": [{"service": "x", "endpoint": "10.0.0.5:8080"}]}']
)
async def test_an_answer_that_does_not_fit_is_a_failure(registry: FakeRegistry, body: bytes) -> None:
    """A 200 of something else is no grant."""
    registry.failures.append((200, {}, body))
    async with client(registry.url) as it:
        with pytest.raises(RegistryUnavailable, match="answer"):
            await it.heartbeats([BEAT])


async def test_unknown_fields_of_newer_registries_are_ignored(registry: FakeRegistry) -> None:
    """Fault 25: answers may grow."""
    body = b'{"results": [{"service": "shop", "endpoint": "10.0.0.5:8080", "new": 1}], "more": 2}'
    registry.failures.append((200, {}, body))
    async with client(registry.url) as it:
        assert len(await it.heartbeats([BEAT])) == 1


async def test_deregister_names_instance_and_incarnation(registry: FakeRegistry) -> None:
    """The DELETE carries who gives the lease back; odd names are quoted."""
    ref = EndpointRef("shop@eu", "[2001:db8::5]:8080", "i 1&x", 7)
    async with client(registry.url) as it:
        assert await it.deregister(ref)
    (deleted,) = registry.deregistrations
    assert deleted.path == "/v1/services/shop%40eu/endpoints/%5B2001:db8::5%5D:8080"
    assert (deleted.instance_id, deleted.incarnation) == ("i 1&x", 7)


@pytest.mark.parametrize("status", [404, 409])
async def test_nothing_left_to_deregister_is_no_error(registry: FakeRegistry, status: int) -> None:
    """Somebody else has it, or nobody: either way it is no longer ours."""
    registry.deregister_status = status
    async with client(registry.url) as it:
        assert not await it.deregister(EndpointRef("shop", "10.0.0.5:8080", "i-1", 7))


async def test_a_drain_is_answered_with_what_is_listed(registry: FakeRegistry) -> None:
    """The result is the listed status, or None if the registry lists nothing of the instance."""
    ref = EndpointRef("shop", "10.0.0.5:8080", "i-1", 7)
    async with client(registry.url) as it:
        assert await it.drain(ref) is None
        registry.listed = {"status": "DRAINING", "health": "HEALTHY", "lease_ttl": 20.0}
        assert await it.drain(ref) == Listed(Health.DRAINING, Report.HEALTHY)
        registry.listed = {"status": "well"}
        with pytest.raises(RegistryUnavailable, match="answer not understood"):
            await it.drain(ref)


@pytest.mark.parametrize("status", [404, 409])
async def test_a_proxy_does_not_know_what_is_listed(registry: FakeRegistry, status: int) -> None:
    """Its 404 is no word about an endpoint: the registry speaks in problem documents."""
    registry.failures.append((status, {"content-type": "text/html"}, b"<html>"))
    async with client(registry.url) as it:
        with pytest.raises(RegistryRefused):
            await it.drain(EndpointRef("shop", "10.0.0.5:8080", "i-1", 7))
