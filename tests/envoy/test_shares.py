"""Shares of traffic through a real Envoy that merely polls: the requests that each group gets."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from harness.app import Turned, app
from harness.envoy import Envoy, envoy, recommended_envoy
from harness.no_tls import NO_TLS
from harness.process import eventually
from harness.registrar import registrar
from harness.registry import Registry
from harness.steady_load import Load

from meshconfig.recommended_bootstrap import registries
from registry_demo.bootstrap import ENDPOINT_HEADER

pytestmark = pytest.mark.envoy

_USER = "x-user"


@contextlib.contextmanager
def _apps(number: int) -> Iterator[list[Turned]]:
    apps = [Turned() for _ in range(number)]
    try:
        yield apps
    finally:
        for app in apps:
            app.stop()


def _requests(found: Envoy, number: int, connections: int = 1) -> Counter[str]:
    """Send requests one after the other, over connections by turns, and return how many each endpoint answered."""
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{found.listener}", verify=NO_TLS))
            for _ in range(connections)
        ]
        responses = [client.get("/") for client in itertools.islice(itertools.cycle(clients), number)]
    assert {response.status_code for response in responses} == {200}
    return Counter(response.headers[ENDPOINT_HEADER] for response in responses)


def _share(process: Registry, service: str, percent: float) -> int:
    """Set the share of the canaries; return the version that has it."""
    document = {"shares": [{"selector": "canary=true", "percent": percent}], "reason": "test"}
    answer = process.client.put(f"/v1/services/{service}/shares", json=document).raise_for_status()
    return int(answer.json()["version"])


def _published(process: Registry, service: str, api: str) -> dict[str, int]:
    """Return the weights that a poll of this version of EDS gets."""
    (resource,) = process.poll(service, api=api).json()["resources"]
    return {
        "{address}:{port_value}".format(**member["endpoint"]["address"]["socket_address"]): member[
            "load_balancing_weight"
        ]
        for locality in resource["endpoints"]
        for member in locality["lb_endpoints"]
    }


def test_a_canary_gets_its_share_and_keeps_it(shared_registry: Registry, workplace: Path, service: str) -> None:
    """5 % of 1,000 to one canary, and to three; 0 at a share of 0; the others' all when all canaries are UNHEALTHY."""
    port = shared_registry.port
    with _apps(6) as apps, envoy(workplace, [port], [service], refresh_delay="0.02s") as found:
        canaries = [app.endpoint for app in apps[3:]]
        for app in apps[:3]:
            shared_registry.register(service, app.endpoint, ttl=600)
        shared_registry.register(service, canaries[0], ttl=600, canary=True)
        _share(shared_registry, service, 5)
        eventually(lambda: found.weights(service).get(canaries[0]) == 50_000, within=5)
        seen = _requests(found, 1000)
        assert abs(seen[canaries[0]] - 50) <= 2, seen
        for endpoint in canaries[1:]:
            shared_registry.register(service, endpoint, ttl=600, canary=True)
        eventually(lambda: found.weights(service).get(canaries[2]) == 16_667, within=5)
        assert _published(shared_registry, service, "v2") == _published(shared_registry, service, "v3")
        assert _published(shared_registry, service, "v3") == found.weights(service)
        seen = _requests(found, 1000)
        assert abs(sum(seen[endpoint] for endpoint in canaries) - 50) <= 2, seen
        _share(shared_registry, service, 0)
        eventually(lambda: found.hosts(service).get(canaries[2]) == "DRAINING", within=5)
        assert not set(_requests(found, 100)) & set(canaries)
        _share(shared_registry, service, 50)
        for endpoint in canaries:
            shared_registry.register(service, endpoint, ttl=600, canary=True, health="UNHEALTHY")
        eventually(partial(_unhealthy, found, service, canaries), within=5)
        assert not set(_requests(found, 100)) & set(canaries)
        assert found.counter(service, "update_rejected") == 0


def _unhealthy(found: Envoy, service: str, endpoints: list[str]) -> bool:
    hosts = found.hosts(service)
    return all(hosts.get(endpoint) == "UNHEALTHY" for endpoint in endpoints)


@pytest.mark.proof
@pytest.mark.parametrize("concurrency", [1, 2])
def test_each_share_is_exact_and_visible_at_once(
    shared_registry: Registry, workplace: Path, service: str, concurrency: int
) -> None:
    """1, 5, 25 and 50 % of 1,000 within 2, with one worker and two; a change is one version, and in Envoy at once."""
    port = shared_registry.port
    with _apps(4) as apps, envoy(workplace, [port], [service], concurrency=concurrency) as found:
        canary = apps[-1].endpoint
        for app in apps:
            shared_registry.register(service, app.endpoint, ttl=600, canary=app is apps[-1])
        eventually(lambda: len(found.hosts(service)) == 4, within=10)
        version = int(shared_registry.client.get(f"/v1/services/{service}").json()["version"])
        took: list[float] = []
        got: dict[int, int] = {}
        for percent in (1, 5, 25, 50):
            # Two changes for each share: medians of few are luck.
            for each in (percent + 10, percent):
                before = found.weights(service)
                eventually(partial(_polls, found, service), within=10)
                began = time.monotonic()
                assert _share(shared_registry, service, each) == version + 1
                version += 1
                states = _states_until(found, service, canary, each)
                took.append(time.monotonic() - began)
                assert all(state == before for state in states[:-1]), (before, states)
            assert _published(shared_registry, service, "v2") == found.weights(service)
            seen = _requests(found, 1000, connections=8)
            got[percent] = seen[canary]
            assert abs(seen[canary] - 10 * percent) <= 2, seen
        visible = f"visible after {statistics.median(took):.3f} s p50, {max(took):.3f} s at most"
        print(f"{concurrency} workers: {got} of 1,000; {visible}")  # noqa: T201  # a figure of the proof
        assert statistics.median(took) < 1
        assert found.counter(service, "update_rejected") == 0


def _polls(found: Envoy, service: str) -> bool:
    """Tell whether a poll is under way, which the registry holds."""
    answered = sum(found.counter(service, f"update_{outcome}") for outcome in ("success", "failure", "rejected"))
    return found.counter(service, "update_attempt") > answered


def _states_until(found: Envoy, service: str, canary: str, percent: float) -> list[dict[str, int]]:
    """Return the weights that Envoy has, one after the other, until the canary has its share."""
    states: list[dict[str, int]] = []

    def has_share() -> bool:
        states.append(found.weights(service))
        return states[-1][canary] == percent * 10_000

    eventually(has_share, within=10)
    return states


@pytest.mark.proof
def test_no_user_of_a_growing_canary_leaves_it(shared_registry: Registry, workplace: Path, service: str) -> None:
    """Of 1,000 users, at 5, 25 and 50 %: those of the canary stay, and 5 at most move between the stable endpoints."""
    port = shared_registry.port
    with _apps(5) as apps, envoy(workplace, [port], [service], sticky_header=_USER) as found:
        canary = apps[-1].endpoint
        for app in apps:
            shared_registry.register(service, app.endpoint, ttl=600, canary=app is apps[-1])
        homes: list[dict[int, str]] = []
        for percent in (5, 25, 50):
            _share(shared_registry, service, percent)
            eventually(lambda: found.weights(service).get(canary) == percent * 10_000, within=10)  # noqa: B023
            homes.append(_homes(found, 1000))
        moved = Counter[str]()
        for before, after in itertools.pairwise(homes):
            for user, home in before.items():
                if home == canary and after[user] != canary:
                    moved["left the canary"] += 1
                elif canary not in {home, after[user]} and home != after[user]:
                    moved["between stable endpoints"] += 1
        at_canary = [Counter(at.values())[canary] for at in homes]
        print(f"at the canary: {at_canary} of 1,000; moved: {dict(moved)}")  # noqa: T201  # a figure of the proof
        assert at_canary == sorted(at_canary)
        assert at_canary[0] > 0
        assert moved["left the canary"] == 0
        assert moved["between stable endpoints"] <= 5


def _homes(found: Envoy, users: int) -> dict[int, str]:
    """Return the endpoint of each user."""
    with httpx.Client(base_url=f"http://127.0.0.1:{found.listener}", verify=NO_TLS) as client:
        responses = [client.get("/", headers={_USER: f"user-{number}"}) for number in range(users)]
    assert {response.status_code for response in responses} == {200}
    return {number: response.headers[ENDPOINT_HEADER] for number, response in enumerate(responses)}


@pytest.mark.proof
def test_the_death_of_the_only_canary_loses_no_request(
    shared_registry: Registry, workplace: Path, service: str
) -> None:
    """At 20 % of 120 a second, with the recommended retries: until its registrar has noticed, and after it."""
    client = registries(f"127.0.0.1:{shared_registry.port}", token_directory=None)
    with (
        _apps(3) as apps,
        app(workplace) as canary,
        registrar(workplace, shared_registry.url, service, canary.endpoint, canary="true"),
        recommended_envoy(workplace, client, service) as found,
    ):
        for stable in apps:
            shared_registry.register(service, stable.endpoint, ttl=600)
        eventually(lambda: len(found.hosts(service)) == 4, within=20)
        _share(shared_registry, service, 20)
        eventually(lambda: found.weights(service)[canary.endpoint] == 200_000, within=10)

        async def whole() -> Load:
            load = Load(found.listener)
            sending = asyncio.create_task(load.run(120, 10, posts=False))
            await asyncio.sleep(3)
            canary.process.kill()
            await sending
            await load.finish()
            return load

        load = asyncio.run(whole())
        retried = found.counter(service, "upstream_rq_retry")
        # A figure of the proof.
        print(f"lost {load.lost['GET']} of {load.sent['GET']} GETs, {retried} retries: {dict(load.reasons)}")  # noqa: T201
        assert found.hosts(service).get(canary.endpoint) != "HEALTHY"
        # The kill met requests: without retries they would have been lost.
        assert retried > 0
        assert load.sent["GET"] == 1200
        assert load.lost["GET"] == 0
