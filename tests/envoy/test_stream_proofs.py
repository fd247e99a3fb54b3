"""Long proofs of streams: conformance, connections that age, a client that vanishes, a storm."""

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness.app import app
from harness.envoy import Envoy, envoy
from harness.namespaces import inside, network
from harness.process import eventually, free_port
from harness.registry import Registry, registry
from harness.stream_client import StreamClient
from harness.stream_server import stream_server
from harness.traffic import traffic

from benchmarks.h2spec import conformance
from benchmarks.peers import go_programs
from benchmarks.subscribers import subscribers

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

_ENVOYS = 10
_STORM = 5_000


def test_h2spec_passes() -> None:
    """The listener passes nearly all tests of h2spec; gRPC servers in other languages pass 114 of 145."""
    reason = go_programs.build()
    if reason is not None:
        pytest.skip(reason)
    with stream_server() as server:
        counts = conformance(server.port)
    assert counts.tests == 145
    assert counts.passed >= 138


@contextmanager
def balanced(
    stack: ExitStack, directory: Path, service: str, ports: list[int], apps: list[str]
) -> Iterator[list[Envoy]]:
    """Run Envoys over streams, half of them by delta, each with requests; assert in the end that none failed."""
    envoys, loads = [], []
    for number in range(_ENVOYS):
        start = partial(envoy, directory, [], [service], streams=ports)
        balancer = stack.enter_context(start(api_type=("GRPC", "DELTA_GRPC")[number % 2]))
        eventually(lambda balancer=balancer: set(balancer.hosts(service)) == set(apps))  # type: ignore[misc]
        envoys.append(balancer)
        loads.append(stack.enter_context(traffic(balancer.listener, rate=20)))
    eventually(lambda: all(load.sent > 20 for load in loads))
    yield envoys
    for balancer, load in zip(envoys, loads, strict=True):
        assert [outcome for outcome in load.outcomes if outcome.failure] == []
        assert set(balancer.hosts(service)) == set(apps)
        assert balancer.counter(service, "update_rejected") == 0


def test_connections_age_and_no_request_fails(database: str, tmp_path: Path, service: str) -> None:
    """With a maximum age of two seconds Envoys come back again and again, and keep their hosts."""
    port = free_port()
    with ExitStack() as stack:
        serving = registry(database, tmp_path, xds_listen=f"127.0.0.1:{port}", xds_max_age="2s")
        found = stack.enter_context(serving)
        apps = [stack.enter_context(app(tmp_path)).endpoint for _ in range(2)]
        for endpoint in apps:
            found.register(service, endpoint, ttl=600).raise_for_status()
        with balanced(stack, tmp_path, service, [port], apps):
            eventually(lambda: 'registry_xds_ended_total{why="max_age"}' in found.client.get("/metrics").text)
            eventually(lambda: _metric(found, 'registry_xds_ended_total{why="max_age"}') > 3 * _ENVOYS, within=40)


def test_a_client_that_vanishes_is_gone_in_half_a_minute(database: str, tmp_path: Path) -> None:
    """Fault 2: packets to it are dropped without a word; its stream and what it watched end with its connection."""
    if urlsplit(database).hostname:
        pytest.skip("PostgreSQL is reached by an address, which machines of a test's own do not reach")
    with network(2) as wires, ExitStack() as stack:
        server, client = wires.machines
        stack.enter_context(inside(server))
        found = stack.enter_context(
            registry(
                database, tmp_path, listen=f"{server.address}:8080", xds_listen=f"{server.address}:18000", fresh=True
            )
        )
        with inside(client):
            line = stack.enter_context(socket.create_connection((server.address, 18_000), 5))
        asyncio.run(_follow(line.dup()))
        assert _streams(found) == 1
        wires.vanish(client)
        begun = time.monotonic()
        eventually(lambda: _streams(found) == 0, within=40)
        assert 15 < time.monotonic() - begun < 45
        assert _metric(found, 'registry_xds_ended_total{why="keepalive"}') == 1


async def _follow(line: socket.socket) -> None:
    line.setblocking(False)
    client = StreamClient(*await asyncio.open_connection(sock=line))
    client.h2.initiate_connection()
    await client.follow("service-that-vanishes")
    # The other descriptor of the socket stays open.
    await client.close()


def test_five_thousand_connect_at_once(database: str, tmp_path: Path, service: str) -> None:
    """Each has its first answer, with a node as large as Envoy's; polls are answered meanwhile."""
    reason = go_programs.build()
    if reason is not None:
        pytest.skip(reason)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 < hard < 2 * _STORM:
        pytest.skip(f"{hard} file descriptors are too few for {_STORM} clients")
    port = free_port()
    with registry(database, tmp_path, xds_listen=f"127.0.0.1:{port}", fresh=True) as found:
        found.register(service, "10.0.0.1:80", ttl=600).raise_for_status()
        with subscribers(port, "delta", service, tmp_path) as clients:
            report = clients.open(_STORM)
            assert (report.silent, report.lost, report.problem) == (0, 0, "")
            assert _streams(found) == _STORM
            assert found.poll(service).status_code == 200
            # A change gets to all of them.
            found.register(service, "10.0.0.2:80", ttl=600).raise_for_status()
            clients.expect()


def _streams(found: Registry) -> float:
    return _metric(found, "registry_xds_streams")


def _metric(found: Registry, name: str) -> float:
    text = found.client.get("/metrics").text
    series = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
    return sum(float(value) for labels, value in series if labels.startswith(name))
