"""Reaping of orphans: PID 1 of a container is the parent of every orphaned process and has to reap it."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Never

REAP_INTERVAL = 2.0
"""Seconds between two scans; asyncio reaps its own children within milliseconds."""

# Indexes of fields of /proc/<pid>/stat, counted from the one behind the command's name (proc(5)).
_STATE, _PARENT, _START = 0, 1, 19

# A process id and the start time of the process: the kernel reuses ids.
Zombie = tuple[int, int]

# The running children that were started here; asyncio waits for them. Written by start_child alone.
_own: list[asyncio.subprocess.Process] = []


async def start_child(*command: str, **options: Any) -> asyncio.subprocess.Process:  # noqa: ANN401  # as asyncio's
    """Start a child process that ``OrphanReaper`` leaves to asyncio.

    Raises:
        OSError: the command cannot be executed.
    """
    process = await asyncio.create_subprocess_exec(*command, **options)
    _own[:] = [*(child for child in _own if child.returncode is None), process]
    return process


class OrphanReaper:
    """Reaps zombies that are children of this process without having been started by it.

    Children that asyncio waits for are left to it. A process is reaped if it is a zombie in two scans in a row, which
    spares a child that asyncio has just started and not registered yet.
    """

    def __init__(self, interval: float = REAP_INTERVAL) -> None:
        self._interval = interval
        # Zombies of the previous scan, without asyncio's own.
        self._seen: set[Zombie] = set()

    async def run(self) -> Never:
        """Scan until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            self.reap()

    def reap(self) -> None:
        """Reap the processes that are zombies now and were in the previous scan."""
        own = {process.pid for process in _own if process.returncode is None}
        zombies = {zombie for zombie in _zombies() if zombie[0] not in own} if _any_zombie() else set()
        for pid, _ in zombies & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies


def _any_zombie() -> bool:
    """Tell whether any child is a zombie: one waitid(2) with WNOWAIT, where reading /proc takes many calls."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _zombies() -> Iterator[Zombie]:
    """Yield the zombies among the children of this process."""
    own_pid = str(os.getpid())
    for process in Path("/proc").glob("[1-9]*"):
        try:
            fields = (process / "stat").read_bytes().rpartition(b") ")[2].decode("ascii").split()
        except OSError:
            # The process was reaped meanwhile.
            continue
        if fields[_STATE] == "Z" and fields[_PARENT] == own_pid:
            yield int(process.name), int(fields[_START])
