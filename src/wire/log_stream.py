"""The stream of the log, which never waits for its reader.

A pipe holds 64 KiB. Where the program at its other end has stopped reading (a pager, a log driver that hangs), a write
waits for ever, and with it the event loop, and all that it serves.
"""

import functools
import json
import os
import socket
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_MAX_WAITING = 1_048_576
"""Bytes of lines that wait for the reader; further lines are lost, and counted."""


Channel = Callable[[bytes], int]
"""Writes a part of some bytes and returns its length, or raises BlockingIOError: the reader has to read first."""


class LogStream:
    """A text stream that keeps what its reader does not take yet, and loses what is too much.

    Args:
        channel: takes the bytes.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[bytes] = deque()
        """Lines that the reader has not taken, each of which is written by itself: other processes write there too."""
        self._size = 0
        """The bytes of all lines that wait."""
        self._lost = 0
        """Lines that were lost since the last one that was taken."""

    def write(self, text: str) -> int:
        """Write whole lines, now or with later ones."""
        data = text.encode(errors="backslashreplace")
        if self._size + len(data) > _MAX_WAITING:
            self._lost += 1
        else:
            self._put(data)
        self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what the reader takes now."""
        while self._waiting:
            line = self._waiting.popleft()
            self._size -= len(line)
            try:
                written = self._channel(line)
            except BlockingIOError:
                written = 0
            except OSError:
                # Nobody is there to read it.
                continue
            if written < len(line):
                self._waiting.appendleft(line[written:])
                self._size += len(line) - written
                return
            if self._lost:
                lost, self._lost = self._lost, 0
                self._put(_lost_line(lost))

    def isatty(self) -> bool:
        """Tell that it is no terminal."""
        return False

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)


def _lost_line(lines: int) -> bytes:
    now = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06}Z"
    line = {"event": "log_lines_lost", "level": "warning", "lines": lines, "timestamp": at}
    return f"{json.dumps(line)}\n".encode()


@functools.cache
def log_stream() -> LogStream | None:
    """Return the stream for the standard error output, or None where writing to that does not wait for a reader.

    Its flags are not changed, which other programs share: it is opened once more, for this process and its forks.
    """
    errors = sys.__stderr__
    return None if errors is None or sys.stderr is not errors else stream_of(errors.fileno())


def stream_of(descriptor: int) -> LogStream | None:
    """Return a stream for a descriptor, as log_stream() does for that of errors."""
    with suppress(OSError):
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(kind):
            return LogStream(functools.partial(os.write, _opened_again(descriptor)))
        if stat.S_ISSOCK(kind):
            sent = socket.socket(fileno=os.dup(descriptor))
            return LogStream(lambda data: sent.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL))
    return None


def _opened_again(descriptor: int) -> int:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(f"/proc/self/fd/{descriptor}", flags)
