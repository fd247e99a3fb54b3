"""The mesh configuration of five hundred callers in a registry: memory, polls, roll-outs, and changes to an Envoy."""

import asyncio
import itertools
import random
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
from harness.mesh_revisions import store_resources
from harness.mesh_rollout import Follower, dependency, follow
from harness.mesh_rollout import Stage as MeshStage
from harness.process import eventually
from harness.registry import Registry
from msgspec.structs import replace

from benchmarks import wrk
from benchmarks.client import Client, request
from benchmarks.envoy_poll import poll_body, with_version
from benchmarks.mesh_definitions import CALLERS, compiled, files, name
from benchmarks.mesh_fleet import fleet
from benchmarks.plan import Plan
from benchmarks.real_time import prefer
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved, percentile
from benchmarks.stage import Stage, seed, stage
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.fault_injection import Abort, FaultInjection
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import TYPE_URLS, Catalog, Kind, NodeResources, Snapshot
from meshconfig.snapshot import compile_mesh
from registry.store.database import Database

_MEBIBYTE = 1024 * 1024
_ENDPOINTS = 100
"""Endpoints of the service that is polled: its answer is about as large as the clusters of a caller."""
_SERVICE = "polled"
_NO_HOLD = 200
"""A time-out, in milliseconds, that leaves nothing to hold for: an unchanged poll is answered at once."""
_VERSIONS = 200
"""Versions that polls bring in turn: more than connections, so that no client brings the same one twice in a row."""
_POLLS = {"rate": "polls/s", "p50": "p50 ms", "p99": "p99 ms", "cpu": "server's CPU µs a poll", "size": "answer kB"}
_KINDS: Mapping[str, Kind | None] = {"EDS": None, "CDS": "clusters", "RDS": "routes"}
_MOVED = ("next-a", "next-b")
"""The services that every caller gets as another dependency, in turn: each roll-out adds one and takes the other."""
_LONGEST_ROLLOUT = 90.0
_LEAD = 0.5
"""Seconds for which polls flow before a roll-out begins."""
_EGRESS = "egress"
"""The caller whose Envoy is watched while its routes change."""
_LONGEST = 5.0
_LOOK = 0.0005
_STATUSES = (500, 501)
_HOST = "bench"
_REQUEST = request("GET", "/", b"")
_VERSION = re.compile(rb'"version_info":"([^"]*)"')

_PREFERRED = (
    "Before and in a roll-out, the registry and wrk run before all other processes (SCHED_FIFO): simulated Envoys, "
    "PostgreSQL and whatever else the machine does would otherwise take the cores that they wait for."
)
_NOT_PREFERRED = (
    "This user may not give priorities, so that a poll in a roll-out waits for simulated Envoys and PostgreSQL on the "
    "same cores, too: the ratio says more of the machine than of the registry."
)

Nodes = Mapping[str, NodeResources]


def run(part: Part, plan: Plan, snapshot: Snapshot) -> None:
    """Measure a registry of one process."""
    version = wrk.installed()
    if version is None:
        part.leave_out("all of mesh configuration in a registry", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    with stage() as environment:
        part.machine.versions["PostgreSQL"] = environment.version()
        _measure_memory(part, plan, environment, snapshot.nodes)
        with environment.registry() as registry:
            seed(registry, _SERVICE, range(_ENDPOINTS))
            eventually(lambda: len(registry.statuses(_SERVICE)) == _ENDPOINTS, within=10)
            _compare_polls(part, plan, environment, registry)
            for number, service in enumerate(_MOVED):
                seed(registry, service, [1_000 + number])
            _measure_rollouts(part, plan, environment, registry)
        with environment.registry() as registry:
            _measure_effect(part, plan, environment, registry)


# Memory.


def _measure_memory(part: Part, plan: Plan, environment: Stage, nodes: Nodes) -> None:
    """Compare registries that were started before and after the mesh was stored."""
    table = part.table("A registry process that has served every caller", memory="PSS MiB")
    for row in ("without a mesh", "with the mesh"):
        if row == "with the mesh":
            _store(environment.database, nodes, at_once=True)
        for _ in range(plan.rounds(3)):
            plan.doing(f"mesh: memory of a registry {row}")
            with environment.registry() as registry:
                _poll_all(registry)
                table.add(row, memory=psutil.Process(registry.process.pid).memory_full_info().pss / _MEBIBYTE)
    before, after = (table.values(row, "memory") for row in ("without a mesh", "with the mesh"))
    more = [(large - small) * _MEBIBYTE / 1e6 for small, large in zip(before, after, strict=True)]
    part.bar("registry: memory with the mesh against without", more, "MB", at_most=40)


def _poll_all(registry: Registry) -> None:
    for number in range(CALLERS):
        for kind in ("clusters", "routes"):
            path = f"/v3/discovery:{kind}"
            registry.client.post(path, content=_poll(kind, name(number))).raise_for_status()


def _poll(kind: Kind | None, node: str) -> bytes:
    """Return the first poll of an Envoy for its clusters or routes; None stands for the endpoints of a service."""
    body = poll_body(_SERVICE).replace(b'"cluster":"tests"', b'"cluster":"%b"' % node.encode(), 1)
    if kind is None:
        return body
    names = b'"resource_names":["default"],' if kind == "routes" else b""
    tail = b'%b"type_url":"%b"}' % (names, TYPE_URLS[kind].encode())
    return body[: body.rindex(b'"resource_names":')] + tail


# Polls.


def _compare_polls(part: Part, plan: Plan, environment: Stage, registry: Registry) -> None:
    for unchanged in (False, True):
        status = "304" if unchanged else "200"
        table = part.table(f"Polls, {status}, 64 connections, 1 process", **_POLLS)
        bodies = {kind: _body(environment.directory, registry, kind, unchanged=unchanged) for kind in _KINDS}
        plan.doing(f"mesh: polls, {status}")
        for kind in interleaved(tuple(_KINDS), plan.rounds(5)):
            versions = 0 if unchanged else _VERSIONS
            what = wrk.Flood(bodies[kind], 64, plan.seconds(1), budget=_NO_HOLD, versions=versions)
            _flood(table, kind, registry, what, kind)
        for kind in ("CDS", "RDS"):
            cpu, other = table.values(kind, "cpu"), table.values("EDS", "cpu")
            part.ratio(f"{kind} poll, {status}, against an EDS poll: CPU", cpu, other, at_most=1.2)
            rates = table.values("EDS", "rate"), table.values(kind, "rate")
            part.ratio(f"{kind} poll, {status}, against an EDS poll: time", *rates, at_most=1.2)


def _body(directory: Path, registry: Registry, kind: str, *, unchanged: bool) -> Path:
    """Return the file of a poll."""
    body = _poll(_KINDS[kind], name(0))
    answer = registry.client.post(_path(kind), content=body).raise_for_status()
    version = _VERSION.search(answer.content)
    if version is None:
        raise RuntimeError(f"no version_info in {answer.content[:200]!r}")
    path = directory / f"mesh-{kind}.json"
    path.write_bytes(with_version(body, version[1].decode() if unchanged else wrk.VERSION))
    return path


def _path(kind: str) -> str:
    return f"/v3/discovery:{_KINDS[kind] or 'endpoints'}"


def _flood(table: Table, row: str, registry: Registry, what: wrk.Flood, kind: str) -> None:
    measured = wrk.flood(f"{registry.url}{_path(kind)}", [registry.process.pid], what)
    if measured is None:
        raise RuntimeError(f"{row}: nothing was answered")
    figures = {"rate": measured.rate, "p50": measured.p50, "p99": measured.p99, "cpu": measured.cpu}
    table.add(row, **figures, size=measured.kilobytes)


# Roll-outs.


def _measure_rollouts(part: Part, plan: Plan, environment: Stage, registry: Registry) -> None:
    """Give every caller another dependency, again and again, while clients poll endpoints."""
    part.note(
        f"In a roll-out each of {CALLERS} callers gets a dependency for another one, in three steps. Their Envoys are "
        "simulated: each holds polls for clusters, for routes and for the endpoints of the added service, waits 0.2 to "
        "0.4 s after an answer as an Envoy does, and sends a real Envoy's 77 kB. Meanwhile wrk polls the same process "
        "for the endpoints of another service, about 1,000 times a second."
    )
    mesh = MeshStage(environment.database, [])
    polls = part.table(f"EDS polls of {_ENDPOINTS} endpoints, 32 connections, about 1,000 polls/s, 1 process", **_POLLS)
    times = part.table(f"Roll-outs to {CALLERS} simulated Envoys with long polls", all="until the last step s")
    path = _body(environment.directory, registry, "EDS", unchanged=False)
    preferred = prefer(registry.process.pid)
    part.note(_PREFERRED if preferred else _NOT_PREFERRED)
    what = wrk.Flood(path, 32, 10, budget=_NO_HOLD, pause=32, versions=_VERSIONS, preferred=preferred)
    turns = itertools.cycle([compiled(files(every=f"- service: {service}\n")).nodes for service in _MOVED])
    _store(environment.database, next(turns), at_once=True)
    with fleet(registry.port, _MOVED), ThreadPoolExecutor(1) as thread:
        for number in range(plan.rounds(3)):
            plan.doing(f"mesh: roll-out {number + 1} to {CALLERS} simulated Envoys")
            _flood(polls, "before", registry, what, "EDS")
            rollout = thread.submit(_roll_out, mesh, environment.database, next(turns))
            _flood(polls, "during a roll-out", registry, what, "EDS")
            times.add("registry", all=rollout.result())
    during, before = (polls.values(row, "p99") for row in ("during a roll-out", "before"))
    part.ratio("p99 of EDS polls during a roll-out against before", during, before, at_most=1.5)
    part.bar("whole roll-out with long polls", times.values("registry", "all"), "s", at_most=15)


def _roll_out(mesh: MeshStage, database: str, nodes: Nodes) -> float:
    """Store a revision while clients poll; return the seconds until its last step."""
    time.sleep(_LEAD)
    began = time.monotonic()
    _store(database, nodes)
    mesh.wait(_LONGEST_ROLLOUT)
    return time.monotonic() - began


def _store(database_url: str, nodes: Nodes, *, at_once: bool = False) -> float:
    """Store a revision; return the monotonic time at which it was committed."""

    async def run() -> float:
        database = Database(database_url, connections=2, timeout=30)
        try:
            await store_resources(database, nodes, at_once=at_once)
            return time.monotonic()
        finally:
            await database.close()

    return asyncio.run(run())


# Changes to an Envoy.


def _measure_effect(part: Part, plan: Plan, environment: Stage, registry: Registry) -> None:
    """Change the status that a route answers with, and send requests through a real Envoy until it does."""
    changes = 6 if plan.quick else 30
    plan.doing(f"mesh: {changes} changes of routes to a real Envoy")
    part.note(
        "The effect of a change of routes is another status of the requests that go through a real Envoy, one after "
        "the other. Accepted is the moment when PostgreSQL has committed the revision. No change comes while Envoy "
        "pauses between two polls."
    )
    mesh = MeshStage(environment.database, [_EGRESS])
    mesh.apply(_answering(_STATUSES[0]), at_once=True)
    follower = Follower(_EGRESS, [registry.port])
    with follow(environment.directory, follower, mesh):
        eventually(lambda: asyncio.run(_status(follower.port)) == _STATUSES[0], within=15)
        lags = asyncio.run(_effects(environment.database, follower.port, changes))
    table = part.table(
        "A real Envoy with long polls, from a stored revision to its routes",
        p50="p50 ms",
        p99="p99 ms",
        count="changes",
    )
    table.add("accepted → effect", p50=percentile(lags, 0.5), p99=percentile(lags, 0.99), count=len(lags))
    part.bar(
        "a change of routes, from accepted to its effect in a real Envoy: p50",
        [percentile(lags, 0.5)],
        "ms",
        at_most=10,
    )


def _answering(status: int) -> Dependency:
    """Return a dependency on a service that nobody asks, because Envoy answers in its place."""
    plain = dependency(_SERVICE, name=_HOST)
    route = replace(plain.routes[0], fault=FaultInjection(abort=Abort(status=status)))
    return replace(plain, routes=(route,))


async def _status(port: int) -> int:
    client = await Client.connect(port)
    try:
        return (await client.send(_REQUEST))[0]
    finally:
        client.close()


async def _effects(database_url: str, port: int, changes: int) -> list[float]:
    """Return the milliseconds from each commit to the first request that it had an effect on."""
    client = await Client.connect(port)
    try:
        return [await _effect(client, database_url, _STATUSES[(number + 1) % 2]) for number in range(changes)]
    finally:
        client.close()


async def _effect(client: Client, database_url: str, status: int) -> float:
    await asyncio.sleep(random.uniform(0.6, 0.8))  # noqa: S311  # no secret
    configuration = Configuration(callers={_EGRESS: Caller(_EGRESS, (_answering(status),))})
    nodes = compile_mesh(configuration, Catalog()).nodes
    accepted = asyncio.get_running_loop().run_in_executor(None, partial(_store, database_url, nodes))
    async with asyncio.timeout(_LONGEST):
        while (await client.send(_REQUEST))[0] != status:
            await asyncio.sleep(_LOOK)
        seen = time.monotonic()
        return 1000 * (seen - await accepted)
