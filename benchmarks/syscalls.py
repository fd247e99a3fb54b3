"""System calls that a server makes for each request, counted by strace while a load runs."""

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks import wrk

MISSING = "strace is not installed; Debian and Ubuntu have it: apt install strace"
_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)
_ANSWERS = ("writev", "write", "sendto", "sendmsg")
"""The calls of which a server makes one for each response, or none."""


def installed() -> bool:
    """Return whether system calls can be counted here."""
    return shutil.which("strace") is not None


def count(pid: int, directory: Path, load: Callable[[], wrk.Measured | None]) -> dict[str, float] | None:
    """Return the calls for each response of a server and its children, by their name; None when they cannot be traced.

    Args:
        pid: the server.
        directory: for what strace writes.
        load: sends requests for a second or more.
    """
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    report = directory / "strace"
    command = ["strace", "-f", "-c", "-o", str(report), *(f"--attach={each}" for each in family)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as trace:
        # It says so for each thread that it traces, and would stop if nobody read that.
        reader = threading.Thread(target=lambda: trace.stderr and trace.stderr.read())
        reader.start()
        load()
        trace.send_signal(signal.SIGINT)
        trace.wait()
        reader.join()
    calls = {name: int(number) for number, name in _LINE.findall(report.read_text())} if report.is_file() else {}
    calls.pop("total", None)
    answers = max((calls.get(name, 0) for name in _ANSWERS), default=0)
    return {name: number / answers for name, number in calls.items()} if answers else None
