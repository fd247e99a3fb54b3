"""The program of the process that evaluates Jsonnet: for each line of its input, a line of its output."""

import resource
import sys

import msgspec
from msgspec import Struct

MAX_MEMORY = 1024 * 1024 * 1024
"""Bytes of data that the process may allocate beside what it has at its start."""


class Task(Struct, frozen=True):
    """A text to evaluate, and the path of its file, beside which its imports are looked for."""

    file: str
    source: str


class Outcome(Struct, frozen=True):
    """The document that a text evaluates to, or else why there is none."""

    document: str = ""
    error: str = ""


def main() -> None:
    """Evaluate until the input ends."""
    import _gojsonnet  # noqa: PLC0415  # an extra, and 13 MB that this process alone loads

    # Go reserves address space that it does not use, which a limit of that would refuse.
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    for line in sys.stdin.buffer:
        task = msgspec.json.decode(line, type=Task)
        try:
            outcome = Outcome(document=_gojsonnet.evaluate_snippet(task.file, task.source))
        except RuntimeError as error:
            outcome = Outcome(error=str(error) or "it cannot be evaluated")
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
