"""`registry serve` and its other verbs, forked from a process that has imported all of theirs.

They are processes as any other: their own sockets, environment, output and exit status, and signals by their pid. Only
the second of imports is shared. `registry()` starts a registry from nothing where a test asks for more than settings.
"""

import array
import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

_MAX_REQUEST = 1 << 20
"""Bytes of a request: the words and the environment of the `registry` to fork."""
_IMPORT_TIMEOUT = 120.0
"""Seconds that the imports may take on a machine that is busy."""
_RUN_TIMEOUT = 120.0
"""Seconds that a verb may take that ends by itself."""


class Forked:
    """A forked `registry`: what tests use of a ``subprocess.Popen``."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        """The end of a pipe on which the exit status comes."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not in time.
        """
        if self.returncode is None:
            # Not select(2), which takes no descriptor above 1023: some tests have many.
            waiting = select.poll()
            waiting.register(self._status, select.POLLIN)
            if not waiting.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("registry", timeout or 0)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Preloaded:
    """The process that registries are forked from. It ends with this one, because its socket does."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Without -P the folder of this file would be searched for `registry` first, and has one.
            command = [sys.executable, "-P", __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=_clean_environment())
        self._socket.settimeout(_IMPORT_TIMEOUT)
        atexit.register(self._close)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(10)

    def fork(
        self, words: Sequence[str], env: Mapping[str, str], out: int, err: int, file: Path | None = None
    ) -> Forked:
        """Start `registry` with these words and this environment; its output goes to two descriptors.

        A Python file, where one is given, is run in its place.
        """
        status, theirs = os.pipe()
        fds = array.array("i", [out, err, theirs])
        content = {"words": list(words), "env": dict(env), "folder": str(Path.cwd()), "file": file and str(file)}
        request = json.dumps(content).encode()
        self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        os.close(theirs)
        return Forked(int(self._socket.recv(16)), status)


_NETWORK = Path("/proc/thread-self/ns/net")
"""The network namespace of this thread; a test can move into one that it made."""
_home = _NETWORK.readlink()
_preloaded: list[_Preloaded] = []


def fork_registry(env: Mapping[str, str], log: Path, verb: str = "serve", file: Path | None = None) -> Forked:
    """Start a verb of `registry`, or of a file that ends as it does; its output goes to ``log``."""
    with log.open("ab") as out:
        return _the_preloaded().fork([verb], env, out.fileno(), out.fileno(), file)


def run_registry(*words: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `registry` with these words and this environment until it ends, for two minutes at most."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = _the_preloaded().fork(words, env, out.fileno(), err.fileno())
        try:
            status = child.wait(_RUN_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess(["registry", *words], status, out.read(), err.read())


def _the_preloaded() -> _Preloaded:
    if not _preloaded:
        _preloaded.append(_Preloaded())
    return _preloaded[0]


def is_elsewhere() -> bool:
    """Return whether this thread is in another network namespace than the process that registries are forked from."""
    return _NETWORK.readlink() != _home


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}


def _serve_forks(control: socket.socket) -> Callable[[], object] | None:
    """Fork registries until the tests end. Returns what to run in a fork, and None at the end."""
    statuses: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([control.fileno(), *statuses], [], [])[0]:
            if ready != control.fileno():
                _report(ready, *statuses.pop(ready))
                continue
            request, ancillary, *_ = control.recvmsg(_MAX_REQUEST, socket.CMSG_SPACE(12))
            if not request:
                return None
            out, err, status = array.array("i", ancillary[0][2])
            pid = os.fork()
            if pid == 0:
                os.dup2(out, 1)
                os.dup2(err, 2)
                os.closerange(3, 1 << 16)
                return _become(json.loads(request))
            os.close(out)
            os.close(err)
            statuses[os.pidfd_open(pid)] = pid, status
            control.send(str(pid).encode())


def _report(pidfd: int, pid: int, status: int) -> None:
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(status, str(code).encode())
    os.close(status)


def _become(request: dict[str, object]) -> Callable[[], object]:
    env: Mapping[str, str] = request["env"]  # type: ignore[assignment]  # as fork() sends it
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(str(request["folder"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["registry", *request["words"]]  # type: ignore[misc]  # as fork() sends it
    file = request.get("file")
    return main if file is None else partial(runpy.run_path, str(file), run_name="__main__")


if __name__ == "__main__":
    gc.disable()
    import registry.embedded_postgresql
    import registry.store.migration
    import registry.usecases.first_token
    import registry.workers  # noqa: F401  # as the verbs do
    from registry.cli import main

    gc.freeze()
    gc.enable()
    # Ctrl-C is for the tests, which then close the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if run := _serve_forks(socket.socket(fileno=int(sys.argv[1]))):
        run()
