"""Mesh configuration: what definitions of five hundred callers cost until every Envoy has what they compile to."""

import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from os import getloadavg
from typing import TypeVar

import msgspec
from harness.envoy import binary
from msgspec import Struct

from benchmarks import mesh_registry
from benchmarks.mesh_definitions import CALLERS, DEPENDENCIES, compiled, configuration_of, files, name
from benchmarks.plan import Plan
from benchmarks.report import Part
from meshconfig.ads import with_ads_sources
from meshconfig.proof import faults_of_mesh
from meshconfig.repository import Cache
from meshconfig.resource import Catalog, Kind, Resource, Snapshot
from meshconfig.snapshot import compile_mesh
from meshconfig.stand_in_files import FILES
from registry.xds.grpc.envoy_api import encode_document
from wire.envoy_validation import envoy_validator

_Argument = TypeVar("_Argument")
_Made = TypeVar("_Made")

_IMPORTED = """\
import sys
from registrar import cli
from registrar.lifecycle import *
print(sum(name.partition(".")[0] == "meshconfig" for name in sys.modules))
"""
"""Counts the modules of meshconfig that the registrar's program imports."""


_MAX_KILOBYTES: Mapping[Kind, float] = {"clusters": 20, "routes": 10}
"""The bars for what one Envoy is served."""
_STREAMED = 20
"""Envoys whose resources are encoded as protobuf: all have the same shape."""


class Times(Struct, frozen=True):
    """Seconds of the steps from files to bytes, each of processor time, and those that a clock has seen."""

    cold: float
    changed: float
    compiled: float
    elapsed: float


class ProofCost(Struct, frozen=True):
    """The cost of a proof.

    Attributes:
        envoy: seconds of processor time of all Envoys that validated.
        own: seconds of processor time for the bootstraps that they validated.
        memory: the most memory that one of these Envoys had, in MB.
        elapsed: seconds that a clock has seen.
    """

    envoy: float
    own: float
    memory: float
    elapsed: float


def run(part: Part, plan: Plan) -> None:
    """Measure reading and compiling, the proof, what a registry needs to serve it, and its roll-out."""
    part.note(
        f"{CALLERS} services call {DEPENDENCIES} others each: half of the dependencies are plain, a quarter has "
        "retries of its own, a quarter a header of its caller. Reading, compiling and the proof are held against their "
        "bars by processor time, which other programs disturb less."
    )
    part.note(f"At the beginning the machine's load average was {getloadavg()[0]:.1f}.")
    _measure_compiler(part, plan)
    _measure_proof(part, plan)
    _check_sidecar(part)
    snapshot = compiled(files())
    _measure_sizes(part, snapshot)
    mesh_registry.run(part, plan, snapshot)
    part.note(f"At the end it was {getloadavg()[0]:.1f}; the load itself makes about 3 of that.")


def _measure_compiler(part: Part, plan: Plan) -> None:
    plan.doing(f"mesh: reading and compiling {CALLERS} callers")
    table = part.table(
        "From files to bytes",
        cold="reading, cold: CPU s",
        changed="reading, one file changed: CPU s",
        compiled="compiling: CPU s",
        elapsed="reading cold and compiling: elapsed s",
    )
    for number in range(plan.rounds(3)):
        times = _in_new_process(_time_compiler, number)
        table.add("registry", cold=times.cold, changed=times.changed, compiled=times.compiled, elapsed=times.elapsed)
    subject = f"{CALLERS} callers × {DEPENDENCIES} dependencies"
    part.bar(f"{subject}: compiling without reading", table.values("registry", "compiled"), "s of CPU", at_most=1)
    part.bar(f"{subject}: reading YAML, cold", table.values("registry", "cold"), "s of CPU", at_most=6)
    part.bar(f"{subject}: reading, one file changed", table.values("registry", "changed"), "s of CPU", at_most=0.2)


def _time_compiler(number: int) -> Times:
    cache, began = Cache(), time.monotonic()
    cold, configuration = _timed(lambda: configuration_of(files(), cache))
    compiling, _ = _timed(lambda: compile_mesh(configuration, Catalog()))
    elapsed = time.monotonic() - began
    more = f"- name: more-{number}\n  address: more.example:80\n"
    changed, again = _timed(lambda: configuration_of(files(first=more), cache))
    if len(again.callers[name(0)].dependencies) != DEPENDENCIES + 1:
        raise RuntimeError("the change was not read")
    return Times(cold, changed, compiling, elapsed)


def _timed(work: Callable[[], _Made]) -> tuple[float, _Made]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def _measure_proof(part: Part, plan: Plan) -> None:
    plan.doing("mesh: proof by a real Envoy")
    columns = {"envoy": "Envoy's CPU s", "own": "own CPU s", "memory": "most memory of an Envoy MB"}
    table = part.table("Proof by a real Envoy", **columns, elapsed="elapsed s")
    for _ in range(plan.rounds(3)):
        cost = _in_new_process(_time_proof, binary())
        table.add("envoy --mode validate", envoy=cost.envoy, own=cost.own, memory=cost.memory, elapsed=cost.elapsed)
    used = zip(*(table.values("envoy --mode validate", column) for column in ("envoy", "own")), strict=True)
    part.bar("proof of all callers", [sum(each) for each in used], "s of CPU", at_most=3)
    part.bar("proof: memory of an Envoy", table.values("envoy --mode validate", "memory"), "MB", at_most=200)


def _time_proof(executable: str) -> ProofCost:
    configuration = configuration_of(files())
    snapshot = compile_mesh(configuration, Catalog())
    with envoy_validator(executable, FILES) as validator:
        before, began = _children(), time.monotonic()
        own, faults = _timed(
            lambda: faults_of_mesh(configuration, snapshot, validator.validate, str(validator.directory))
        )
        elapsed = time.monotonic() - began
    if faults:
        raise RuntimeError(f"Envoy refused it: {faults[:3]}")
    # The kernel counts them in KiB.
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return ProofCost(_children() - before, own, memory, elapsed)


def _children() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _in_new_process(work: Callable[[_Argument], _Made], argument: _Argument) -> _Made:
    """Return the result of work that begins in a new process, so that nothing is warm there but what it imports."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, argument).result()


def _check_sidecar(part: Part) -> None:
    run = subprocess.run([sys.executable, "-c", _IMPORTED], check=True, capture_output=True, text=True)
    part.bar("sidecar: modules of mesh configuration that it imports", [int(run.stdout)], "modules", at_most=0)


def _measure_sizes(part: Part, snapshot: Snapshot) -> None:
    table = part.table(
        "Bytes that one Envoy is served, without the frame of the response",
        polls="over polls, JSON: kB",
        stream="over a stream, protobuf: kB",
    )
    for number, node in enumerate(snapshot.nodes.values()):
        for kind in _MAX_KILOBYTES:
            table.add(kind, polls=sum(len(each.body) for each in node[kind].values()) / 1000)
            if number < _STREAMED:
                table.add(kind, stream=sum(map(_streamed_size, node[kind].values())) / 1000)
    for column, way in (("polls", "over polls"), ("stream", "over a stream")):
        for kind, most in _MAX_KILOBYTES.items():
            subject = f"{kind} of an Envoy, {DEPENDENCIES} dependencies, {way}"
            part.bar(subject, table.values(kind, column), "kB", at_most=most)
    served = [each for node in snapshot.nodes.values() for kind in node.values() for each in kind.values()]
    total, bodies = sum(len(each.body) for each in served), {each.sha256: len(each.body) for each in served}
    stored = part.table("All callers", total="served MB", stored="stored MB: each distinct resource once")
    stored.add("registry", total=total / 1e6, stored=sum(bodies.values()) / 1e6)


def _streamed_size(resource: Resource) -> int:
    document = with_ads_sources(msgspec.json.decode(resource.body))
    return len(encode_document(document.pop("@type"), document))
