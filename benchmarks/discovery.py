"""Discovery: polls of a real Envoy's body, answered by the registry and, in the same run, by its peers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
from harness.process import eventually
from harness.registry import Registry
from msgspec import Struct

from benchmarks import syscalls, wrk
from benchmarks.envoy_poll import poll_body
from benchmarks.peers import nginx, one_accept, plain_route, sovereign
from benchmarks.peers.side import Side
from benchmarks.plan import Plan
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, seed, stage
from benchmarks.writes import Writes, prepare, writing

OURS = "registry"
_V1, _V3 = "GET of v1 SDS", "EDS poll"
_SIZES = (10, 100, 1_000)
_COLUMNS = {"rate": "polls/s", "p50": "p50 ms", "p99": "p99 ms", "cpu": "server's CPU µs a poll"}
_STORM = 500
"""Connections of a storm: wrk connects all of them at once, and each has its first poll under way at once."""
_NO_HOLD = 200
"""A time-out, in milliseconds, that leaves nothing to hold for: an unchanged poll is answered at once."""

Sides = Mapping[int, Sequence[Side]]
"""By the number of their processes."""
Peer = Callable[[Path, Mapping[str, bytes], int], AbstractContextManager[Side]]


class Bound(Struct, frozen=True):
    """How much of a peer's rate ours has to reach, and how much would be good."""

    peer: str
    at_least: float
    goal: float | None = None


class Case(Struct, frozen=True):
    """The conditions of one comparison."""

    endpoints: int = 100
    processes: int = 2
    connections: int = 64
    unchanged: bool = False
    rounds: int = 3
    bounds: tuple[Bound, ...] = ()

    def __str__(self) -> str:
        status = "304" if self.unchanged else "200"
        processes = "2 processes" if self.processes > 1 else "1 process"
        return f"{self.endpoints:,} endpoints, {status}, {self.connections} connections, {processes}"

    @property
    def service(self) -> str:
        """The service of that size."""
        return _service(self.endpoints)


_CASES = (
    Case(rounds=4, bounds=(Bound(nginx.NAME, 0.6, 1.0), Bound(sovereign.NAME, 25), Bound(plain_route.NAME, 5))),
    Case(connections=500, bounds=(Bound(nginx.NAME, 0.5),)),
    Case(endpoints=1_000, bounds=(Bound(nginx.NAME, 0.5, 0.8),)),
    Case(endpoints=10),
    Case(processes=1),
    Case(unchanged=True),
)


def run(part: Part, plan: Plan) -> None:
    """Compare with each peer that is there, and then with ourselves while writes arrive."""
    version = wrk.installed()
    if version is None:
        part.leave_out("all of discovery", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    part.note(
        f"Each poll is the body that a real Envoy sends, {len(poll_body('shop')) / 1000:.0f} kB, sent by wrk on the "
        "same cores. The processes of the registry, of nginx and of the FastAPI route have a socket each on one port. "
        "nginx answers with a file of the registry's own bytes, without a look at what is asked."
    )
    plan.doing("starting PostgreSQL, the registries and their peers")
    with stage() as environment, environment.registry(workers=2) as registry:
        part.machine.versions["PostgreSQL"] = environment.version()
        with _sides(part, environment, registry) as sides:
            for case in _CASES:
                _compare(part, plan, case, sides[case.processes], environment.directory)
            _compare_v1(part, plan, sides[2][0], environment.directory)
            _count_calls(part, plan, sides[1], environment.directory)
            for processes in (1, 2):
                _compare_storms(part, plan, environment, sides[processes], processes)
        _compare_with_writes(part, plan, environment, registry)


@contextlib.contextmanager
def _sides(part: Part, environment: Stage, registry: Registry) -> Iterator[Sides]:
    """Start what is not ours, with one process and with two, and a registry with one."""
    with contextlib.ExitStack() as running:
        registries = {1: running.enter_context(environment.registry()), 2: registry}
        for size in _SIZES:
            seed(registry, _service(size), range(size))
        answers = {_service(size): _answer(registries[1], size) for size in _SIZES}
        sides = {workers: [Side(OURS, one.port, [one.process.pid])] for workers, one in registries.items()}
        for peer in _peers(part):
            for workers, those in sides.items():
                those.append(running.enter_context(peer(environment.directory, answers, workers)))
        yield sides


def _peers(part: Part) -> Iterator[Peer]:
    """Return the peers that can run here, and say of the others why not."""
    program = nginx.find()
    if program is None:
        part.leave_out(nginx.NAME, nginx.MISSING)
    else:
        part.machine.versions[nginx.NAME] = nginx.version(program)
        yield partial(nginx.nginx, program)
    yield plain_route.plain_route
    refused = sovereign.install()
    if refused is None:
        part.machine.versions[sovereign.NAME] = sovereign.version()
        yield sovereign.sovereign
    else:
        part.leave_out(sovereign.NAME, refused)


def _answer(registry: Registry, size: int) -> bytes:
    """Return the registry's answer for a service, once this registry has read all of it."""
    eventually(lambda: len(registry.statuses(_service(size))) == size, within=10)
    return registry.poll(_service(size)).content


def _compare(part: Part, plan: Plan, case: Case, sides: Sequence[Side], directory: Path) -> None:
    table = part.table(str(case), **_COLUMNS)
    bodies = {side.name: _body(case, side, directory) for side in sides}
    plan.doing(f"discovery: {case}")
    silent = set()
    for side in interleaved(sides, plan.rounds(case.rounds)):
        if side.name in silent:
            continue
        what = wrk.Flood(bodies[side.name], case.connections, plan.seconds(1), budget=_NO_HOLD)
        url = side.url(side.unchanged(case.service) if case.unchanged else side.path(case.service))
        if not _add(table, side.name, wrk.flood(url, side.pids, what)):
            silent.add(side.name)
            part.leave_out(f"{side.name}, {case}", f"it answered none of the polls within {what.seconds:.0f} s")
    for bound in case.bounds:
        subject = f"polls/s against {bound.peer}: {case}"
        ours, peers = table.values(OURS, "rate"), table.values(bound.peer, "rate")
        part.ratio(subject, ours, peers, at_least=bound.at_least, goal=bound.goal)


def _compare_v1(part: Part, plan: Plan, side: Side, directory: Path) -> None:
    """Compare a GET of v1 SDS with an Envoy's poll for the same endpoints."""
    case = Case()
    plan.doing("discovery: GET of v1 SDS")
    body = _body(case, side, directory)
    url = side.url(f"/v1/registration/{case.service}")
    listed = len(httpx.get(url, trust_env=False).json()["hosts"])
    if listed != case.endpoints:
        raise RuntimeError(f"v1 SDS answers {listed} hosts")
    table = part.table(f"v1 SDS beside v3 EDS: {case}", **_COLUMNS)
    for kind in interleaved((_V1, _V3), plan.rounds(4)):
        if kind == _V1:
            measured = wrk.get(url, side.pids, wrk.Gets(case.connections, plan.seconds(1)))
        else:
            flood = wrk.Flood(body, case.connections, plan.seconds(1), budget=_NO_HOLD)
            measured = wrk.flood(side.url(side.path(case.service)), side.pids, flood)
        _add(table, kind, measured)
    for column, what in (("cpu", "CPU"), ("p50", "p50")):
        part.ratio(
            f"GET of v1 SDS against an EDS poll: {what}",
            table.values(_V1, column),
            table.values(_V3, column),
            at_most=1.5,
        )


def _count_calls(part: Part, plan: Plan, sides: Sequence[Side], directory: Path) -> None:
    """Count the system calls of a poll, which no other program disturbs."""
    if not syscalls.installed():
        part.leave_out("system calls of a poll", syscalls.MISSING)
        return
    case = Case(processes=1)
    table = part.table(
        "System calls of a poll, 100 endpoints, 64 connections",
        reads="to read it",
        writes="to answer it",
        calls="in all",
    )
    for side in sides:
        if side.name not in {OURS, nginx.NAME}:
            continue
        plan.doing(f"discovery: system calls of {side.name}")
        flood = wrk.Flood(_body(case, side, directory), case.connections, plan.seconds(2), budget=_NO_HOLD)
        calls = syscalls.count(
            side.pids[0], directory, partial(wrk.flood, side.url(side.path(case.service)), side.pids, flood)
        )
        if calls is None:
            part.leave_out(f"system calls of {side.name}", "strace may not trace it")
            continue
        reads = sum(calls.get(name, 0) for name in ("read", "recvfrom", "recvmsg", "readv"))
        writes = sum(calls.get(name, 0) for name in ("write", "writev", "sendto", "sendmsg", "sendfile"))
        table.add(side.name, reads=reads, writes=writes, calls=sum(calls.values()))
    ours = table.values(OURS, "calls")
    if ours:
        part.bar("system calls of a poll: 100 endpoints, 64 connections, 1 process", ours, "calls", at_most=3)


def _compare_storms(part: Part, plan: Plan, environment: Stage, sides: Sequence[Side], processes: int) -> None:
    """Compare how long the last of many clients waits who connect at once, beside an acceptor of one a turn.

    Each run is long enough that the slower side answers all of them: who is not answered has no latency.
    """
    case = Case(connections=_STORM, processes=processes)
    plan.doing(f"discovery: {case}, from their connects on")
    table = part.table(f"{case}, from their connects on", **_COLUMNS)
    with environment.registry(workers=processes, program=one_accept.PROGRAM) as single:
        storms = [side for side in sides if side.name in {OURS, nginx.NAME}]
        storms.append(Side(one_accept.NAME, single.port, [single.process.pid]))
        _answer(single, case.endpoints)
        body = _body(case, storms[0], environment.directory)
        for side in interleaved(storms, plan.rounds(5)):
            what = wrk.Flood(body, case.connections, plan.seconds(4), budget=_NO_HOLD)
            _add(table, side.name, wrk.flood(side.url(side.path(case.service)), side.pids, what))
    ours, one = table.values(OURS, "p99"), table.values(one_accept.NAME, "p99")
    part.ratio(f"p99 against one accept a turn: {case}", ours, one, at_most=0.2 if processes == 1 else 0.7)
    if processes > 1:
        peers = table.values(nginx.NAME, "p99")
        part.ratio(f"p99 against {nginx.NAME}: {case}", ours, peers, at_most=8, goal=4)
    ours, one = table.values(OURS, "rate"), table.values(one_accept.NAME, "rate")
    part.ratio(f"polls/s against one accept a turn: {case}", ours, one, at_least=0.9)


def _body(case: Case, side: Side, directory: Path) -> Path:
    """Write the poll that a side gets in this case, and see that the side answers it as it should.

    Raises:
        RuntimeError: it answers something else, so its figures would be those of something else.
    """
    path = directory / f"{side.name}-{case.endpoints}-{case.unchanged}.json"
    path.write_bytes(poll_body(case.service))
    first = side.ask(side.path(case.service), path.read_bytes())
    listed = sum(len(one["lb_endpoints"]) for one in first.json()["resources"][0]["endpoints"])
    if (first.status_code, listed) != (200, case.endpoints):
        raise RuntimeError(f"{side.name} answers {first.status_code} with {listed} endpoints: {first.text[:500]}")
    if case.unchanged:
        path.write_bytes(poll_body(case.service, first.json()["version_info"]))
        status = side.ask(side.unchanged(case.service), path.read_bytes()).status_code
        if status != 304:
            raise RuntimeError(f"{side.name} answers {status} to an unchanged poll")
    return path


def _compare_with_writes(part: Part, plan: Plan, environment: Stage, registry: Registry) -> None:
    """Poll as 64 Envoys do that pause between polls, and as a flood, without writes and with them."""
    arriving = Writes()
    quiet, busy = "no writes", str(arriving)
    part.note("With writes, the processor time for each poll includes what the writes cost.")
    table = part.table("100 endpoints, 200, 64 connections, 2,000 polls/s, 2 processes", **_COLUMNS)
    flooded = part.table("The same as a flood", **_COLUMNS)
    written = part.table("Writes that were stored meanwhile", heartbeats="heartbeats/s", changes="changes/s")
    body = environment.directory / "poll.json"
    body.write_bytes(poll_body(_service(100)))
    prepare(registry, _service(100))
    url, pids = f"{registry.url}/v3/discovery:endpoints", [registry.process.pid]
    for side in interleaved((quiet, busy), plan.rounds(3)):
        plan.doing(f"discovery: {side}")
        with contextlib.ExitStack() as beside:
            if side == busy:
                stored = beside.enter_context(writing(registry.port, _service(100), environment.directory, arriving))
            _add(table, side, wrk.flood(url, pids, wrk.Flood(body, 64, plan.seconds(2), pause=30)))
            _add(flooded, side, wrk.flood(url, pids, wrk.Flood(body, 64, plan.seconds(2))))
        if side == busy:
            written.add("both", heartbeats=stored.heartbeats, changes=stored.changes)
    # Where the writes do not keep up, the polls were spared what they were to be tried with.
    rates = ((arriving.heartbeats, "heartbeats"), (arriving.changes, "changes"))
    for rate, column in rates:
        part.bar(f"{column} stored meanwhile", written.values("both", column), "/s", at_least=0.95 * rate, goal=rate)
    ours, base = flooded.values(busy, "p99"), flooded.values(quiet, "p99")
    part.ratio(f"p99 of a flood of polls with {busy}, against none", ours, base, at_most=1.5)
    # Of a poll that meets nobody, the p99 is half a millisecond: one batch or one change in its way doubles it.
    ours, base = table.values(busy, "p99"), table.values(quiet, "p99")
    part.ratio(f"p99 of 2,000 polls/s with {busy}, against none", ours, base, at_most=3, goal=1.5)


def _add(table: Table, side: str, measured: wrk.Measured | None) -> bool:
    """Add what was measured, and tell whether anything was."""
    if measured is not None:
        table.add(side, rate=measured.rate, p50=measured.p50, p99=measured.p99, cpu=measured.cpu)
    return measured is not None


def _service(size: int) -> str:
    return f"shop-{size}"
