"""The door in uvicorn's protocol: answers polls and heartbeats before anything is built for ASGI.

uvicorn parses and keeps the connection; here is only what becomes of a request whose head it has read. Whatever is
out of the ordinary takes the long way, through the plain door and the application, as if this one were not there: a
request behind another one that is not answered yet, one that waits for 100 Continue, a client that does not read its
answers, a body that is too long, what a browser sends, no Host or a header twice, who names itself, and every heartbeat
that cannot be read. So no rule stands here.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from starlette.responses import Response
from uvicorn import Config
from uvicorn.server import ServerState

from registry.auth.origin import BROWSER_AGENT, BROWSER_HEADERS
from registry.auth.principal import NAMES_ACTOR, NOBODY, peer_of, principal
from registry.errors import RegistryError
from registry.http.asgi import JSON, POLLS, DiscoveryMiddleware, patience, subscriber
from registry.http.problems import defect_response, problem_for, problem_response
from registry.http.protocol_limits import BoundedProtocol
from registry.http.requests import HEADER, count, new_request_id
from registry.http.v1.heartbeats import BATCH, HeartbeatRequest, read_batch, read_single
from registry.xds.discovery import DiscoveryResponse
from registry.xds.eds import Api
from wire.logging import REQUEST_ID

log = structlog.get_logger()

_Headers = Sequence[tuple[bytes, bytes]]

_POLLS: dict[bytes, Api] = {path.encode(): api for path, api in POLLS.items()}
_SERVICES = b"/v1/services/"
_HEARTBEATS = BATCH.encode()
_NOBODY = asyncio.Event()
_JSON = b"%b: %b\r\n" % JSON
_REQUEST_ID = HEADER.encode()
_NAMED = NAMES_ACTOR | {_REQUEST_ID}
"""A heartbeat with one of these says more than its body: it takes the long way."""
_MOST_PARTS = 500
"""An Envoy's poll comes in sixty; two bytes as an object of their own take fifty, and uvicorn joins them at once."""


class _Exchange:
    """A request that is answered here: as much of uvicorn's own cycle as its protocol looks at, and the body."""

    __slots__ = ("api", "disconnected", "keep_alive", "message_event", "parts", "response_complete")

    def __init__(self, api: Api | None, *, keep_alive: bool) -> None:
        self.api = api
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NOBODY
        self.parts: list[bytes] = []


class FastProtocol(BoundedProtocol):
    """One connection. The application of its configuration is the plain door, which knows the replica."""

    _starts: dict[int, tuple[object, bytes, bool]] = {}  # noqa: RUF012  # shared by all connections, as the date is

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        door: DiscoveryMiddleware = config.app  # type: ignore[assignment]  # registry.server gives no other
        self._door = door
        self._discovery = door.discovery
        self._heartbeats = door.heartbeats
        self._most = door.max_body
        self._principal = NOBODY
        """Who asks over this connection; known once it is made."""
        self._reading: _Exchange | None = None
        self._give_up: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Note who asks."""
        super().connection_made(transport)
        self._principal = principal(peer_of(self.client))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what nobody waits for any more."""
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        self._reading = None
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Decide which way a request takes, as far as its head tells."""
        if self.transport.is_closing():
            # The one before it in the same segment was told that its answer is the last (RFC 9112, 9.6).
            return
        if not self._is_hot():
            super().on_headers_complete()
            return
        self._in_head = False
        self._received = None
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        exchange = _Exchange(_POLLS.get(self.url), keep_alive=keep_alive)
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
        if self._body > self._most or len(exchange.parts) > _MOST_PARTS:
            self._take_the_long_way(exchange)

    def on_message_complete(self) -> None:
        """Answer a request that is whole, or have it answered."""
        exchange = self._reading
        if exchange is not None and not self._answers(exchange):
            self._take_the_long_way(exchange)
            exchange = None
        self._reading = None
        if exchange is None:
            super().on_message_complete()
        else:
            self._arrived()

    def _is_hot(self) -> bool:
        before: Any = self.cycle
        if before is not None and not before.response_complete:
            return False
        if self.expect_100_continue or self.flow.write_paused or self.parser.should_upgrade():
            return False
        told = dict(self.headers)
        if self._door.is_too_long(told.get(b"content-length")) or self._needs_judging(told):
            return False
        method = self.parser.get_method()
        if method == b"PUT":
            return self.url.startswith(_SERVICES) and _NAMED.isdisjoint(told)
        if method == b"POST":
            return self.url in _POLLS or (self.url == _HEARTBEATS and _NAMED.isdisjoint(told))
        return False

    def _needs_judging(self, told: dict[bytes, bytes]) -> bool:
        """Tell whether the origin policy might refuse it: a browser sent it, or it has not exactly one Host."""
        if b"host" not in told or len(told) != len(self.headers) or not BROWSER_HEADERS.isdisjoint(told):
            return True
        agent = told.get(b"user-agent")
        return agent is not None and agent.startswith(BROWSER_AGENT)

    def _take_the_long_way(self, exchange: _Exchange) -> None:
        self._reading = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        super().on_headers_complete()
        # The pieces are counted once more there.
        self._body = 0
        super().on_body(b"".join(exchange.parts))

    def _answers(self, exchange: _Exchange) -> bool:
        try:
            if exchange.api is not None:
                self._poll(exchange.api, exchange)
                return True
            return self._beat(exchange)
        except RegistryError as error:
            self._send(exchange, problem_response(problem_for(error)))
            return True
        except Exception:
            # Raised through the parser it would be answered as malformed HTTP; the long way says what it is.
            log.exception("fast_protocol_failed", path=self.url)
            return exchange.response_complete

    def _poll(self, api: Api, exchange: _Exchange) -> None:
        discovery = self._discovery
        poll = discovery.read(api, *(exchange.parts or (b"",)))
        peer = subscriber(self.headers, self.client)
        answer = discovery.now(api, poll, peer)
        if answer is not None:
            self._respond(exchange, answer.status, _of_json(answer.body), answer.body)
            return
        # What is held is the question, not its 77 kB.
        exchange.parts.clear()
        told = patience(self.headers)
        give_up = discovery.hold(api, poll, peer, told, partial(self._on_answer, exchange))
        if not exchange.response_complete:
            self._give_up = give_up

    def _on_answer(self, exchange: _Exchange, answer: DiscoveryResponse) -> None:
        self._give_up = None
        self._respond(exchange, answer.status, _of_json(answer.body), answer.body)

    def _beat(self, exchange: _Exchange) -> bool:
        """Renew or register what a request names; false when it is none that can be read."""
        body = b"".join(exchange.parts)
        request: HeartbeatRequest | None
        if self.url == _HEARTBEATS:
            request = read_batch(self._heartbeats, self._principal, body)
        else:
            request = read_single(self._heartbeats, self._principal, self.url, body)
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
        """Send an answer; ``lines`` are its own headers, as they stand on the wire."""
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
        told = self.server_state.default_headers
        known = self._starts.get(status)
        if known is None or known[0] is not told:
            # uvicorn makes a new list when the date changes.
            line = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
            known = self._starts[status] = (told, line + _lines(told), (b"connection", b"close") in told)
        return known


def _lines(headers: _Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _of_json(body: bytes) -> bytes:
    return b"content-length: %d\r\n%b" % (len(body), _JSON) if body else b""


def _of_request(request_id: str) -> bytes:
    return b"%b: %b\r\n" % (_REQUEST_ID, request_id.encode())
