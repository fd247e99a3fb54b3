"""The rule by which a worker counts as hung: its event loop no longer runs, and so its connections hang.

The kernel spreads connections over the sockets of all workers, also over that of a worker which never accepts. So each
worker shows a sign of life once a second from its event loop, and the supervisor kills one that is silent for too long.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SIGN_INTERVAL = 1.0
"""Seconds between two signs of life of a worker."""
_SIGN = struct.Struct("=II")
"""A sign of life: the process id, and 1 if the worker serves. A pipe takes it whole or not at all (PIPE_BUF)."""
_MAX_STEP = 2.0
"""Seconds that count at most between two looks: this process was stopped, or the machine slept, for the rest."""
_START_TIMEOUT = 300.0
"""Seconds of silence that are allowed until a worker serves: it imports the program, and reads all endpoints."""
_KILL_INTERVAL = 60.0
"""Seconds after which another worker may be killed although no replacement serves yet."""
_LIVELY = 3 * SIGN_INTERVAL
"""Seconds of silence up to which a worker surely runs."""
_STOP_PART = 3.0
"""When all stop, a worker is killed after the timeout divided by this: the time to stop is short."""
_MAX_SIGNS = 4096
"""Signs of life that are read at once."""


class Condition(NamedTuple):
    """The condition of a process, as the kernel tells it.

    Attributes:
        state: a letter of proc(5): R runs, S sleeps, D waits for a device, T is stopped; ? where that is not known.
        traced: whether a debugger is attached.
        waited: seconds for which its main thread has waited for a processor so far.
    """

    state: str
    traced: bool
    waited: float


class Hung(NamedTuple):
    """A worker that is to be killed.

    Attributes:
        pid: its process id.
        silent_for: seconds without a sign of life, without those for which it waited for a processor.
        state: as in Condition.
    """

    pid: int
    silent_for: float
    state: str


class _Worker:
    """A worker that is watched.

    Args:
        heard: the time on the watchdog's own clock.
        waited: seconds for which it had waited for a processor then.
    """

    def __init__(self, heard: float, waited: float) -> None:
        self.heard = heard
        """When its last sign of life came, or when it was started."""
        self.waited = waited
        """Seconds for which it had waited for a processor then."""
        self.serves = False
        """Whether it has come to serve."""
        self.killed = False
        """Whether it was told to be killed, and has not ended yet."""


class WorkerWatchdog:
    """Finds the worker that is to be killed, one at a time.

    Time is counted by the looks of the supervisor: while the supervisor was stopped, starved or suspended with the
    machine, no worker grows silent. Nor does one that waits for a processor, or to which a debugger is attached.

    Args:
        timeout: seconds of silence after which a worker is killed; several times the interval of signs.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._workers: dict[int, _Worker] = {}
        self._looked: float | None = None
        """When time passed last (monotonic)."""
        self._now = 0.0
        """Seconds that the supervisor has watched; the clock of everything here."""
        self._killed_at: float | None = None
        """When a worker was last to be killed."""
        self._stops = False
        """Whether all workers were told to stop."""

    def pass_time(self, now: float) -> None:
        """Take note that it is ``now`` (monotonic)."""
        if self._looked is not None:
            self._now += min(max(0.0, now - self._looked), _MAX_STEP)
        self._looked = now

    def started(self, pid: int) -> None:
        """Watch a worker from now on."""
        self._workers[pid] = _Worker(self._now, 0.0)

    def ended(self, pid: int) -> bool:
        """Forget a worker, and return whether it was to be killed."""
        worker = self._workers.pop(pid, None)
        return worker is not None and worker.killed

    def heard(self, pid: int, waited: float, *, serves: bool) -> bool:
        """Take note of a sign of life, and return whether the worker serves for the first time.

        Args:
            pid: the worker's process id.
            waited: seconds for which it has waited for a processor so far.
            serves: whether it serves.
        """
        worker = self._workers.get(pid)
        if worker is None:
            return False
        fresh = serves and not worker.serves
        worker.heard, worker.waited = self._now, waited
        worker.serves = worker.serves or serves
        return fresh

    def find_hung(self, read: Callable[[int], Condition], *, missing: int, stopping: bool) -> Hung | None:
        """Return a worker that is to be killed now, if there is one.

        Args:
            read: tells the condition of a process.
            missing: workers that are still to be started.
            stopping: whether all workers were told to stop; then one need not wait for the replacement of another.
        """
        if stopping and not self._stops:
            self._stops = True
            # One that hangs gets time to stop as all others do, which it may still use. What it waited before is over.
            for pid, worker in self._workers.items():
                worker.heard, worker.waited = self._now, read(pid).waited
        for pid, worker in self._workers.items():
            if worker.killed or self._silence(worker) <= _LIVELY:
                continue
            condition = read(pid)
            if condition.traced:
                # It gets the whole time once the debugger has gone.
                worker.heard, worker.waited = self._now, condition.waited
                continue
            silence = self._silence(worker) - max(0.0, condition.waited - worker.waited)
            if silence > self._limit(worker) and (stopping or self._may_kill(missing)):
                worker.killed, self._killed_at = True, self._now
                return Hung(pid, silence, condition.state)
        return None

    def _silence(self, worker: _Worker) -> float:
        return self._now - worker.heard

    def _limit(self, worker: _Worker) -> float:
        if self._stops:
            return self._timeout / _STOP_PART
        return self._timeout if worker.serves else max(_START_TIMEOUT, self._timeout)

    def _may_kill(self, missing: int) -> bool:
        """Return whether enough workers are left: all may be silent because something is wrong with the machine."""
        workers = self._workers.values()
        if missing == 0 and all(worker.serves and not worker.killed for worker in workers):
            return True
        if self._killed_at is not None and self._now - self._killed_at < _KILL_INTERVAL:
            return False
        # No replacement comes to serve; connections to the hung worker are better off at those that live.
        return any(worker.serves and self._now - worker.heard <= _LIVELY for worker in workers)


def show_life(descriptor: int, *, serves: bool) -> None:
    """Write a sign of life; it is lost where the pipe is full, as while the supervisor is stopped."""
    with suppress(OSError):
        os.write(descriptor, _SIGN.pack(os.getpid(), int(serves)))


def read_signs(descriptor: int) -> Iterator[tuple[int, bool]]:
    """Yield the process id, and whether it serves, of each sign of life that waits in a non-blocking descriptor."""
    with suppress(BlockingIOError):
        while signs := os.read(descriptor, _MAX_SIGNS * _SIGN.size):
            # Of a sign that is not whole, which no worker writes, nothing is known.
            for pid, serves in _SIGN.iter_unpack(signs[: len(signs) // _SIGN.size * _SIGN.size]):
                yield pid, bool(serves)


def condition_of(pid: int) -> Condition:
    """Return what the kernel says about a process; nothing is known where there is no /proc."""
    state, traced = "?", False
    with suppress(OSError, ValueError, LookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        state, traced = fields["State"][0], fields["TracerPid"] != "0"
    return Condition(state, traced, waited_for_processor(pid))


def waited_for_processor(pid: int) -> float:
    """Return the seconds for which a process's main thread waited for a processor; 0 where that is not known."""
    with suppress(OSError, ValueError, LookupError):
        # Time on a processor, time in the queue for one (both in nanoseconds), and turns.
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    return 0.0
