"""The HTTP front in uvicorn's protocol: answers polls, heartbeats, edges, digests, v1 SDS and lists without ASGI.

uvicorn parses requests and keeps the connection; this protocol only takes over requests whose head uvicorn has read.
Every unusual request goes through ASGI, to the middleware and the application, as if this front were not there: one
behind another that is not answered yet, one that waits for 100 Continue, one of a client that does not read its
responses, one whose body is too long, one of a browser, one without Host or with a header twice, one that names its
actor, the last one of a connection with a client certificate, one with a credential that this process does not
know yet, every heartbeat, digest and question that cannot be read, and every request for hosts or lists that is not
allowed.
So no rule stands here.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog
from starlette.responses import Response
from uvicorn import Config
from uvicorn.server import ServerState

from registry.errors import RegistryError
from registry.event_log import REQUEST_ID
from registry.http.asgi import DiscoveryMiddleware, expected_timeout, peer_address
from registry.http.intercepting_protocol import Exchange, InterceptingProtocol
from registry.http.legacy.hosts import HostsRequest
from registry.http.lists.requests import ListRequest
from registry.http.problems import defect_response, problem_for, problem_response
from registry.http.request_head import EDGE, HEARTBEATS, TRAFFIC
from registry.http.requests import count, new_request_id, request_id_of
from registry.http.response_head import header_lines, json_lines, request_id_line, response_start
from registry.http.v1 import traffic
from registry.http.v1.edge import REFUSAL_HOLD, represented
from registry.http.v1.heartbeats import HeartbeatRequest, read_batch, read_single
from registry.xds.discovery import REFUSED, ServedPath
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.repeated_poll import RepeatedPoll, pieces, remember
from wire.edge_assignments import EDGE_PATH, EdgeQuestion

log = structlog.get_logger()


class _Asked(NamedTuple):
    """The id of a request of an edge, and when it was read, by the performance counter."""

    request_id: bytes
    started: float


class FastProtocol(InterceptingProtocol):
    """One connection. The application of its configuration is the middleware, which has the parts it calls."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        middleware: DiscoveryMiddleware = config.app  # type: ignore[assignment]  # registry.server gives no other
        self._discovery = middleware.discovery
        self._heartbeats = middleware.heartbeats
        self._hosts = middleware.hosts
        self._lists = middleware.lists
        self._traffic = middleware.traffic
        self._edges = middleware.edges
        self._last_poll: RepeatedPoll | None = None
        """The last poll of this connection, by which the next one is read if it says the same."""
        self._give_up: Callable[[], None] | None = None
        """Gives up the poll or question that is held; None while none is."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up a poll or a question that is held for the client that disconnected."""
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        super().connection_lost(exc)

    def _answer(self, exchange: Exchange) -> bool:
        """Answer a request, or begin to; return False for one that the application has to answer."""
        try:
            if exchange.head.path is not None:
                self._poll(exchange.head.path, exchange)
                return True
            if exchange.head.hosts is not None:
                return self._list_hosts(exchange.head.hosts, exchange)
            if exchange.head.listing is not None:
                return self._list(exchange.head.listing, exchange)
            return _BY_URL.get(exchange.url, FastProtocol._heartbeat)(self, exchange)
        except RegistryError as error:
            self._send(exchange, problem_response(problem_for(error)))
            return True
        except Exception:
            # Raised through the parser it would be answered as malformed HTTP; the application says what it is.
            log.exception("fast_protocol_failed", path=exchange.url)
            return exchange.response_complete

    def _poll(self, path: ServedPath, exchange: Exchange) -> None:
        discovery = self._discovery
        request = self._read_poll(path, exchange)
        peer = peer_address(exchange.head.forwarded_for, self.client)
        try:
            response = discovery.now(path, request, peer)
        except REFUSED as error:
            self._hold_refusal(exchange, error)
            return
        if response is not None:
            self._respond(exchange, response.status, json_lines(response.body), response.body)
            return
        # The body is not needed to hold a poll, and has 77 kB.
        exchange.parts.clear()
        timeout = expected_timeout(exchange.head.timeout)
        self._hold(exchange, discovery.hold(path, request, peer, timeout, partial(self._on_response, exchange)))

    def _read_poll(self, path: ServedPath, exchange: Exchange) -> DiscoveryRequest:
        parts = exchange.parts
        if not parts:
            return self._discovery.read(path, self._sender.principal, b"")
        last = self._last_poll
        if last is not None and last.is_same(path, parts):
            return last.request(self._sender.principal)
        body = pieces(parts)
        request = self._discovery.read(path, self._sender.principal, *body)
        self._last_poll = remember(path, request, body)
        return request

    def _hold_refusal(self, exchange: Exchange, error: RegistryError) -> None:
        exchange.parts.clear()
        timeout = expected_timeout(exchange.head.timeout)
        address, on_refusal = self._sender.principal.address, partial(self._on_refusal, exchange, error)
        self._hold(exchange, self._discovery.held_polls.hold_refusal(address, timeout, on_refusal))

    def _hold(self, exchange: Exchange, give_up: Callable[[], None]) -> None:
        """Wait for the response to a poll that is held, unless it was sent already."""
        if not exchange.response_complete:
            self._give_up = give_up
            self._unset_keepalive_if_required()

    def _on_refusal(self, exchange: Exchange, error: RegistryError) -> None:
        self._give_up = None
        self._send(exchange, problem_response(problem_for(error)))

    def _on_response(self, exchange: Exchange, response: DiscoveryResponse) -> None:
        self._give_up = None
        self._respond(exchange, response.status, json_lines(response.body), response.body)

    def _ask(self, exchange: Exchange) -> bool:
        """Answer the question of an edge, or hold it; false when it is none that can be answered here."""
        question = self._edges.read(b"".join(exchange.parts))
        if question is None:
            return False
        exchange.parts.clear()
        asked = _Asked(request_id_of(exchange.head.request_id), time.perf_counter())
        # Refusals are logged and answered with the id of the request.
        token = REQUEST_ID.set(asked.request_id.decode())
        try:
            self._answer_edge(exchange, question, asked)
        except REFUSED as error:
            self._hold_edge_refusal(exchange, error, asked)
        except RegistryError as error:
            self._refuse_edge(exchange, error, time.perf_counter() - asked.started)
        finally:
            REQUEST_ID.reset(token)
        return True

    def _answer_edge(self, exchange: Exchange, question: EdgeQuestion, asked: _Asked) -> None:
        discovery = self._edges.discovery
        poll = discovery.read(self._sender.principal, question)
        response = discovery.now(poll, peer_address(exchange.head.forwarded_for, self.client))
        if response is not None:
            self._respond_to_edge(exchange, asked, response, time.perf_counter() - asked.started)
            return
        leave = discovery.hold(poll, partial(self._on_edge_response, exchange, asked))

        def give_up() -> None:
            leave()
            count("POST", EDGE_PATH, 304, None)

        self._hold(exchange, give_up)

    def _on_edge_response(self, exchange: Exchange, asked: _Asked, response: DiscoveryResponse) -> None:
        self._give_up = None
        self._respond_to_edge(exchange, asked, response, None)

    def _respond_to_edge(
        self, exchange: Exchange, asked: _Asked, response: DiscoveryResponse, seconds: float | None
    ) -> None:
        headers, body = represented(response, gzip=exchange.head.conditions.gzip)
        self._respond(exchange, response.status, header_lines(headers) + request_id_line(asked.request_id), body)
        count("POST", EDGE_PATH, response.status, seconds)

    def _hold_edge_refusal(self, exchange: Exchange, error: RegistryError, asked: _Asked) -> None:
        def refuse() -> None:
            self._give_up = None
            token = REQUEST_ID.set(asked.request_id.decode())
            self._refuse_edge(exchange, error, None)
            REQUEST_ID.reset(token)

        address = self._sender.principal.address
        self._hold(exchange, self._edges.discovery.held_polls.hold_refusal(address, REFUSAL_HOLD, refuse))

    def _refuse_edge(self, exchange: Exchange, error: RegistryError, seconds: float | None) -> None:
        response = problem_response(problem_for(error))
        self._send(exchange, response)
        count("POST", EDGE_PATH, response.status_code, seconds)

    def _list_hosts(self, request: HostsRequest, exchange: Exchange) -> bool:
        """Answer a request of v1 SDS; false when a route has to."""
        peer = peer_address(exchange.head.forwarded_for, self.client)
        body = request.answer(self._hosts, self._sender.principal, peer)
        if body is None:
            return False
        request_id = request_id_of(exchange.head.request_id)
        method = exchange.head.method
        lines = json_lines(body) + request_id_line(request_id)
        self._respond(exchange, 200, lines, b"" if method == b"HEAD" else body)
        count(method.decode(), request.route, 200, time.perf_counter() - exchange.started)
        return True

    def _list(self, request: ListRequest, exchange: Exchange) -> bool:
        """Answer a request for a list; false when a route has to."""
        document = self._lists.known(self._sender.principal, request)
        if document is None:
            return False
        head = exchange.head
        response = document.represented_for(head.conditions)
        lines = response.lines + request_id_line(request_id_of(head.request_id))
        self._respond(exchange, response.status, lines, b"" if head.method == b"HEAD" else response.body)
        count(head.method.decode(), request.route, response.status, time.perf_counter() - exchange.started)
        return True

    def _take_digest(self, exchange: Exchange) -> bool:
        """Add a digest of traffic; false when it is none that can be read."""
        started = time.perf_counter()
        digest = traffic.read_digest(b"".join(exchange.parts))
        if digest is None:
            return False
        body = msgspec.json.encode(self._traffic.take(self._sender.principal, digest))
        self._respond(exchange, 200, json_lines(body) + request_id_line(new_request_id().encode()), body)
        count("POST", traffic.PATH, 200, time.perf_counter() - started)
        return True

    def _heartbeat(self, exchange: Exchange) -> bool:
        """Renew or register what a request names; false when it is none that can be read."""
        body = b"".join(exchange.parts)
        request: HeartbeatRequest | None
        url = exchange.url
        if url == HEARTBEATS:
            request = read_batch(self._heartbeats, self._sender.principal, body)
        else:
            request = read_single(self._heartbeats, self._sender.principal, url, body)
        if request is None:
            return False
        stored = request.renew()
        if stored is None:
            self._begin_to_register(exchange, request)
        else:
            stored.add_done_callback(partial(self._on_renewed, exchange, request))
        return True

    def _on_renewed(self, exchange: Exchange, request: HeartbeatRequest, stored: "asyncio.Future[list[bool]]") -> None:
        try:
            renewed = stored.result()
            if all(renewed):
                self._grant(exchange, request.renewed(), new_request_id())
                return
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody waits for an answer
            self._refuse(exchange, request, error)
            return
        self._begin_to_register(exchange, request, renewed)

    def _begin_to_register(self, exchange: Exchange, request: HeartbeatRequest, renewed: Sequence[bool] = ()) -> None:
        self._unset_keepalive_if_required()
        task = self.loop.create_task(self._register(exchange, request, renewed))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _register(self, exchange: Exchange, request: HeartbeatRequest, renewed: Sequence[bool]) -> None:
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

    def _grant(self, exchange: Exchange, body: bytes, request_id: str) -> None:
        self._respond(exchange, 200, json_lines(body) + request_id_line(request_id.encode()), body)

    def _refuse(self, exchange: Exchange, request: HeartbeatRequest, error: Exception) -> int:
        if isinstance(error, RegistryError):
            response = problem_response(problem_for(error))
        else:
            log.error("defect", method=request.method, path=request.path, exc_info=error)
            response = defect_response()
        self._send(exchange, response)
        return response.status_code

    def _send(self, exchange: Exchange, response: Response) -> None:
        self._respond(exchange, response.status_code, header_lines(response.raw_headers), bytes(response.body))

    def _respond(self, exchange: Exchange, status: int, lines: bytes, body: bytes) -> None:
        """Send a response; ``lines`` are its own headers, as they stand on the wire."""
        if self.transport.is_closing():
            return
        start = response_start(status, self.server_state.default_headers)
        keep_alive = exchange.keep_alive and not start.closes
        end = b"\r\n" if keep_alive or start.closes else b"connection: close\r\n\r\n"
        # Together, because each write is a call of the kernel, and that is a fifth of a poll.
        self.transport.writelines((start.lines + lines + end, body))
        exchange.response_complete = True
        if not keep_alive:
            self.transport.close()
        if self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            # The parser has not seen the request, and so none behind it, which would wait: the timer runs on.
            self.server_state.total_requests += 1
            self.answered_at = self.loop.time()


_BY_URL: dict[bytes, Callable[[FastProtocol, Exchange], bool]] = {
    EDGE: FastProtocol._ask,  # noqa: SLF001  # of this module
    TRAFFIC: FastProtocol._take_digest,  # noqa: SLF001
}
"""What answers the requests of each address; all others are heartbeats."""
