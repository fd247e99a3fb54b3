"""Registries behind names that change, hang or lie, and connections that age."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from harness.fake_registry import FakeRegistry
from harness.names import Names

from registrar.credentials.static_token import StaticToken, WatchedToken
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client import transport
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.dns import resolve
from registrar.registry_client.registries import Registries, RegistryUrls
from wire.model import Heartbeat, Registration

BEAT = Heartbeat("shop", "10.0.0.5:8080", Registration("i-1", 7))


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_heartbeats_go_on_while_dns_names_dead_addresses(registry: FakeRegistry, silent: bool) -> None:
    """A registry that restarts at its address is found there again, though DNS names only others by then."""
    names = Names(localhost=["127.0.0.1"])
    port = int(registry.url.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        if silent:
            # What neither refuses nor answers costs the whole time of an attempt.
            swallowed = await stack.enter_async_context(FakeRegistry(port, "127.0.0.2"))
            swallowed.silent = True
        client = await stack.enter_async_context(RegistryClient(RegistryUrls(f"http://localhost:{port}"), 0.5))
        client._transport._registries._look_up = names
        await client.heartbeats([BEAT])
        names.known["localhost"] = ["127.0.0.2", "127.0.0.3"]
        registry.failures.append((503, {}, b""))
        outcomes = [await _beats(client) for _ in range(6)]
        assert outcomes[0] is False
        assert True in outcomes[:4]
        assert outcomes[outcomes.index(True) :] == [True] * (6 - outcomes.index(True))


async def _beats(client: RegistryClient) -> bool:
    try:
        await client.heartbeats([BEAT])
    except RegistryUnavailable:
        return False
    return True


async def test_an_answer_that_is_no_registrys_is_none(registry: FakeRegistry) -> None:
    """A lying DNS names a web server that answers 404 or a page: that address has not answered."""
    names = Names(localhost=["127.0.0.1"])
    port = int(registry.url.rpartition(":")[2])
    async with (
        FakeRegistry(port, "127.0.0.2") as other,
        RegistryClient(RegistryUrls(f"http://localhost:{port}")) as client,
    ):
        client._transport._registries._look_up = names
        await client.heartbeats([BEAT])
        names.known["localhost"] = ["127.0.0.2"]
        for status in (404, 200):
            client._transport._registries.refresh_soon()
            await client._transport._registries.refresh()
            client._transport._turn()
            if client._transport._registries.current.address == "127.0.0.1":
                client._transport._turn()
            other.failures.append((status, {"content-type": "text/html"}, b"<h1>It works!</h1>"))
            with pytest.raises((RegistryUnavailable, RegistryRefused)):
                await client.heartbeats([BEAT])
            await client.heartbeats([BEAT])
            assert "127.0.0.1" in [target.address for target in client._transport._registries.all]


async def test_a_lookup_that_hangs_is_not_waited_for() -> None:
    """After a second an attempt goes on with what is known; the answer counts when it comes."""
    answer = asyncio.Event()

    async def slow(_: str) -> list[str]:
        await answer.wait()
        return ["10.0.0.1"]

    registries = Registries(RegistryUrls("http://one"), slow)
    async with asyncio.timeout(3):
        await registries.refresh()
    assert not registries.current.resolved
    answer.set()
    await registries.refresh()
    assert registries.current.resolved


async def test_the_systems_resolver_is_asked_on_a_thread() -> None:
    """Localhost is loopback, and a name that there is not is an OSError."""
    assert set(await resolve("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r".+"):
        await resolve("no-such-host.invalid")
    with pytest.raises(OSError, match="no host name"):
        await resolve("a" * 300 + ".example")


async def test_a_name_without_an_address_is_a_registry_that_is_away() -> None:
    """Nothing was sent, so nothing was stored."""
    async with RegistryClient(RegistryUrls("http://no-such-host.invalid")) as client:
        with pytest.raises(RegistryUnavailable, match="has no address") as raised:
            await client.heartbeats([BEAT])
    assert not raised.value.perhaps_stored


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/\x01", "http://\u217cocalhost:9", "http://xn--zzzzzz-.example"])
async def test_a_url_that_http_refuses_is_a_registry_that_is_away(url: str) -> None:
    """The settings have none of these; should one get past them, the process goes on."""
    async with RegistryClient(RegistryUrls(url)) as client:
        with pytest.raises(RegistryUnavailable):
            await client.heartbeats([BEAT])


async def test_an_old_connection_is_exchanged(registry: FakeRegistry) -> None:
    """After its age a connection ends with its request, and the next one goes to the next registry."""
    async with FakeRegistry() as other:
        urls = RegistryUrls(registry.url, other.url)
        async with RegistryClient(urls, connection_age=0.2) as client:
            for _ in range(12):
                await client.heartbeats([BEAT])
                await asyncio.sleep(0.1)
        assert len(registry.batches) >= 3
        assert len(other.batches) >= 3


async def test_names_are_looked_up_every_30_seconds(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """And before each new connection; not with each heartbeat."""
    monkeypatch.setattr(transport, "RESOLVE_INTERVAL", 0.3)
    names = Names(localhost=["127.0.0.1"])
    async with RegistryClient(RegistryUrls(registry.url.replace("127.0.0.1", "localhost"))) as client:
        client._transport._registries._look_up = names
        begun = time.monotonic()
        for _ in range(8):
            await client.heartbeats([BEAT])
            await asyncio.sleep(0.1)
        assert 2 <= len(names.asked) <= (time.monotonic() - begun) / 0.3 + 1
        before = len(names.asked)
        registry.failures.append((503, {}, b""))
        with pytest.raises(RegistryUnavailable):
            await client.heartbeats([BEAT])
        await client.heartbeats([BEAT])
        assert len(names.asked) == before + 1


async def test_a_token_is_sent(registry: FakeRegistry) -> None:
    """As a bearer token, and only if there is one."""
    token = WatchedToken("s3cret")
    async with RegistryClient(RegistryUrls(registry.url), credential=StaticToken(token)) as client:
        await client.heartbeats([BEAT])
        assert registry.headers["authorization"] == "Bearer s3cret"
        token.replace("other", "")
        await client.heartbeats([BEAT])
        assert registry.headers["authorization"] == "Bearer other"
        token.replace("", "")
        await client.heartbeats([BEAT])
        assert "authorization" not in registry.headers
