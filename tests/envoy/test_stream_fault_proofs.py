"""Faults under many streams: a registry that drains or is killed, one that is behind, a service that outgrows gRPC."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
import pytest
from harness.app import app
from harness.cluster import cluster
from harness.envoy import Envoy, envoy
from harness.process import eventually, free_port
from harness.proxy import proxy
from harness.registry import Registry, registry
from harness.traffic import traffic
from harness.xds_stream import XdsStream, streams_to

from benchmarks.peers import go_programs
from benchmarks.subscribers import subscribers
from registry.store.migration import migrate
from registry_demo.traffic import Traffic

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

_GOES = pytest.mark.parametrize("goes_by", [signal.SIGTERM, signal.SIGKILL], ids=["drained", "killed"])
_ENVOYS = 50
_MEMORY_OF_AN_ENVOY = 100_000_000
"""Bytes, of which half are Envoy's."""
_STREAMS = 1_000
_RATE = 4
"""Requests a second through each Envoy."""
_SHUTDOWN_DELAY = 3
_FITTING = 69_000
"""Endpoints with addresses of 35 to 39 characters: some 53 bytes each without their metadata, of at most 3.5 MiB."""
_BATCH = 500
_PREFIX = "2001:db8:ffff:ffff:ffff:ffff"


@contextlib.contextmanager
def pair(database: str, directory: Path) -> Iterator[tuple[list[int], list[Registry]]]:
    """Run two registries that serve streams."""
    ports = [free_port(), free_port()]
    settings = {"shutdown_delay": f"{_SHUTDOWN_DELAY}s", "fresh": True}
    with ExitStack() as stack:
        yield (
            ports,
            [
                stack.enter_context(registry(database, directory, xds_listen=f"127.0.0.1:{port}", **settings))
                for port in ports
            ],
        )


def go(leaving: Registry, by: signal.Signals) -> None:
    """End a registry; one that drains ends by itself, and cuts no stream."""
    leaving.process.send_signal(by)
    code = leaving.process.wait(60)
    if by is signal.SIGTERM:
        log = leaving.log.read_text()
        assert code == 0
        assert "streams_cut" not in log
        assert "Traceback" not in log


@contextlib.contextmanager
def crowd(
    stack: ExitStack, directory: Path, service: str, ports: Sequence[int], apps: set[str]
) -> Iterator[list[Envoy]]:
    """Run as many Envoys as the memory has room for, half of them by delta; assert that no request fails."""
    count = min(_ENVOYS, psutil.virtual_memory().available // (2 * _MEMORY_OF_AN_ENVOY))
    envoys: list[Envoy] = []
    for number in range(count):
        # Half of them begin at the registry that will go.
        near = list(ports) if number % 4 < 2 else list(reversed(ports))
        variant = ("GRPC", "DELTA_GRPC")[number % 2]
        envoys.append(stack.enter_context(envoy(directory, [], [service], streams=near, api_type=variant, wait=False)))
    eventually(lambda: all(each.live() and set(each.hosts(service)) == apps for each in envoys), within=60, every=0.5)
    loads: list[Traffic] = [stack.enter_context(traffic(each.listener, rate=_RATE)) for each in envoys]
    eventually(lambda: all(load.sent > _RATE for load in loads), within=30)
    yield envoys
    sent = [load.sent for load in loads]
    eventually(lambda: all(load.sent > before for load, before in zip(loads, sent, strict=True)), within=30)
    for balancer, load in zip(envoys, loads, strict=True):
        assert [outcome for outcome in load.outcomes if outcome.failure] == []
        assert balancer.counter(service, "update_rejected") == 0


@_GOES
def test_a_registry_of_two_goes_under_fifty_envoys(
    database: str, tmp_path: Path, service: str, goes_by: signal.Signals
) -> None:
    """Faults 3 and 9: all move to the other one, keep their hosts meanwhile, and follow the next change."""
    with ExitStack() as stack, pair(database, tmp_path) as (ports, (leaving, staying)):
        apps = {stack.enter_context(app(tmp_path)).endpoint for _ in range(2)}
        for endpoint in apps:
            leaving.register(service, endpoint, ttl=600).raise_for_status()
        eventually(lambda: len(staying.statuses(service)) == len(apps))
        with crowd(stack, tmp_path, service, ports, apps) as envoys:
            eventually(lambda: streams(leaving) + streams(staying) == len(envoys))
            assert streams(leaving) > 0
            go(leaving, goes_by)
            eventually(lambda: streams(staying) == len(envoys), within=30, said=lambda: str(streams(staying)))
            assert all(set(each.hosts(service)) == apps for each in envoys)
            apps.add(stack.enter_context(app(tmp_path)).endpoint)
            for endpoint in apps:
                staying.register(service, endpoint, ttl=600).raise_for_status()
            eventually(lambda: all(set(each.hosts(service)) == apps for each in envoys), within=30)


@_GOES
def test_a_registry_of_two_goes_under_a_thousand_streams(
    database: str, tmp_path: Path, service: str, goes_by: signal.Signals
) -> None:
    """Fault 3: the other one takes them at once, answers polls meanwhile, and has the next change for all of them."""
    reason = go_programs.build()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack, pair(database, tmp_path) as (ports, (leaving, staying)):
        leaving.register(service, "10.0.0.1:80", ttl=600).raise_for_status()
        eventually(lambda: len(staying.statuses(service)) == 1)
        before, after = (stack.enter_context(subscribers(port, "delta", service, tmp_path)) for port in ports)
        report = before.open(_STREAMS, 50)
        assert (report.silent, report.lost) == (0, 0)
        eventually(lambda: streams(leaving) == _STREAMS)
        polling = stack.enter_context(ThreadPoolExecutor(1))
        opened = polling.submit(after.open, _STREAMS)
        go(leaving, goes_by)
        while not opened.done():
            assert staying.poll(service).status_code == 200
        report = opened.result()
        assert (report.silent, report.lost, report.problem) == (0, 0, "")
        assert streams(staying) == _STREAMS
        staying.register(service, "10.0.0.2:80", ttl=600).raise_for_status()
        after.expect()


def test_a_replica_that_is_behind_sends_nothing_older(tmp_path: Path, service: str) -> None:
    """Fault 7: an Envoy that moves to it keeps its newer hosts; once it has caught up, it goes on from there."""
    with ExitStack() as stack:
        primary = stack.enter_context(cluster())
        database = primary.create_database()
        way = stack.enter_context(proxy(primary.port))
        parts = urlsplit(database)
        through = urlunsplit(parts._replace(netloc=parts.netloc.replace(str(primary.port), str(way.port))))
        ports = [free_port(), free_port()]
        front = stack.enter_context(proxy(ports[0]))
        settings = {"removal_delay": "100ms", "sweep_interval": "100ms", "fresh": True}
        ahead, behind = (
            stack.enter_context(registry(url, tmp_path, xds_listen=f"127.0.0.1:{port}", **settings))
            for url, port in zip((database, through), ports, strict=True)
        )
        for number in (1, 2):
            ahead.register(service, f"10.0.0.{number}:80", ttl=600).raise_for_status()
        eventually(lambda: len(behind.statuses(service)) == 2)
        with envoy(tmp_path, [], [service], streams=[front.port]) as balancer:
            eventually(lambda: set(balancer.hosts(service)) == {"10.0.0.1:80", "10.0.0.2:80"})
            way.target = free_port()
            way.drop()
            ahead.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80").raise_for_status()
            ahead.register(service, "10.0.0.3:80", ttl=600).raise_for_status()
            newer = {"10.0.0.2:80", "10.0.0.3:80"}
            eventually(lambda: set(balancer.hosts(service)) == newer)
            assert len(behind.statuses(service)) == 2
            front.target = ports[1]
            ahead.process.kill()
            ahead.process.wait(10)
            eventually(lambda: streams(behind) == 1, within=20)
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert set(balancer.hosts(service)) == newer
                time.sleep(0.1)
            assert metric(behind, "registry_xds_answers_total") == 0
            way.target = primary.port
            eventually(lambda: behind.register(service, "10.0.0.4:80", ttl=600).is_success, within=60)
            newest = newer | {"10.0.0.4:80"}
            eventually(lambda: set(balancer.hosts(service)) == newest, within=60)
            # What it caught up with was no answer: Envoy had it.
            assert metric(behind, "registry_xds_answers_total") == 1


def test_a_service_outgrows_what_a_grpc_library_takes(database: str, tmp_path: Path, service: str) -> None:
    """Fault 10: the library keeps what it has on the same stream, Envoy gets all, and a metric raises the alert."""
    port, other = free_port(), f"{service}-other"
    asyncio.run(populate(database, service, _FITTING))
    with ExitStack() as stack:
        serving = registry(database, tmp_path, xds_listen=f"127.0.0.1:{port}", removal_delay="100ms", fresh=True)
        found = stack.enter_context(serving)
        balancer = stack.enter_context(envoy(tmp_path, [], [other, service], streams=[port], fetch_timeout="60s"))
        channel = stack.enter_context(streams_to(f"127.0.0.1:{port}"))
        # grpcio takes 4 MiB in one message, and ends the stream otherwise.
        library = XdsStream(channel, "client-1", user_agent="gRPC C-core")
        stack.callback(library.end)
        library.ask(service, other)
        assert library.hear()[service] == _FITTING
        library.accept([service, other])
        register(found, service, range(_FITTING, _FITTING + _BATCH))
        eventually(lambda: metric(found, "registry_xds_oversized_total") == 1, within=60)
        everything = _FITTING + _BATCH
        eventually(lambda: balancer.total(f"cluster.{service}.membership_total") == everything, within=120, every=0.5)
        assert "resource_oversized" in found.log.read_text()
        # It hears of others as before, and of this service when it fits again.
        found.register(other, "10.0.0.1:80", ttl=600).raise_for_status()
        assert library.hear() == {other: 1}
        library.accept([service, other])
        # A library uses healthy endpoints alone, so it is sent no others.
        register(found, service, range(_FITTING, everything), health="UNHEALTHY", detail="GET /healthz: 500")
        assert library.hear() == {service: _FITTING}
        assert balancer.counter("registry", "upstream_cx_total") == 1
        assert metric(found, "registry_xds_ended_total") == 0


_ENDPOINTS = """
INSERT INTO endpoints (service, address, port, instance_id, incarnation, health, draining, revision, region, zone,
  canary, metadata, detail, ttl, registered_at, changed_at, change)
SELECT $1, ($3 || ':' || to_hex(n >> 16 | 61440) || ':' || lpad(to_hex(n & 65535), 4, '0'))::inet, 8080,
  'i-' || n, 1, 'HEALTHY', false, '', '', '', false, '{}', '', 86400, now(), now(), 1
FROM generate_series(0, $2::int - 1) AS n
"""
_LEASES = """
INSERT INTO leases (endpoint_id, incarnation, renewed_at, expires_at, ttl, change)
SELECT id, incarnation, now(), now() + make_interval(secs => ttl), ttl, change FROM endpoints
"""


async def populate(database: str, service: str, count: int) -> None:
    """Write endpoints by SQL as the registry would have left them: so many requests take minutes."""
    await migrate(database, 30)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("INSERT INTO services (name, version, change) VALUES ($1, 1, 1)", service)
        await connection.execute(_ENDPOINTS, service, count, _PREFIX)
        await connection.execute(_LEASES)
    finally:
        await connection.close()


def register(found: Registry, service: str, numbers: Iterable[int], **fields: str) -> None:
    """Register endpoints in one batch, as an agent would."""
    beats = [
        {
            "service": service,
            "endpoint": address(number),
            "registration": {"instance_id": f"i-{number}", "incarnation": 1, "ttl": 86_400} | fields,
        }
        for number in numbers
    ]
    answer = found.client.post("/v1/heartbeats", json={"heartbeats": beats}, timeout=60)
    answer.raise_for_status()
    assert not [each for each in answer.json()["results"] if "problem" in each]


def address(number: int) -> str:
    """Return a long address, at a port."""
    return f"[{_PREFIX}:{number >> 16 | 0xF000:x}:{number & 0xFFFF:04x}]:8080"


def streams(found: Registry) -> float:
    """Return how many streams a registry has."""
    return metric(found, "registry_xds_streams")


def metric(found: Registry, name: str) -> float:
    """Return the sum of a metric's series."""
    text = found.client.get("/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))
