"""Streams of discovery, asserted on a real Envoy: what it holds, what it was sent, and that it starts at once."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from harness.envoy import Envoy, binary, envoy
from harness.postgres import Postgres
from harness.process import end, eventually, free_port, running
from harness.registry import Registry, registry
from harness.stream_server import stream_server

from registry.http2 import connection

pytestmark = pytest.mark.envoy

VARIANTS = ["DELTA_GRPC", "GRPC"]
LEASE = 600
"""Seconds of a lease that outlives the test."""


class Streaming:
    """A registry that serves streams; ``port`` is that of its gRPC listener."""

    def __init__(self, process: Registry, port: int) -> None:
        self.process = process
        self.port = port

    def register(self, service: str, *endpoints: str, **fields: object) -> None:
        """Register endpoints."""
        for endpoint in endpoints:
            self.process.register(service, endpoint, ttl=LEASE, **fields).raise_for_status()

    def remove(self, service: str, endpoint: str) -> None:
        """Deregister an endpoint."""
        self.process.client.delete(f"/v1/services/{service}/endpoints/{endpoint}").raise_for_status()

    def answers(self) -> float:
        """Return how many answers with endpoints it has sent over streams."""
        return self._sum(r'registry_xds_answers_total\{.*type="endpoints".*\}')

    def streams(self) -> float:
        """Return how many streams are open."""
        return self._sum(r"registry_xds_streams\{.*\}")

    def _sum(self, metric: str) -> float:
        text = self.process.client.get("/metrics").text
        return sum(map(float, re.findall(rf"^{metric} (\S+)$", text, re.MULTILINE)))


def start(stack: ExitStack, database: str, directory: Path) -> Streaming:
    """Start a registry with a gRPC listener."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    process = registry(database, directory, xds_listen=listen, removal_delay="100ms", sweep_interval="100ms")
    return Streaming(stack.enter_context(process), port)


@pytest.fixture(scope="module")
def streaming(server: Postgres, workplace: Path) -> Iterator[Streaming]:
    """A registry for the tests of this module."""
    with ExitStack() as stack:
        yield start(stack, server.migrated_database(), workplace)


def holds(balancer: Envoy, service: str, *endpoints: str) -> bool:
    """Tell whether an Envoy holds exactly these endpoints as healthy ones."""
    return balancer.hosts(service) == dict.fromkeys(endpoints, "HEALTHY")


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_comes_over_one_stream(streaming: Streaming, workplace: Path, service: str, variant: str) -> None:
    """Envoy starts although names are unknown, follows each change, catches up after a pause, and rejects nothing."""
    known, late, unknown = (f"{service}-{name}" for name in ("known", "late", "unknown"))
    streaming.register(known, "10.0.0.1:80")
    with envoy(
        workplace,
        [],
        [known, late, unknown],
        streams=[streaming.port],
        api_type=variant,
        # Silence about an unknown name would hold the start for so long, and the test would fail before.
        fetch_timeout="600s",
    ) as balancer:
        assert holds(balancer, known, "10.0.0.1:80")
        assert (balancer.hosts(late), balancer.hosts(unknown)) == ({}, {})
        # A name that was unknown appears.
        streaming.register(late, "10.0.1.1:80")
        eventually(lambda: holds(balancer, late, "10.0.1.1:80"))
        # A change while Envoy does not read: afterwards it has the newest state, in few answers.
        before = balancer.counter(known, "update_success")
        os.kill(balancer.pid, signal.SIGSTOP)
        for weight in range(2, 32):
            streaming.register(known, "10.0.0.1:80", weight=weight)
        os.kill(balancer.pid, signal.SIGCONT)
        eventually(lambda: balancer.weights(known) == {"10.0.0.1:80": 31})
        assert balancer.counter(known, "update_success") - before <= 3
        # A service that loses its last endpoint is emptied, not left out.
        streaming.remove(late, "10.0.1.1:80")
        eventually(lambda: balancer.hosts(late) == {}, said=lambda: str(balancer.hosts(late)))
        assert holds(balancer, known, "10.0.0.1:80")
        for name in (known, late, unknown):
            assert balancer.counter(name, "update_rejected") == 0
        assert balancer.counter("registry", "upstream_cx_total") == 1
        # The name of the process, as its log and its metrics have it.
        assert re.fullmatch(r'control_plane.identifier: "\S+"', balancer.control_plane())


def test_a_refused_version_is_sent_once_and_the_next_one_repairs_it(workplace: Path) -> None:
    """Envoy's own words are known, other services go on, and a repaired assignment is sent at once."""
    with stream_server() as server:
        server.assign("shop", "10.0.0.1")
        server.assign("cart", "10.0.1.1")
        with envoy(workplace, [], ["shop", "cart"], streams=[server.port]) as balancer:
            assert holds(balancer, "shop", "10.0.0.1:80")
            server.assign("shop", "10.0.0.1", "256.0.0.1")
            eventually(lambda: server.heard.count("rejected") == 1)
            (rejected,) = [event for event in server.heard.events if event[0] == "rejected"]
            assert "256.0.0.1" in rejected[2]
            sent = server.heard.count("answered")
            time.sleep(1)
            assert server.heard.count("answered") == sent
            assert balancer.counter("shop", "update_rejected") == 1
            assert holds(balancer, "shop", "10.0.0.1:80")
            server.assign("cart", "10.0.1.2")
            eventually(lambda: holds(balancer, "cart", "10.0.1.2:80"))
            server.assign("shop", "10.0.0.2")
            eventually(lambda: holds(balancer, "shop", "10.0.0.2:80"))
            assert (server.heard.count("rejected"), server.heard.count("opened")) == (1, 1)


def test_a_second_replica_sends_nothing_that_envoy_holds(database: str, workplace: Path, service: str) -> None:
    """Over delta, Envoy names the versions that it has; the other replica sends no endpoints until one changes."""
    with ExitStack() as stack:
        replicas = [start(stack, database, workplace) for _ in range(2)]
        replicas[0].register(service, "10.0.0.1:80", "10.0.0.2:80")
        eventually(lambda: all(len(each.process.statuses(service)) == 2 for each in replicas))
        with envoy(workplace, [], [service], streams=[each.port for each in replicas]) as balancer:
            assert holds(balancer, service, "10.0.0.1:80", "10.0.0.2:80")
            left, other = sorted(replicas, key=Streaming.answers, reverse=True)
            assert (left.answers() > 0, other.answers()) == (True, 0)
            updates = balancer.counter(service, "update_success")
            end(left.process.process)
            # The stream is there again, with the endpoints as they were, before anything changes.
            eventually(lambda: other.streams() == 1)
            other.register(f"{service}-other", "10.0.9.1:80")
            assert (other.answers(), balancer.counter(service, "update_success")) == (0, updates)
            assert holds(balancer, service, "10.0.0.1:80", "10.0.0.2:80")
            other.register(service, "10.0.0.3:80")
            eventually(lambda: holds(balancer, service, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
            assert other.answers() == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_envoy_that_asks_for_nothing_keeps_its_stream(
    workplace: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ADS beside clusters that are all static: its stream is not ended each half minute, to begin again for ever."""
    monkeypatch.setattr(connection, "STALL_TIMEOUT", 0.3)
    admin, log = free_port(), workplace / f"static-{variant}.log"

    def is_connected() -> bool:
        stats = httpx.get(f"http://127.0.0.1:{admin}/stats?filter=control_plane.connected_state", trust_env=False)
        return stats.text.strip() == "control_plane.connected_state: 1"

    with stream_server() as server, running(_without_subscriptions(server.port, admin, variant), log=log):
        eventually(lambda: "starting main dispatch loop" in log.read_text(), within=30)
        eventually(is_connected)
        # Envoy says so in its log each time that a stream ends.
        time.sleep(2)
        assert is_connected()
        assert "stream to registry closed" not in log.read_text()


def _without_subscriptions(port: int, admin: int, variant: str) -> list[str]:
    """Return the command of an Envoy that opens a stream to this port, and subscribes to nothing."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "registry",
        "load_assignment": {"cluster_name": "registry", "endpoints": endpoints},
        "typed_extension_protocol_options": {options: http2},
    }
    ads = {
        "api_type": variant,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "registry"}}],
    }
    bootstrap = {
        "node": {"id": "static", "cluster": "static"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"clusters": [cluster]},
        "dynamic_resources": {"ads_config": ads},
    }
    return [binary(), "--config-yaml", json.dumps(bootstrap), "--disable-hot-restart", "--concurrency", "1"]
