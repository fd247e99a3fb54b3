"""The edge beside direct polls: network, lag, memory of the registrar, and what its end costs.

A real Envoy with twenty clusters polls either the registry, or an aggregate of a registrar's edge and the registry.
A proxy between them and the registry counts bytes, as they are in TCP's payload.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product

import httpx
import msgspec
from harness.app import turned
from harness.edge_machine import EdgeMachine
from harness.envoy import Envoy, envoy
from harness.process import eventually, free_port
from harness.registrar import Registrar, registrar
from harness.registry import Registry

from benchmarks.client import Client, request
from benchmarks.footprint import MEBIBYTE, memory
from benchmarks.held import KINDS, waves
from benchmarks.plan import Plan
from benchmarks.propagation import SERVICES, lags_of
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved, percentile
from benchmarks.stage import Stage, cpu_seconds, seed, stage
from registry_demo.envoy import find_envoy, read_version
from wire.edge_assignments import EDGE_PATH

_CLUSTERS = 20
_ALL = [*SERVICES, *(f"quiet-{number}" for number in range(_CLUSTERS - len(SERVICES)))]
_ENDPOINTS = 5
_EDGE = b"POST /v1/edge/"
_POLL = b"POST /v3/discovery"
_DIRECT, _BEHIND = "direct polls", "through the edge"
_SETTLE = 3.0
"""Seconds in which an Envoy has taken its first answers, and its edge has told the registry of that."""


_ASKED = ("each builds on the one before", "each says everything again")
_HELD = 1_000
"""Polls or questions that one change wakes."""
_CHANGES = 7
_PAUSE = 0.02
"""Seconds between two requests through an Envoy."""


class CountingProxy:
    """A TCP proxy to a registry that counts the bytes of each kind of connection, by its first request."""

    def __init__(self, port: int) -> None:
        self._registry = port
        self.port = 0
        self.bytes: Counter[bytes] = Counter()
        """Bytes in both directions, by the beginning of the first request. Written by the proxy's thread."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run it in a thread until the end of the block."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), loop).result()
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def of(self, kind: bytes) -> int:
        """Return the bytes of the connections whose first request begins so."""
        return sum(count for begin, count in list(self.bytes.items()) if begin.startswith(kind))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._registry)
            first = await reader.read(65_536)
            kind = first[:24]
            self.bytes[kind] += len(first)
            to_writer.write(first)
            await asyncio.gather(self._copy(reader, to_writer, kind), self._copy(to_reader, writer, kind))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                self.bytes[kind] += len(piece)
                writer.write(piece)
                await writer.drain()
        writer.close()


def run(part: Part, plan: Plan) -> None:
    """Measure both ways side by side."""
    part.note(
        f"One Envoy with {_CLUSTERS} clusters of {_ENDPOINTS} endpoints. Bytes are those of TCP's payload between the "
        "registry and, directly, Envoy (held polls of 30 s) or the edge (questions of 10 s), in both directions."
    )
    part.machine.versions["Envoy"] = asyncio.run(read_version(find_envoy()))
    with stage() as found, found.registry() as registry:
        part.machine.versions["PostgreSQL"] = found.version()
        for service in _ALL:
            seed(registry, service, range(_ENDPOINTS))
        proxy = CountingProxy(registry.port)
        with proxy.running():
            _measure_network(part, plan, found, registry, proxy)
            with found.registry() as near:
                _measure_lag(part, plan, found, near, registry)
                _measure_waking(part, plan, near, registry)
            _measure_memory(part, plan, found, registry)
            with found.registry(door="plain") as plain:
                _measure_questions(part, plan, {"the fast protocol": registry, "the application": plain})
            _measure_end(part, plan, found, registry)


@contextlib.contextmanager
def _directly(found: Stage, port: int) -> Iterator[Envoy]:
    with envoy(found.directory, [port], _ALL, refresh_delay="0.2s", request_timeout="30s") as seen:
        _wait_for_hosts(seen)
        yield seen


@contextlib.contextmanager
def _behind_edge(found: Stage, name: str, registrar_port: int, direct: int) -> Iterator[tuple[Registrar, Envoy]]:
    machine = EdgeMachine(found.directory, name)
    with (
        machine.registrar(f"http://127.0.0.1:{registrar_port}") as beside,
        machine.envoy([direct], *_ALL, request_timeout="30s") as seen,
    ):
        _wait_for_hosts(seen)
        yield beside, seen


def _wait_for_hosts(seen: Envoy) -> None:
    eventually(lambda: all(map(seen.hosts, _ALL)), within=30)
    time.sleep(_SETTLE)


def _measure_network(part: Part, plan: Plan, found: Stage, registry: Registry, proxy: CountingProxy) -> None:
    table = part.table(
        "Network of one Envoy", idle="idle MB/h", change="a change, bytes", assignment="of these assignment"
    )
    seconds = 15.0 if plan.quick else 62.0
    plan.doing(f"edge: {seconds:.0f} s of an idle Envoy, and changes, {_DIRECT}")
    with _directly(found, proxy.port):
        _add_network(table, _DIRECT, registry, proxy, _POLL, seconds)
    plan.doing(f"edge: the same {_BEHIND}")
    # Envoy's own way to the registry is not the proxy, so what passes there is the edge's.
    with _behind_edge(found, "network", proxy.port, registry.port):
        _add_network(table, _BEHIND, registry, proxy, _EDGE, seconds)
    part.bar(f"{_CLUSTERS} clusters, idle, {_BEHIND}", table.values(_BEHIND, "idle"), "MB/h an Envoy", at_most=0.2)
    more = [
        change - assignment
        for change, assignment in zip(table.values(_BEHIND, "change"), table.values(_BEHIND, "assignment"), strict=True)
    ]
    part.bar(f"a change {_BEHIND}, beside the assignment", more, "bytes", at_most=2_048)


def _add_network(table: Table, way: str, registry: Registry, proxy: CountingProxy, kind: bytes, seconds: float) -> None:
    before = proxy.of(kind)
    time.sleep(seconds)
    idle = (proxy.of(kind) - before) / seconds
    service = _ALL[-1]
    changes = []
    for number in range(_CHANGES):
        before = proxy.of(kind)
        registry.register(service, "10.9.9.9:80", ttl=86_400, weight=number + 1)
        time.sleep(_SETTLE)
        changes.append(proxy.of(kind) - before)
    # The median, since held polls that end meanwhile, all at once each 30 s, are none of a change's.
    assignment = len(registry.poll(service).content)
    table.add(way, idle=idle * 3600 / 1e6, change=percentile(changes, 0.5), assignment=assignment)


def _measure_lag(part: Part, plan: Plan, found: Stage, near: Registry, far: Registry) -> None:
    columns = {"sent50": "sent → Envoy p50 ms", "sent90": "p90 ms", "accepted50": "accepted → Envoy p50 ms"}
    table = part.table(
        "A report to another process, until a real Envoy's host set has it", **columns, changes="changes"
    )
    # Each service there and back, in short rounds of either way while both Envoys run: whatever else the machine does
    # meets both, and a round that it spoils is one of many.
    changes = 2 * len(SERVICES)
    plan.doing(f"edge: rounds of {changes} changes, {_DIRECT} and {_BEHIND}")
    with _directly(found, far.port) as polling, _behind_edge(found, "lag", far.port, far.port) as (_, behind):
        admins = {_DIRECT: polling.admin, _BEHIND: behind.admin}
        for way in interleaved(list(admins), plan.rounds(15)):
            lags = asyncio.run(lags_of(near.port, admins[way], changes))
            sent, accepted = [lag.sent for lag in lags], [lag.accepted for lag in lags]
            figures = {"sent50": percentile(sent, 0.5), "sent90": percentile(sent, 0.9)}
            table.add(way, **figures, accepted50=percentile(accepted, 0.5), changes=len(lags))
    for column, name in (("sent50", "p50"), ("sent90", "p90")):
        ours, direct = table.values(_BEHIND, column), table.values(_DIRECT, column)
        part.ratio(f"from the report to Envoy, {_BEHIND} against {_DIRECT}: {name}", ours, direct, at_most=1.2)


def _measure_waking(part: Part, plan: Plan, near: Registry, far: Registry) -> None:
    endpoints = 50
    columns = {"last": "accepted → last answer ms", "middle": "half ms", "cpu": "CPU of the registry for each, µs"}
    table = part.table(f"{_HELD:,} that are held, and a change of {endpoints} endpoints", **columns)
    seed(near, "waking", range(endpoints))
    changes = 2 if plan.quick else 5
    for kind in interleaved(KINDS, plan.rounds(5)):
        plan.doing(f"edge: {changes} changes to {_HELD:,} held {kind}")
        before = cpu_seconds(far.process.pid)
        woken = waves(near.port, far.port, "waking", _HELD, changes, kind)
        used = cpu_seconds(far.process.pid) - before
        last, middle = (percentile([getattr(wave, name) for wave in woken], 0.5) for name in ("last", "middle"))
        table.add(f"held {kind}", last=last, middle=middle, cpu=1e6 * used / (_HELD * changes))
    polls, questions = (table.values(f"held {kind}", "last") for kind in KINDS)
    part.ratio(f"{_HELD:,} held questions against polls: the last answer", questions, polls, at_most=1.2)


def _measure_memory(part: Part, plan: Plan, found: Stage, registry: Registry) -> None:
    table = part.table("Memory of the registrar", rss="RSS MiB")
    for number in range(plan.rounds(2)):
        plan.doing(f"edge: memory of a registrar with and without one, round {number + 1}")
        plain = registrar(found.directory, registry.url, "plain", f"127.0.0.1:{free_port()}", admin_listen="off")
        with plain as without:
            time.sleep(2 * _SETTLE)
            table.add("without an edge", rss=_rss(without))
        with _behind_edge(found, f"memory-{number}", registry.port, registry.port) as (beside, _):
            table.add("with an edge, 20 services", rss=_rss(beside))
    more = [
        behind - alone
        for behind, alone in zip(
            table.values("with an edge, 20 services", "rss"), table.values("without an edge", "rss"), strict=True
        )
    ]
    part.bar("an edge of 20 services in the registrar: RSS", more, "MiB more", at_most=3)


def _rss(beside: Registrar) -> float:
    return memory(beside.process.pid)["Rss"] * 1024 / MEBIBYTE


def _measure_questions(part: Part, plan: Plan, doors: Mapping[str, Registry]) -> None:
    table = part.table(
        f"Questions of {_CLUSTERS} names that are current", cpu="CPU of the registry, µs", count="questions"
    )
    count = 200 if plan.quick else 2_000
    for number, (door, repeats) in enumerate(interleaved(list(product(doors, _ASKED)), plan.rounds(5))):
        registry = doors[door]
        plan.doing(f"edge: {count} questions by {door}, {repeats}")
        tokens = {service: registry.poll(service).json()["version_info"] for service in _ALL}
        before = cpu_seconds(registry.process.pid)
        asyncio.run(_ask(registry.port, tokens, f"bench-{number:03}", count, repeats=repeats == _ASKED[1]))
        used = cpu_seconds(registry.process.pid) - before
        table.add(f"{repeats}, by {door}", cpu=1e6 * used / count, count=count)
    fast, slow = (table.values(f"{_ASKED[0]}, by {door}", "cpu") for door in doors)
    part.bar(f"a question of {_CLUSTERS} names that is current", fast, "µs of CPU", at_most=100)
    part.ratio("the same against a question through the application", fast, slow, at_most=0.3)


async def _ask(port: int, tokens: dict[str, str], name: str, count: int, *, repeats: bool) -> None:
    """Ask so often, each time on the other of two connections: a question ends the one before, which is held.

    Args:
        port: of the registry.
        tokens: what is held.
        name: of the node.
        count: how often.
        repeats: whether each question says again what is held, and what the Envoy beside has taken.

    Raises:
        RuntimeError: a question was not answered 304.
    """
    clients = [await Client.connect(port), await Client.connect(port)]
    taken = [{"node": name, "service": service, "version": token} for service, token in tokens.items()]
    said = {"held": tokens, "taken": taken}
    first = msgspec.json.encode({"node": name, "id": f"{name}-00000", **said})
    held = clients[0].send(request("POST", EDGE_PATH, first))
    # Else the second may come first.
    await asyncio.sleep(_SETTLE / 10)
    for number in range(1, count):
        question = {"after": f"{name}-{number - 1:05}", "id": f"{name}-{number:05}"} | (said if repeats else {})
        body = msgspec.json.encode(question)
        newer = clients[number % 2].send(request("POST", EDGE_PATH, body))
        status, answer = await held
        if status != 304:
            raise RuntimeError(f"a question that is current was answered {status}: {answer[:200]!r}")
        held = newer
    for client in clients:
        client.close()


def _measure_end(part: Part, plan: Plan, found: Stage, registry: Registry) -> None:
    columns = {"direct": "seconds until a change comes directly", "failed": "failed requests", "sent": "requests"}
    table = part.table("An edge that is killed under requests", **columns)
    for number in range(plan.rounds(3)):
        plan.doing(f"edge: killed under requests, round {number + 1}")
        service, machine = f"live-{number}", EdgeMachine(found.directory, f"end-{number}")
        with turned() as app, contextlib.ExitStack() as stack:
            registry.register(service, app.endpoint, ttl=86_400)
            beside = stack.enter_context(machine.registrar(registry.url))
            seen = stack.enter_context(machine.envoy([registry.port], service, *_ALL, request_timeout="30s"))
            _wait_for_hosts(seen)
            statuses = stack.enter_context(_requests(machine.listener))
            time.sleep(1.0)
            beside.kill()
            killed = time.monotonic()
            registry.register(service, "10.9.9.9:80", ttl=86_400, health="UNHEALTHY")
            eventually(lambda seen=seen, service=service: len(seen.hosts(service)) > 1, within=30)  # type: ignore[misc]  # bound now
            took = time.monotonic() - killed
            time.sleep(1.0)
            failed = sum(count for status, count in statuses.items() if status != "200")
            table.add(_BEHIND, direct=took, failed=failed, sent=statuses.total())
    part.bar("an edge is killed: until a change comes directly", table.values(_BEHIND, "direct"), "s", at_most=3)
    part.bar("an edge is killed: failed requests", table.values(_BEHIND, "failed"), "requests", at_most=0)


@contextlib.contextmanager
def _requests(listener: int) -> Iterator[Counter[str]]:
    """Send requests through an Envoy until the end of the block, and count them by their status or error."""
    statuses: Counter[str] = Counter()
    over = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener}", timeout=10, trust_env=False) as client:
            while not over.wait(_PAUSE):
                try:
                    statuses[str(client.get("/").status_code)] += 1
                except httpx.HTTPError as error:
                    statuses[type(error).__name__] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()
