"""What a running registrar costs beside a bare asyncio process: memory, and CPU while nothing happens.

Run as ``python benchmarks/footprint.py [--seconds 30] [--check]``; with ``--check`` the exit status is 1 when a bar is
missed. Both processes see the standard library and the registrar's base dependencies only, as in its image: a
development environment has more packages, and httpx loads some of them when they are there.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable
from importlib.metadata import distribution, requires
from pathlib import Path

import msgspec
from packaging.requirements import Requirement

from wire.model import BeatAnswer, Grant, Health, HeartbeatsAnswer, decode_heartbeats

SOURCES = Path(__file__).parents[1] / "src"
MEBIBYTE = 1024 * 1024
WARM_UP = 10.0
GRANTED: list[str] = []
BARS = {"rss": 40.0, "rss_ratio": 2.1, "cpu": 0.3}

_BARE = "import asyncio\nasyncio.run(asyncio.Event().wait())"
_REGISTRAR = "from registrar.cli import main\nmain()"


class Cost:
    """What one process used: MiB, and per cent of a core."""

    def __init__(self, rss: float, pss: float, cpu: float) -> None:
        self.rss = rss
        self.pss = pss
        self.cpu = cpu

    def __str__(self) -> str:
        return f"RSS {self.rss:5.1f} MiB   PSS {self.pss:5.1f} MiB   idle CPU {self.cpu:.3f} % of a core"


async def main(seconds: float, runs: int) -> dict[str, float]:
    """Measure both and print it; return the figures that have a bar."""
    with tempfile.TemporaryDirectory() as folder:
        borrow(Path(folder))
        async with served(_grants) as registry, served(_ok) as app:
            settings = {
                "REGISTRAR_REGISTRY_URL": f"http://127.0.0.1:{registry}",
                "REGISTRAR_SERVICE": "shop",
                "REGISTRAR_ENDPOINT": f"127.0.0.1:{app}",
                "REGISTRAR_CHECK_HTTP_PATH": "/healthz",
                "REGISTRAR_ADMIN_LISTEN": f"unix:{folder}/admin.sock",
            }
            bare, ours = [], []
            for _ in range(runs):
                async with started(folder, _BARE, {}) as one, started(folder, _REGISTRAR, settings, "run") as other:
                    await asyncio.sleep(WARM_UP)
                    found = await asyncio.gather(measure(one, seconds), measure(other, seconds))
                bare.append(found[0])
                ours.append(found[1])
    if not GRANTED:
        raise SystemExit("the registrar sent no heartbeat: these would be the figures of something else")
    return report(bare, ours)


def report(bare: list[Cost], ours: list[Cost]) -> dict[str, float]:
    """Print medians and bars."""
    one, other = median(bare), median(ours)
    ratio = other.rss / one.rss
    print(f"Python {sys.version.split()[0]}, {len(ours)} run(s), one http check each 2 s, one heartbeat each 5 s")
    print(f"bare asyncio   {one}")
    print(f"registrar      {other}")
    print(f"RSS {ratio:.2f} x bare (bar {BARS['rss_ratio']}), {other.rss:.1f} MiB (bar {BARS['rss']:g}), ", end="")
    print(f"idle CPU {other.cpu:.3f} % (bar {BARS['cpu']})")
    return {"rss": other.rss, "rss_ratio": ratio, "cpu": other.cpu}


def median(costs: list[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("rss", "pss", "cpu")))


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


def _grants(body: bytes) -> bytes:
    beats = decode_heartbeats(body).beats
    GRANTED.extend(one.endpoint for one in beats)
    grants = [Grant(one.service, one.endpoint, Health.HEALTHY, 1, 20.0, 5.0, 12.0) for one in beats]
    answers = [BeatAnswer(one.service, one.endpoint, grant=one) for one in grants]
    return msgspec.json.encode(HeartbeatsAnswer(answers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each run is measured")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    given = parser.parse_args()
    figures = asyncio.run(main(given.seconds, given.runs))
    sys.exit(given.check and any(figures[name] > bar for name, bar in BARS.items()))
