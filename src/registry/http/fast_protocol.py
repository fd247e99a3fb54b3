"""The HTTP front in uvicorn's protocol: answers polls, heartbeats and v1 SDS before anything is built for ASGI.

uvicorn parses requests and keeps the connection; this protocol only takes over requests whose head uvicorn has read.
Every unusual request goes through ASGI, to the middleware and the application, as if this front were not there: one
behind another that is not answered yet, one that waits for 100 Continue, one of a client that does not read its
responses, one whose body is too long, one of a browser, one without Host or with a header twice, one that names its
actor, the last one of a connection with a client certificate, one with a credential that this process does not
know yet, every heartbeat that cannot be read, and every request for hosts that is not allowed. So no rule stands here.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from msgspec import Struct
from starlette.responses import Response
from uvicorn import Config
from uvicorn.server import ServerState

from registry.auth.certificate import certificate_names
from registry.auth.load_balancer import HEADER as STATEMENT
from registry.auth.origin import BROWSER_AGENT, BROWSER_HEADERS
from registry.auth.principal import AUTHORIZATION, NAMES_ACTOR, peer_of
from registry.errors import RegistryError
from registry.event_log import REQUEST_ID
from registry.http.asgi import (
    EXPECTED_TIMEOUT,
    FORWARDED_FOR,
    JSON,
    DiscoveryMiddleware,
    expected_timeout,
    peer_address,
)
from registry.http.certificate_protocol import CertificateProtocol
from registry.http.legacy.hosts import METHODS, HostsRequest, read_hosts_request
from registry.http.problems import defect_response, problem_for, problem_response
from registry.http.requests import HEADER, count, new_request_id, request_id_of
from registry.http.v1.heartbeats import BATCH, HeartbeatRequest, read_batch, read_single
from registry.xds.discovery import REFUSED, ServedPath
from registry.xds.discovery_response import DiscoveryResponse

log = structlog.get_logger()

_Headers = Sequence[tuple[bytes, bytes]]

_SERVICES = b"/v1/services/"
_HEARTBEATS = BATCH.encode()
_NOBODY = asyncio.Event()
_JSON = b"%b: %b\r\n" % JSON
_CONNECTION = b"connection"
_EXPECT = b"expect"
_REQUEST_ID = HEADER.encode()
_FOR_ASGI = BROWSER_HEADERS | NAMES_ACTOR | {STATEMENT}
"""Headers that say more of a request than this protocol looks at: whether a browser sent it, its actor, its person."""
_MAX_PARTS = 500
"""Pieces of a body. An Envoy's poll comes in sixty; a piece of two bytes takes fifty, and uvicorn joins them."""


class _Head(Struct, frozen=True, eq=False, gc=False):
    """The head of a request that is answered here, and what follows from nothing else than its bytes.

    Attributes:
        method: as it stands in the request line.
        url: likewise.
        headers: with their names in small letters.
        path: that of a poll; None for everything else.
        hosts: what is asked for by v1 SDS; None for everything else.
        authorization: the header that has the credential.
        forwarded_for: a header of polls and of requests for hosts.
        timeout: a header of polls.
        request_id: a header of requests for hosts.
        keep_alive: whether the connection goes on after the response, as far as the client says.
    """

    method: bytes
    url: bytes
    headers: _Headers
    path: ServedPath | None
    hosts: HostsRequest | None
    authorization: bytes | None
    forwarded_for: bytes | None
    timeout: bytes | None
    request_id: bytes
    keep_alive: bool


class _Exchange:
    """A request that is answered here: as much of uvicorn's own cycle as its protocol looks at, and the body.

    The start is that of a request for hosts.
    """

    __slots__ = ("disconnected", "head", "keep_alive", "message_event", "parts", "response_complete", "started")

    def __init__(self, head: _Head) -> None:
        self.head = head
        if head.hosts is not None:
            self.started = time.perf_counter()
        self.keep_alive = head.keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NOBODY
        self.parts: list[bytes] = []


class FastProtocol(CertificateProtocol):
    """One connection. The application of its configuration is the middleware, which has the parts it calls."""

    _starts: dict[int, tuple[object, bytes, bool]] = {}  # noqa: RUF012  # shared by all connections, as the date is

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        middleware: DiscoveryMiddleware = config.app  # type: ignore[assignment]  # registry.server gives no other
        self._is_too_long = middleware.is_too_long
        self._polls = middleware.polls_as_bytes
        self._discovery = middleware.discovery
        self._heartbeats = middleware.heartbeats
        self._hosts = middleware.hosts
        self._max_body = middleware.max_body
        self._authentication = middleware.authentication
        self._sender = self._authentication.sender("")
        """The sender of the requests of this connection; made once the connection is."""
        self._reading: _Exchange | None = None
        self._head: _Head | None = None
        """The newest head that was answered here and may be repeated: an Envoy sends the same with nearly each poll.
        Written by _read_head(). It has nothing that the credentials, the clock or the connection change."""
        self._give_up: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin with a connection, and make its sender."""
        super().connection_made(transport)
        self._sender = self._authentication.sender(peer_of(self.client), certificate_names(self.certificate))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up a poll that is held for the client that disconnected."""
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        self._reading = None
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Decide whether a request is answered here, as far as its head tells."""
        if self.transport.is_closing():
            # The answer to the request before it, in the same segment, said that it is the last (RFC 9112, 9.6).
            return
        head = self._repeated_head() or self._read_head()
        if head is None or not self._is_free() or not self._sender.identify(head.authorization):
            # Also a credential that has to be searched is not fast.
            super().on_headers_complete()
            return
        self._in_head = False
        self._received = None
        exchange = _Exchange(head)
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
        """Answer a request that is complete, or have the application answer it."""
        exchange = self._reading
        if exchange is not None and not self._answer(exchange):
            self._hand_over(exchange)
            exchange = None
        self._reading = None
        if exchange is None:
            super().on_message_complete()
        else:
            self._arrived()

    def _is_free(self) -> bool:
        """Return whether this connection is in a state in which its next request can be answered here."""
        before: Any = self.cycle
        if (self.certificate is not None and self.ends) or (before is not None and not before.response_complete):
            return False
        return not self.flow.write_paused

    def _repeated_head(self) -> _Head | None:
        """Return the head that was read last if this one is the same, and so means the same; else None."""
        head = self._head
        if (
            head is not None
            and self.url == head.url
            and self.headers == head.headers
            and self.parser.get_method() == head.method
            # HTTP/1.0 does not without a header that no kept head has, so this is 1.1 as well.
            and self.parser.should_keep_alive()
        ):
            return head
        return None

    def _read_head(self) -> _Head | None:
        """Return the head of a request of the kinds that are answered here; None for all others."""
        headers = dict(self.headers)
        if _EXPECT in headers or self.parser.should_upgrade():
            return None
        if self._is_too_long(headers.get(b"content-length")) or self._is_for_asgi(headers):
            return None
        method = self.parser.get_method()
        hosts = read_hosts_request(self.url) if method in METHODS else None
        if method == b"PUT":
            fast = self.url.startswith(_SERVICES) and _REQUEST_ID not in headers
        elif method == b"POST":
            fast = self.url in self._polls or (self.url == _HEARTBEATS and _REQUEST_ID not in headers)
        else:
            fast = hosts is not None
        if not fast:
            return None
        head = _Head(
            method,
            self.url,
            self.headers.copy(),
            self._polls.get(self.url),
            hosts,
            headers.get(AUTHORIZATION),
            headers.get(FORWARDED_FOR),
            headers.get(EXPECTED_TIMEOUT),
            headers.get(_REQUEST_ID, b""),
            self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive(),
        )
        if head.keep_alive and _CONNECTION not in headers:
            self._head = head
        return head

    def _is_for_asgi(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether a request names its actor, may be a browser's, or has not exactly one Host."""
        if b"host" not in headers or len(headers) != len(self.headers) or not _FOR_ASGI.isdisjoint(headers):
            return True
        agent = headers.get(b"user-agent")
        return agent is not None and agent.startswith(BROWSER_AGENT)

    def _hand_over(self, exchange: _Exchange) -> None:
        """Let uvicorn treat a request as if it had not begun here."""
        self._reading = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        super().on_headers_complete()
        # The pieces are counted once more there.
        self._body = 0
        super().on_body(b"".join(exchange.parts))

    def _answer(self, exchange: _Exchange) -> bool:
        """Answer a request, or begin to; return False for one that the application has to answer."""
        try:
            if exchange.head.path is not None:
                self._poll(exchange.head.path, exchange)
                return True
            if exchange.head.hosts is not None:
                return self._list_hosts(exchange.head.hosts, exchange)
            return self._heartbeat(exchange)
        except RegistryError as error:
            self._send(exchange, problem_response(problem_for(error)))
            return True
        except Exception:
            # Raised through the parser it would be answered as malformed HTTP; the application says what it is.
            log.exception("fast_protocol_failed", path=self.url)
            return exchange.response_complete

    def _poll(self, path: ServedPath, exchange: _Exchange) -> None:
        discovery = self._discovery
        request = discovery.read(path, self._sender.principal, *(exchange.parts or (b"",)))
        peer = peer_address(exchange.head.forwarded_for, self.client)
        try:
            response = discovery.now(path, request, peer)
        except REFUSED as error:
            self._hold_refusal(exchange, error)
            return
        if response is not None:
            self._respond(exchange, response.status, _of_json(response.body), response.body)
            return
        # The body is not needed to hold a poll, and has 77 kB.
        exchange.parts.clear()
        timeout = expected_timeout(exchange.head.timeout)
        give_up = discovery.hold(path, request, peer, timeout, partial(self._on_response, exchange))
        if not exchange.response_complete:
            self._give_up = give_up

    def _hold_refusal(self, exchange: _Exchange, error: RegistryError) -> None:
        exchange.parts.clear()
        timeout = expected_timeout(exchange.head.timeout)
        give_up = self._discovery.hold_refusal(
            self._sender.principal.address, timeout, partial(self._on_refusal, exchange, error)
        )
        if not exchange.response_complete:
            self._give_up = give_up

    def _on_refusal(self, exchange: _Exchange, error: RegistryError) -> None:
        self._give_up = None
        self._send(exchange, problem_response(problem_for(error)))

    def _on_response(self, exchange: _Exchange, response: DiscoveryResponse) -> None:
        self._give_up = None
        self._respond(exchange, response.status, _of_json(response.body), response.body)

    def _list_hosts(self, request: HostsRequest, exchange: _Exchange) -> bool:
        """Answer a request of v1 SDS; false when a route has to."""
        peer = peer_address(exchange.head.forwarded_for, self.client)
        body = request.answer(self._hosts, self._sender.principal, peer)
        if body is None:
            return False
        request_id = request_id_of(exchange.head.request_id)
        method = exchange.head.method
        lines = _of_json(body) + b"%b: %b\r\n" % (_REQUEST_ID, request_id)
        self._respond(exchange, 200, lines, b"" if method == b"HEAD" else body)
        count(method.decode(), request.route, 200, time.perf_counter() - exchange.started)
        return True

    def _heartbeat(self, exchange: _Exchange) -> bool:
        """Renew or register what a request names; false when it is none that can be read."""
        body = b"".join(exchange.parts)
        request: HeartbeatRequest | None
        if self.url == _HEARTBEATS:
            request = read_batch(self._heartbeats, self._sender.principal, body)
        else:
            request = read_single(self._heartbeats, self._sender.principal, self.url, body)
        if request is None:
            return False
        stored = request.renew()
        if stored is None:
            self._begin_to_register(exchange, request)
        else:
            stored.add_done_callback(partial(self._on_renewed, exchange, request))
        return True

    def _on_renewed(self, exchange: _Exchange, request: HeartbeatRequest, stored: "asyncio.Future[list[bool]]") -> None:
        try:
            renewed = stored.result()
            if all(renewed):
                self._grant(exchange, request.renewed(), new_request_id())
                return
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody waits for an answer
            self._refuse(exchange, request, error)
            return
        self._begin_to_register(exchange, request, renewed)

    def _begin_to_register(self, exchange: _Exchange, request: HeartbeatRequest, renewed: Sequence[bool] = ()) -> None:
        task = self.loop.create_task(self._register(exchange, request, renewed))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _register(self, exchange: _Exchange, request: HeartbeatRequest, renewed: Sequence[bool]) -> None:
        """Register what says something new, or had no lease to renew any more."""
        started = time.perf_counter()
        request_id = new_request_id()
        # Of this task alone: what it writes into the log has the id that the answer has.
        REQUEST_ID.set(request_id)
        code = 200
        try:
            self._grant(exchange, await request.register(renewed), request_id)
        except Exception as error:  # noqa: BLE001  # as above
            code = self._refuse(exchange, request, error)
        count(request.method, request.route, code, time.perf_counter() - started)

    def _grant(self, exchange: _Exchange, body: bytes, request_id: str) -> None:
        self._respond(exchange, 200, _of_json(body) + _of_request(request_id), body)

    def _refuse(self, exchange: _Exchange, request: HeartbeatRequest, error: Exception) -> int:
        if isinstance(error, RegistryError):
            response = problem_response(problem_for(error))
        else:
            log.error("defect", method=request.method, path=request.path, exc_info=error)
            response = defect_response()
        self._send(exchange, response)
        return response.status_code

    def _send(self, exchange: _Exchange, response: Response) -> None:
        self._respond(exchange, response.status_code, _lines(response.raw_headers), bytes(response.body))

    def _respond(self, exchange: _Exchange, status: int, lines: bytes, body: bytes) -> None:
        """Send a response; ``lines`` are its own headers, as they stand on the wire."""
        if self.transport.is_closing():
            return
        _, start, last = self._start(status)
        keep_alive = exchange.keep_alive and not last
        end = b"\r\n" if keep_alive or last else b"connection: close\r\n\r\n"
        # Together, because each write is a call of the kernel, and that is a fifth of a poll.
        self.transport.writelines((start + lines + end, body))
        exchange.response_complete = True
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _start(self, status: int) -> tuple[object, bytes, bool]:
        """Return the server's headers, the lines that they and the status are, and whether they close."""
        headers = self.server_state.default_headers
        start = self._starts.get(status)
        if start is None or start[0] is not headers:
            # uvicorn makes a new list when the date changes.
            line = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
            start = self._starts[status] = (headers, line + _lines(headers), (b"connection", b"close") in headers)
        return start


def _lines(headers: _Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _of_json(body: bytes) -> bytes:
    return b"content-length: %d\r\n%b" % (len(body), _JSON) if body else b""


def _of_request(request_id: str) -> bytes:
    return b"%b: %b\r\n" % (_REQUEST_ID, request_id.encode())
