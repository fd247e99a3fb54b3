"""A thousand polls or questions that are held, from a process of its own, and the change that wakes them.

Run as ``python -m benchmarks.held KIND NEAR FAR SERVICE POLLS WAVES``: it holds so many polls of Envoys, or questions
of edges, at the port FAR, reports a change at NEAR, and prints when the answers came; and so again.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from typing import Any, Literal

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.client import Client, request
from benchmarks.envoy_poll import poll_body, with_version
from benchmarks.rounds import percentile
from benchmarks.stage import address, registration
from wire.edge_assignments import EDGE_PATH

Kind = Literal["polls", "questions"]
"""Polls of Envoys, each for one service, or questions of edges, each for twenty."""
KINDS: tuple[Kind, Kind] = ("polls", "questions")

_PATIENCE = 20.0
_SETTLE = 0.05
_EACH = 50
"""Polls that are sent before the next ones: their bodies are 77 kB each."""
_NAMES = 19
"""Names of a question beside the service that changes."""
_HELD = re.compile(rb"^registry_polls_held(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE)


class Wave(Struct, frozen=True):
    """One change: milliseconds from its acceptance to the answers of the first, the middle and the last held poll.

    ``sent`` is that of the last one since the change was sent, ``size`` the bytes of an answer.
    """

    first: float
    middle: float
    last: float
    sent: float
    size: int


def waves(near: int, far: int, service: str, polls: int, count: int, kind: Kind = "polls") -> list[Wave]:
    """Measure ``count`` changes, in a process of its own.

    Raises:
        subprocess.CalledProcessError: a poll got no answer, or another one than it should.
    """
    command = [sys.executable, "-m", "benchmarks.held", kind, str(near), str(far), service, str(polls), str(count)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(told.stdout, type=list[Wave])


class _Crowd:
    """The subscribers: each has a connection and the version that it holds."""

    def __init__(self, clients: list[Client], service: str) -> None:
        self._clients = clients
        self._first = poll_body(service)
        self._version = ""

    async def read(self) -> None:
        """Get the current version, as a first poll does.

        Raises:
            RuntimeError: the answer is no 200.
        """
        status, body = await self._clients[0].send(_poll(self._first))
        self._take(status, body)

    async def hold(self) -> "asyncio.Future[list[tuple[int, bytes]]]":
        """Send everybody's poll or question, and return their answers to come."""
        answers = []
        for number, client in enumerate(self._clients):
            answers.append(client.send(self._request(number)))
            if number % _EACH == 0:
                await asyncio.sleep(0)
        return asyncio.gather(*answers)

    def arrived(self) -> list[float]:
        """Return when each had its last answer."""
        return [client.answered for client in self._clients]

    def take(self, answers: list[tuple[int, bytes]]) -> int:
        """Take over the version that everybody got; return the bytes of an answer.

        Raises:
            RuntimeError: not everybody got the same 200.
        """
        if len(set(answers)) != 1:
            raise RuntimeError(f"the answers differ: {[answer[:200] for _, answer in set(answers)]}")
        return self._take(*answers[0])

    def _request(self, _number: int) -> bytes:
        """Return what one of them sends, which has to be held."""
        return _poll(with_version(self._first, self._version))

    def _version_of(self, body: bytes) -> str:
        version: str = msgspec.json.decode(body)["version_info"]
        return version

    def _take(self, status: int, body: bytes) -> int:
        if status != 200:
            raise RuntimeError(f"a poll was answered {status}")
        self._version = self._version_of(body)
        return len(body)


class _Edges(_Crowd):
    """Edges, whose questions build on those before as those of registrars do."""

    def __init__(self, clients: list[Client], service: str) -> None:
        super().__init__(clients, service)
        self._service = service
        self._round = 0

    async def hold(self) -> "asyncio.Future[list[tuple[int, bytes]]]":
        """Send everybody's question, and return their answers to come."""
        self._round += 1
        return await super().hold()

    def _request(self, number: int) -> bytes:
        node, held = f"i-{number}", {self._service: self._version}
        taken = [{"node": node, "service": self._service, "version": self._version}]
        question: dict[str, Any] = {"id": f"{node}-{self._round}", "taken": taken}
        if self._round == 1:
            # The version of what was never registered is that of no service.
            nothing = f"{self._version.partition(':')[0]}:0"
            held |= {f"{self._service}-{other}": nothing for other in range(_NAMES)}
            question |= {"node": node, "cluster": "web"}
        else:
            question["after"] = f"{node}-{self._round - 1}"
        return request("POST", EDGE_PATH, msgspec.json.encode(question | {"held": held}))

    def _version_of(self, body: bytes) -> str:
        document = msgspec.json.decode(body)
        version: str = document.get("assignments", {}).get(self._service, document)["version_info"]
        return version


def _poll(body: bytes) -> bytes:
    return request("POST", "/v3/discovery:endpoints", body, x_envoy_expected_rq_timeout_ms="60000")


async def _main(kind: str, near: int, far: int, service: str, polls: int, count: int) -> None:
    registrar, metrics = await Client.connect(near), await Client.connect(far)
    crowd = (_Edges if kind == "questions" else _Crowd)([await Client.connect(far) for _ in range(polls)], service)
    await crowd.read()
    found = [await _wave(registrar, metrics, crowd, service, polls, number) for number in range(count)]
    sys.stdout.write(msgspec.json.encode(found).decode())


async def _wave(registrar: Client, metrics: Client, crowd: _Crowd, service: str, polls: int, number: int) -> Wave:
    answers = await crowd.hold()
    async with asyncio.timeout(_PATIENCE):
        while await _held(metrics) < polls:
            await asyncio.sleep(_SETTLE)
    await asyncio.sleep(_SETTLE)
    body = json.dumps(registration(0) | {"weight": number + 2}).encode()
    sent = time.monotonic()
    change = registrar.send(request("PUT", f"/v1/services/{service}/endpoints/{address(0)}", body))
    async with asyncio.timeout(_PATIENCE):
        size = crowd.take(await answers)
        await change
    since = [1000 * (one - registrar.answered) for one in crowd.arrived()]
    return Wave(min(since), percentile(since, 0.5), max(since), 1000 * (max(crowd.arrived()) - sent), size)


async def _held(metrics: Client) -> float:
    _, body = await metrics.send(request("GET", "/metrics", b""))
    found = _HELD.search(body)
    return float(found[1]) if found else 0.0


if __name__ == "__main__":
    _kind, _near, _far, _service, _polls, _count = sys.argv[1:]
    uvloop.run(_main(_kind, int(_near), int(_far), _service, int(_polls), int(_count)))
