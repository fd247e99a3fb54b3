"""What a running registrar costs beside a bare asyncio process: memory, and CPU while nothing happens.

Both processes see the standard library and the registrar's base dependencies only, as in its image.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import NamedTuple

import msgspec
from packaging.requirements import Requirement

from benchmarks.plan import Plan
from benchmarks.report import Part
from wire.model import Grant, Health, HeartbeatBatch, HeartbeatResult, HeartbeatResults

SOURCES = Path(__file__).parents[1] / "src"
MEBIBYTE = 1024 * 1024
WARM_UP = 10.0
GRANTED: list[str] = []
LOGGED_IN: list[str] = []

_BARE = "import asyncio\nasyncio.run(asyncio.Event().wait())"
_REGISTRAR = "from registrar.cli import main\nmain()"


class Cost(NamedTuple):
    """What one process used: MiB, and per cent of a core."""

    rss: float
    pss: float
    cpu: float


def run(part: Part, plan: Plan) -> None:
    """Measure both side by side."""
    table = part.table(
        "Idle, one http check each 2 s, one heartbeat each 5 s", rss="RSS MiB", pss="PSS MiB", cpu="% of a core"
    )
    for number in range(plan.rounds(2)):
        plan.doing(f"round {number + 1}: a bare asyncio process and two registrars, idle")
        bare, ours, logged_in = asyncio.run(main(plan.seconds(15)))
        table.add("bare asyncio", **bare._asdict())
        table.add("registrar", **ours._asdict())
        table.add("registrar, AWS login", **logged_in._asdict())
    rss = table.values("registrar", "rss")
    part.bar("registrar: RSS", rss, "MiB", at_most=40, goal=30)
    with_login = table.values("registrar, AWS login", "rss")
    part.bar("registrar with AWS login: RSS", with_login, "MiB", at_most=40)
    part.ratio("registrar: RSS against bare asyncio", rss, table.values("bare asyncio", "rss"), at_most=2.1)
    part.bar("registrar: idle CPU", table.values("registrar", "cpu"), "% of a core", at_most=0.3)


async def main(seconds: float) -> tuple[Cost, Cost, Cost]:
    """Return the costs of the bare process, of a registrar, and of one that logs in and writes Envoy's token.

    Raises:
        RuntimeError: a registrar sent no heartbeat, or did not log in, so these would be the figures of something else.
    """
    GRANTED.clear()
    LOGGED_IN.clear()
    with tempfile.TemporaryDirectory() as folder:
        borrow(Path(folder))
        async with served(_answer) as registry, served(_ok) as app, served(_keys) as agent:
            settings = {
                "REGISTRAR_REGISTRY_URL": f"http://127.0.0.1:{registry}",
                "REGISTRAR_SERVICE": "shop",
                "REGISTRAR_ENDPOINT": f"127.0.0.1:{app}",
                "REGISTRAR_CHECK_HTTP_PATH": "/healthz",
                "REGISTRAR_ADMIN_LISTEN": f"unix:{folder}/admin.sock",
            }
            login = {
                **settings,
                "REGISTRAR_ADMIN_LISTEN": f"unix:{folder}/login.sock",
                "REGISTRAR_LOGIN": "aws",
                "REGISTRAR_LOGIN_AUDIENCE": "headcount-tests",
                "REGISTRAR_ENVOY_TOKEN_FILE": f"{folder}/token",
                "AWS_REGION": "eu-central-1",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{agent}/keys",
            }
            async with (
                started(folder, _BARE, {}) as one,
                started(folder, _REGISTRAR, settings, "run") as other,
                started(folder, _REGISTRAR, login, "run") as third,
            ):
                await asyncio.sleep(WARM_UP)
                costs = await asyncio.gather(*(measure(each, seconds) for each in (one, other, third)))
    if not GRANTED or not LOGGED_IN:
        raise RuntimeError("no heartbeat or no login came: these would be the figures of something else")
    return costs[0], costs[1], costs[2]


async def measure(process: Process, seconds: float) -> Cost:
    """Return what a process uses over a while."""
    before = ticks(process.pid)
    await asyncio.sleep(seconds)
    used = (ticks(process.pid) - before) / os.sysconf("SC_CLK_TCK")
    kilobytes = memory(process.pid)
    return Cost(kilobytes["Rss"] * 1024 / MEBIBYTE, kilobytes["Pss"] * 1024 / MEBIBYTE, 100 * used / seconds)


def memory(pid: int) -> dict[str, int]:
    """Return the kernel's account of a process's memory, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}


def ticks(pid: int) -> int:
    """Return the clock ticks that a process has run for, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextlib.asynccontextmanager
async def started(folder: str, code: str, settings: dict[str, str], *arguments: str) -> AsyncIterator[Process]:
    """Run code with nothing but the standard library and ``folder`` to import from."""
    code = f"import sys\nsys.path.insert(0, {folder!r})\n{code}"
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=settings, stdout=DEVNULL, stderr=DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def borrow(folder: Path) -> None:
    """Link our sources and the base dependencies, at any depth, into ``folder``."""
    for name in ("registrar", "wire"):
        (folder / name).symlink_to(SOURCES / name)
    for name in needed("headcount"):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(installed.locate_file(top))))


def needed(name: str) -> set[str]:
    """Return the distributions that one without extras pulls in."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for child in map(Requirement, requires(waiting.pop()) or []):
            wanted = child.marker is None or child.marker.evaluate({"extra": ""})
            if wanted and child.name not in found:
                found.add(child.name)
                waiting.append(child.name)
    return found


@contextlib.asynccontextmanager
async def served(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """Serve HTTP on loopback and return the port."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((line.split(":")[1] for line in head.splitlines() if line.startswith("content-l")), "0")
                body = answer(await reader.readexactly(int(length)))
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _ok(_body: bytes) -> bytes:
    return b"ok"


def _keys(_body: bytes) -> bytes:
    return msgspec.json.encode({"AccessKeyId": "ASIAFAKE", "SecretAccessKey": "s" * 40, "Token": "t" * 1000})


def _answer(body: bytes) -> bytes:
    if not body.startswith(b'{"headers"'):
        return _grants(body)
    LOGGED_IN.append("aws")
    issued = {"token": f"hcs_{'x' * 43}", "expires_at": time.time() + 3600}
    return msgspec.json.encode({"principal": "aws", "registrar": issued, "envoy": issued})


def _grants(body: bytes) -> bytes:
    heartbeats = msgspec.json.decode(body, type=HeartbeatBatch).heartbeats
    GRANTED.extend(heartbeat.endpoint for heartbeat in heartbeats)
    grants = [Grant(each.service, each.endpoint, Health.HEALTHY, 1, 20.0, 5.0, 12.0) for each in heartbeats]
    results = [HeartbeatResult(grant.service, grant.endpoint, grant=grant) for grant in grants]
    return msgspec.json.encode(HeartbeatResults(results))
