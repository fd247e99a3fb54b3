"""Registries of the version before, which call the lists of a batch ``beats`` and ``answers``."""

import msgspec
import pytest
from harness.fake_registry import FakeRegistry

from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client import heartbeat_wording
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls
from wire.model import Heartbeat, Registration
from wire.problem import CONTENT_TYPE, Problem

HEARTBEAT = Heartbeat("shop", "10.0.0.5:8080", Registration("i-1", 7))
OWN = {"content-type": CONTENT_TYPE}
PAGE = (404, {"content-type": "text/html"}, b"<html>no such backend")
UNKNOWN = Problem("Invalid request", 422, "the document has no field", pointer="$")


def client(*registries: FakeRegistry, connection_age: float = 300.0) -> RegistryClient:
    """Return a client of these registries."""
    return RegistryClient(RegistryUrls(*(registry.url for registry in registries)), 2.0, connection_age=connection_age)


def refuse(registry: FakeRegistry, problem: Problem) -> None:
    """Let the next batch be refused as a whole."""
    registry.failures.append((problem.status, OWN, msgspec.json.encode(problem)))


async def sent(it: RegistryClient) -> str:
    """Send a heartbeat, and return the endpoint of its grant."""
    (result,) = await it.heartbeats([HEARTBEAT])
    assert result.grant is not None
    return result.grant.endpoint


async def test_a_registry_of_the_version_before_costs_one_more_request(registry: FakeRegistry) -> None:
    """It refuses the current names once; from then on it is sent its own, over the same connection."""
    registry.before = True
    async with client(registry) as it:
        for _ in range(3):
            assert await sent(it) == HEARTBEAT.endpoint
        assert len(registry._connections) == 1
    assert registry.lists == ["heartbeats", "beats", "beats", "beats"]


async def test_a_registry_that_is_upgraded_gets_the_current_names_again(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the interval at the latest, and at once where it reads the deprecated ones no more."""
    registry.before = True
    async with client(registry) as it:
        await sent(it)
        registry.before = False
        for _ in range(2):
            await sent(it)
        assert registry.lists == ["heartbeats", "beats", "beats", "heartbeats", "heartbeats"]
        registry.before = True
        monkeypatch.setattr(heartbeat_wording, "TRIAL_INTERVAL", 0.0)
        for _ in range(2):
            await sent(it)
        registry.before = False
        await sent(it)
    assert registry.lists[5:] == ["heartbeats", "beats", "heartbeats", "beats", "heartbeats"]


async def test_each_registry_gets_the_names_of_its_version(registry: FakeRegistry) -> None:
    """While half of them are upgraded, a turn from one to the other costs no further trial."""
    async with FakeRegistry() as older:
        older.before = True
        async with client(registry, older, connection_age=0.0) as it:
            for _ in range(6):
                await sent(it)
    assert registry.lists == ["heartbeats"] * 3
    assert older.lists == ["heartbeats", "beats", "beats", "beats"]


async def test_another_refusal_is_told_as_it_is(registry: FakeRegistry) -> None:
    """A 422 about one heartbeat, and a 409 for all, are no reason to send the batch again."""
    for problem in (
        Problem("Invalid request", 422, "weight has to be at least 1", pointer="$.heartbeats[0].registration.weight"),
        Problem("Refused", 409, "not now"),
    ):
        refuse(registry, problem)
        async with client(registry) as it:
            with pytest.raises(RegistryRefused) as raised:
                await it.heartbeats([HEARTBEAT])
        assert raised.value.problem == problem
    assert registry.lists == ["heartbeats"] * 2


async def test_a_refusal_in_both_names_is_tried_once_and_told_as_it_is(registry: FakeRegistry) -> None:
    """The registry's error about the current names reaches the log."""
    async with client(registry) as it:
        for _ in range(3):
            refuse(registry, UNKNOWN)
            with pytest.raises(RegistryRefused) as raised:
                await it.heartbeats([HEARTBEAT])
            assert raised.value.problem == UNKNOWN
        await sent(it)
    # In its current version the registry itself refuses the deprecated name, which takes no planned refusal.
    assert registry.lists == ["heartbeats", "beats", "heartbeats", "heartbeats", "heartbeats"]


async def test_a_refused_heartbeat_is_told_by_a_registry_of_the_version_before(registry: FakeRegistry) -> None:
    """It read the deprecated names, so that what it says then is the cause, and they are the right ones."""
    registry.before = True
    problem = Problem("Invalid request", 422, "weight has to be at least 1", pointer="$.beats[0].registration.weight")
    async with client(registry) as it:
        refuse(registry, problem)
        with pytest.raises(RegistryRefused) as raised:
            await it.heartbeats([HEARTBEAT])
        assert raised.value.problem == problem
        await sent(it)
    assert registry.lists == ["heartbeats", "beats", "beats"]


async def test_a_proxy_without_a_registry_does_not_delay_the_trial_at_one(registry: FakeRegistry) -> None:
    """A 404 is retried once with the former names; a registry of the version before gets them at once."""
    async with client(registry) as it:
        for _ in range(2):
            registry.failures.append(PAGE)
            with pytest.raises(RegistryRefused, match="404"):
                # The second one is refused by the registry's own version, as a proxy would.
                await it.heartbeats([HEARTBEAT])
        assert registry.lists == ["heartbeats", "beats"] * 2
        registry.before = True
        await sent(it)
    assert registry.lists[4:] == ["heartbeats", "beats"]


@pytest.mark.parametrize("status", [404, 403, 422])
async def test_a_proxys_refusal_of_a_trial_is_not_remembered(registry: FakeRegistry, status: int) -> None:
    """The registry behind it is of the version before, and gets its own names with the next batch."""
    registry.before = True
    registry.failures.append((status, *PAGE[1:]))
    async with client(registry) as it:
        with pytest.raises(RegistryRefused):
            await it.heartbeats([HEARTBEAT])
        for _ in range(2):
            assert await sent(it) == HEARTBEAT.endpoint
    assert registry.lists == ["heartbeats", "beats", "heartbeats", "beats", "beats"]


async def test_an_overloaded_registry_says_nothing_of_its_version(registry: FakeRegistry) -> None:
    """The retry that it asks for reaches the caller, and the trial is made again."""
    registry.before = True
    registry.failures.append((503, {"retry-after": "7"}, b""))
    async with client(registry) as it:
        with pytest.raises(RegistryUnavailable) as raised:
            await it.heartbeats([HEARTBEAT])
        assert raised.value.retry_after == 7
        await sent(it)
    assert registry.lists == ["heartbeats", "beats", "heartbeats", "beats"]
