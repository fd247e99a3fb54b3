"""A thousand polls that are held, from a process of its own, and the change that wakes them.

Run as ``python -m benchmarks.held NEAR FAR SERVICE POLLS WAVES``: it holds so many polls at the port FAR, reports a
change at NEAR, and prints when the answers came; and so again.
"""

import asyncio
import json
import re
import subprocess
import sys
import time

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.client import Client, request
from benchmarks.envoy_poll import poll_body, with_version
from benchmarks.rounds import percentile
from benchmarks.stage import address, registration

_PATIENCE = 20.0
_SETTLE = 0.05
_EACH = 50
"""Polls that are sent before the next ones: their bodies are 77 kB each."""
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


def waves(near: int, far: int, service: str, polls: int, count: int) -> list[Wave]:
    """Measure ``count`` changes, in a process of its own.

    Raises:
        subprocess.CalledProcessError: a poll got no answer, or another one than it should.
    """
    command = [sys.executable, "-m", "benchmarks.held", str(near), str(far), service, str(polls), str(count)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(told.stdout, type=list[Wave])


class _Crowd:
    """The subscribers: each has a connection and the version that it holds."""

    def __init__(self, clients: list[Client], service: str) -> None:
        self._clients = clients
        self._first = poll_body(service)
        self._version = ""
        self.arrived: list[float] = []

    async def read(self) -> None:
        """Get the current version, as a first poll does.

        Raises:
            RuntimeError: the answer is no 200.
        """
        status, body = await self._clients[0].send(self._poll())
        self._take(status, body)

    async def hold(self) -> "asyncio.Future[list[tuple[int, bytes]]]":
        """Send everybody's poll, and return their answers to come."""
        self.arrived = []
        poll, answers = self._poll(), []
        for number, client in enumerate(self._clients):
            answers.append(client.send(poll))
            answers[-1].add_done_callback(lambda _: self.arrived.append(time.monotonic()))
            if number % _EACH == 0:
                await asyncio.sleep(0)
        return asyncio.gather(*answers)

    def take(self, answers: list[tuple[int, bytes]]) -> int:
        """Take over the version that everybody got; return the bytes of an answer.

        Raises:
            RuntimeError: not everybody got the same 200.
        """
        if len(set(answers)) != 1:
            raise RuntimeError(f"the answers differ: {[answer[:200] for _, answer in set(answers)]}")
        return self._take(*answers[0])

    def _take(self, status: int, body: bytes) -> int:
        if status != 200:
            raise RuntimeError(f"a poll was answered {status}")
        self._version = msgspec.json.decode(body)["version_info"]
        return len(body)

    def _poll(self) -> bytes:
        body = with_version(self._first, self._version) if self._version else self._first
        return request("POST", "/v3/discovery:endpoints", body, x_envoy_expected_rq_timeout_ms="60000")


async def _main(near: int, far: int, service: str, polls: int, count: int) -> None:
    registrar, metrics = await Client.connect(near), await Client.connect(far)
    crowd = _Crowd([await Client.connect(far) for _ in range(polls)], service)
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
    accepted: list[float] = []
    change.add_done_callback(lambda _: accepted.append(time.monotonic()))
    async with asyncio.timeout(_PATIENCE):
        size = crowd.take(await answers)
        await change
    since = [1000 * (one - accepted[0]) for one in crowd.arrived]
    return Wave(min(since), percentile(since, 0.5), max(since), 1000 * (max(crowd.arrived) - sent), size)


async def _held(metrics: Client) -> float:
    _, body = await metrics.send(request("GET", "/metrics", b""))
    found = _HELD.search(body)
    return float(found[1]) if found else 0.0


if __name__ == "__main__":
    _near, _far, _service, _polls, _count = sys.argv[1:]
    uvloop.run(_main(int(_near), int(_far), _service, int(_polls), int(_count)))
