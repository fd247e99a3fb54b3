"""Shares of traffic through a real Envoy that merely polls: the requests that each group gets."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from harness.app import Turned
from harness.envoy import Envoy, envoy
from harness.process import eventually
from harness.registry import Registry

from registry_demo.bootstrap import ENDPOINT_HEADER

pytestmark = pytest.mark.envoy


@contextlib.contextmanager
def _apps(number: int) -> Iterator[list[Turned]]:
    apps = [Turned() for _ in range(number)]
    try:
        yield apps
    finally:
        for app in apps:
            app.stop()


def _requests(found: Envoy, number: int) -> Counter[str]:
    """Send requests one after the other, and return how many each endpoint answered."""
    with httpx.Client(base_url=f"http://127.0.0.1:{found.listener}") as client:
        responses = [client.get("/") for _ in range(number)]
    assert {response.status_code for response in responses} == {200}
    return Counter(response.headers[ENDPOINT_HEADER] for response in responses)


def _share(process: Registry, service: str, percent: float) -> None:
    document = {"shares": [{"selector": "canary=true", "percent": percent}], "reason": "test"}
    process.client.put(f"/v1/services/{service}/shares", json=document).raise_for_status()


def test_a_canary_gets_its_share_and_keeps_it(shared_registry: Registry, workplace: Path, service: str) -> None:
    """5 % of 1,000 to one canary, and to three; 0 at a share of 0; the others' all at the death of all canaries."""
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
