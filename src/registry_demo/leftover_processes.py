"""Processes that outlived their parent, like the PostgreSQL of a registry that was killed."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from registry_demo.process import MARK

POLL_INTERVAL = 0.05
"""Seconds between two looks at the processes that are left."""


def find(directory: Path) -> list[int]:
    """Return the pids of all processes that came from the demo in ``directory``."""
    mark = f"{MARK}={directory}".encode()
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environment(entry)]


async def end(directory: Path, within: float) -> list[str]:
    """End the processes that are left, by force after ``within`` seconds, and return their names."""
    pids = find(directory)
    names = [_name(pid) for pid in pids]
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients.
    _send(pids, signal.SIGINT)
    for _ in range(round(within / POLL_INTERVAL)):
        if not find(directory):
            return names
        await asyncio.sleep(POLL_INTERVAL)
    _send(find(directory), signal.SIGKILL)
    return names


def _environment(entry: Path) -> list[bytes]:
    with contextlib.suppress(OSError):
        return (entry / "environ").read_bytes().split(b"\0")
    return []


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()} (pid {pid})"
    return f"pid {pid}"


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
