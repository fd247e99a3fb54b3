"""uvicorn's protocol, from which requests that are answered without ASGI are taken early.

A request is taken when the parser has read its head, and the next one with the same head before the parser sees it: its
head is compared as a whole, and its body is cut out of what was received. Everything else goes on to the parser and to
ASGI as if nothing were taken.
"""

import asyncio
import time
from abc import abstractmethod
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from registry.auth.certificate import certificate_names
from registry.auth.principal import peer_of
from registry.http.asgi import DiscoveryMiddleware
from registry.http.certificate_protocol import CertificateProtocol
from registry.http.receive_buffer import Receiver
from registry.http.request_head import KeptHead, Place, RequestHead
from registry.xds.repeated_poll import FIRST_PART, LAST_PART, Piece

_NOBODY = asyncio.Event()
_MAX_PARTS = 500
"""Pieces of a body. An Envoy's poll comes in sixty; a piece of two bytes takes fifty, and uvicorn joins them."""


class Exchange:
    """A request that is answered without ASGI, with the attributes that uvicorn's protocol looks at.

    The start is that of a request for hosts or a list.
    """

    __slots__ = ("disconnected", "head", "keep_alive", "message_event", "parts", "response_complete", "started", "url")

    def __init__(self, head: RequestHead, url: bytes) -> None:
        self.head = head
        self.url = url
        if head.hosts is not None or head.listing is not None:
            self.started = time.perf_counter()
        self.keep_alive = head.keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NOBODY
        self.parts: list[Piece] = []
        """The body, in pieces, until there is a response or the poll is held. A view is that of the receive buffer,
        and good for as long as nothing else is received."""


class InterceptingProtocol(CertificateProtocol):
    """One connection. The application of its configuration is the middleware."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        middleware: DiscoveryMiddleware = config.app  # type: ignore[assignment]  # registry.server gives no other
        self._heads = middleware.heads
        self._max_body = middleware.max_body
        self._authentication = middleware.authentication
        self._sender = self._authentication.sender("")
        """The sender of the requests of this connection; made once the connection is."""
        self._reading: Exchange | None = None
        """The request whose body the parser reads, if it is taken. Written by on_headers_complete()."""
        self._kept: KeptHead | None = None
        """The newest head of a request that was taken and may be repeated. Written by _keep_head()."""
        self._missing = 0
        """Bytes of the body that is read without the parser which were not received yet; 0 while none is."""
        self._begun = 0
        """Requests that began in the data that is parsed now."""
        self._newest: RequestHead | None = None
        """The head of the newest of them, if it may be kept. Written by _read_head()."""
        self._intercepts = True
        """False while a request is parsed that was taken already and could not be answered."""

    @abstractmethod
    def _answer(self, exchange: Exchange) -> bool:
        """Answer a request that is complete, or begin to; return False for one that the application has to answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin with a connection, make its sender, and receive into the buffer of the process."""
        super().connection_made(transport)
        self._sender = self._authentication.sender(peer_of(self.client), certificate_names(self.certificate))
        transport.set_protocol(Receiver(self))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the request that was not complete."""
        self._reading = None
        super().connection_lost(exc)

    def data_received(self, data: bytes | memoryview) -> None:
        """Take a request whose head is kept; parse everything else."""
        kept = self._kept
        if self._missing:
            self._read_body(data)
        elif kept is not None and (place := kept.find(data)) is not None and self._takes(kept):
            self._take(kept, place, data)
        else:
            begins = not self._arriving
            self._begun = 0
            super().data_received(data)
            if begins and self._begun == 1 and self._newest is not None:
                self._kept = self._heads.keep(self._newest, self.url, data, self._body) or kept

    def _takes(self, kept: KeptHead) -> bool:
        """Return whether a request with this head is taken before the parser sees it."""
        return not self._arriving and self._is_free() and self._sender.identify(kept.head.authorization)

    def _take(self, kept: KeptHead, place: Place, data: bytes | memoryview) -> None:
        """Take a request that has begun, or is complete."""
        url, size, total = place
        exchange = Exchange(kept.head, url)
        self.cycle = exchange  # type: ignore[assignment]  # has what uvicorn looks at
        if len(data) == total:
            exchange.parts.append(data[size:])
            self._complete(exchange)
            return
        self._unset_keepalive_if_required()
        self._arriving = True
        self._missing = total - len(data)
        exchange.parts.append(bytes(data[size:]))
        self._expect_rest()

    def _read_body(self, data: bytes | memoryview) -> None:
        """Read on in the body of a request that was taken."""
        missing = self._missing
        exchange: Exchange = self.cycle  # type: ignore[assignment]  # written by _take()
        _add_part(exchange.parts, bytes(data[:missing]))
        self._missing = max(0, missing - len(data))
        if self._missing:
            return
        self._arrived()
        _join_end(exchange.parts)
        self._complete(exchange)
        if len(data) > missing and not self.transport.is_closing():
            self.data_received(data[missing:])

    def _complete(self, exchange: Exchange) -> None:
        """Have a request answered that was taken before the parser saw it, or parse it after all."""
        if self._answer(exchange):
            exchange.parts.clear()
            return
        kept = self._kept
        if kept is not None:
            self.cycle = None  # type: ignore[assignment]  # as before the first request
            self._intercepts = False
            try:
                super().data_received(b"".join((kept.bytes_of(exchange.url), *exchange.parts)))
            finally:
                self._intercepts = True

    def on_message_begin(self) -> None:
        """Begin with a request, and count it."""
        self._begun += 1
        self._newest = None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Decide whether a request is taken, as far as its head tells."""
        if self.transport.is_closing():
            # The answer to the request before it, in the same segment, said that it is the last (RFC 9112, 9.6).
            return
        head = self._read_head() if self._intercepts else None
        if head is None or not self._is_free() or not self._sender.identify(head.authorization):
            # Also a credential that has to be searched is not fast.
            super().on_headers_complete()
            return
        self._in_head = False
        self._received = None
        exchange = Exchange(head, self.url)
        self._reading = exchange
        self.cycle = exchange  # type: ignore[assignment]  # has what uvicorn looks at

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        exchange = self._reading
        if exchange is None:
            super().on_body(body)
            return
        exchange.parts.append(body)
        self._body += len(body)
        if self._body > self._max_body or len(exchange.parts) > _MAX_PARTS:
            self._hand_over(exchange)

    def on_message_complete(self) -> None:
        """Have a request that is complete answered, here or by the application."""
        exchange = self._reading
        if exchange is not None:
            if self._answer(exchange):
                exchange.parts.clear()
            else:
                self._hand_over(exchange)
                exchange = None
        self._reading = None
        if exchange is None:
            super().on_message_complete()
        else:
            self._arrived()

    def _is_free(self) -> bool:
        """Return whether this connection is in a state in which its next request can be answered without ASGI."""
        before: Any = self.cycle
        if (self.certificate is not None and self.ends) or (before is not None and not before.response_complete):
            return False
        return not self.flow.write_paused

    def _read_head(self) -> RequestHead | None:
        """Return the head that was parsed now; None for all kinds of requests that are not taken."""
        if self.parser.should_upgrade():
            return None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self._newest = self._heads.read(self.parser.get_method(), self.url, self.headers, keep_alive=keep_alive)
        return self._newest

    def _hand_over(self, exchange: Exchange) -> None:
        """Let uvicorn treat a request as if it had not begun here."""
        self._reading = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        super().on_headers_complete()
        # The pieces are counted once more there.
        self._body = 0
        super().on_body(b"".join(exchange.parts))


def _add_part(parts: list[Piece], part: bytes) -> None:
    """Add a piece of a body; the first one grows to its size, and there are never too many."""
    if len(parts) == 1 and len(parts[0]) < FIRST_PART:
        parts[0] = b"".join((parts[0], part))
    elif len(parts) < _MAX_PARTS:
        parts.append(part)
    else:
        parts[:] = [b"".join((*parts, part))]


def _join_end(parts: list[Piece]) -> None:
    """Join the last pieces of a body until they contain the part in which a poll's names are looked for."""
    while len(parts) > 1 and len(parts[-1]) < LAST_PART:
        parts[-2:] = [b"".join(parts[-2:])]
