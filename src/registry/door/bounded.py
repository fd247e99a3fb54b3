"""uvicorn's protocol with what it leaves without bounds: how long a request's head may be, and how long it may come.

Without them one connection takes all memory with a head that never ends, and whoever vanishes in the middle of a
request, or before its first one, leaves its connection open for ever.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_LONGEST_HEAD = 65_536
_ARRIVAL = 60.0
"""Seconds from a request's first bytes to its last, while we read."""
_FIRST_REQUEST = 1.0
"""Seconds that a new connection has for its first request when the server stops."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _arriving = False
    _in_head = False
    _head: int | None = None
    _late: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Wait no longer for the first request than for the next one."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._unset_keepalive_if_required()
        self._arrived()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the newest request alone, and what is behind it would wait, and write, for nobody.
            self._running.disconnected = True
            self._running.message_event.set()

    def shutdown(self) -> None:
        """Close the connection when the server stops, after the answer to a request that has begun to arrive.

        A connection that never had a request was accepted a moment ago: to close it would reset what it sends.
        """
        if self._arriving:
            return
        before: RequestResponseCycle | None = self.cycle
        if before is None:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(_FIRST_REQUEST, self.timeout_keep_alive_handler)
            return
        super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401  # as in uvicorn
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Read on, and look whether the request that is not whole yet keeps its bounds."""
        super().data_received(data)
        if not self._arriving:
            return
        if self._late is None:
            self._late = self.loop.call_later(_ARRIVAL, self._on_late)
        if self._in_head:
            # What it begins in may have the end of another one, and is bounded by what is read at a time.
            self._head = 0 if self._head is None else self._head + len(data)
            if self._head > _LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response(f"The head of the request is longer than {_LONGEST_HEAD} bytes.")

    def on_message_begin(self) -> None:
        """Begin with a request."""
        self._arriving = self._in_head = True
        self._head = None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Have the head."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Have all of it."""
        self._arrived()
        super().on_message_complete()

    def _arrived(self) -> None:
        self._arriving = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _on_late(self) -> None:
        self._late = None
        if self.flow.read_paused:
            # It is we who do not read: an answer before it is not written, or nobody asks for its body yet.
            self._late = self.loop.call_later(_ARRIVAL, self._on_late)
        else:
            self.transport.close()
