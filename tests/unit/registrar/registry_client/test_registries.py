"""Which address of which registry is next, and when connections and names are renewed."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.registrar.fake_registry import FakeRegistry

from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client import client as client_module
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.dns import resolve
from registrar.registry_client.registries import Registries, RegistryAddress, RegistryUrls
from wire.model import Heartbeat, Registration

BEAT = Heartbeat("shop", "10.0.0.5:8080", Registration("i-1", 7))


class Names:
    """A resolver that says what a test tells it."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        """Return the addresses of a name."""
        self.asked.append(host)
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]


def bases(registries: Registries) -> list[str]:
    """Return where each target would be connected to."""
    return [target.base for target in registries.all]


async def test_every_address_of_a_name_is_a_target() -> None:
    """Three addresses behind two names are three targets; failures go through all of them."""
    registries = Registries(
        RegistryUrls("http://one:8080/base", "https://two"), Names(one=["10.0.0.1"], two=["::1", "10.0.0.3"])
    )
    await registries.refresh()
    assert sorted(bases(registries)) == ["http://10.0.0.1:8080/base", "https://10.0.0.3", "https://[::1]"]
    seen = []
    for _ in range(3):
        seen.append(registries.current.base)
        registries.advance()
    assert sorted(seen) == sorted(bases(registries))


async def test_the_name_stays_in_what_is_said() -> None:
    """The Host header and the certificate's name are those of the URL."""
    target = RegistryAddress("https://registry.internal:8443/base", "10.0.0.1")
    assert (target.base, target.host, target.name) == (
        "https://10.0.0.1:8443/base",
        "registry.internal:8443",
        "registry.internal",
    )


async def test_the_last_good_addresses_stay() -> None:
    """A resolver that is away takes no registry away."""
    names = Names(one=["10.0.0.1"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    names.known.clear()
    await registries.refresh()
    assert bases(registries) == ["http://10.0.0.1"]


async def test_what_answered_stays_until_another_has_answered() -> None:
    """DNS that names a dead address takes no registry away; once the new address answers, the old one is left."""
    names = Names(one=["10.0.0.1"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    registries.answered(registries.current)
    names.known["one"] = ["10.0.0.2"]
    await registries.refresh()
    assert bases(registries) == ["http://10.0.0.2", "http://10.0.0.1"]
    assert registries.current.address == "10.0.0.2", "the registry may have moved: its new address is tried"
    registries.failed(registries.current)
    assert registries.current.address == "10.0.0.1"
    await registries.refresh()
    assert registries.current.address == "10.0.0.1", "the same answer of DNS is no reason to try again"
    registries.answered(RegistryAddress("http://one", "10.0.0.2"))
    assert bases(registries) == ["http://10.0.0.2"]


@pytest.mark.parametrize("lie", [[], ["0.0.0.0"], ["::"], ["224.0.0.1", "ff02::1"]])
async def test_answers_without_a_usable_address_are_no_answers(lie: list[str]) -> None:
    """Resolvers that block a name answer so; the addresses of before stay."""
    names = Names(one=["10.0.0.1"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    names.known["one"] = lie
    await registries.refresh()
    assert bases(registries) == ["http://10.0.0.1"]


ADDRESSES = st.lists(st.sampled_from([f"10.0.0.{number}" for number in range(1, 9)]), max_size=6, unique=True)


@given(answers=st.lists(st.one_of(st.none(), ADDRESSES), max_size=30), restarts=st.sets(st.integers(0, 40)))
@settings(deadline=None, max_examples=200)
def test_a_registry_that_works_is_asked_whatever_dns_says(answers: list[list[str] | None], restarts: set[int]) -> None:
    """With any answers of DNS before each attempt: at most one attempt in two goes elsewhere, also after a restart."""

    async def play() -> None:
        names = Names(one=["10.0.0.1"])
        registries = Registries(RegistryUrls("http://one"), names)
        await registries.refresh()
        registries.answered(registries.current)
        misses = 0
        for number, answer in enumerate([*answers, *([["10.0.0.8"]] * 4)]):
            names.known = {} if answer is None else {"one": answer}
            await registries.refresh()
            if number % 3 == 0 and misses == 0:
                registries.advance()
            target = registries.current
            if target.address == "10.0.0.1" and number not in restarts:
                registries.answered(target)
                misses = 0
            else:
                registries.failed(target)
                misses = 1 if target.address == "10.0.0.1" else misses + 1
            assert misses <= 2
            assert "10.0.0.1" in [one.address for one in registries.all]

    asyncio.run(play())


async def test_one_of_many_addresses_that_answers_is_gone_back_to() -> None:
    """Nine dead addresses cost one attempt at a time, and each one in its turn."""
    names = Names(one=[f"10.0.0.{number}" for number in range(1, 11)])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    good = registries.all[4]
    registries.answered(good)
    tried = set()
    for _ in range(10):
        registries.advance()
        tried.add(registries.current)
        if registries.current != good:
            registries.failed(registries.current)
        assert registries.current == good
    assert tried == set(registries.all)


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
        client._registries._look_up = names
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
        client._registries._look_up = names
        await client.heartbeats([BEAT])
        names.known["localhost"] = ["127.0.0.2"]
        for status in (404, 200):
            client._registries.refresh_soon()
            await client._registries.refresh()
            client._turn()
            if client._registries.current.address == "127.0.0.1":
                client._turn()
            other.failures.append((status, {"content-type": "text/html"}, b"<h1>It works!</h1>"))
            with pytest.raises((RegistryUnavailable, RegistryRefused)):
                await client.heartbeats([BEAT])
            await client.heartbeats([BEAT])
            assert "127.0.0.1" in [target.address for target in client._registries.all]


async def test_a_lookup_that_hangs_is_not_waited_for() -> None:
    """After a second an attempt goes on with what is known; the answer counts when it comes."""
    answer = asyncio.Event()

    async def slow(_: str) -> list[str]:
        await answer.wait()
        return ["10.0.0.1"]

    registries = Registries(RegistryUrls("http://one"), slow)
    async with asyncio.timeout(3):
        await registries.refresh()
    assert not registries.current.known
    answer.set()
    await registries.refresh()
    assert registries.current.known


async def test_a_current_address_stays_current_after_a_lookup() -> None:
    """Looking a name up again moves no connection by itself, and an address that is gone is left."""
    names = Names(one=["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    registries.advance()
    current = registries.current
    names.known["one"] = ["10.0.0.4", *reversed(names.known["one"])]
    await registries.refresh()
    assert registries.current == current
    names.known["one"] = ["10.0.0.4"]
    await registries.refresh()
    assert bases(registries) == ["http://10.0.0.4"]
    assert registries.current.address == "10.0.0.4"


async def test_a_fleet_spreads_over_the_addresses() -> None:
    """Processes start with different addresses of one name."""
    names = Names(one=["10.0.0.1", "10.0.0.2"])
    first: Counter[str] = Counter()
    for _ in range(60):
        registries = Registries(RegistryUrls("http://one"), names)
        await registries.refresh()
        first[registries.current.address] += 1
    assert min(first["10.0.0.1"], first["10.0.0.2"]) > 5


async def test_literal_addresses_are_not_looked_up() -> None:
    """An address needs no resolver."""
    names = Names()
    registries = Registries(RegistryUrls("http://10.0.0.1:8080", "http://[::1]"), names)
    await registries.refresh()
    assert (names.asked, bases(registries)) == ([], ["http://10.0.0.1:8080", "http://[::1]"])


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
    monkeypatch.setattr(client_module, "REFRESH", 0.3)
    names = Names(localhost=["127.0.0.1"])
    async with RegistryClient(RegistryUrls(registry.url.replace("127.0.0.1", "localhost"))) as client:
        client._registries._look_up = names
        for _ in range(8):
            await client.heartbeats([BEAT])
            await asyncio.sleep(0.1)
        assert 2 <= len(names.asked) <= 4
        before = len(names.asked)
        registry.failures.append((503, {}, b""))
        with pytest.raises(RegistryUnavailable):
            await client.heartbeats([BEAT])
        await client.heartbeats([BEAT])
        assert len(names.asked) == before + 1


async def test_a_token_is_sent(registry: FakeRegistry) -> None:
    """As a bearer token, and only if there is one."""
    async with RegistryClient(RegistryUrls(registry.url), token="s3cret") as client:
        assert client._http.headers["authorization"] == "Bearer s3cret"
    async with RegistryClient(RegistryUrls(registry.url)) as client:
        assert "authorization" not in client._http.headers
