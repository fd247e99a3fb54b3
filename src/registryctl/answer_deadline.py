"""The end of a request whose answer comes byte by byte, since an HTTP client limits each read alone."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

_OPENED = ("connection.connect_tcp.complete", "connection.start_tls.complete")
"""Events of httpx (extension ``trace``) that bring a connection, whose socket is another one under TLS."""


class AnswerDeadline:
    """Closes the connection of a request that takes too long in all."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        """Of the newest connection: requests are sent one after the other. Written by note()."""

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Take the socket of a connection that was opened, as the trace function of httpx."""
        if event in _OPENED:
            self._socket = info["return_value"].get_extra_info("socket")

    @contextmanager
    def within(self, seconds: float) -> Iterator[threading.Event]:
        """Close the connection after so many seconds, unless the block is done; the event is set when it was closed."""
        over = threading.Event()
        timer = threading.Timer(seconds, self._close, (over,))
        timer.daemon = True
        timer.start()
        try:
            yield over
        finally:
            timer.cancel()

    def _close(self, over: threading.Event) -> None:
        over.set()
        if self._socket is not None:
            # It may be closed already. The method of TLS sockets would change what the other thread reads with.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
