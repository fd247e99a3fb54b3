"""The parent of several workers: replaces those that end or hang, and stops them all.

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Never

from registry.worker_watchdog import Hung, WorkerWatchdog, condition_of, read_signs, waited_for_processor
from wire.log_stream import drain_log, flush_log, log_stream
from wire.sd_notify import notify, watchdog_interval

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The last one is sent by a terminal that closes."""

_RESTART_PAUSE = 1.0
"""Seconds between two starts of workers: one that ends at once is not restarted as fast as the machine can."""
_LONGEST_PAUSE = 10.0
"""Seconds to which the pause grows while no worker that is started comes to serve: each takes 2 s of processor time."""
_STDERR = 2
_SIGNAL_INTERVAL = 1.0
"""Seconds after which workers that have not ended are told to stop once more."""
DUMP_SIGNAL = signal.SIGUSR1
"""Lets a worker write the stacks of its threads to its file in the directory of metrics."""
_DUMP_TIMEOUT = 0.5
"""Seconds to wait for these stacks; a process that is stopped writes none."""
_DUMP_INTERVAL = 0.01
"""Seconds between two looks for them."""
_MAX_STACK = 6_000
"""Characters of them that the log has, from the end, where the main thread is."""
_ADDING_TIMEOUT = 10.0
"""Seconds after which the process that adds up metrics is killed: until it ends no worker is started."""


class Supervised(NamedTuple):
    """A parent and its workers: their process ids, and the descriptors between them.

    Attributes:
        workers: how many there are to be.
        children: the process ids of those that run.
        metrics: the directory in which they share their metrics.
        alive: a descriptor that reads the end of a file, in workers, when the parent has ended.
        own: the other end of it, which is open in the parent alone.
        signs: a non-blocking descriptor from which the parent reads the workers' signs of life.
        living: the other end of it, to which workers write.
        timeout: seconds without such a sign after which a worker counts as hung.
    """

    workers: int
    children: list[int]
    metrics: str
    alive: int
    own: int
    signs: int
    living: int
    timeout: float


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
        self._signs = supervised.signs
        self._start = start
        self._watchdog = WorkerWatchdog(supervised.timeout)
        self._adder: Adder | None = None
        """The process that adds up the metrics of ended workers; None: none runs."""
        self._ends = {"died": 0, "hung": 0}
        """Workers that have ended without being told to, by reason, since this program began."""
        self._pause = _RESTART_PAUSE
        """Seconds until another worker is started; it doubles with each start, until a worker serves."""
        self._start_due = 0.0
        """When a worker may be started next (monotonic)."""
        self._stopping = False
        self._notified_at = 0.0
        """When systemd was last told that this program runs (monotonic)."""
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
        for pid in self._children:
            self._watchdog.started(pid)
        while True:
            self._reap()
            self._fill()
            self._look_for_hung()
            # Workers that are just starting lose what they are sent: so they are told again and again.
            self._signal_children()
            if self._stopping and not self._children:
                if self._adder is not None:
                    self._adder.kill()
                return 0
            self._notify_systemd()
            flush_log()
            self._wait()

    def _wait(self) -> None:
        readable, _, _ = select.select([self._signs, self._woken], [], [], _SIGNAL_INTERVAL)
        self._watchdog.pass_time(time.monotonic())
        if self._woken in readable:
            os.read(self._woken, 4_096)
        for pid, serves in read_signs(self._signs):
            if self._watchdog.heard(pid, waited_for_processor(pid), serves=serves):
                self._note_serving()

    def _note_serving(self) -> None:
        self._pause = _RESTART_PAUSE
        self._start_due = min(self._start_due, time.monotonic() + self._pause)
        # A worker may become ready when this process has said that it stops: systemd would take that back.
        if not self._stopping:
            notify("READY=1")

    def _notify_systemd(self) -> None:
        """Tell systemd's watchdog that this program runs; the workers are its own business."""
        interval = watchdog_interval()
        if interval is not None and time.monotonic() - self._notified_at > interval / 3:
            self._notified_at = time.monotonic()
            notify("WATCHDOG=1")

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
            elif self._adder is not None and pid == self._adder.pid:
                self._adder.note_end(os.waitstatus_to_exitcode(status))
                self._adder = None
        # Said here, and not by what replaces them: that may not come so far.
        for pid, exitcode in ended:
            self._note_end(pid, exitcode)
        if ended and not self._stopping:
            self._add_up()

    def _note_end(self, pid: int, exitcode: int) -> None:
        reason = "hung" if self._watchdog.ended(pid) else "died"
        if not self._stopping:
            self._ends[reason] += 1
            _say("worker_died", pid=pid, exitcode=exitcode)

    def _add_up(self) -> None:
        """Begin to add up the metrics of ended workers; one that already does so knows less of who has ended."""
        if self._adder is not None:
            self._adder.kill()
        try:
            self._adder = Adder.start(self._metrics, self._children, self._ends)
        except OSError as error:
            self._adder = None
            _say("worker_metrics_not_added_up", reason=str(error))

    def _fill(self) -> None:
        missing = self._workers - len(self._children)
        if self._stopping or missing <= 0 or time.monotonic() < self._start_due or self._adds_up():
            return
        # Until the child has handlers of its own, a signal would reach those of its parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._start_due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        try:
            pid = self._start()
            self._children.append(pid)
            self._watchdog.started(pid)
        except OSError as error:
            _say("worker_not_started", reason=str(error))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _adds_up(self) -> bool:
        """Tell whether metrics are being added up: the files of a worker that starts now would be taken for ended."""
        if self._adder is not None and self._adder.is_late():
            self._adder.kill()
            self._adder = None
            _say("worker_metrics_not_added_up", reason=f"it took more than {_ADDING_TIMEOUT:g} s")
        return self._adder is not None

    def _look_for_hung(self) -> None:
        missing = self._workers - len(self._children)
        hung = self._watchdog.find_hung(condition_of, missing=missing, stopping=self._stopping)
        if hung is not None:
            stack = _stack_of(hung, self._metrics)
            _say("worker_hung", pid=hung.pid, silent_for=round(hung.silent_for, 1), state=hung.state, stack=stack)
            os.kill(hung.pid, signal.SIGKILL)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        notify("STOPPING=1")

    def _signal_children(self) -> None:
        for pid in self._children if self._stopping else ():
            os.kill(pid, signal.SIGTERM)


def stack_file(metrics: Path, pid: int) -> Path:
    """Return the file to which a worker writes the stacks of its threads; it ends with the worker's metrics."""
    return metrics / f"stack_{pid}.txt"


def _stack_of(hung: Hung, metrics: Path) -> str:
    """Return where the threads of a worker are, as far as it still says so."""
    os.kill(hung.pid, DUMP_SIGNAL)
    last_look = time.monotonic() + _DUMP_TIMEOUT
    before = None
    while time.monotonic() < last_look:
        time.sleep(_DUMP_INTERVAL)
        with suppress(OSError):
            text = stack_file(metrics, hung.pid).read_text(errors="replace")
            # It is written line by line.
            if text and text == before:
                return text[-_MAX_STACK:]
            before = text
    return before or ""


class Adder(NamedTuple):
    """A child process that adds up the metrics of workers that have ended.

    Where the directory is full, a file is damaged, or a worker hangs in a scrape, that process fails and says so, and
    the parent of the workers lives on. Then the files stay, still count, and are added up when the next worker ends.

    Attributes:
        pid: its process id.
        started: when it was started (monotonic).
    """

    pid: int
    started: float

    @classmethod
    def start(cls, directory: Path, living: Sequence[int], ends: Mapping[str, int]) -> "Adder":
        """Start it.

        Args:
            directory: of the metrics.
            living: the process ids of all workers that run.
            ends: how many workers have ended so far, by reason.

        Raises:
            OSError: there is no process to be had.
        """
        pid = os.fork()
        if pid == 0:
            _add_up_as_child(directory, living, ends)
        return cls(pid, time.monotonic())

    def is_late(self) -> bool:
        """Tell whether it has taken longer than it may."""
        return time.monotonic() - self.started > _ADDING_TIMEOUT

    def kill(self) -> None:
        """End it at once: whatever it does not finish is done by the next one, or by the next scrape."""
        os.kill(self.pid, signal.SIGKILL)

    def note_end(self, exitcode: int) -> None:
        """Take note that it has ended; of its own accord it says itself why it failed."""
        if exitcode < 0:
            _say("worker_metrics_not_added_up", reason=f"the process that adds them up was ended by signal {-exitcode}")


def _add_up_as_child(directory: Path, living: Sequence[int], ends: Mapping[str, int]) -> Never:
    status = 1
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        from registry.worker_metrics import add_up_ended  # noqa: PLC0415  # the parent stays small

        add_up_ended(directory, living, ends)
        status = 0
    except Exception as error:  # noqa: BLE001  # whatever it is, the next worker that ends brings another try
        _say("worker_metrics_not_added_up", reason=str(error) or type(error).__name__)
    finally:
        drain_log()
        os._exit(status)


def become(supervised: Supervised) -> None:
    """Go on as the small program; signals to stop are blocked, and stay so until it takes them.

    Raises:
        OSError: Python cannot be executed any more.
    """
    # Not in the arguments, where people read them: the process ids there would be those of the beginning for ever.
    state, written = os.pipe()
    os.write(written, json.dumps(supervised).encode())
    os.close(written)
    for descriptor in (state, *_inherited(supervised)):
        os.set_inheritable(descriptor, True)  # positional alone
    sys.stdout.flush()
    sys.stderr.flush()
    drain_log()
    arguments = ["-m", "registry.supervisor", "registry serve", f"--workers={supervised.workers}", f"--state={state}"]
    os.execv(sys.executable, [*python_command(), *arguments])  # noqa: S606  # no shell


def _inherited(supervised: Supervised) -> tuple[int, ...]:
    return supervised.alive, supervised.own, supervised.signs, supervised.living


def name_process() -> None:
    """Let `ps`, `top` and `pgrep` show a process that Python was executed for as they show the program itself."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text("registry")


def main() -> int:
    """Supervise the workers that the last argument has a descriptor of."""
    name_process()
    with open(int(sys.argv[-1].partition("=")[2]), encoding="utf-8") as state:  # noqa: PTH123  # a descriptor
        supervised = Supervised(*json.load(state))
    for descriptor in _inherited(supervised):
        os.set_inheritable(descriptor, False)  # positional alone
    try:
        return Supervisor(supervised, partial(_start_worker, supervised)).run()
    finally:
        import shutil  # noqa: PLC0415  # at the end alone

        shutil.rmtree(supervised.metrics, ignore_errors=True)


def python_command() -> list[str]:
    """Return the command of a Python that finds modules where this process finds them, if any does."""
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
        for descriptor in (supervised.alive, supervised.living):
            os.set_inheritable(descriptor, True)  # positional alone
        arguments = [str(supervised.alive), str(supervised.living)]
        os.execv(sys.executable, [*python_command(), "-m", "registry.cli", "worker", *arguments])  # noqa: S606  # no shell
    except OSError as error:
        _say("worker_not_started", reason=str(error))
    finally:
        drain_log()
        os._exit(1)


def _say(event: str, **fields: str | float) -> None:
    """Write an event as the log has them; the parent has no logger."""
    now = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06}Z"
    line = json.dumps(fields | {"event": event, "level": "error", "timestamp": at})
    # Who reads the log may be gone, or read no more, and the workers are to live on.
    stream = log_stream()
    if stream is not None:
        stream.write(f"{line}\n")
        return
    with suppress(OSError):
        os.write(_STDERR, f"{line}\n".encode())


def _note(_number: int, _frame: FrameType | None) -> None:
    """Let the wait end: a child has ended."""


if __name__ == "__main__":
    sys.exit(main())
