"""Scale: what 1,000 to 1,000,000 endpoints cost one registry process, and what one change to a service costs."""

import asyncio
import json
import os
import re
import statistics
import time
from pathlib import Path

import msgspec
import psutil
from harness.registry import Registry
from msgspec import Struct

from benchmarks.client import Client, request
from benchmarks.envoy_poll import poll_body
from benchmarks.plan import Plan
from benchmarks.population import PER_SERVICE, Population, populate
from benchmarks.report import Part, Table
from benchmarks.stage import Stage, address, cpu_seconds, memory, registration, seed, stage

SIZES = (1_000, 10_000, 100_000)
LARGEST = 1_000_000
"""Endpoints of the last registry, in 20,000 services: beyond the default limits, and run once."""
_ROOM = 4_000_000_000
"""Bytes of free memory that the largest takes: 1.2 GB in the registry, and PostgreSQL's with the disk's cache."""
CHANGED = (10, 100, 1_000, 10_000)
_STEADY = 12.0
"""Seconds to look on: four comparisons, two countings and a snapshot on disk are among them."""
_GLANCE = 4.0
"""The least in which there is a comparison."""
_MOMENTS = 5
"""Changes to one service of each registry."""
_CHANGES = 30
_PROBE = 0.002
_HELD = 1_000
_UNTIL_HELD = 1.0
_APART = 0.001
_EDS = "/v3/discovery:endpoints"

_SIZE_OF_TABLES = (
    "SELECT sum(pg_total_relation_size(name)) FROM unnest(ARRAY['endpoints', 'leases', 'services']::regclass[]) AS name"
)

_COLUMNS = {
    "start": "start to ready s",
    "started": "CPU of the start s",
    "endpoints": "kB an endpoint, listed",
    "answers": "kB an endpoint, with its answer encoded",
    "renewed": "kB an endpoint, renewed here too",
    "sweep": "sweep ms",
    "resync": "comparison ms",
    "leases": "reading of all leases ms",
    "stall": "longest wait of a probe ms",
    "cpu": "idle, % of a core",
    "postgres": "PostgreSQL meanwhile, % of a core",
    "tables": "PostgreSQL's tables and indexes, kB an endpoint",
    "held": "PostgreSQL's memory MB",
    "write": "one change: the write ms",
    "answer": "from its answer to the first poll with it ms",
}
_CHANGE_COLUMNS = {
    "write": "the write ms",
    "answer": "from its answer to the first poll with it ms",
    "cpu": "CPU of the process for both ms",
    "size": "answer kB",
}


def run(part: Part, plan: Plan) -> None:
    """Grow the registry, and then change services of growing size."""
    part.note(
        f"One process, services of {PER_SERVICE} endpoints, written by SQL in the shape that registrations leave. "
        "Memory is what the process holds (PSS) beyond an empty one, after a poll for each service, and after a "
        "heartbeat of each endpoint. Sweeps, comparisons and readings of leases are the registry's own "
        "`registry_sweep_seconds`, `registry_resync_seconds` and `registry_lease_read_seconds`. The probe asks "
        "`/livez` every 2 ms while nothing else is asked. PostgreSQL's memory is that of its processes (PSS), with its "
        "shared buffers of 128 MB as far as they are used."
    )
    part.note(
        f"At the beginning the machine's load average was {os.getloadavg()[0]:.1f}. "
        "Above two, elapsed times are those of a busy machine; processor times and memory hold."
    )
    growth = part.table("How each cost grows", **_COLUMNS)
    changes = part.table("One change to a service", **_CHANGE_COLUMNS)
    rest = part.table("What else a process holds", kilobytes="kB")
    with stage() as found:
        for number in range(plan.rounds(2)):
            plan.doing(f"scale, round {number + 1}: an empty registry")
            populate(found)
            with found.registry() as empty:
                base = _settled_memory(empty)
                rest.add("an empty process", kilobytes=base / 1000)
                rest.add("a held poll", kilobytes=asyncio.run(_held(empty)) / 1000)
            # The smaller ones show how costs grow, for which once will do.
            for size in SIZES if number == 0 else SIZES[-1:]:
                plan.doing(f"scale, round {number + 1}: {size:,} endpoints")
                _grow(growth, plan, found, size, base)
            plan.doing(f"scale, round {number + 1}: changes to services of {', '.join(f'{n:,}' for n in CHANGED)}")
            _change_each(changes, plan, found)
        if not plan.quick:
            _grow_largest(growth, part, plan, found, base)
    _hold_against_bars(part, growth, changes)


def _grow_largest(growth: Table, part: Part, plan: Plan, found: Stage, base: int) -> None:
    """Grow the largest registry, if the machine has the memory."""
    free = psutil.virtual_memory().available
    if free < _ROOM:
        part.leave_out(_named(LARGEST), f"{free / 1e9:.1f} GB of memory are free, and it takes {_ROOM / 1e9:.0f}")
        return
    plan.doing(f"scale: {LARGEST:,} endpoints")
    _grow(growth, plan, found, LARGEST, base)


def _hold_against_bars(part: Part, growth: Table, changes: Table) -> None:
    largest, widest = _named(SIZES[-1]), _named(CHANGED[-1])
    for column, what, unit, most, goal in (
        ("renewed", "memory an endpoint, its answer encoded and its heartbeats known", "kB", 1.2, 0.7),
        ("sweep", "a sweep", "ms", 50, None),
        ("resync", "a comparison of all services", "ms", 50, None),
    ):
        part.bar(f"{largest}: {what}", growth.values(largest, column), unit, at_most=most, goal=goal)
    for column, what in (("answer", "first answer with a change"), ("cpu", "CPU of a change and its answer")):
        part.bar(f"service of {widest}: {what}", changes.values(widest, column), "ms", at_most=60)
    ten_times = [changes.values(_named(size), "cpu") for size in CHANGED[-2:]]
    part.ratio("CPU of a change, ten times the endpoints", ten_times[1], ten_times[0], at_most=12)


def _named(size: int) -> str:
    return f"{size:,} endpoints"


def _grow(table: Table, plan: Plan, found: Stage, size: int, base: int) -> None:
    population = Population(size)
    populate(found, population)
    begun = time.monotonic()
    with found.registry() as one:
        ready, started = time.monotonic() - begun, cpu_seconds(one.process.pid)
        listed = _settled_memory(one)
        _poll_all(one, population)
        steady = _look_on(one, found, _GLANCE if plan.quick else _STEADY)
        held = _memory(one)
        writes, answers, _, _ = _change(one, population, _MOMENTS)
        if size != LARGEST:
            # It would take minutes.
            _renew_all(one, population)
            table.add(_named(size), renewed=(_memory(one) - base) / size / 1000)
    table.add(
        _named(size),
        start=ready,
        started=started,
        endpoints=(listed - base) / size / 1000,
        answers=(held - base) / size / 1000,
        tables=_size_of_tables(found) / size / 1000,
        write=statistics.median(writes) * 1000,
        answer=statistics.median(answers) * 1000,
        **{name: value for name, value in msgspec.structs.asdict(steady).items() if value is not None},
    )


def _size_of_tables(found: Stage) -> int:
    ((size,),) = found.server.execute(_SIZE_OF_TABLES, url=found.database)
    return int(size)


def _postgres(found: Stage) -> int | None:
    """Return the process id of PostgreSQL's first process; None if it is not on this machine."""
    ((directory,),) = found.server.execute("SHOW data_directory")
    file = Path(directory) / "postmaster.pid"
    return int(file.read_text().split()[0]) if file.exists() else None


class _Steady(Struct):
    """What a while without writes costs: milliseconds, and per cent of a core."""

    sweep: float
    resync: float
    leases: float
    stall: float
    cpu: float
    postgres: float | None
    """Of PostgreSQL; None where it is not on this machine."""
    held: float | None
    """Megabytes that PostgreSQL holds; None as above."""


def _look_on(one: Registry, found: Stage, seconds: float) -> _Steady:
    server = _postgres(found)
    before, used, used_there = _Metrics(one), cpu_seconds(one.process.pid), server and cpu_seconds(server)
    time.sleep(seconds)
    spent = cpu_seconds(one.process.pid) - used
    spent_there = server and cpu_seconds(server) - (used_there or 0.0)
    after = _Metrics(one)
    waits = _probe(one, seconds / 2)
    return _Steady(
        sweep=after.mean_since(before, "registry_sweep_seconds") * 1000,
        resync=after.mean_since(before, "registry_resync_seconds") * 1000,
        # Since the start: where they are very many, none may have been due.
        leases=after.mean("registry_lease_read_seconds") * 1000,
        stall=max(waits) * 1000,
        cpu=spent / seconds * 100,
        postgres=spent_there and spent_there / seconds * 100,
        held=server and memory(server) / 1e6,
    )


def _probe(one: Registry, seconds: float) -> list[float]:
    """Ask for little, often, while the process does what it does in any case."""
    waits = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        one.client.get("/livez").raise_for_status()
        waits.append(time.monotonic() - begun)
        time.sleep(_PROBE)
    return waits


class _Metrics:
    """The registry's own histograms at one moment."""

    def __init__(self, one: Registry) -> None:
        text = one.client.get("/metrics").text
        found = re.findall(r"^(\w+_(?:sum|count)) (\S+)$", text, re.MULTILINE)
        self.values = {name: float(value) for name, value in found}

    def mean_since(self, before: "_Metrics", name: str) -> float:
        """Return the mean of what was observed since.

        Raises:
            RuntimeError: nothing was, so there is no figure.
        """
        times, total = (self.values[name + end] - before.values[name + end] for end in ("_count", "_sum"))
        if not times:
            raise RuntimeError(f"{name} was not observed")
        return total / times

    def mean(self, name: str) -> float:
        """Return the mean of all that was observed."""
        return self.values[f"{name}_sum"] / self.values[f"{name}_count"]


def _poll_all(one: Registry, population: Population) -> None:
    for name in population.services:
        one.poll(name).raise_for_status()


def _renew_all(one: Registry, population: Population) -> None:
    """Send every endpoint's heartbeat, word for word what is known of it; a process knows it again afterwards."""
    for begin in range(population.begin, population.begin + population.count, population.each):
        seed(one, population.service(begin), range(begin, begin + population.each))


def _settled_memory(one: Registry) -> int:
    """Return what a process holds once it has answered every kind of request that is asked of it here."""
    one.poll("nobody")
    _Metrics(one)
    for _ in range(200):
        one.client.get("/livez")
    return _memory(one)


async def _held(one: Registry) -> float:
    """Return the bytes that a poll costs while it is held, its connection included."""
    one.register("held", "10.0.0.1:80").raise_for_status()
    version = one.poll("held").json()["version_info"]
    poll = request("POST", _EDS, poll_body("held", version), x_envoy_expected_rq_timeout_ms="30000")
    before = _memory(one)
    clients = [await Client.connect(one.port) for _ in range(_HELD)]
    try:
        answers = []
        for client in clients:
            answers.append(client.send(poll))
            # Each is 77 kB, and is to be read before the next one.
            await asyncio.sleep(_APART)
        await asyncio.sleep(_UNTIL_HELD)
        if any(answer.done() for answer in answers):
            raise RuntimeError("a poll was not held")
        return (_memory(one) - before) / _HELD
    finally:
        for client in clients:
            client.close()


def _memory(one: Registry) -> int:
    return int(psutil.Process(one.process.pid).memory_full_info().pss)


def _change_each(table: Table, plan: Plan, found: Stage) -> None:
    sized = [Population(size, each=size, prefix=f"of-{size}-", begin=_begin(size)) for size in CHANGED]
    populate(found, *sized)
    with found.registry() as one:
        for population in sized:
            writes, answers, cpu, size = _change(one, population, _MOMENTS if plan.quick else _CHANGES)
            table.add(
                _named(population.count),
                write=statistics.median(writes) * 1000,
                answer=statistics.median(answers) * 1000,
                cpu=cpu * 1000,
                size=size / 1000,
            )


def _begin(size: int) -> int:
    # A multiple of its size, so that the service is one, and apart from the others.
    return size * 10 if size < CHANGED[-1] else size * 20


def _change(one: Registry, population: Population, times: int) -> tuple[list[float], list[float], float, int]:
    """Change one endpoint so often, and ask each time for the service until the answer has it.

    Returns:
        seconds of each write, seconds until each answer, processor seconds of one change, and the bytes of an answer.
    """
    number = population.begin + population.count // 2
    path = population.path(number)
    service = population.service(number)
    version = one.poll(service).json()["version_info"]
    writes, answers = [], []
    used = cpu_seconds(one.process.pid)
    for weight in range(1, times + 1):
        begun = time.monotonic()
        one.client.put(path, json=registration(number) | {"weight": weight}).raise_for_status()
        accepted = time.monotonic()
        body = one.poll(service, version=version, hold=5).content
        answers.append(time.monotonic() - accepted)
        writes.append(accepted - begun)
        version = _check(body, number, weight, version)
    return writes, answers, (cpu_seconds(one.process.pid) - used) / times, len(body)


def _check(body: bytes, number: int, weight: int, version: str) -> str:
    """Return the version of an answer, having seen the change in it.

    Raises:
        RuntimeError: it is not there, so the figures would be those of something else.
    """
    answer = json.loads(body)
    host = address(number).partition(":")[0]
    weights = [
        member.get("load_balancing_weight")
        for locality in answer["resources"][0]["endpoints"]
        for member in locality["lb_endpoints"]
        if member["endpoint"]["address"]["socket_address"]["address"] == host
    ]
    if answer["version_info"] == version or weights != [weight]:
        raise RuntimeError(f"the change to weight {weight} is not in the answer of version {answer['version_info']}")
    return str(answer["version_info"])
