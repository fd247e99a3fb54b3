"""A child process that is steered by lines, and answers each by a line of JSON."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Self

from harness.process import end


class Commands:
    """The standard input and output of a process."""

    def __init__(self, write: IO[bytes], read: IO[bytes]) -> None:
        self._write = write
        self._read = read

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Iterator[tuple[subprocess.Popen[bytes], Self]]:
        """Run a command until the end of the block; its errors are ours."""
        with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None, "it is a pipe"  # noqa: S101  # for the type checker
            assert process.stdout is not None, "it is a pipe"  # noqa: S101  # for the type checker
            try:
                yield process, cls(process.stdin, process.stdout)
            finally:
                end(process)

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command, and return its answer."""
        self._write.write(f"{command}\n".encode())
        self._write.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            RuntimeError: the process ended instead.
        """
        line = self._read.readline()
        if not line:
            raise RuntimeError("the process ended without an answer; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer
