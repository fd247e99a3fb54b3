"""The parent of several workers: replaces those that end, and stops them all.

It imports next to nothing. A parent that has imported the registry forks the first workers, and then becomes this
program (execve), with the same process id and the same children: otherwise it would keep 32 MiB of originals that its
workers have copied.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from wire.sd_notify import notify

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The last one is sent by a terminal that closes."""

_RESTART_PAUSE = 1.0
"""Seconds between two starts of workers: one that ends at once is not restarted as fast as the machine can."""
_LONGEST_PAUSE = 10.0
"""Seconds to which the pause grows while no worker that is started comes to serve: each takes 2 s of processor time."""
_STDERR = 2
_SIGNAL_INTERVAL = 1.0
"""Seconds after which workers that have not ended are told to stop once more."""


class Supervised(NamedTuple):
    """A parent and its workers: their process ids, and the descriptors between them.

    Attributes:
        workers: how many there are to be.
        children: the process ids of those that run.
        metrics: the directory in which they share their metrics.
        alive: a descriptor that reads the end of a file, in workers, when the parent has ended.
        own: the other end of it, which is open in the parent alone.
        ready: a descriptor from which the parent reads a byte for each worker that serves.
        serving: the other end of it, to which a worker writes.
    """

    workers: int
    children: list[int]
    metrics: str
    alive: int
    own: int
    ready: int
    serving: int


Start = Callable[[], int]
"""Starts a worker, and returns its process id."""


class Supervisor:
    """Keeps as many workers as there are to be, until it is told to stop.

    Args:
        supervised: the workers.
        start: starts another one, while signals to stop are blocked.
    """

    def __init__(self, supervised: Supervised, start: Start) -> None:
        self._workers = supervised.workers
        self._children = list(supervised.children)
        self._metrics = Path(supervised.metrics)
        self._ready = supervised.ready
        self._start = start
        self._pause = _RESTART_PAUSE
        """Seconds until another worker is started; it doubles with each start, until a worker serves."""
        self._start_due = 0.0
        """When a worker may be started next (monotonic)."""
        self._stopping = False
        self._woken, self._wake = os.pipe()
        """A byte is written here for each signal, so that the wait ends."""

    def run(self) -> int:
        """Return the exit status once all workers have ended; signals to stop may be blocked before."""
        for descriptor in (self._woken, self._wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        while True:
            self._reap()
            self._fill()
            # Workers that are just starting lose what they are sent: so they are told again and again.
            self._signal_children()
            if self._stopping and not self._children:
                return 0
            self._wait()

    def _wait(self) -> None:
        readable, _, _ = select.select([self._ready, self._woken], [], [], _SIGNAL_INTERVAL)
        if self._woken in readable:
            os.read(self._woken, 4_096)
        if self._ready in readable and os.read(self._ready, 1):
            self._pause = _RESTART_PAUSE
            self._start_due = min(self._start_due, time.monotonic() + self._pause)
            # A worker may become ready when this process has said that it stops: systemd would take that back.
            if not self._stopping:
                notify("READY=1")

    def _reap(self) -> None:
        """Take note of workers that have ended, and of other processes where this is process 1 of a container."""
        ended: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._children:
                self._children.remove(pid)
                ended.append((pid, os.waitstatus_to_exitcode(status)))
        if self._stopping or not ended:
            return
        # Said here, and not by what replaces them: that may not come so far.
        for pid, exitcode in ended:
            _say("worker_died", pid=pid, exitcode=exitcode)
        try:
            retire_workers(self._metrics, self._children)
        except OSError as error:
            _say("worker_metrics_not_added_up", reason=str(error))

    def _fill(self) -> None:
        missing = self._workers - len(self._children)
        if self._stopping or missing <= 0 or time.monotonic() < self._start_due:
            return
        # Until the child has handlers of its own, a signal would reach those of its parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._start_due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        try:
            self._children.append(self._start())
        except OSError as error:
            _say("worker_not_started", reason=str(error))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        notify("STOPPING=1")

    def _signal_children(self) -> None:
        for pid in self._children if self._stopping else ():
            os.kill(pid, signal.SIGTERM)


def retire_workers(directory: Path, living: Sequence[int]) -> None:
    """Add up the metrics of workers that have ended, in a child process, and wait for it.

    Where the directory is full, a file is damaged, or a worker hangs in a scrape, that process fails and says so, and
    the parent of the workers lives on. Then the files stay, still count, and are added up when the next worker ends.

    Raises:
        OSError: there is no process to be had.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from registry.worker_metrics import add_up_ended  # noqa: PLC0415  # the parent stays small

            add_up_ended(directory, living)
            status = 0
        except Exception as error:  # noqa: BLE001  # whatever it is, the next worker that ends brings another try
            _say("worker_metrics_not_added_up", reason=str(error) or type(error).__name__)
        finally:
            os._exit(status)
    os.waitpid(child, 0)


def become(supervised: Supervised) -> None:
    """Go on as the small program; signals to stop are blocked, and stay so until it takes them.

    Raises:
        OSError: Python cannot be executed any more.
    """
    for descriptor in (supervised.alive, supervised.own, supervised.ready, supervised.serving):
        os.set_inheritable(descriptor, True)  # positional alone
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [*_python(), "-m", "registry.supervisor", json.dumps(supervised)])  # noqa: S606  # no shell


def main() -> int:
    """Supervise the workers that the arguments name."""
    supervised = Supervised(*json.loads(sys.argv[1]))
    for descriptor in (supervised.alive, supervised.own, supervised.ready, supervised.serving):
        os.set_inheritable(descriptor, False)  # positional alone
    try:
        return Supervisor(supervised, partial(_start_worker, supervised)).run()
    finally:
        import shutil  # noqa: PLC0415  # at the end alone

        shutil.rmtree(supervised.metrics, ignore_errors=True)


def _python() -> list[str]:
    """Return the command of a Python that finds modules where this process finds them."""
    if sys.flags.isolated:  # as the packages start it: the environment and the user's modules are none of its business
        return [sys.executable, "-I"]
    if sys.path[:1] == [str(Path.cwd())]:  # `python -m registry.cli` among the sources
        return [sys.executable]
    return [sys.executable, "-P"]


def _start_worker(supervised: Supervised) -> int:
    """Start a process that imports the registry for itself: it shares no memory with the others."""
    child = os.fork()
    if child != 0:
        return child
    try:
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        # Out of the terminal's group: Ctrl-C goes to the parent, which signals its children once.
        os.setsid()
        for descriptor in (supervised.alive, supervised.serving):
            os.set_inheritable(descriptor, True)  # positional alone
        arguments = [str(supervised.alive), str(supervised.serving)]
        os.execv(sys.executable, [*_python(), "-m", "registry.cli", "worker", *arguments])  # noqa: S606  # no shell
    except OSError as error:
        _say("worker_not_started", reason=str(error))
    finally:
        os._exit(1)


def _say(event: str, **fields: str | int) -> None:
    """Write an event as the log has them; the parent has no logger."""
    now = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06}Z"
    line = json.dumps(fields | {"event": event, "level": "error", "timestamp": at})
    # Who reads the log may be gone, and the workers are to live on.
    with suppress(OSError):
        os.write(_STDERR, f"{line}\n".encode())


def _note(_number: int, _frame: FrameType | None) -> None:
    """Let the wait end: a child has ended."""


if __name__ == "__main__":
    sys.exit(main())
