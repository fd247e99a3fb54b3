"""Lists: pages of 100 services and endpoints, and targets, from the fast protocol beside the application."""

import asyncio
import re
import statistics
import time
from array import array
from collections.abc import Callable
from functools import partial

import httpx
import uvloop
from harness.memory_front import Connection, MemoryFront
from harness.process import eventually
from harness.registry import Registry
from msgspec import Struct

from benchmarks import wrk
from benchmarks.plan import Plan
from benchmarks.population import Population, populate
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from benchmarks.stage import stage
from registry.core.lease import Leases
from registry.core.snapshot import SnapshotDelta

FAST, APPLICATION = "fast protocol", "application"
_SERVICE = "shop-0"
_EACH = 100
"""Endpoints of the service whose page is asked for, and services on a page."""
_OTHERS = 1_000
"""Services beside it."""
_LEASES = 10_000
_CONNECTIONS = 64
_LISTS = {
    "a page of 100 services": "/v1/services",
    "a service": f"/v1/services/{_SERVICE}",
    "a page of 100 endpoints": f"/v1/services/{_SERVICE}/endpoints",
    "the targets of a service of 100": f"/v1/prometheus/targets?service={_SERVICE}",
}
_GZIP = b"accept-encoding: gzip"
_BROWSER = b"accept-language: en"
"""A header of browsers, whose requests the application answers."""
_ROUNDS = 10
_MAX_PAGE = 200.0
"""Microseconds of a page that has not changed."""
_MAX_UNCHANGED = 30.0
"""Microseconds of a 304."""
_YEAR_2000 = 946_684_800
_ETAG = re.compile(rb"etag: ([^\r]*)")


class _Kind(Struct, frozen=True):
    """A request that is sent again and again, and what happens before each."""

    name: str
    request: bytes
    requests: int
    before: Callable[[int], None] | None = None


def run(part: Part, plan: Plan) -> None:
    """Measure in memory, where nothing else takes time, and over sockets beside the application."""
    uvloop.run(_run_in_memory(part, plan))
    version = wrk.installed()
    if version is None:
        part.leave_out("lists over sockets", wrk.MISSING)
        return
    part.machine.versions["wrk"] = version
    _run_over_sockets(part, plan)


async def _run_in_memory(part: Part, plan: Plan) -> None:
    part.note(
        f"In memory: the protocol gets the bytes of a request, and nothing is sent. Beside one service of "
        f"{_EACH} endpoints there are {_OTHERS:,} of 3. Before lists were kept, the same requests took 930, 220, 1,060 "
        "and 910 µs on the machine on which this was written, whoever sent them."
    )
    front = MemoryFront({_SERVICE: _EACH} | {f"s-{number:04}": 3 for number in range(_OTHERS)}, loop="uvloop")
    _read_leases(front, 0)
    connection = front.connect()
    for name, path in _LISTS.items():
        plan.doing(f"lists: in memory: {name}")
        table = part.table(f"in memory: {name}", cpu="CPU µs a request")
        etag = _ETAG.search(await _ask(connection, _get(path)))
        if etag is None:
            raise RuntimeError(f"{path} has no ETag")
        kinds = [
            _Kind(FAST, _get(path), 500),
            _Kind(f"{FAST}, gzip", _get(path, _GZIP), 500),
            _Kind(f"{FAST}, 304", _get(path, b"if-none-match: " + etag[1]), 500),
            _Kind(APPLICATION, _get(path, _BROWSER), 100),
        ]
        for kind in interleaved(kinds, plan.rounds(_ROUNDS)):
            table.add(kind.name, cpu=await _cpu(connection, kind))
    await _measure_changes(part, plan, front, connection)


async def _measure_changes(part: Part, plan: Plan, front: MemoryFront, connection: Connection) -> None:
    """Measure pages that have to be made again, because something has changed before each request."""
    plan.doing("lists: in memory: with changes")
    changes = iter(range(2, 1_000_000))

    def change(_number: int) -> None:
        number = next(changes)
        front.process.cache.apply([SnapshotDelta("s-0050", number, number)])

    table = part.table("in memory: a page that is made again for each request", cpu="CPU µs a request")
    kinds = [
        _Kind(
            "100 endpoints, all leases read again",
            _get(_LISTS["a page of 100 endpoints"]),
            50,
            partial(_read_leases, front),
        ),
        _Kind("100 services, one of them changed", _get(_LISTS["a page of 100 services"]), 50, change),
        _Kind(
            f"targets of {_EACH + 3 * _OTHERS:,} endpoints, a service changed",
            _get("/v1/prometheus/targets"),
            5,
            change,
        ),
    ]
    for kind in interleaved(kinds, plan.rounds(_ROUNDS)):
        table.add(kind.name, cpu=await _cpu(connection, kind))


def _read_leases(front: MemoryFront, number: int) -> None:
    """Let a front read other leases of all endpoints."""
    now = int((time.time() - _YEAR_2000) * 1e6) + number
    ids = array("q", range(1, _EACH + 1))
    leases = Leases(ids, array("q", [now] * _EACH), array("q", [now + 20_000_000] * _EACH))
    front.process.cache.read_leases(leases, time.monotonic())


def _get(path: str, *lines: bytes) -> bytes:
    head = [b"GET %b HTTP/1.1" % path.encode(), b"host: registry", b"user-agent: curl/8", b"accept: */*", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


async def _cpu(connection: Connection, kind: _Kind) -> float:
    """Return the processor time of a request in microseconds, after one that does not count."""
    await _ask(connection, kind.request)
    used = []
    for number in range(kind.requests):
        if kind.before is not None:
            kind.before(number)
        begun = time.thread_time_ns()
        await _ask(connection, kind.request)
        used.append(time.thread_time_ns() - begun)
    return statistics.fmean(used) / 1000


async def _ask(connection: Connection, request: bytes) -> bytes:
    """Send a request and return the response, which the application sends some turns of the loop later."""
    sent = connection.wire.sent
    sent.clear()
    connection.protocol.data_received(request)
    while not sent:  # a transport in memory tells nobody
        await asyncio.sleep(0)
    return bytes(sent[0])


def _run_over_sockets(part: Part, plan: Plan) -> None:
    part.note(
        "Over sockets: a registry of one process with the fast protocol, and one whose every request the application "
        f"answers (`REGISTRY_DOOR=route`); {_LEASES:,} endpoints, {_CONNECTIONS} connections. The application has the "
        "same kept lists behind its routes."
    )
    plan.doing("starting PostgreSQL")
    with stage() as environment:
        populate(environment, Population(_LEASES, each=_EACH, prefix="shop-"))
        with (
            environment.registry(resync_interval="300s") as fast,
            environment.registry(resync_interval="300s", door="route") as slow,
        ):
            sides = {FAST: fast, APPLICATION: slow}
            for registry in sides.values():
                eventually(partial(_is_read, registry), within=30)
            for name in ("a page of 100 services", "a page of 100 endpoints"):
                _measure_over_sockets(part, plan, sides, name)


def _is_read(registry: Registry) -> bool:
    endpoints = registry.client.get(_LISTS["a page of 100 endpoints"]).json().get("endpoints", [])
    return len(endpoints) == _EACH and all(endpoint["lease_renewed_at"] for endpoint in endpoints)


def _measure_over_sockets(part: Part, plan: Plan, sides: dict[str, Registry], name: str) -> None:
    plan.doing(f"lists: over sockets: {name}")
    path = _LISTS[name]
    table = part.table(
        f"over sockets: {name}", rate="requests/s", p50="p50 ms", p99="p99 ms", cpu="server's CPU µs a request"
    )
    kinds = {
        "": wrk.Gets(_CONNECTIONS, plan.seconds(2)),
        ", gzip": wrk.Gets(_CONNECTIONS, plan.seconds(2), coding="gzip"),
    }
    etag = httpx.get(f"{sides[FAST].url}{path}").headers["etag"]
    kinds[", 304"] = wrk.Gets(_CONNECTIONS, plan.seconds(2), etag=etag)
    rows = [(side, kind) for kind in kinds for side in sides if side == FAST or not kind]
    for side, kind in interleaved(rows, plan.rounds(3)):
        registry = sides[side]
        measured = wrk.get(f"{registry.url}{path}", [registry.process.pid], kinds[kind])
        if measured is None:
            raise RuntimeError(f"{side} answered nothing")
        _add(table, side + kind, measured)
    part.bar(f"{name}: CPU, unchanged", table.values(FAST, "cpu"), "µs", at_most=_MAX_PAGE)
    part.bar(f"{name}: CPU, 304", table.values(f"{FAST}, 304", "cpu"), "µs", at_most=_MAX_UNCHANGED)
    part.ratio(f"{name}: against the application", table.values(FAST, "rate"), table.values(APPLICATION, "rate"))


def _add(table: Table, row: str, measured: wrk.Measured) -> None:
    table.add(row, rate=measured.rate, p50=measured.p50, p99=measured.p99, cpu=measured.cpu)
