"""The HTTP/1.1 server of the edge, on h11: the polls of Envoys, and the probe of their management cluster."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable

import h11
import msgspec

from registrar.config.listen import ListenAddress
from registrar.edge.edge import Edge
from registrar.edge.held_polls import Answer
from registrar.edge.polled_types import BY_PATH, PolledType
from registrar.event_log import EventLogger
from registrar.unix_socket import unix_socket
from wire.discovery_poll import InvalidPollError, UnreadablePollError, parse, read_ends
from wire.node import printable, read_node
from wire.problem import CONTENT_TYPE, Problem

MAX_CONNECTIONS = 256
"""Connections at a time; each held poll takes one."""
_MAX_BODY_BYTES = 1024 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_READ_BYTES = 64 * 1024
_ANSWER_MARGIN = 0.25
"""Seconds by which a held poll is answered before Envoy's own time-out."""
_MAX_ADDRESS = 64
"""Characters of an address that are kept, as in the registry."""
_MAX_HOLD = 55.0
"""Seconds for which a poll is held at most."""
_IDLE_TIMEOUT = 120.0
"""Seconds for which a connection without a request is kept; Envoy keeps one for an hour, and opens another."""
_REQUEST_TIMEOUT = 10.0
"""Seconds for a whole request, from its first byte; Envoy sends one at once."""
_LISTEN_INTERVAL = 1.0
"""Seconds between two attempts to listen where another program does."""
_TITLES = {
    400: "Unreadable request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    413: "Too large",
    422: "Invalid request",
    503: "Unavailable",
}

log = EventLogger(__name__)

# Shared by all connections: what was received is copied out of it before the next read.
_buffer = bytearray(_READ_BYTES)


class EdgeServer:
    """Listens from ``listen`` to ``close``.

    Args:
        address: the address, which only this machine reaches.
        edge: answers the polls.
    """

    def __init__(self, address: ListenAddress, edge: Edge) -> None:
        self.address = address
        self.edge = edge
        # The open connections, those that wait longest for a request first.
        self.connections: dict[_Connection, None] = {}
        self._server: asyncio.Server | None = None
        # Why the address is not free, as of the last attempt to listen.
        self._occupied = ""

    async def listen(self) -> bool:
        """Start to listen, and return whether the address is free; ``run`` tries again where it is not.

        Raises:
            OSError: the address or the path cannot be used.
        """
        loop, address = asyncio.get_running_loop(), self.address
        try:
            if address.path is not None:
                channel = unix_socket(address.path, MAX_CONNECTIONS)
                self._server = await loop.create_unix_server(lambda: _Connection(self), sock=channel)
            else:
                self._server = await loop.create_server(
                    lambda: _Connection(self), address.host, address.port, backlog=MAX_CONNECTIONS
                )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            self._occupied = error.strerror if address.path is not None and error.strerror else os.strerror(error.errno)
            return False
        return True

    async def run(self) -> None:
        """Keep what the edge holds up to date, and listen as soon as the address is free."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.edge.run(), name="edge")
            if self._server is None:
                log.warning(
                    "edge_listen_failed",
                    listen=str(self.address),
                    reason=self._occupied,
                    meanwhile="this registrar tries again each second; the other program or the registry serves Envoys",
                    fix="set REGISTRAR_EDGE_LISTEN to another address where two registrars share a network namespace",
                )
            while self._server is None:
                await asyncio.sleep(_LISTEN_INTERVAL)
                # The address may become unusable in another way meanwhile, which is no reason to end the process.
                with contextlib.suppress(OSError):
                    await self.listen()

    def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._server is None:
            return
        if self.address.path is not None:
            # First: the next process takes a socket that refuses for a stale one, and its own would be removed here.
            with contextlib.suppress(OSError):
                self.address.path.unlink(missing_ok=True)
        self._server.close()
        self.edge.release()
        for connection in list(self.connections):
            connection.close()

    def has_room(self) -> bool:
        """Tell whether one more connection may be served.

        Where all are in use, an idle one is closed, or the poll that is held longest is answered 304: an Envoy with
        more clusters than connections gets the changes of all, if a little later. The connection of a probe is closed
        last: if that happened as the next probe is sent, Envoy would take this edge for dead.
        """
        if len(self.connections) < MAX_CONNECTIONS:
            return True
        ended = (
            next((connection for connection in self.connections if connection.idle and not connection.probes), None)
            or next((connection for connection in self.connections if connection.holds_current), None)
            or next((connection for connection in self.connections if connection.idle), None)
        )
        if ended is None:
            return False
        ended.end()
        return True


class _Connection(asyncio.BufferedProtocol):
    """One connection: requests one behind the other, of which one may be held."""

    def __init__(self, server: EdgeServer) -> None:
        self._server = server
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._transport: asyncio.Transport | None = None
        # The head of the request that is being read or handled; None between requests.
        self._head: h11.Request | None = None
        self._parts: list[bytes] = []
        self._size = 0
        # Gives up the poll that is held; None while none is.
        self._give_up: Callable[[], None] | None = None
        # The token that it brings.
        self._brought = ""
        self.probes = False
        """Whether its last request was a probe: Envoy keeps a connection for those. Written by _handle()."""
        # Closes the connection without a request, and the one whose request does not come to its end; None meanwhile.
        self._timer: asyncio.TimerHandle | None = None
        # Whether a part of a request has come, and not its end.
        self._receiving = False

    @property
    def idle(self) -> bool:
        """Whether no request is being read or handled."""
        return self._head is None and self._give_up is None

    @property
    def holds_current(self) -> bool:
        """Whether it holds a poll of an Envoy that has resources already."""
        return self._give_up is not None and bool(self._brought)

    def end(self) -> None:
        """Close it, after an answer without news to the poll that it holds."""
        if self._give_up is not None:
            give_up, self._give_up = self._give_up, None
            give_up()
            self._respond(304, b"", [], last=True)
        self._server.connections.pop(self, None)
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, if there is room."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        if not self._server.has_room():
            transport.abort()
            return
        self._transport = transport
        self._server.connections[self] = None
        self._await_request()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the poll that is held."""
        self._server.connections.pop(self, None)
        self._transport = None
        self._stop_timer()
        if self._give_up is not None:
            give_up, self._give_up = self._give_up, None
            give_up()

    def get_buffer(self, _: int) -> bytearray:
        """Return where to receive."""
        return _buffer

    def buffer_updated(self, size: int) -> None:
        """Take in what was received."""
        if self._give_up is not None and self._transport is not None:
            # Envoy sends no request behind one that is held; what came would be kept for as long.
            self._transport.abort()
            return
        if not self._receiving and self._timer is not None:
            self._close_after(_REQUEST_TIMEOUT)
            self._receiving = True
        self._h11.receive_data(bytes(memoryview(_buffer)[:size]))
        self._proceed()

    def eof_received(self) -> bool:
        """Close the connection: an Envoy that has gone away waits for no answer."""
        return False

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()

    def _proceed(self) -> None:
        """Handle what was received, up to a request that is held."""
        try:
            while self._give_up is None and self._transport is not None:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    if self._h11.they_are_waiting_for_100_continue:
                        self._write(h11.InformationalResponse(status_code=100, headers=[]))
                    return
                if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error), last=True)

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._head, self._parts, self._size = event, [], 0
        elif isinstance(event, h11.Data):
            self._size += len(event.data)
            if self._size > _MAX_BODY_BYTES:
                raise h11.RemoteProtocolError(f"the body has more than {_MAX_BODY_BYTES} bytes", error_status_hint=413)
            self._parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and self._head is not None:
            self._stop_timer()
            parts, self._parts = self._parts, []
            self._handle(self._head, parts)

    def _handle(self, head: h11.Request, parts: list[bytes]) -> None:
        path = head.target.partition(b"?")[0].decode("latin-1")
        headers = dict(head.headers)
        polled = BY_PATH.get(path)
        self.probes = path == "/livez"
        if b"origin" in headers:
            # A web page in a browser on this machine reaches loopback too; Envoy never sends this header.
            self._refuse(403, "requests of web pages are refused")
        elif path == "/livez" and head.method in (b"GET", b"HEAD"):
            self._probe()
        elif polled is None:
            self._refuse(404, f"no route {path[:100]}; the routes are /livez, {', '.join(BY_PATH)}")
        elif head.method != b"POST":
            self._refuse(405, f"{path} allows POST, not {head.method.decode('latin-1')}")
        else:
            self._poll(polled, headers, parts)

    def _probe(self) -> None:
        if self._server.edge.refused:
            self._refuse(503, "the registry refuses this registrar, or its answer is too long: ask it directly")
        elif self._server.edge.full:
            self._refuse(503, "this edge has no room for all that is polled for: ask the registry directly")
        else:
            self._respond(200, b"text/plain", [b"ok\n"])

    def _poll(self, polled: PolledType, headers: dict[bytes, bytes], parts: list[bytes]) -> None:
        try:
            # An empty body is no poll, and read_ends wants a part.
            names, brought = read_ends(polled, *(parts or [b""])) or parse(polled, b"".join(parts))
            node = read_node(*(parts or [b""]))
        except UnreadablePollError as error:
            self._refuse(400, str(error))
            return
        except InvalidPollError as error:
            self._refuse(422, str(error))
            return
        hold = _hold_time(headers.get(b"x-envoy-expected-rq-timeout-ms", b""))
        answered, self._brought = False, brought

        def respond(answer: Answer) -> None:
            nonlocal answered
            answered = True
            was_held = self._give_up is not None
            self._give_up = None
            self._answer(polled, answer)
            if was_held:
                self._proceed()

        give_up = self._server.edge.poll(polled, names, brought, node, hold, respond, _address_of(headers))
        if not answered:
            self._give_up = give_up

    def _answer(self, polled: PolledType, answer: Answer) -> None:
        if answer.status == 200:
            opening = b'{"version_info":%b,"resources":[' % msgspec.json.encode(answer.token)
            between = [part for resources in answer.resources for part in (b",", resources)][1:]
            self._respond(200, b"application/json", [opening, *between, b'],"type_url":"%b"}' % polled.type_url_bytes])
        elif answer.status == 304:
            self._respond(304, b"", [])
        else:
            self._refuse(503, "nothing is held of what was asked for, and no registry answers")

    def _refuse(self, status: int, detail: str, *, last: bool = False) -> None:
        body = msgspec.json.encode(Problem(_TITLES.get(status, "Refused"), status, detail))
        self._respond(status, CONTENT_TYPE.encode(), [body], last=last)

    def _respond(self, status: int, content_type: bytes, parts: list[bytes], *, last: bool = False) -> None:
        if self._transport is None or self._h11.our_state is h11.ERROR:
            return
        headers = [] if status == 304 else [(b"content-type", content_type)]
        if status != 304:
            headers.append((b"content-length", b"%d" % sum(map(len, parts))))
        if last:
            headers.append((b"connection", b"close"))
        head_only = self._head is not None and self._head.method == b"HEAD"
        self._write(h11.Response(status_code=status, headers=headers))
        for part in [] if head_only else parts:
            self._write(h11.Data(data=part))
        self._write(h11.EndOfMessage())
        self._head = None
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._await_request()
        else:
            self._transport.close()

    def _write(self, event: h11.Event) -> None:
        if self._transport is not None:
            data = self._h11.send(event)
            if data:
                self._transport.write(data)

    def _await_request(self) -> None:
        """Wait for a request, with those that wait for the shortest time last in the order."""
        self._close_after(_IDLE_TIMEOUT)
        with contextlib.suppress(KeyError):
            del self._server.connections[self]
            self._server.connections[self] = None

    def _close_after(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)

    def _stop_timer(self) -> None:
        self._receiving = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _address_of(headers: dict[bytes, bytes]) -> str:
    """Return the address that an Envoy gives itself; empty where it gives none."""
    first = headers.get(b"x-forwarded-for", b"").partition(b",")[0].strip()
    return printable(first.decode("latin-1")[:_MAX_ADDRESS])


def _hold_time(header: bytes) -> float:
    """Return the seconds for which a poll may be held: Envoy's time-out, less a margin for the way back."""
    if not header.isdigit():
        return 0.0
    return max(0.0, min(int(header[:9]) / 1000 - _ANSWER_MARGIN, _MAX_HOLD))
