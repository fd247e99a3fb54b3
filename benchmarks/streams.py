"""Streams: pushes over gRPC to many subscribers, by the registry and, in the same run, by go-control-plane.

The subscribers are compiled, have a connection each, send the node of a real Envoy, and acknowledge what they get.
"""

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from harness.process import eventually, free_port
from harness.registry import Registry
from msgspec import Struct

from benchmarks import wrk
from benchmarks.envoy_poll import poll_body
from benchmarks.h2spec import conformance
from benchmarks.peers import go_programs
from benchmarks.peers.go_control_plane import LINEAR, SNAPSHOT, go_control_plane
from benchmarks.plan import Plan
from benchmarks.propagation import Way, measure_envoy, seed_services
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, address, memory, registration, seed, stage
from benchmarks.subscribers import Report, Subscribers, subscribers
from registry_demo.envoy import find_envoy, read_version

OURS = "registry"
_SERVICE = "shop"
_ENDPOINTS = 100
_STREAMS = 1_000
_CROWD = 5_000
_RECONNECTS = 10_000
_TOGETHER = 50
"""Streams that are opened at a time where it is no storm: as many as the registry answers a turn."""
_CHANGES = 20
_PROTOCOLS = {"sotw": "state of the world", "delta": "delta"}
_QUIET = 0.003
"""Seconds of processor time in ``_LOOK`` below which a server has nothing of ours to do."""
_LOOK = 0.1
_IDLE = 2.0
"""Seconds for which an idle server is watched, whose work is then no part of a push."""
_QUIET_TIMEOUT = 10.0
"""Seconds after which a server that does not come to rest is measured as it is."""
_FILES = 2 * _CROWD
"""Open files that a server or a client of the largest crowd may need."""


class Server(Protocol):
    """A server under measurement that has one service."""

    @property
    def pid(self) -> int:
        """The process."""

    @property
    def port(self) -> int:
        """The port of its streams."""

    def change(self) -> float:
        """Change the service; return when that was sent, on the monotonic clock."""

    def collect(self) -> None:
        """Return unused memory to the kernel, where it can be asked to."""


class RegistryServer:
    """A registry of one process: a change is a registrar's request, which PostgreSQL stores."""

    def __init__(self, registry: Registry, port: int) -> None:
        self.registry = registry
        self.pid = registry.process.pid
        self.port = port
        self._weight = 1

    def change(self) -> float:
        """Change the weight of an endpoint; return when the request was sent.

        Raises:
            httpx.HTTPStatusError: the registry refused it.
        """
        self._weight += 1
        body = registration(0) | {"weight": self._weight}
        sent = time.monotonic()
        self.registry.client.put(f"/v1/services/{_SERVICE}/endpoints/{address(0)}", json=body).raise_for_status()
        return sent

    def collect(self) -> None:
        """Do nothing: it has no such command."""


class Side(Struct, frozen=True):
    """One side of the comparison: its name, and how it is started."""

    name: str
    start: Callable[[], contextlib.AbstractContextManager[Server]]


def run(part: Part, plan: Plan) -> None:
    """Compare with each cache of go-control-plane."""
    missing = go_programs.build()
    if missing is not None:
        part.leave_out(f"all of streams, with {LINEAR} and {SNAPSHOT} of go-control-plane", f"no client: {missing}")
        return
    part.machine.versions |= go_programs.versions()
    part.note(
        f"One service of {_ENDPOINTS} endpoints, ADS without TLS, one process on each side. Each stream has a "
        "connection of its own from a compiled client on the same cores, which acknowledges every answer. Its first "
        "request has the node of a real Envoy. A change goes to go-control-plane's cache by a call in its process. To "
        "the registry it is a registrar's request, which is in PostgreSQL before anybody hears of it: that is part of "
        "its figures. The processor time of a push includes the change itself and the acknowledgement, without what "
        "the idle process uses."
    )
    part.note(
        "The memory of an idle stream is measured after its first answer; go-control-plane collects its garbage before."
    )
    with stage() as environment:
        part.machine.versions["PostgreSQL"] = environment.version()
        assignment = _prepare(environment)
        sides = [Side(OURS, partial(_registry, environment))]
        sides += [
            Side(name, partial(go_control_plane, name, assignment, environment.directory))
            for name in (LINEAR, SNAPSHOT)
        ]
        for protocol in _PROTOCOLS:
            _compare_pushes(part, plan, environment, sides, protocol)
        if _may_open(part):
            _compare_crowds(part, plan, environment, sides)
        _compare_reconnects(part, plan, environment, sides)
        _measure_polls(part, plan, environment, sides[0])
        if not plan.quick:
            _check_conformance(part, plan, sides)
        _measure_envoy(part, plan, environment)


def _prepare(environment: Stage) -> dict[str, Any]:
    """Register the endpoints, and return the assignment as Envoys get it."""
    with environment.registry() as registry:
        seed(registry, _SERVICE, range(_ENDPOINTS))
        eventually(lambda: len(registry.statuses(_SERVICE)) == _ENDPOINTS)
        assignment: dict[str, Any] = registry.poll(_SERVICE).json()["resources"][0]
        return assignment


@contextlib.contextmanager
def _registry(environment: Stage) -> Iterator[Server]:
    port = free_port()
    with environment.registry(xds_listen=f"127.0.0.1:{port}") as registry:
        eventually(lambda: len(registry.statuses(_SERVICE)) == _ENDPOINTS)
        yield RegistryServer(registry, port)


def _compare_pushes(part: Part, plan: Plan, environment: Stage, sides: Sequence[Side], protocol: str) -> None:
    """Compare what connecting, being connected and a push cost, and how long the last subscriber waits."""
    said = f"{_STREAMS:,} streams, {_PROTOCOLS[protocol]}"
    plan.doing(f"streams: {said}")
    table = part.table(
        said,
        push="CPU µs a push and stream",
        last="change → last ms",
        connect="CPU µs a connect",
        idle="kB an idle stream",
        size="bytes a push",
    )
    for side in interleaved(sides, plan.rounds(3)):
        with side.start() as server, subscribers(server.port, protocol, _SERVICE, environment.directory) as client:
            _measure_pushes(table, side.name, server, client, 4 if plan.quick else _CHANGES)
    for peer, at_most, goal in ((LINEAR, 0.5, 0.3), (SNAPSHOT, 0.25, 0.13)):
        ours, peers = table.values(OURS, "push"), table.values(peer, "push")
        part.ratio(f"CPU a push and stream against {peer}: {said}", ours, peers, at_most=at_most, goal=goal)
    ours, peers = table.values(OURS, "last"), table.values(LINEAR, "last")
    part.ratio(f"change → last against {LINEAR}: {said}", ours, peers, at_most=1.5, goal=1)
    ours, peers = table.values(OURS, "connect"), table.values(LINEAR, "connect")
    part.ratio(f"CPU a connect against {LINEAR}: {said}", ours, peers, at_most=1, goal=0.5)
    part.bar(f"memory of an idle stream: {said}", table.values(OURS, "idle"), "kB", at_most=30, goal=20)


def _measure_pushes(table: Table, name: str, server: Server, client: Subscribers, changes: int) -> None:
    _wait_until_quiet(server)
    server.collect()
    held, used = memory(server.pid), _processor_time(server)
    _check(client.open(_STREAMS, _TOGETHER))
    _wait_until_quiet(server)
    connect = (_processor_time(server) - used) / _STREAMS
    server.collect()
    idle = (memory(server.pid) - held) / _STREAMS
    idling = _idle_share(server)
    begun, used, lasts = time.monotonic(), _processor_time(server), []
    for _ in range(changes):
        sent = server.change()
        report = client.expect()
        lasts.append(1000 * (report.last / 1e9 - sent))
        _wait_until_quiet(server)
    pushing = _processor_time(server) - used - idling * (time.monotonic() - begun)
    push = pushing / (changes * _STREAMS)
    table.add(
        name,
        push=1e6 * push,
        last=sorted(lasts)[len(lasts) // 2],
        connect=1e6 * connect,
        idle=idle / 1000,
        size=report.bytes,
    )


def _compare_crowds(part: Part, plan: Plan, environment: Stage, sides: Sequence[Side]) -> None:
    """Compare how many connect at once, and how long the last of them waits for a change."""
    said = f"{_CROWD:,} streams that connect at once"
    plan.doing(f"streams: {said}")
    table = part.table(said, answered="connect → last answer ms", lost="lost streams", last="change → last ms")
    for side in interleaved(sides, plan.rounds(3)):
        with side.start() as server, subscribers(server.port, "sotw", _SERVICE, environment.directory) as client:
            _measure_crowd(table, side.name, server, client)
    part.bar(f"lost: {said}", table.values(OURS, "lost"), "streams", at_most=0, goal=0)
    part.bar(f"last first answer: {said}", [each / 1000 for each in table.values(OURS, "answered")], "s", at_most=10)
    ours, peers = table.values(OURS, "last"), table.values(LINEAR, "last")
    part.ratio(f"change → last of {_CROWD:,} against {LINEAR}", ours, peers, at_most=1)


def _measure_crowd(table: Table, name: str, server: Server, client: Subscribers) -> None:
    report = client.open(_CROWD)
    lost = report.lost + report.silent
    table.add(name, answered=(report.last - report.begun) / 1e6, lost=lost)
    if lost:
        return
    _wait_until_quiet(server)
    lasts = []
    for _ in range(5):
        sent = server.change()
        lasts.append(1000 * (client.expect().last / 1e9 - sent))
        _wait_until_quiet(server)
    table.add(name, last=sorted(lasts)[len(lasts) // 2])


def _compare_reconnects(part: Part, plan: Plan, environment: Stage, sides: Sequence[Side]) -> None:
    """Compare what streams leave behind that came and went."""
    count = _STREAMS if plan.quick else _RECONNECTS
    said = f"{count:,} streams that come and go, {_TOGETHER} at a time"
    plan.doing(f"streams: {said}")
    table = part.table(said, grown="memory MB", each="CPU µs each")
    for side in interleaved(sides, plan.rounds(2)):
        with side.start() as server, subscribers(server.port, "sotw", _SERVICE, environment.directory) as client:
            # Whatever a first use of each part takes is not what reconnects add.
            _check(client.churn(_STREAMS, _TOGETHER))
            _wait_until_quiet(server)
            server.collect()
            held, used = memory(server.pid), _processor_time(server)
            _check(client.churn(count, _TOGETHER))
            _wait_until_quiet(server)
            each = (_processor_time(server) - used) / count
            server.collect()
            table.add(side.name, grown=(memory(server.pid) - held) / 1e6, each=1e6 * each)
    part.bar(f"memory after {count:,} reconnects", table.values(OURS, "grown"), "MB", at_most=5, goal=1)


def _measure_polls(part: Part, plan: Plan, environment: Stage, side: Side) -> None:
    """Measure polls of one process that pushes at the same time."""
    if wrk.installed() is None:
        part.leave_out(f"polls while {_STREAMS:,} streams are pushed to", wrk.MISSING)
        return
    plan.doing(f"streams: polls while {_STREAMS:,} streams are pushed to")
    table = part.table(
        f"Polls of the process that pushes to {_STREAMS:,} streams",
        rate="polls/s",
        p50="p50 ms",
        p90="p90 ms",
        changes="changes",
    )
    body = environment.directory / "poll.json"
    body.write_bytes(poll_body(_SERVICE))
    flood = wrk.Flood(body, 4, plan.seconds(4), budget=200, pause=10)
    with side.start() as server, subscribers(server.port, "sotw", _SERVICE, environment.directory) as client:
        assert isinstance(server, RegistryServer), "it is the registry"  # noqa: S101  # for the type checker
        _check(client.open(_STREAMS, _TOGETHER))
        for pushes in interleaved((False, True), plan.rounds(3)):
            _wait_until_quiet(server)
            with ThreadPoolExecutor(1) as beside:
                polling = beside.submit(wrk.flood, f"{server.registry.url}/v3/discovery:endpoints", [server.pid], flood)
                changes = 0
                while pushes and not polling.done():
                    server.change()
                    client.expect()
                    changes += 1
                    time.sleep(_LOOK)
                measured = polling.result()
            if measured is not None:
                table.add(
                    "while a change is pushed every 0.1 s" if pushes else "while nothing is pushed",
                    rate=measured.rate, p50=measured.p50, p90=measured.p90, changes=changes,
                )  # fmt: skip
    subject = f"p90 of a poll while {_STREAMS:,} streams are pushed to"
    part.bar(subject, table.values("while a change is pushed every 0.1 s", "p90"), "ms", at_most=3, goal=1)


def _measure_envoy(part: Part, plan: Plan, environment: Stage) -> None:
    """Measure how long a change takes to a real Envoy over ADS, through two processes of the registry."""
    part.machine.versions["Envoy"] = asyncio.run(read_version(find_envoy()))
    port = free_port()
    way = Way("ADS, delta", "0.2s", "30s", 8, streams=port)
    with environment.registry() as near, environment.registry(xds_listen=f"127.0.0.1:{port}") as far:
        seed_services(near)
        table = measure_envoy(part, plan, environment, near, far, [way])
    subject = "a report, from accepted to a real Envoy's host set, ADS"
    part.bar(f"{subject}: p50", table.values(way.name, "accepted50"), "ms", at_most=10, goal=4)


def _check_conformance(part: Part, plan: Plan, sides: Sequence[Side]) -> None:
    """Count the tests of h2spec that each server passes; both caches have the same one."""
    plan.doing("streams: h2spec")
    table = part.table("Tests of h2spec 2.2.1", passed="passed", skipped="skipped", failed="failed")
    for side in sides[:2]:
        with side.start() as server:
            counts = conformance(server.port)
        name = "go-control-plane" if side.name == LINEAR else side.name
        table.add(name, passed=counts.passed, skipped=counts.skipped, failed=counts.failed)
    part.bar("h2spec, of 145 tests", table.values(OURS, "passed"), "tests", at_least=130, goal=138)


def _may_open(part: Part) -> bool:
    """Allow as many open files as the largest crowd needs, and tell whether that may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        part.leave_out(
            f"{_CROWD:,} streams", f"a process may open {hard} files, of which {_FILES} are needed (ulimit -Hn)"
        )
        return False
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))
    return True


def _check(report: Report) -> None:
    if report.silent or report.lost:
        raise RuntimeError(f"not every stream had its first answer: {report}")


def _processor_time(server: Server) -> float:
    """Return the seconds that all threads of a process have used; its clock is exact, /proc counts in 10 ms."""
    return time.clock_gettime(~server.pid << 3 | 2)


def _idle_share(server: Server) -> float:
    """Return the share of a core that a server uses while nothing is asked of it."""
    begun, used = time.monotonic(), _processor_time(server)
    time.sleep(_IDLE)
    return (_processor_time(server) - used) / (time.monotonic() - begun)


def _wait_until_quiet(server: Server) -> None:
    """Wait until a server has worked off what was under way."""
    end = time.monotonic() + _QUIET_TIMEOUT
    before = _processor_time(server)
    while time.monotonic() < end:
        time.sleep(_LOOK)
        used = _processor_time(server)
        if used - before < _QUIET:
            return
        before = used
