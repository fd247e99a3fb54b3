"""More clients than a registry has descriptors for: Envoys that hold polls, registrars that connect for each beat."""

import asyncio
import json
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.line import poll

_REFRESH = 0.5
_HEARTBEAT_TIMEOUT = 2.0


@dataclass
class Heard:
    """What the clients heard."""

    polls: int = 0
    beats: int = 0
    failed_beats: int = 0
    slowest_beat: float = 0.0
    failures: set[str] = field(default_factory=set)


def limited(count: int, program: list[str]) -> list[str]:
    """Return a command with so many descriptors."""
    return ["sh", "-c", f'ulimit -n {count} && exec "$@"', "limited", *program]


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Leave so many descriptors to this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The kernel gives the lowest free number; there may be gaps below it.
    lowest = os.dup(0)
    os.close(lowest)
    gaps = [os.dup(0) for _ in range(lowest, max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()))]
    top = os.dup(0)
    os.close(top)
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for gap in gaps:
            os.close(gap)


@asynccontextmanager
async def pollers(port: int, service: str, version: str, count: int, heard: Heard) -> AsyncIterator[None]:
    """Hold polls as Envoys do, each over a connection that it keeps as long as it may, until the end of the block."""
    tasks = [asyncio.create_task(_poller(port, service, version, heard)) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _poller(port: int, service: str, version: str, heard: Heard) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(_REFRESH)
            continue
        try:
            closes = False
            while not closes:
                writer.write(poll(service, version=version, hold=50))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                closes = b"connection: close" in head
                heard.polls += 1
                await asyncio.sleep(_REFRESH)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(_REFRESH)
        finally:
            writer.close()


async def beat(port: int, service: str, endpoints: list[str], ttl: float, seconds: float, heard: Heard) -> None:
    """Renew each endpoint four times a lease, over a new connection each time."""
    end = time.monotonic() + seconds
    await asyncio.gather(*(_beater(port, service, endpoint, ttl, end, heard) for endpoint in endpoints))


async def _beater(port: int, service: str, endpoint: str, ttl: float, end: float, heard: Heard) -> None:
    registration = {"instance_id": f"i-{endpoint}", "incarnation": 1, "ttl": ttl}
    body = json.dumps(registration).encode()
    head = f"PUT /v1/services/{service}/endpoints/{endpoint} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    while time.monotonic() < end:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_HEARTBEAT_TIMEOUT):
                status = await _ask(port, request)
            heard.beats += 1
            if status != 200:
                raise OSError(f"status {status}")  # noqa: TRY301  # counted as one that was not answered
        except (OSError, asyncio.IncompleteReadError) as error:
            heard.failed_beats += 1
            heard.failures.add(repr(error))
        heard.slowest_beat = max(heard.slowest_beat, time.monotonic() - begun)
        await asyncio.sleep(max(0.0, begun + ttl / 4 - time.monotonic()))


async def _ask(port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    finally:
        writer.close()
