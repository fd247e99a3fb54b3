"""Floods of polls by wrk, which is C and so costs less than any server that it measures."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.real_time import prefer_this_process
from benchmarks.stage import cpu_seconds

_POLLS = Path(__file__).parent / "data" / "poll.lua"
_BEATS = Path(__file__).parent / "data" / "beats.lua"
_GET = Path(__file__).parent / "data" / "get.lua"
_DIGESTS = Path(__file__).parent / "data" / "digests.lua"
_THREADS = 2
_LONG_HOLD = 30_000
_LOOK = 0.1
_IDLE = 0.2
"""The share of a core below which a server does nothing of ours."""
_PATIENCE = 5.0
VERSION = "bench:1"
"""The version in the body of a flood whose polls bring several; it is of no database."""
MISSING = "wrk is not installed; Debian and Ubuntu have it: apt install wrk"


class Flood(Struct, frozen=True):
    """What to send: the same poll over so many connections.

    ``budget`` is the time-out in milliseconds that the polls announce, ``pause`` the mean wait in milliseconds of each
    connection between two polls.
    """

    body: Path
    connections: int
    seconds: float
    budget: int = _LONG_HOLD
    pause: int = 0
    token: str = ""
    """The credential that the polls carry; empty: none."""
    versions: int = 0
    """How many versions the polls bring in turn, in place of ``VERSION`` in the body; 0: the body is sent as it is."""
    preferred: bool = False
    """Whether wrk runs before processes of normal priority."""


class Beats(Struct, frozen=True):
    """What to send: the requests of a file over so many connections; each line is a path, a tabulator and a body.

    ``token`` is the credential that they carry; empty: none.
    """

    lines: Path
    method: str
    connections: int
    seconds: float
    token: str = ""


class Gets(Struct, frozen=True):
    """What to send: the same GET over so many connections.

    ``etag`` is what the client holds, ``coding`` and ``accept`` the coding and the type that it accepts; empty: it says
    nothing of that.
    """

    connections: int
    seconds: float
    etag: str = ""
    coding: str = ""
    accept: str = ""
    token: str = ""


class Measured(Struct, frozen=True):
    """What came back: answers a second, milliseconds, and the server's processor time for each in microseconds."""

    rate: float
    p50: float
    p99: float
    cpu: float
    p90: float = 0.0
    """Of polls alone."""
    kilobytes: float = 0.0
    """Of a response, with its head."""


class _Summary(Struct):
    requests: int
    microseconds: int
    bytes: int
    p50: int
    p99: int
    failed: int
    p90: int = 0


def installed() -> str | None:
    """Return the version of wrk; None where there is none."""
    if shutil.which("wrk") is None:
        return None
    # It has no option for that alone, and ends with an error after it told.
    told = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)  # noqa: S607  # on the PATH
    return told.stdout.split()[1]


def flood(url: str, pids: Sequence[int], what: Flood) -> Measured | None:
    """Flood a server, and measure what its processes ``pids`` and their children use; None when it answered nothing.

    Raises:
        RuntimeError: a poll was answered by an error, or not at all, so the figures would be those of something else.
    """
    told = {"POLL_BODY": str(what.body), "POLL_BUDGET": str(what.budget), "POLL_PAUSE": str(what.pause)}
    told["POLL_VERSIONS"] = str(what.versions)
    return _run(_POLLS, url, pids, what, told)


def beat(url: str, pids: Sequence[int], what: Beats) -> Measured | None:
    """Send heartbeats, and measure as ``flood`` does.

    Raises:
        RuntimeError: one was answered by an error, or not at all.
    """
    threads = min(_THREADS, what.connections)
    told = {"BEATS_FILE": str(what.lines), "BEATS_METHOD": what.method, "BEATS_THREADS": str(threads)}
    return _run(_BEATS, url, pids, what, told)


def get(url: str, pids: Sequence[int], what: Gets) -> Measured | None:
    """Ask for the same document again and again, and measure as ``flood`` does.

    Raises:
        RuntimeError: a request was answered by an error, or not at all.
    """
    told = {"GET_ETAG": what.etag, "GET_CODING": what.coding, "GET_ACCEPT": what.accept}
    return _run(_GET, url, pids, what, {name: value for name, value in told.items() if value})


@contextlib.contextmanager
def digests(url: str, lines: Path, rate: float, connections: int) -> Iterator[None]:
    """Send the digests of a file, a line each, at this rate until the end of the block.

    Each is sent with a number of its own, in place of ``"sequence":7``.
    """
    pause = round(1000 * connections / rate)
    told = {
        "DIGESTS_FILE": str(lines),
        "DIGESTS_PAUSE": str(pause),
        "DIGESTS_SEQUENCE": str(time.monotonic_ns() // 1024),
    }
    with subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", "-d3600s", "-s", str(_DIGESTS), url],  # noqa: S607  # on the PATH
        env=os.environ | told,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as sending:
        try:
            yield
        finally:
            sending.kill()


def _run(
    script: Path, url: str, pids: Sequence[int], what: Flood | Beats | Gets, told: dict[str, str]
) -> Measured | None:
    size = [f"-t{min(_THREADS, what.connections)}", f"-c{what.connections}", f"-d{max(1, round(what.seconds))}s"]
    before = _used(pids)
    run = subprocess.run(
        ["wrk", *size, "--timeout", "10s", "-s", str(script), url],  # noqa: S607  # on the PATH
        env=os.environ | told | ({"BENCH_TOKEN": what.token} if what.token else {}),
        capture_output=True,
        check=True,
        preexec_fn=prefer_this_process if isinstance(what, Flood) and what.preferred else None,
    )
    used = _used(pids) - before
    _wait_until_idle(pids)
    summary = msgspec.json.decode(run.stdout.splitlines()[-1], type=_Summary)
    if summary.failed:
        raise RuntimeError(f"{url}: {summary.failed} requests failed: {run.stdout.decode()}")
    if not summary.requests:
        return None
    rate = summary.requests / summary.microseconds * 1e6
    cpu = used / summary.requests * 1e6
    kilobytes = summary.bytes / summary.requests / 1000
    return Measured(rate, summary.p50 / 1000, summary.p99 / 1000, cpu, summary.p90 / 1000, kilobytes)


def _wait_until_idle(pids: Sequence[int]) -> None:
    """Wait until a server has worked off what was under way, which would otherwise slow down the next one."""
    end = time.monotonic() + _PATIENCE
    before = -1.0
    while (used := _used(pids)) - before > _IDLE * _LOOK and time.monotonic() < end:
        before = used
        time.sleep(_LOOK)


def _used(pids: Sequence[int]) -> float:
    return sum(map(cpu_seconds, pids))
