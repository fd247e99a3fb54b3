"""Traffic: what digests of Envoys' statistics cost the registry, its heartbeats, and the registrars that send them."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import msgspec
from harness.envoy import binary
from harness.fake_app import FakeApp
from harness.process import eventually, free_port, running
from harness.registrar import registrar
from harness.registry import Registry

from benchmarks import wrk
from benchmarks.client import Client, request
from benchmarks.footprint import memory, ticks
from benchmarks.heartbeats import Case, Load, renewals
from benchmarks.plan import Plan
from benchmarks.population import Population, populate
from benchmarks.report import Part
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, cpu_seconds, stage
from registry.core.traffic_table import TrafficTable
from wire.traffic_digest import Edge, EdgeCounts, TrafficDigest

_REGISTRARS = 1_000
_INTERVAL = 10.0
_CALLEES = 20
_CALLERS = 50
_LEASES = 10_000
_CONNECTIONS = 20
_TICK = 0.01


def run(part: Part, plan: Plan) -> None:
    """Look at one digest, then at a thousand registrars beside heartbeats, then at one registrar."""
    part.note(
        f"{_REGISTRARS:,} registrars, {_CALLERS} services, {_CALLEES} callees each, a digest each {_INTERVAL:g} s. The "
        "load and PostgreSQL share the cores with what is measured."
    )
    _digest(part, plan)
    with stage() as found:
        _beside_heartbeats(part, plan, found)
        for callees in (20, 100):
            plan.doing(f"traffic: a registrar beside an Envoy with {callees} clusters")
            asyncio.run(_registrar(part, plan, found, callees))


def digest(number: int, sequence: int) -> TrafficDigest:
    """Return the digest of a registrar: requests to each callee, in a dozen buckets."""
    draw = random.Random(number)  # noqa: S311  # figures, not a secret
    edges = tuple(
        Edge(
            f"service-{callee}",
            EdgeCounts(draw.randint(10, 900), 1, draw.randint(0, 3), 2, 0, 0, 0, 4, 5, 5, 6),
            tuple(value for bucket in range(18, 30) for value in (bucket, draw.randint(1, 60))),
        )
        for callee in range(_CALLEES)
    )
    return TrafficDigest(
        caller=f"caller-{number % _CALLERS}",
        node=f"i-{number:017x}",
        seconds=_INTERVAL,
        sequence=sequence,
        sender=f"{number:016x}",
        zone="a",
        region="eu",
        edges=edges,
    )


def _digest(part: Part, plan: Plan) -> None:
    plan.doing("traffic: a digest")
    decoder = msgspec.json.Decoder(TrafficDigest)
    bodies = [msgspec.json.encode(digest(number, 1)) for number in range(_REGISTRARS)]
    part.bar(f"bytes of a digest of {_CALLEES} callees", [len(bodies[0])], "B", at_most=2_500)
    microseconds = []
    table, now = TrafficTable(5_000), 1_000.0
    for sequence in range(plan.rounds(5) + 1):
        each = [msgspec.json.encode(digest(number, sequence)) for number in range(_REGISTRARS)]
        begun = time.process_time()
        for body in each:
            table.take(decoder.decode(body), now)
        microseconds.append((time.process_time() - begun) / _REGISTRARS * 1e6)
        now += _INTERVAL
    # The first round makes the pairs.
    part.bar("CPU of a digest in the registry, read and added", microseconds[1:], "µs", at_most=150)


def _beside_heartbeats(part: Part, plan: Plan, found: Stage) -> None:
    version = wrk.installed()
    if version is None:
        part.leave_out("heartbeats beside digests", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    population = Population(_LEASES)
    populate(found, population)
    table = part.table(
        "heartbeats beside digests, 1 process",
        rate="heartbeats/s",
        cpu="server's CPU µs a heartbeat",
        digests="digests/s",
    )
    with found.registry() as process:
        load = Load(process, {1: renewals(found.directory, population, 1)})
        load.beat(Case(), plan.seconds(2))
        for side in interleaved(["without digests", "with digests"], plan.rounds(7)):
            plan.doing(f"traffic: heartbeats {side}")
            with _reporting(process, sends=side == "with digests") as sent:
                before, begun = sent[0], time.monotonic()
                measured = load.beat(Case(), plan.seconds(6))
                rate = (sent[0] - before) / (time.monotonic() - begun)
            table.add(side, rate=measured.rate, cpu=measured.cpu, digests=rate)
        part.ratio(
            f"heartbeats/s with and without the digests of {_REGISTRARS:,} registrars",
            table.values("with digests", "rate"),
            table.values("without digests", "rate"),
            at_least=0.97,
        )
        # The load shares the cores: its own share moves the rate more than the digests do.
        part.ratio(
            "the same by the server's CPU a heartbeat, digests included",
            table.values("without digests", "cpu"),
            table.values("with digests", "cpu"),
            at_least=0.97,
        )
        _alone(part, plan, process)


def _alone(part: Part, plan: Plan, process: Registry) -> None:
    plan.doing("traffic: digests alone")
    shares, cores = [], []
    for _ in range(plan.rounds(3)):
        seconds = plan.seconds(10)
        idle = cpu_seconds(process.process.pid)
        time.sleep(seconds)
        begun = cpu_seconds(process.process.pid)
        with _reporting(process, sends=True) as sent:
            before = sent[0]
            time.sleep(seconds)
            count = sent[0] - before
        used = cpu_seconds(process.process.pid) - begun - (begun - idle)
        shares.append(used / max(1, count) * 1e6)
        cores.append(100 * used / max(1, count) * _REGISTRARS / _INTERVAL)
    part.bar(f"CPU for the digests of {_REGISTRARS:,} registrars", cores, "% of a core", at_most=3.0)
    part.bar("CPU of a digest in the registry, HTTP and the exchange between processes included", shares, "µs")


@contextlib.contextmanager
def _reporting(process: Registry, *, sends: bool) -> Iterator[list[int]]:
    """Send the digests of all registrars in turn, each at its interval, and count them in the only item of a list."""
    sent, stop = [0], threading.Event()

    async def work(bodies: Sequence[bytes], sequence: int) -> None:
        connection = await Client.connect(process.port)
        begun, number = time.monotonic(), 0
        while not stop.is_set():
            body = bodies[number % len(bodies)].replace(b'"sequence":7', b'"sequence":%d' % (sequence + number))
            status, _ = await connection.send(request("POST", "/v1/traffic", body))
            if status != 200:
                raise RuntimeError(f"a digest was answered {status}")
            sent[0] += 1
            number += 1
            await asyncio.sleep(max(0.0, begun + number * _INTERVAL / len(bodies) - time.monotonic()))
        connection.close()

    async def all_work() -> None:
        bodies = [msgspec.json.encode(digest(number, 7)) for number in range(_REGISTRARS)]
        sequence = time.monotonic_ns() // 1024
        # Each connection has the digests of so many registrars, one after the other.
        await asyncio.gather(*(work(bodies[first::_CONNECTIONS], sequence) for first in range(_CONNECTIONS)))

    thread = threading.Thread(target=lambda: asyncio.run(all_work())) if sends else None
    if thread is not None:
        thread.start()
    try:
        yield sent
    finally:
        stop.set()
        if thread is not None:
            thread.join()


async def _registrar(part: Part, plan: Plan, found: Stage, callees: int) -> None:
    """Compare a registrar that reports with one that does not; the Envoy has traffic to each cluster."""
    async with _app() as app:
        with found.registry() as process, _envoy(found.directory, callees, app) as (admin, listener):
            traffic = asyncio.create_task(_traffic(listener, callees))
            costs: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
            for side in interleaved(["without", "with"], plan.rounds(3)):
                env = {"REGISTRAR_ENVOY_ADMIN": f"http://127.0.0.1:{admin}"} if side == "with" else {}
                endpoint = f"127.0.0.1:{app}"
                with registrar(found.directory, process.url, "caller", endpoint, env=env, admin_listen="off") as beside:
                    pid = beside.process.pid
                    await asyncio.sleep(plan.seconds(15) + 5)
                    begun, at = ticks(pid), time.monotonic()
                    await asyncio.sleep(max(_INTERVAL, plan.seconds(60)))
                    share = (ticks(pid) - begun) * _TICK / (time.monotonic() - at)
                    costs[side].append((memory(pid)["Pss"] / 1024, 100 * share))
            traffic.cancel()
    named = f"registrar beside an Envoy with {callees} callees"
    pairs = list(zip(costs["with"], costs["without"], strict=True))
    part.bar(f"{named}: memory more", [one[0] - other[0] for one, other in pairs], "MB", at_most=1.5)
    part.bar(f"{named}: CPU more", [one[1] - other[1] for one, other in pairs], "% of a core", at_most=0.2)


@contextlib.asynccontextmanager
async def _app() -> AsyncIterator[int]:
    async with FakeApp() as app:
        yield app.port


async def _traffic(listener: int, callees: int) -> None:
    """Send some requests a second to each callee."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener}", trust_env=False) as client:
        while True:
            for number in range(callees):
                await client.get("/healthz", headers={"host": f"callee-{number}"})
            await asyncio.sleep(1.0)


@contextlib.contextmanager
def _envoy(directory: Path, callees: int, app: int) -> Iterator[tuple[int, int]]:
    """Run an Envoy with so many clusters; return the ports of its admin interface and its listener."""
    admin, listener = free_port(), free_port()
    names = [f"callee-{number}" for number in range(callees)]
    where = {"socket_address": {"address": "127.0.0.1", "port_value": app}}
    clusters = [
        {
            "name": name,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
            },
        }
        for name in names
    ]
    hosts = [
        {"name": name, "domains": [name], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}]}
        for name in names
    ]
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "all",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{filters}.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listens = {"socket_address": {"address": "127.0.0.1", "port_value": listener}}
    document = {
        "node": {"id": "bench", "cluster": "caller"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [{"name": "all", "address": listens, "filter_chains": [chain]}],
            "clusters": clusters,
        },
    }
    path = directory / f"traffic-{admin}.json"
    path.write_text(json.dumps(document))
    command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    with running(command, log=path.with_suffix(".log")):
        eventually(lambda: _answers(admin), within=20)
        yield admin, listener


def _answers(admin: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{admin}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
