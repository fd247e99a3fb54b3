"""Child processes that are always ended, by their pid."""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

_PORTS = range(20_000, 32_000)
"""Below the ports of outgoing connections (net.ipv4.ip_local_port_range), which would take a port between two uses."""

_LOOK = 0.06
"""Seconds that a look at a condition takes on an idle machine, at most: a request, or a page of the console."""
_SHORTEST_PAUSE = 0.02
_LONGEST_PAUSE = 0.1
"""Seconds between two looks. Most are requests, which cost both ends processor time."""
_LATENESS = 0.1
"""The next pause, as a part of the time waited so far."""


class Child(Protocol):
    """A process that a test started: a ``subprocess.Popen``, or a fork of ``harness.preloaded``."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class _ClaimedPorts:
    """The ports that this process has been given, which no other process of tests is given while this one lives.

    Each is a locked byte of one file, at the offset of its number, so that a port stays claimed between its choice and
    its use, and while a server is away that a test starts again. The kernel unlocks all when this process ends.
    """

    def __init__(self) -> None:
        self._process = 0
        """The process that holds the locks: a fork has none of its parent's."""
        self._file = -1
        self._ports = set[int]()

    def claim(self, port: int) -> bool:
        """Claim a port; return whether it was still free."""
        if self._process != os.getpid():
            self._open()
        if port in self._ports:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        self._ports.add(port)
        return True

    def _open(self) -> None:
        # Kept open: to close any descriptor of a file unlocks all that the process has locked in it.
        path = Path(tempfile.gettempdir()) / f"headcount-test-ports-{os.getuid()}"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._process = os.getpid()
        self._ports = set()


_claimed = _ClaimedPorts()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on, and that no other test is given, in this process or another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Not of the random numbers that a test has seeded: several processes of tests would try the same ports.
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if not _claimed.claim(port):
            continue
        with socket.socket(family, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise OSError(f"no port of {host} from {_PORTS.start} to {_PORTS[-1]} is free")


def script(name: str) -> list[str]:
    """Return the command line of one of the project's own programs, as installed beside this Python."""
    return [sys.executable, "-m", f"{name}.cli"]


@contextlib.contextmanager
def running(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path, folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the length of the block, in ``folder``; its output goes to ``log``."""
    with log.open("ab") as out:
        child = subprocess.Popen(command, env=dict(env) if env else None, stdout=out, stderr=out, cwd=folder)
    try:
        yield child
    finally:
        end(child)


def end(child: Child, *, patience: float = 15.0) -> int:
    """End a child with SIGTERM, or SIGKILL when it does not listen; return its exit status."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
            os.kill(child.pid, signal.SIGTERM)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def _crowd() -> float:
    """Return how many processes there are for each core, over the last minute; at least one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(
    condition: Callable[[], bool], *, within: float = 10.0, every: float | None = None, said: Callable[[], str] = str
) -> float:
    """Wait until ``condition`` holds; return the seconds it took.

    It looks each ``every`` seconds, or else often at first and each tenth of a second later: what it returns is late by
    a tenth of it at most.

    Where one look takes long, because the machine is busy, what is waited for takes long as well: it has as many looks
    as an idle machine takes in the time, each process that wants a core lengthens the time, and five times the time is
    the most.

    Raises:
        AssertionError: it did not hold in time; ``said`` tells what there was instead.
    """
    # What the looks so far and their pauses take on an idle machine.
    idle, started = 0.0, time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        pause = every if every is not None else min(max(_SHORTEST_PAUSE, _LATENESS * waited), _LONGEST_PAUSE)
        idle += pause + _LOOK
        enough = waited > within * _crowd() and idle > within
        if enough or waited > 5 * within:
            raise AssertionError(f"not within {within} s: {said()}")
        time.sleep(pause)
    return time.monotonic() - started
