"""Processes that this one inherits: as the first process of a container, it is the parent of everybody's orphans."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Never

# Seconds between two looks: asyncio collects its own children within milliseconds.
_INTERVAL = 2.0
# Where a process is in /proc/<pid>/stat, counted behind the name of the command.
_STATE, _PARENT, _START = 0, 1, 19

# A process by its number and the moment of its start, since numbers are used again.
Zombie = tuple[int, int]

# The children that asyncio waits for.
_own: list[asyncio.subprocess.Process] = []


async def start_child(*command: str, **options: Any) -> asyncio.subprocess.Process:  # noqa: ANN401  # as asyncio's
    """Start a child that ``Orphans`` leaves to asyncio.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(*command, **options)
    _own[:] = [*(one for one in _own if one.returncode is None), process]
    return process


class OrphanReaper:
    """Collects children that nobody here started, once they have ended and nobody else has collected them.

    Whatever asyncio waits for is left alone. A child that asyncio is about to know is spared as well: only what is a
    zombie in two looks is collected.
    """

    def __init__(self, interval: float = _INTERVAL) -> None:
        self._interval = interval
        self._seen: set[Zombie] = set()

    async def run(self) -> Never:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            self.look()

    def look(self) -> None:
        """Collect what was a zombie in the look before and still is one."""
        own = {process.pid for process in _own if process.returncode is None}
        found = {zombie for zombie in _zombies() if zombie[0] not in own} if _any_zombie() else set()
        for pid, _ in found & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = found


def _any_zombie() -> bool:
    """Tell whether a child has ended, without collecting it: one system call, where reading /proc takes many."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _zombies() -> Iterator[Zombie]:
    """Yield the children that have ended and are not collected yet."""
    me = str(os.getpid())
    for process in Path("/proc").glob("[1-9]*"):
        try:
            told = (process / "stat").read_bytes().rpartition(b") ")[2].decode("ascii").split()
        except OSError:
            # It was collected meanwhile.
            continue
        if told[_STATE] == "Z" and told[_PARENT] == me:
            yield int(process.name), int(told[_START])
