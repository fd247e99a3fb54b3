"""Processes that outlived the one that started them, like the PostgreSQL of a registry that was killed."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from registry_demo.process import MARK

_STEP = 0.05


def find(directory: Path) -> list[int]:
    """Return the pids of all processes that came from the demo in ``directory``."""
    mark = f"{MARK}={directory}".encode()
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environment(entry)]


async def end(directory: Path, within: float) -> list[str]:
    """End what is left, by force after ``within`` seconds, and return the names of what was found."""
    found = find(directory)
    names = [_name(pid) for pid in found]
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients.
    _send(found, signal.SIGINT)
    for _ in range(round(within / _STEP)):
        if not find(directory):
            return names
        await asyncio.sleep(_STEP)
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
