"""One service for three kinds of clients at once: Envoy over ADS, Envoy over REST, and a gRPC library without Envoy."""

from pathlib import Path

import pytest
from harness.envoy import envoy
from harness.process import eventually, free_port
from harness.proxyless import proxyless_client
from harness.registry import registry

pytestmark = pytest.mark.envoy
LEASE = 600
"""Seconds of a lease that outlives the test."""


def test_all_clients_see_the_same_and_a_drain_loses_nothing(database: str, workplace: Path, service: str) -> None:
    """All three find the endpoints, the new one, and lose no RPC while one of them drains, leaves and stops."""
    streams = free_port()
    settings = {"xds_listen": f"127.0.0.1:{streams}", "removal_delay": "100ms", "sweep_interval": "100ms"}
    with (
        registry(database, workplace, **settings) as process,
        proxyless_client([streams], workplace / f"{service}.log") as client,
        envoy(workplace, [], [service], streams=[streams], http2=True) as streaming,
        envoy(workplace, [process.port], [service], http2=True) as polling,
    ):
        leaving, staying, late = (client.serve() for _ in range(3))
        for endpoint in (leaving, staying):
            process.register(service, endpoint, ttl=LEASE).raise_for_status()
        ways = [service, *(f"dns:///127.0.0.1:{balancer.listener}" for balancer in (streaming, polling))]

        def all_see(*endpoints: str) -> bool:
            return all(client.endpoints(way) == set(endpoints) for way in ways)

        assert client.call(service, timeout=20, wait=True).status == "OK"
        eventually(lambda: all_see(leaving, staying))
        assert streaming.hosts(service) == polling.hosts(service) == {leaving: "HEALTHY", staying: "HEALTHY"}
        process.register(service, late, ttl=LEASE).raise_for_status()
        eventually(lambda: all_see(leaving, staying, late))
        process.client.post(f"/v1/services/{service}/endpoints/{leaving}/drain").raise_for_status()
        during = client.flood(*ways, seconds=0.5)
        eventually(lambda: all_see(staying, late))
        client.stop(leaving)
        process.client.delete(f"/v1/services/{service}/endpoints/{leaving}").raise_for_status()
        after = client.flood(*ways, seconds=0.3)
        assert set(during) == set(after) == {"OK"}
