"""What access control adds to a poll and a heartbeat, without sockets, PostgreSQL and other processes.

The real protocol of each registry gets the real bytes of requests from memory, in one process. So nothing differs
between the sides but access, and the processor time of many short turns in pairs tells a hundredth.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import uvloop
from harness.memory_front import DATABASE_ID, Connection, MemoryFront, poll, registration
from msgspec import Struct

from benchmarks.envoy_poll import poll_body
from benchmarks.plan import Plan
from benchmarks.report import Part, Table
from benchmarks.rounds import interleaved
from registry.auth.credential import Credential
from registry.auth.grants import Grant
from registry.auth.tokens import TOKEN, new_token
from registry.auth.verbs import Verb
from wire.model import Heartbeat, HeartbeatBatch

_MODES = ("off", "on", "audit")
_SERVICE = "shop-0"
_ENDPOINTS = 100
_BATCH = 50
_AT_LEAST = 0.95
_ROUNDS = 20
_TURNS = 21
"""Turns of each side in a round, of which the medians of the pairs count."""
_REQUESTS = 150
"""Requests of a turn: three milliseconds, which the kernel seldom interrupts."""
_COPIES = 7
"""Copies of a request, one for each turn: processors copy memory from a few unlucky addresses ten times as slowly."""


class _Side(Struct, frozen=True):
    """A registry with its access, a connection to it, and the requests that a client sends there."""

    mode: str
    front: MemoryFront
    connection: Connection
    requests: dict[str, list[bytes]]

    def turn(self, kind: str, number: int) -> float:
        """Send one copy of a request again and again, and return the processor time of each in microseconds.

        Args:
            kind: of the requests.
            number: of the turn, by which the copy is chosen.

        Raises:
            RuntimeError: the protocol has not answered each at once, but left it to the application.
        """
        receive, sent = self.connection.wire.receive, self.connection.wire.sent
        request = self.requests[kind][number % _COPIES]
        before = self.front.answered
        begun = time.thread_time_ns()
        for _ in range(_REQUESTS):
            receive(request)
            sent.clear()
        used = time.thread_time_ns() - begun
        if self.front.answered - before != _REQUESTS:
            raise RuntimeError(f"access {self.mode}: {kind}: {self.front.answered - before} of {_REQUESTS} answered")
        return used / _REQUESTS / 1000


class _Stored:
    """Renewals that are stored at once: there is no PostgreSQL, and its cost is no part of this comparison."""

    def __init__(self, count: int) -> None:
        self._renewed = [True] * count

    def result(self) -> list[bool]:
        """Return that all leases were renewed."""
        return self._renewed

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call back at once."""
        callback(self)


def run_in_memory(part: Part, plan: Plan) -> None:
    """Compare requests with access on, and noted only, with requests without access."""
    uvloop.run(_run(part, plan))


async def _run(part: Part, plan: Plan) -> None:
    part.note(
        "In memory: one process, the protocol of a registry for each mode, a token where access is not off, and "
        f"{_ENDPOINTS} endpoints. The protocol gets an Envoy's 77 kB, or a registrar's heartbeats, as one piece of "
        "data; nothing is sent, and renewals count as stored at once. Each round is the median of "
        f"{_TURNS} pairs of turns of {_REQUESTS} requests. Other programs hardly disturb that, so it is what tells "
        "whether access meets its bar."
    )
    token = new_token(TOKEN)
    grant = Grant((Verb.DISCOVER, Verb.REGISTER), ("shop-*",), ("10.0.0.0/8",))
    credential = Credential(token.id, token.digest, "bench", "registrar", time.time() + 86_400, (grant,))
    sides = [_side(mode, credential, token.text) for mode in _MODES]
    for kind in sides[0].requests:
        plan.doing(f"access: in memory: {kind}")
        _compare(part, plan, sides, kind)


def _side(mode: str, credential: Credential, token: str) -> _Side:
    owner = "" if mode == "off" else credential.owner
    front = MemoryFront({_SERVICE: _ENDPOINTS}, credential, owner=owner, loop="uvloop", auth=mode)
    front.process.registrations.renew = lambda endpoints: cast("Any", _Stored(len(endpoints)))  # type: ignore[method-assign]
    lines = [] if mode == "off" else [b"authorization: Bearer " + token.encode()]
    return _Side(mode, front, front.connect(), {kind: _copies(request) for kind, request in _requests(lines)})


def _requests(lines: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Return what a client sends, by the name of its kind, with further lines in the head."""
    envoy = [*lines, b"x-envoy-expected-rq-timeout-ms: 200"]
    yield f"polls, 200, {_ENDPOINTS} endpoints", poll(poll_body(_SERVICE), *envoy)
    yield f"polls, 304, {_ENDPOINTS} endpoints", poll(poll_body(_SERVICE, f"{DATABASE_ID}:1"), *envoy)
    heartbeats = [Heartbeat(_SERVICE, f"10.0.1.{number}:8080", registration(number)) for number in range(1, _BATCH + 1)]
    one = msgspec.json.encode(heartbeats[0].registration)
    url = f"/v1/services/{_SERVICE}/endpoints/{heartbeats[0].endpoint}"
    yield "single heartbeats", poll(one, *lines, url=url, method=b"PUT")
    yield (
        f"heartbeats, {_BATCH} a request",
        poll(msgspec.json.encode(HeartbeatBatch(heartbeats)), *lines, url="/v1/heartbeats"),
    )


def _copies(request: bytes) -> list[bytes]:
    return [bytes(bytearray(request)) for _ in range(_COPIES)]


def _compare(part: Part, plan: Plan, sides: list[_Side], kind: str) -> None:
    for side in sides:
        _check(side, kind)
    table = part.table(f"in memory: {kind}", cpu="CPU µs a request")
    ratios: dict[str, list[float]] = {mode: [] for mode in _MODES if mode != "off"}
    for _ in range(plan.rounds(_ROUNDS)):
        turns: dict[str, list[float]] = {mode: [] for mode in _MODES}
        for number, side in enumerate(interleaved(sides, _TURNS)):
            turns[side.mode].append(side.turn(kind, number // len(sides)))
        _add(table, turns)
        for mode, values in ratios.items():
            pairs = zip(turns["off"], turns[mode], strict=True)
            values.append(statistics.median(off / other for off, other in pairs))
    for mode, values in ratios.items():
        part.bar(f"in memory: {kind}: CPU, off against {mode}", values, "x", at_least=_AT_LEAST)


def _check(side: _Side, kind: str) -> None:
    """Send a request of each kind, which has to be answered as its name says.

    Raises:
        RuntimeError: it was answered otherwise.
    """
    status = b"304" if "304" in kind else b"200"
    side.connection.wire.receive(side.requests[kind][0])
    answer = side.connection.answer()
    if not answer.startswith(b"HTTP/1.1 " + status):
        raise RuntimeError(f"access {side.mode}: {kind}: answered {answer[:200]!r}")
    side.turn(kind, 0)


def _add(table: Table, turns: dict[str, list[float]]) -> None:
    for mode, values in turns.items():
        table.add(f"access {mode}", cpu=statistics.median(values))
