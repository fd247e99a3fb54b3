"""The stream of the log, which never waits for its reader.

A pipe holds 64 KiB. Where the program at its other end has stopped reading (a pager, a log driver that hangs), a write
waits for ever, and with it the event loop, and all that it serves.
"""

import atexit
import functools
import io
import json
import os
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, cast

_MAX_WAITING = 1_048_576
"""Bytes of lines that wait for the reader; further lines are lost, and counted."""
_MAX_BEGUN = 65_536
"""Characters of a line without its end that are kept; then it is written as it is."""
_DRAIN_TIMEOUT = 1.0
"""Seconds that the end of a process waits for the reader."""
_DRAIN_INTERVAL = 0.01
"""Seconds between two tries to write meanwhile."""


Channel = Callable[[bytes], int]
"""Writes a part of some bytes and returns its length, or raises BlockingIOError: the reader has to read first."""


class LogStream(io.TextIOBase):
    """A text stream that keeps what its reader does not take yet, and loses what is too much.

    Args:
        channel: takes the bytes.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.RLock()
        """Held while a thread writes; a finalizer that complains may come in between."""
        self._begun = ""
        """A line whose end is not written yet, as those of a traceback are written in parts."""
        self._waiting: deque[bytes] = deque()
        """Lines that the reader has not taken, each of which is written by itself: other processes write there too."""
        self._size = 0
        """The bytes of all lines that wait."""
        self._cut = False
        """Whether the reader took the beginning of the first line that waits."""
        self._lost = 0
        """Lines that were lost since the last one that was taken."""

    def write(self, text: str, /) -> int:
        """Write whole lines, now or with later ones; the beginning of a line waits for its end."""
        with self._lock:
            lines, newline, self._begun = (self._begun + text).rpartition("\n")
            if newline:
                self._add(f"{lines}\n")
            if len(self._begun) > _MAX_BEGUN:
                self._add_begun()
            self._pass_on()
        return len(text)

    def flush(self) -> None:
        """Write what the reader takes now."""
        with self._lock:
            self._add_begun()
            self._pass_on()

    def drain(self, seconds: float) -> None:
        """Write all lines, at most for so long; what the reader has not taken by then is lost, and counted."""
        last_try = time.monotonic() + seconds
        self.flush()
        while self._waiting and time.monotonic() < last_try:
            time.sleep(_DRAIN_INTERVAL)
            self.flush()
        with self._lock:
            if self._waiting:
                lost, cut = self._lost + len(self._waiting), self._cut
                self._empty()
                self._put((b"\n" if cut else b"") + _lost_line(lost))
                self._pass_on()

    def forget(self) -> None:
        """Forget, in a fork, the lines that the other process writes, and a thread of it that was writing."""
        self._lock = threading.RLock()
        self._begun = ""
        self._empty()

    def isatty(self) -> bool:
        """Tell that it is no terminal."""
        return False

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def _add_begun(self) -> None:
        if self._begun:
            text, self._begun = self._begun, ""
            self._add(text)

    def _add(self, text: str) -> None:
        data = text.encode(self.encoding, self.errors)
        if self._size + len(data) > _MAX_WAITING:
            self._lost += 1
        else:
            self._put(data)

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def _pass_on(self) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            self._size -= len(line)
            try:
                written = self._channel(line)
            except BlockingIOError:
                written = 0
            except OSError:
                # Nobody is there to read it; who comes later is told.
                self._lost, self._cut = self._lost + 1, False
                continue
            if written < len(line):
                self._waiting.appendleft(line[written:])
                self._size += len(line) - written
                self._cut = self._cut or written > 0
                return
            self._cut = False
            if self._lost:
                lost, self._lost = self._lost, 0
                self._put(_lost_line(lost))

    def _empty(self) -> None:
        self._waiting.clear()
        self._size, self._lost, self._cut = 0, 0, False


def _lost_line(lines: int) -> bytes:
    now = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06}Z"
    line = {"event": "log_lines_lost", "level": "warning", "lines": lines, "timestamp": at}
    return f"{json.dumps(line)}\n".encode()


@functools.cache
def log_stream() -> LogStream | None:
    """Return the stream for the standard error output, or None where writing to that does not wait for a reader.

    Its flags are not changed, which other programs share: it is opened once more, for this process and its forks. From
    then on the stream is sys.stderr too, to which Python writes tracebacks and warnings. A process that ends drains it;
    os._exit() and os.execv() do not, so call drain_log() before them.
    """
    errors = sys.__stderr__
    if errors is None or sys.stderr is not errors:
        return None
    stream = stream_of(errors.fileno())
    if stream is not None:
        sys.stderr = cast("TextIO", stream)
        os.register_at_fork(after_in_child=stream.forget)
        atexit.register(stream.drain, _DRAIN_TIMEOUT)
    return stream


def flush_log() -> None:
    """Write the lines that waited for the reader of the log, as far as it takes them now."""
    stream = log_stream()
    if stream is not None:
        stream.flush()


def drain_log() -> None:
    """Give the reader of the log a second to take what waits, before the end of this program."""
    stream = log_stream()
    if stream is not None:
        stream.drain(_DRAIN_TIMEOUT)


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
