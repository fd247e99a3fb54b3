"""Traffic: what digests of Envoys' statistics cost, and shares; and how soon an errand is answered."""

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
from harness.envoy import binary
from harness.fake_app import FakeApp
from harness.process import eventually, free_port, running
from harness.registrar import registrar
from harness.registry import Registry

from benchmarks import shares, wrk
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
_PAIRS = 30
"""Rounds of a second each, with digests and without: the rate of heartbeats moves by 10 % from one second to the next,
so that the few percent to be seen are in the median of many neighbours alone."""
_TICK = 0.01
_ERRANDS = 10
_ERRANDS_OF_ONE = 3
"""Errands of one registrar: it takes six a minute."""


def run(part: Part, plan: Plan) -> None:
    """Look at one digest, at shares, at a thousand registrars beside heartbeats, and then at a few registrars."""
    part.note(
        f"{_REGISTRARS:,} registrars, {_CALLERS} services, {_CALLEES} callees each, a digest each {_INTERVAL:g} s. The "
        "load and PostgreSQL share the cores with what is measured."
    )
    _digest(part, plan)
    shares.measure_snapshots(part, plan)
    with stage() as found:
        shares.measure_polls(part, plan, found)
        _beside_heartbeats(part, plan, found)
        plan.doing("traffic: registrars beside Envoys with 20 and 100 clusters")
        asyncio.run(_registrars(part, plan, found))


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
    bodies = [msgspec.json.encode(digest(number, 7)) for number in range(_REGISTRARS)]
    part.bar(f"bytes of a digest of {_CALLEES} callees", [len(bodies[0])], "B", at_most=2_500)
    microseconds = []
    table, now = TrafficTable(5_000), 1_000.0
    for sequence in range(plan.rounds(5) + 1):
        each = [body.replace(b'"sequence":7', b'"sequence":%d' % sequence) for body in bodies]
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
    lines = found.directory / "digests.txt"
    lines.write_bytes(b"\n".join(msgspec.json.encode(digest(number, 7)) for number in range(_REGISTRARS)))
    with found.registry() as process:
        load = Load(process, {1: renewals(found.directory, population, 1)})
        load.beat(Case(), plan.seconds(2))
        for side in interleaved(["without digests", "with digests"], plan.rounds(_PAIRS)):
            plan.doing(f"traffic: heartbeats {side}")
            with _reporting(process, lines, sends=side == "with digests") as rate:
                measured = load.beat(Case(), plan.seconds(1))
                digests = rate()
            table.add(side, rate=measured.rate, cpu=measured.cpu, digests=digests)
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
        _alone(part, plan, process, lines)


def _alone(part: Part, plan: Plan, process: Registry, lines: Path) -> None:
    plan.doing("traffic: digests alone")
    shares, cores = [], []
    for _ in range(plan.rounds(3)):
        seconds = plan.seconds(8)
        begun = cpu_seconds(process.process.pid)
        time.sleep(seconds)
        idle = cpu_seconds(process.process.pid) - begun
        with _reporting(process, lines, sends=True):
            # Reading the count makes the metrics of all pairs, which is no part of it.
            before, begun = _taken(process), cpu_seconds(process.process.pid)
            time.sleep(seconds)
            used = cpu_seconds(process.process.pid) - begun - idle
            count = max(1.0, _taken(process) - before)
        shares.append(used / count * 1e6)
        cores.append(100 * used / count * _REGISTRARS / _INTERVAL)
    part.bar(f"CPU for the digests of {_REGISTRARS:,} registrars", cores, "% of a core", at_most=3.0)
    part.bar("CPU of a digest in the registry, HTTP and the exchange between processes included", shares, "µs")


@contextlib.contextmanager
def _reporting(process: Registry, lines: Path, *, sends: bool) -> Iterator[Callable[[], float]]:
    """Let wrk, which costs next to nothing, send the digests of all registrars; yield what tells their rate so far."""
    before = _taken(process)
    load = wrk.digests(process.url, lines, _REGISTRARS / _INTERVAL, _CONNECTIONS) if sends else contextlib.nullcontext()
    with load:
        if sends:
            eventually(lambda: _taken(process) > before, within=10)
        first, begun = _taken(process), time.monotonic()
        yield lambda: (_taken(process) - first) / (time.monotonic() - begun)


def _taken(process: Registry) -> float:
    """Return how many digests the registry has taken.

    Raises:
        RuntimeError: it has refused some, so the figures would be those of something else.
    """
    text = process.client.get("/metrics").text
    counts = dict(re.findall(r'^registry_traffic_digests_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE))
    if float(counts.get("refused", 0)) or float(counts.get("repeated", 0)):
        raise RuntimeError(f"digests were refused or repeated: {counts}")
    return float(counts.get("taken", 0))


async def _registrars(part: Part, plan: Plan, found: Stage) -> None:
    """Compare registrars that report with ones that do not, at the same time; Envoys have traffic to each cluster."""
    rounds = plan.rounds(3)
    beside: dict[int, tuple[list[int], list[int]]] = {}
    endpoints: list[str] = []
    """Those whose registrars take errands, each as often as it is asked."""
    async with contextlib.AsyncExitStack() as running:
        apps = iter([await running.enter_async_context(FakeApp()) for _ in range(4 * rounds + 1)])
        # The connections of those that have ended are closed before their servers are.
        running.push_async_callback(asyncio.sleep, 0.5)
        process = running.enter_context(found.registry())
        callee = next(apps).port
        for callees in (20, 100):
            admin, listener = running.enter_context(_envoy(found.directory, callees, callee))
            traffic = asyncio.create_task(_traffic(listener, callees))
            running.callback(traffic.cancel)
            reports = {"REGISTRAR_ENVOY_ADMIN": f"http://127.0.0.1:{admin}"}
            beside[callees] = [], []
            for env, pids in zip((reports, {}), beside[callees], strict=True):
                for _ in range(rounds):
                    endpoint = f"127.0.0.1:{next(apps).port}"
                    if env:
                        endpoints += [endpoint] * _ERRANDS_OF_ONE
                    one = registrar(found.directory, process.url, "caller", endpoint, env=env, admin_listen="off")
                    pids.append(running.enter_context(one).process.pid)
        # The first digests make what stays.
        await asyncio.sleep(plan.seconds(15) + 5)
        everyone = [pid for sides in beside.values() for side in sides for pid in side]
        begun, at = {pid: ticks(pid) for pid in everyone}, time.monotonic()
        await asyncio.sleep(max(_INTERVAL, plan.seconds(40)))
        seconds = time.monotonic() - at
        shares = {pid: 100 * (ticks(pid) - begun[pid]) * _TICK / seconds for pid in everyone}
        megabytes = {pid: memory(pid)["Pss"] / 1024 for pid in everyone}
        plan.doing("traffic: errands")
        answered = [await asyncio.to_thread(_errand, process, each) for each in endpoints[:_ERRANDS]]
    part.bar("errand asked to answered", answered, "s", at_most=1.0)
    part.bar(f"the slowest of {len(answered)} errands", [max(answered)], "s", at_most=1.0)
    for callees, sides in beside.items():
        named = f"registrar beside an Envoy with {callees} callees"
        pairs = list(zip(*sides, strict=True))
        more = [megabytes[one] - megabytes[other] for one, other in pairs]
        part.bar(f"{named}: memory more", more, "MB", at_most=1.5)
        part.bar(
            f"{named}: CPU more", [shares[one] - shares[other] for one, other in pairs], "% of a core", at_most=0.2
        )


def _errand(process: Registry, endpoint: str) -> float:
    """Ask a registrar for the clusters of its Envoy, as an operator does; return the seconds until the answer is here.

    Raises:
        RuntimeError: it was not answered.
    """
    begun = time.monotonic()
    question = {"endpoint": endpoint, "arguments": {"verb": "clusters"}, "reason": "a benchmark"}
    asked = process.client.post("/v1/errands", json=question).raise_for_status()
    errand = asked.json()["errands"][0]["id"]
    view = process.client.get(f"/v1/errands/{errand}", params={"wait": 20}).json()
    seconds = time.monotonic() - begun
    if view["state"] != "answered" or view["result"]["outcome"] != "done":
        raise RuntimeError(f"an errand was not answered: {view}")
    return seconds


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
