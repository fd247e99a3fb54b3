"""Registries: endpoints read and leases renewed, beside Eureka and ZooKeeper with the same endpoints."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import httpx
import psutil
from harness.process import eventually
from harness.registry import Registry
from msgspec import Struct

from benchmarks import wrk
from benchmarks.envoy_poll import poll_body
from benchmarks.heartbeats import Case, Load, answered, renewals
from benchmarks.peers import eureka, java_programs, zookeeper
from benchmarks.plan import Plan
from benchmarks.population import Population, populate
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, cpu_seconds, memory, seed, stage

_OURS = "registry"
_V3, _V1 = "registry, EDS poll of 77 kB", "registry, GET of v1 SDS"
_EUREKA, _ZOOKEEPER = "Eureka, GET of JSON", "ZooKeeper, children and data"
_LIBRARIES = {
    java_programs.EUREKA: ("Eureka of Spring Cloud", "spring-cloud-netflix-eureka-server"),
    java_programs.ZOOKEEPER: (zookeeper.NAME, "zookeeper"),
}
"""The library that has the version of each peer."""
_EACH = 100
"""Endpoints of a service."""
_POPULATION = Population(10_000, each=_EACH, prefix="shop-")
_SERVICE = "shop-0"
_FIRST = range(_EACH)
"""The endpoints that are there when memory is first measured: what a first one brings is not counted."""
_REST = range(_EACH, _POPULATION.count)
_CONNECTIONS = 64
_NO_HOLD = 200
"""Milliseconds that a poll would wait for a change."""
_WARM_UP = 20.0
"""Seconds of load until a Java machine has compiled what is measured."""
_MEBIBYTE = 1024 * 1024
_COLUMNS = {"rate": "requests/s", "p50": "p50 ms", "p99": "p99 ms", "cpu": "server's CPU µs a request"}

Measure = Callable[[float], wrk.Measured]
"""Loads a server for so many seconds."""


class _Side(Struct, frozen=True):
    """A server, and what can be done with it."""

    name: str
    register: Callable[[range], None]
    listed: Callable[[], int]
    """Returns how many endpoints it tells of the service that is read."""
    pid: int
    heap: Callable[[], int] | None
    """Collects garbage, and returns the bytes of all objects in use; None where nothing tells them."""
    reads: Mapping[str, Measure]
    renew: Measure


def run(part: Part, plan: Plan) -> None:
    """Compare with each peer that is there."""
    version = wrk.installed()
    if version is None:
        part.leave_out("all of registries", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    part.note(
        f"{_POPULATION.count:,} endpoints in services of {_EACH}, one process each, {_CONNECTIONS} connections. A read "
        "is all endpoints of one service. The registry and ZooKeeper answer a renewal when it is stored durably; "
        "Eureka keeps it in memory, and answers reads from a cache that it renews each 30 s. ZooKeeper is read by two "
        "requests: the children, and the data of all of them. Its load is its own client in Java, which takes more of "
        "the shared cores than wrk does: compare it by the server's CPU."
    )
    peers = available(part, plan)
    plan.doing("starting PostgreSQL, the registry and its peers")
    with stage() as environment, contextlib.ExitStack() as running:
        part.machine.versions["PostgreSQL"] = environment.version()
        populate(environment, Population(_EACH, each=_EACH, prefix=_POPULATION.prefix))
        registry = running.enter_context(environment.registry())
        sides = [_ours(environment, registry)]
        sides += [side for peer in peers if (side := _started(part, environment, running, peer))]
        _compare_memory(part, plan, sides)
        _compare_reads(part, plan, sides)
        _compare_renewals(part, plan, environment, sides)


def available(part: Part, plan: Plan) -> list[str]:
    """Return the peers that can run here, built; say of the others why not."""
    found = []
    for peer, (label, library) in _LIBRARIES.items():
        plan.doing(f"registries: building {peer}")
        why = java_programs.build(peer)
        if why is not None:
            part.leave_out(label, why)
            continue
        part.machine.versions["Java"] = java_programs.java_version()
        part.machine.versions[label] = java_programs.version(peer, library)
        found.append(peer)
    return found


def _started(part: Part, environment: Stage, running: contextlib.ExitStack, peer: str) -> _Side | None:
    """Start a peer; without it, the others are compared all the same."""
    try:
        return running.enter_context(_PEERS[peer](environment))
    except (AssertionError, OSError, RuntimeError) as error:
        label, _ = _LIBRARIES[peer]
        part.leave_out(label, f"it does not start: {error}")
        return None


def _ours(environment: Stage, registry: Registry) -> _Side:
    body = environment.directory / "poll.json"
    body.write_bytes(poll_body(_SERVICE))
    pids = [registry.process.pid]
    load = Load(registry, {1: renewals(environment.directory, _POPULATION, 1)})

    def register(numbers: range) -> None:
        for begin in range(numbers.start, numbers.stop, _EACH):
            seed(registry, _POPULATION.service(begin), range(begin, begin + _EACH))
        last = _POPULATION.service(numbers.stop - 1)
        eventually(lambda: len(registry.statuses(last)) == _EACH, within=30)

    def poll(seconds: float) -> wrk.Measured:
        what = wrk.Flood(body, _CONNECTIONS, seconds, budget=_NO_HOLD)
        return answered(wrk.flood(f"{registry.url}/v3/discovery:endpoints", pids, what))

    def get(seconds: float) -> wrk.Measured:
        url = f"{registry.url}/v1/registration/{_SERVICE}"
        return answered(wrk.get(url, pids, wrk.Gets(_CONNECTIONS, seconds)))

    def listed() -> int:
        path = f"/v1/registration/{_SERVICE}"
        return len(httpx.get(registry.url + path, trust_env=False).json()["hosts"])

    return _Side(
        name=_OURS,
        register=register,
        listed=listed,
        pid=registry.process.pid,
        heap=None,
        reads={_V3: poll, _V1: get},
        renew=partial(load.beat, Case(_CONNECTIONS)),
    )


@contextlib.contextmanager
def _eureka(environment: Stage) -> Iterator[_Side]:
    with eureka.eureka(environment.directory, _POPULATION) as peer:
        yield _Side(
            name=eureka.NAME,
            register=peer.register,
            listed=lambda: peer.listed(_SERVICE),
            pid=peer.pid,
            heap=partial(java_programs.live_heap, peer.pid),
            reads={_EUREKA: lambda seconds: answered(peer.read(_SERVICE, _CONNECTIONS, seconds))},
            renew=lambda seconds: answered(peer.renew(_CONNECTIONS, seconds)),
        )


@contextlib.contextmanager
def _zookeeper(environment: Stage) -> Iterator[_Side]:
    with zookeeper.zookeeper(environment.directory, _POPULATION, _CONNECTIONS) as peer:
        yield _Side(
            name=zookeeper.NAME,
            register=peer.register,
            listed=lambda: _EACH,  # its client compares each answer
            pid=peer.pid,
            heap=partial(java_programs.live_heap, peer.pid),
            reads={_ZOOKEEPER: partial(peer.read, _SERVICE)},
            renew=peer.renew,
        )


def _compare_memory(part: Part, plan: Plan, sides: Sequence[_Side]) -> None:
    """Measure each server with the endpoints of one service, and then with all."""
    table = part.table(
        f"Memory, {_POPULATION.count:,} endpoints",
        heap="kB of objects an endpoint",
        grown="kB of the process an endpoint",
        process="MiB of the process",
    )
    part.note(
        f"Memory an endpoint is what the last {len(_REST):,} added. Objects are those in use after garbage was "
        "collected; the process, with its share of shared pages, has garbage and room to grow as well."
    )
    for side in sides:
        plan.doing(f"registries: {_POPULATION.count:,} endpoints into {side.name}")
        side.register(_FIRST)
        objects = side.heap() if side.heap else 0
        before = memory(side.pid)
        side.register(_REST)
        after = memory(side.pid)
        table.add(side.name, grown=(after - before) / len(_REST) / 1000, process=after / _MEBIBYTE)
        if side.heap:
            table.add(side.name, heap=(side.heap() - objects) / len(_REST) / 1000)
        if side.listed() != _EACH:
            raise RuntimeError(f"{side.name} tells {side.listed()} endpoints of {_SERVICE}")


def _compare_reads(part: Part, plan: Plan, sides: Sequence[_Side]) -> None:
    table = part.table(f"All endpoints of a service of {_EACH}", **_COLUMNS)
    reads = {name: read for side in sides for name, read in side.reads.items()}
    _warm_up(plan, {name: read for side in sides if side.heap for name, read in side.reads.items()})
    for name in interleaved(list(reads), plan.rounds(5)):
        plan.doing(f"registries: {name}")
        _add(table, name, reads[name](plan.seconds(2)))
    ours, poll, peers = ({column: table.values(row, column) for column in _COLUMNS} for row in (_V1, _V3, _EUREKA))
    part.ratio("GET of v1 SDS against Eureka: requests/s", ours["rate"], peers["rate"], at_least=8)
    part.ratio("Eureka against GET of v1 SDS: CPU", peers["cpu"], ours["cpu"], at_least=8)
    part.ratio("GET of v1 SDS against an EDS poll beside Eureka: CPU", ours["cpu"], poll["cpu"], at_most=1.5)


def _compare_renewals(part: Part, plan: Plan, environment: Stage, sides: Sequence[_Side]) -> None:
    table = part.table("Renewals, one a request", **_COLUMNS, store="PostgreSQL's CPU µs a request")
    renews = {side.name: side.renew for side in sides}
    _warm_up(plan, {side.name: side.renew for side in sides if side.heap})
    store = _postmaster(environment)
    if store is None:
        part.leave_out("PostgreSQL's CPU of a renewal", "it does not run on this machine, or in a container")
    for name in interleaved(list(renews), plan.rounds(5)):
        plan.doing(f"registries: renewals of {name}")
        before = cpu_seconds(store) if store else 0.0
        seconds = max(1, round(plan.seconds(2)))
        measured = renews[name](seconds)
        _add(table, name, measured)
        if store and name == _OURS:
            used = cpu_seconds(store) - before
            table.add(name, store=used / (measured.rate * seconds) * 1e6)
    for peer, least in ((eureka.NAME, 1.0), (zookeeper.NAME, 0.8)):
        ours, peers = table.values(_OURS, "rate"), table.values(peer, "rate")
        part.ratio(f"durable renewals/s against {peer}: {_CONNECTIONS} connections", ours, peers, at_least=least)


def _warm_up(plan: Plan, measures: Mapping[str, Measure]) -> None:
    """Load what runs in Java until it is compiled; nothing else gets faster with time."""
    for name, measure in measures.items():
        plan.doing(f"registries: warming up {name}")
        measure(plan.seconds(_WARM_UP))


def _postmaster(environment: Stage) -> int | None:
    """Return the process id of PostgreSQL; None when it is not one of this machine's that can be seen."""
    statement = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    with contextlib.suppress(psutil.Error, IndexError):
        parent = psutil.Process(environment.server.execute(statement)[0]["pid"]).parent()
        if parent is not None and parent.name().startswith("postgres"):
            return int(parent.pid)
    return None


def _add(table: Table, row: str, measured: wrk.Measured) -> None:
    table.add(row, rate=measured.rate, p50=measured.p50, p99=measured.p99, cpu=measured.cpu)


_PEERS = {java_programs.EUREKA: _eureka, java_programs.ZOOKEEPER: _zookeeper}
