"""Shares of traffic: what they cost the polls of a service, and the making of its snapshots.

They are a part of the benchmark ``traffic``.
"""

import gc
import time
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import msgspec
from harness.process import eventually
from harness.registry import Registry
from msgspec.structs import replace

from benchmarks import wrk
from benchmarks.envoy_poll import poll_body
from benchmarks.plan import Plan
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import Stage, address, registration, seed
from registry.core.endpoint import Endpoint
from registry.core.shares import Share, Shares
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.xds import eds
from wire.model import Registration, Report

WITHOUT, WITH = "without shares", "with shares"
_POLLED = 100
"""Endpoints of the services that are polled."""
_CONNECTIONS = 64
_NO_HOLD = 200
"""A time-out, in milliseconds, that leaves nothing to hold for: an unchanged poll is answered at once."""
_ENDPOINTS = 10_000
_CANARIES = 10
"""One of so many endpoints is in the group that has a share."""
_SERVICE = "shop"
_DATABASE = "0123456789abcdef"
_STABLE, _CANARY = "1.8.0", "1.9.0"
_PERCENT = 5.0
_WHOLE, _CHANGE, _NEW_SHARE = "read whole", "an endpoint fails", "another share"

Result = TypeVar("Result")


def measure_polls(part: Part, plan: Plan, found: Stage) -> None:
    """Compare the polls of two services that differ in their shares alone, at one process."""
    version = wrk.installed()
    if version is None:
        part.leave_out("polls of a service under shares", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    table = part.table(
        f"polls of a service of {_POLLED} endpoints, 200, {_CONNECTIONS} connections, 1 process",
        rate="polls/s",
        cpu="server's CPU µs a poll",
    )
    with found.registry() as process:
        floods = {side: _prepared(process, found.directory, side, plan.seconds(1)) for side in (WITHOUT, WITH)}
        for side in interleaved(list(floods), plan.rounds(10)):
            plan.doing(f"traffic: polls {side}")
            measured = wrk.flood(f"{process.url}/v3/discovery:endpoints", [process.process.pid], floods[side])
            if measured is None:
                raise RuntimeError(f"no poll {side} was answered")
            table.add(side, rate=measured.rate, cpu=measured.cpu)
    part.ratio(
        "server's CPU of a poll with shares, against one without",
        table.values(WITH, "cpu"),
        table.values(WITHOUT, "cpu"),
        at_most=1.1,
    )


def _prepared(process: Registry, directory: Path, side: str, seconds: float) -> wrk.Flood:
    """Register a service of a side, and return the flood of polls for it.

    Raises:
        RuntimeError: it is served with other weights than it should be.
    """
    service = side.replace(" ", "-")
    seed(process, service, range(_POLLED))
    if side == WITH:
        shares = [{"selector": f"zone={registration(0)['zone']}", "percent": _PERCENT}]
        process.client.put(f"/v1/services/{service}/shares", json={"shares": shares}).raise_for_status()
    eventually(lambda: len(process.statuses(service)) == _POLLED, within=10)
    localities = process.poll(service).json()["resources"][0]["endpoints"]
    weighted = sum("load_balancing_weight" in each for locality in localities for each in locality["lb_endpoints"])
    if weighted != (_POLLED if side == WITH else 0):
        raise RuntimeError(f"{service} is served with {weighted} weights")
    body = directory / f"{service}.json"
    body.write_bytes(poll_body(service))
    return wrk.Flood(body, _CONNECTIONS, seconds, budget=_NO_HOLD)


def measure_snapshots(part: Part, plan: Plan) -> None:
    """Measure what the change feed does for a large service, from its rows to the answer that is encoded ahead."""
    plan.doing(f"traffic: snapshots of {_ENDPOINTS:,} endpoints")
    part.note(
        f"Snapshots are made and encoded in this process, without PostgreSQL, by processor time. Under a share of "
        f"{_PERCENT:g} % for every {_CANARIES}th endpoint, one that fails gives all of its group other weights."
    )
    table = part.table(f"snapshots of {_ENDPOINTS:,} endpoints", milliseconds="CPU ms", longest="longest turn, CPU ms")
    rows = [_row(number) for number in range(_ENDPOINTS)]
    for number, side in enumerate(interleaved((WITHOUT, WITH), plan.rounds(8))):
        shares = _shares(_PERCENT) if side == WITH else None
        whole = SnapshotDelta(_SERVICE, 1, 1, listed=rows, whole=True, shares=shares)
        made = _add(table, f"{_WHOLE}, {side}", _asked_for(), whole)
        fails = replace(rows[number].registration, health=Report.UNHEALTHY)
        failed = replace(rows[number], change=2, registration=fails)
        made = _add(table, f"{_CHANGE}, {side}", made, SnapshotDelta(_SERVICE, 2, 2, listed=[failed], shares=shares))
        if shares is not None:
            _add(table, _NEW_SHARE, made, SnapshotDelta(_SERVICE, 3, 3, shares=_shares(2 * _PERCENT)))
    _compare_snapshots(part, table)


def _compare_snapshots(part: Part, table: Table) -> None:
    for what, at_most in ((_WHOLE, 2.0), (_CHANGE, None)):
        part.ratio(
            f"CPU of a snapshot of {_ENDPOINTS:,} endpoints with shares, against one without: {what}",
            table.values(f"{what}, {WITH}", "milliseconds"),
            table.values(f"{what}, {WITHOUT}", "milliseconds"),
            at_most=at_most,
        )
    rounds = zip(
        *(table.values(row, "longest") for row in (f"{_WHOLE}, {WITH}", f"{_CHANGE}, {WITH}", _NEW_SHARE)),
        strict=True,
    )
    longest = [max(turns) for turns in rounds]
    part.bar(f"longest turn of such a snapshot of {_ENDPOINTS:,} endpoints", longest, "ms", at_most=10)


def _add(table: Table, row: str, before: Snapshot, delta: SnapshotDelta) -> Snapshot:
    """Make the next snapshot as ``SnapshotCache.apply_in_turns`` does, and add what it took."""
    # A collection of all that the program has made so far is no part of it.
    gc.collect()
    turns: list[float] = []
    made = _taking_turns(before.advance_in_turns(delta), turns)
    _taking_turns(eds.prepare(made, _DATABASE), turns)
    if "v3" not in made.encoded:
        raise RuntimeError("the answer was not encoded ahead, so the figures would be those of something else")
    table.add(row, milliseconds=sum(turns) * 1000, longest=max(turns) * 1000)
    return made


def _taking_turns(work: Generator[None, None, Result], turns: list[float]) -> Result:
    """Do a work to its end, and note the processor time of each of its turns in seconds."""
    while True:
        begun = time.thread_time()
        try:
            next(work)
        except StopIteration as done:
            turns.append(time.thread_time() - begun)
            result: Result = done.value
            return result
        turns.append(time.thread_time() - begun)


def _asked_for() -> Snapshot:
    """Return the service without endpoints, for which an Envoy has asked: the next answer is encoded ahead."""
    empty = Snapshot(_SERVICE)
    eds.encode("v3", empty, _DATABASE)
    empty.unasked["v3"] = 0
    return empty


def _row(number: int) -> Endpoint:
    revision = _STABLE if number % _CANARIES else _CANARY
    stored = msgspec.convert(registration(number) | {"revision": revision}, Registration)
    host, port = address(number).split(":")
    return Endpoint(number + 1, _SERVICE, host, int(port), stored, 1.0, 1.0, change=1)


def _shares(percent: float) -> Shares:
    return Shares((Share(f"revision={_CANARY}", percent),), "anna", "", 1.0)
