"""The program of the compiler's process: reads a job from its input, and writes the result to its output."""

import os
import resource
import signal
import sys
from types import FrameType

import msgspec

from registry.compiler.job import Job, Result
from registry.compiler.work import work

_MAX_MEMORY = 2 * 1024 * 1024 * 1024
"""Bytes of data that the process may allocate."""
_MAX_CPU = 120
"""Seconds of a processor that it may take; an Envoy that it starts has limits of its own."""
_NICE = 10
"""By how much it gives way to the processes that answer polls and heartbeats."""

_decoder = msgspec.msgpack.Decoder(Job)


def main() -> None:
    """Do one job."""
    signal.signal(signal.SIGTERM, _end)
    os.nice(_NICE)
    for limit, value in ((resource.RLIMIT_DATA, _MAX_MEMORY), (resource.RLIMIT_CPU, _MAX_CPU)):
        # The hard limit stays: the Envoy that this process may start gets its own.
        resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
    result: Result = work(_decoder.decode(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


def _end(_signal: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that an Envoy is ended and its directory removed."""
    sys.exit(1)


if __name__ == "__main__":
    main()
