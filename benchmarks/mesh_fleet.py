"""Five hundred simulated Envoys, from a process of their own, that follow the mesh configuration by long polls.

Run as ``python -m benchmarks.mesh_fleet PORT SERVICE…``: each Envoy holds a poll for its clusters, one for its routes,
and one for the endpoints of each of these services that its clusters name. It says when all of them have their first
answers, and goes on until it is ended.
"""

import asyncio
import contextlib
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import uvloop

from benchmarks.client import Client, request
from benchmarks.envoy_poll import poll_body, with_version
from benchmarks.mesh_definitions import CALLERS, name
from meshconfig.resource import TYPE_URLS, Kind

_REFRESH_DELAY = 0.2
"""Seconds that an Envoy waits at least before its next poll, and at most twice as long."""
_HOLD_MILLISECONDS = "30000"
_VERSION = re.compile(rb'"version_info":"([^"]*)"')
_SERVICE = "shop"
_READY = "ready"


@contextlib.contextmanager
def fleet(port: int, services: Sequence[str]) -> Iterator[None]:
    """Let the Envoys poll a registry until the end of the block; all of them have their first answers.

    Raises:
        RuntimeError: they did not get there, or ended meanwhile.
    """
    command = [sys.executable, "-m", "benchmarks.mesh_fleet", str(port), *services]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != _READY:
                raise RuntimeError("the simulated Envoys did not get their first answers")
            yield
            if process.poll() is not None:
                raise RuntimeError("the simulated Envoys ended meanwhile")
        finally:
            process.kill()


class _Envoy:
    """The polls of one Envoy."""

    def __init__(self, port: int, node: str, services: Sequence[str], answered: asyncio.Semaphore) -> None:
        self._port = port
        self._services = services
        self._answered = answered
        self._body = poll_body(_SERVICE)
        self._body = self._body.replace(b'"cluster":"tests"', b'"cluster":"%b"' % node.encode(), 1)
        self._body = re.sub(rb'"id":"[^"]*"', b'"id":"%b/1"' % node.encode(), self._body, count=1)
        self._polled: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follow clusters and routes for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("clusters", self._of_kind("clusters"), tasks))
            tasks.create_task(self._follow("routes", self._of_kind("routes"), tasks))

    def _of_kind(self, kind: Kind) -> bytes:
        names = b'"resource_names":["default"],' if kind == "routes" else b""
        tail = b'%b"type_url":"%b"}' % (names, TYPE_URLS[kind].encode())
        return self._body[: self._body.rindex(b'"resource_names":')] + tail

    async def _follow(self, kind: str, first: bytes, tasks: asyncio.TaskGroup) -> None:
        client, body = await Client.connect(self._port), first
        try:
            while True:
                poll = request("POST", f"/v3/discovery:{kind}", body, x_envoy_expected_rq_timeout_ms=_HOLD_MILLISECONDS)
                status, answer = await client.send(poll)
                if status == 200:
                    if body is first:
                        self._answered.release()
                    version = _VERSION.search(answer)
                    body = with_version(first, version[1].decode() if version else "")
                    if kind == "clusters":
                        self._poll_endpoints(answer, tasks)
                elif status != 304:
                    raise RuntimeError(f"a poll for {kind} was answered {status}: {answer[:300]!r}")
                await asyncio.sleep(random.uniform(_REFRESH_DELAY, 2 * _REFRESH_DELAY))  # noqa: S311  # no secret
        finally:
            client.close()

    def _poll_endpoints(self, clusters: bytes, tasks: asyncio.TaskGroup) -> None:
        """Begin to poll for the services that have a cluster now, and stop for those that have none."""
        for service in self._services:
            has, polled = b'"name":"%b"' % service.encode() in clusters, self._polled.get(service)
            if has and polled is None:
                first = self._body.replace(
                    b'"resource_names":["%b"]' % _SERVICE.encode(), b'"resource_names":["%b"]' % service.encode()
                )
                self._polled[service] = tasks.create_task(self._follow("endpoints", first, tasks))
            elif polled is not None and not has:
                self._polled.pop(service).cancel()


async def _main(port: int, services: Sequence[str]) -> None:
    answered = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        for number in range(CALLERS):
            tasks.create_task(_Envoy(port, name(number), services, answered).run())
            await asyncio.sleep(0.005)
        # Clusters, routes, and the endpoints of the one service that all have.
        for _ in range(3 * CALLERS):
            await answered.acquire()
        sys.stdout.write(f"{_READY}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2:]))
