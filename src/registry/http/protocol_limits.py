"""Rules of HTTP/1.1 that uvicorn's protocol lacks: size limits, a deadline, trailers and upgrades.

Without the size limits one connection takes all memory with a head, a chunk extension or trailers that never end.
Without the deadline a client that vanishes in the middle of a request, or before its first one, leaves its connection
open for ever. uvicorn adds trailers to the headers of the request, and it stops reading a request that asks for
another protocol before the body of that request.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MAX_HEAD = 65_536
"""Bytes of a request's head, beyond those that arrive together with its first byte."""
_MAX_FRAMING = 65_536
"""Bytes of a request that are neither head nor body: chunk extensions and trailers."""
_CHUNK_FRAMING = 12
"""Bytes that each chunk may take beside its data without being counted: eight digits and two line ends."""
_MAX_TARGET = 65_536
"""Bytes of a request's target: the head that arrives together with its first byte may have more."""
_REQUEST_TIMEOUT = 60.0
"""Seconds from a request's first bytes to its last; they begin anew after the server did not read for a while."""
_FIRST_REQUEST_TIMEOUT = 2.0
"""Seconds that a new connection has for its first request when the server stops."""
_UPGRADE = b"upgrade"
_AUTHORITY_END = re.compile(rb"[/?#]")

log = logging.getLogger("uvicorn.error")


class BoundedProtocol(HttpToolsProtocol):
    """One connection of uvicorn's HTTP protocol, with these limits."""

    on_lost: Callable[[], None] | None = None
    """Called when the connection has ended; None: nobody counts it. Written by the acceptor before it begins."""
    _arriving = False
    """Whether a request has begun that is not complete yet."""
    _in_head = False
    """Whether the head of that request is not complete yet."""
    _received: int | None = None
    """Bytes received of the head, or behind it; None until the data in which that part began is read."""
    _body = 0
    """Bytes of the request's body that were read so far."""
    _chunks = 0
    """Chunks of the request's body that began so far."""
    _late: asyncio.TimerHandle | None = None
    """The deadline of the request that arrives; None while none does."""
    _unread = False
    """Whether the server stopped reading after that deadline was set, so that the client could not send in time."""
    _running: RequestResponseCycle | None = None
    """The request that the application answers, or answered last."""

    answered_at = 0.0
    """When a request was last answered without a new keep-alive timer, on the loop's clock. Written by FastProtocol."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin with a connection, and wait no longer for its first request than for a later one."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadlines, and tell the application that its client has disconnected."""
        self._unset_keepalive_if_required()
        self._arrived()
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells only the newest request; the application would go on with an earlier one.
            self._running.disconnected = True
            self._running.message_event.set()

    def shutdown(self) -> None:
        """Close the connection when the server stops, after the answer to a request that has begun to arrive.

        A connection without any request was accepted a moment ago: to close it would reset the request that it sends.
        """
        if self._arriving:
            return
        before: RequestResponseCycle | None = self.cycle
        if before is None:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(_FIRST_REQUEST_TIMEOUT, self.timeout_keep_alive_handler)
            return
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for too long, and wait on for one that was not."""
        left = self.answered_at + self.timeout_keep_alive - self.loop.time()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            left = self.timeout_keep_alive
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401  # as in uvicorn
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what arrived, and refuse a request that exceeds its limits."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._answer_400("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on(memoryview(data)[upgrade.args[0] :])
        if self._arriving:
            self._check_limits(len(data))

    def _expect_rest(self) -> None:
        """Give a request that is not complete its deadline, if it has none."""
        if self._late is None:
            self._late = self.loop.call_later(_REQUEST_TIMEOUT, self._on_late)

    def _check_limits(self, received: int) -> None:
        self._expect_rest()
        # uvicorn stops to read for what it has just received, never in between.
        self._unread = self._unread or self.flow.read_paused
        accounted = self._body + self._chunks * _CHUNK_FRAMING
        # The data in which a part begins may also hold the end of the part before; the read size bounds it.
        self._received = accounted if self._received is None else self._received + received
        if self.transport.is_closing():
            return
        if self._in_head and self._received > _MAX_HEAD:
            self._answer_400(f"The head of the request is longer than {_MAX_HEAD} bytes.")
        elif self._received - accounted > _MAX_FRAMING:
            self._answer_400(f"Chunk extensions and trailers of the request are longer than {_MAX_FRAMING} bytes.")

    def _answer_400(self, reason: str) -> None:
        """Answer 400 and close the connection."""
        log.warning("request_refused: %s", reason)
        self.send_400_response(reason)

    def _read_on(self, rest: memoryview) -> None:
        """Read a request that asks for another protocol as if it did not (RFC 9110, 7.8).

        The parser has stopped behind the head of that request. A new parser reads the same head without the field that
        asks, and then the rest. CONNECT stops the parser too, but there is nothing to read instead.

        Args:
            rest: what was received behind the head.
        """
        while not self.transport.is_closing():
            if self.parser.get_method() == b"CONNECT":
                self._answer_400("CONNECT is not supported; send the request itself.")
                return
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            try:
                self.parser.feed_data(head)
                self.parser.feed_data(rest)
            except httptools.HttpParserError:
                self._answer_400("Invalid HTTP request received.")
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                continue
            return

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != _UPGRADE]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Begin with a request, and with counting its bytes; the connection is idle no longer."""
        # Set again by the response to an earlier request in the same data.
        self._unset_keepalive_if_required()
        self._arriving = self._in_head = True
        self._received = None
        self._body = self._chunks = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; drop a trailer, which must not be merged into the headers (RFC 9110, 6.5.1)."""
        if not self._in_head:
            self._drop_trailer()
            return
        self.headers.append((name.lower(), value))

    def _drop_trailer(self) -> None:
        if self.cycle is not None and not self.parser.should_keep_alive():
            # The parser took the trailer `connection: close` for a header, and reads no further request.
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def on_headers_complete(self) -> None:
        """Check the target of a request whose head is complete, and begin to answer it."""
        if self.parser.should_upgrade():
            return
        self._in_head = False
        self._received = None
        # uvicorn looks for it at each header, which costs a poll more than to look once.
        self.expect_100_continue = any(_is_expectation(*header) for header in self.headers)
        if len(self.url) > _MAX_TARGET:
            raise httptools.HttpParserInvalidURLError(f"longer than {_MAX_TARGET} bytes")
        if self.url[:1] != b"/":
            self._take_host_of_target()
        super().on_headers_complete()

    def _take_host_of_target(self) -> None:
        """Replace the Host header by the host of an absolute target (RFC 9112, 3.2.2)."""
        _, scheme, rest = self.url.partition(b"://")
        hosts = [number for number, (name, _) in enumerate(self.headers) if name == b"host"]
        if scheme and len(hosts) == 1:
            authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
            self.headers[hosts[0]] = (b"host", authority.rpartition(b"@")[2])

    def on_chunk_header(self) -> None:
        """Count a chunk of the body."""
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """Count a piece of the body, and pass it on."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the deadline of a request that is complete."""
        if self.parser.should_upgrade():
            return
        self._arrived()
        super().on_message_complete()

    def _arrived(self) -> None:
        self._arriving = self._unread = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _on_late(self) -> None:
        self._late = None
        if self._unread:
            # An earlier response was not written yet, or the application did not ask for more of the body.
            self._unread = self.flow.read_paused
            self._late = self.loop.call_later(_REQUEST_TIMEOUT, self._on_late)
        else:
            self.transport.close()


def _is_expectation(name: bytes, value: bytes) -> bool:
    """Return whether a header says that the client waits for 100 Continue before it sends the body."""
    return name == b"expect" and value.lower() == b"100-continue"
