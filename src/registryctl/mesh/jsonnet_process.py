"""A process that evaluates Jsonnet, with a limit of time for each file: Jsonnet itself bounds its stack alone."""

import os
import selectors
import subprocess
import sys
import time

import msgspec

from registryctl.mesh.jsonnet_child import MAX_MEMORY, Outcome, Task

EVALUATION_TIMEOUT = 10.0
"""Seconds for one file, with its imports."""

_READ_SIZE = 64 * 1024


class JsonnetProcess:
    """The process, which is started for the first file, and again after one that ended it.

    It ends by itself when this process is killed, because its input does.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        """The process that waits for files; None: there is none. Written by evaluate() and end()."""

    def evaluate(self, file: str, source: str) -> Outcome:
        """Return what a file evaluates to; one that takes too long, or too much memory, is an error."""
        process = self._process or self._start()
        try:
            line = self._ask(process, msgspec.json.encode(Task(file, source)) + b"\n")
        except TimeoutError:
            self.end()
            return Outcome(error=f"it is not evaluated within {EVALUATION_TIMEOUT:g} s; does a function call itself?")
        if line.endswith(b"\n"):
            return msgspec.json.decode(line, type=Outcome)
        self.end()
        return Outcome(error=f"its evaluation was ended, most likely for want of memory ({MAX_MEMORY >> 20} MB)")

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(  # our own program
            # Not from the working directory, which others may be able to write.
            [sys.executable, "-P", "-m", "registryctl.mesh.jsonnet_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], line: bytes) -> bytes:
        """Send a line, and return the one that comes back; without an end of line the process has ended.

        Raises:
            TimeoutError: it did not come in time.
        """
        assert process.stdin is not None  # noqa: S101  # it was started with pipes
        assert process.stdout is not None  # noqa: S101
        deadline = time.monotonic() + EVALUATION_TIMEOUT
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                chunk = os.read(process.stdout.fileno(), _READ_SIZE)
                if not chunk:
                    break
                answer += chunk
        return answer

    def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:
                pass
