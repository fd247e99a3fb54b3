"""Signals at the start, as the first process of a container and as any other."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.processes import environment

_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
_VERBS = (("run",), ("exec", "--", "sleep", "600"))


@pytest.fixture
def container() -> tuple[str, ...]:
    """The command whose argument is the first process of a PID namespace; skipped where that is not allowed."""
    done = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a PID namespace needs rights that are missing here: {done.stderr.strip()}")
    return _UNSHARE


@contextlib.asynccontextmanager
async def starting(environ: dict[str, str], *command: str) -> AsyncIterator[Process]:
    """Start a command and end it whatever happens."""
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            # The app of exec has our pipes too, and would be waited for.
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        await process.communicate()


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


async def first_handler(pid: int, number: int = signal.SIGTERM) -> None:
    """Wait for the first moment in which a signal is heard."""
    async with asyncio.timeout(20):
        while not catches(pid, number):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("verb", _VERBS, ids=["run", "exec"])
async def test_a_stop_at_the_start_of_a_container_ends_it(
    container: tuple[str, ...], registry: FakeRegistry, app: FakeApp, verb: tuple[str, ...]
) -> None:
    """The handler of PID 1 stands before the imports, and a SIGTERM that it hears ends the start with 0."""
    command = [*container, sys.executable, "-m", "registrar.cli", *verb]
    async with starting(environment(registry, app), *command) as outer:
        async with asyncio.timeout(20):
            while not children(outer.pid):
                await asyncio.sleep(0.001)
        (first,) = children(outer.pid)
        await first_handler(first)
        imported = Path(f"/proc/{first}/maps").read_text()
        assert "_asyncio" not in imported
        assert "msgspec" not in imported
        os.kill(first, signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await outer.wait() == 0
    assert registry.batches == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("verb", _VERBS, ids=["run", "exec"])
@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
async def test_a_stop_at_any_moment_of_the_start_ends_it_with_0(
    registry: FakeRegistry, app: FakeApp, delay: float, verb: tuple[str, ...], number: int
) -> None:
    """Whether Python imports, reads the settings or enters its loop: there is no traceback and no other status."""
    # With keep nothing is drained: whatever had begun ends at once.
    environ = environment(registry, app, REGISTRAR_ON_SIGTERM="drain", REGISTRAR_DRAIN_WAIT="0.1s")
    async with starting(environ, sys.executable, "-m", "registrar.cli", *verb) as process:
        await first_handler(process.pid)
        await asyncio.sleep(delay)
        process.send_signal(number)
        async with asyncio.timeout(10):
            _, said = await process.communicate()
    # An app that was started already ends by its SIGTERM, and its status is told.
    assert process.returncode in ((0, 143) if verb[0] == "exec" else (0,)), said.decode()
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("verb", "number"),
    [("run", signal.SIGHUP), ("exec", signal.SIGHUP), ("exec", signal.SIGUSR1), ("exec", signal.SIGQUIT)],
)
async def test_other_signals_at_the_start_end_nothing(
    registry: FakeRegistry, app: FakeApp, verb: str, number: int
) -> None:
    """A reload that comes early is made after the start; what is the app's finds no app yet."""
    registry.interval = 0.2
    command = [sys.executable, "-m", "registrar.cli", verb, *(("--", "sleep", "600") if verb == "exec" else ())]
    async with starting(environment(registry, app, REGISTRAR_CHECK_INTERVAL="100ms"), *command) as process:
        await first_handler(process.pid, number)
        process.send_signal(number)
        await registry.until(lambda: registry.batches, 15)
        assert process.returncode is None
