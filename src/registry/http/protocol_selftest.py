"""The self-test of the HTTP protocols and the acceptor, which use attributes that no release of uvicorn promises.

It runs at each start. The same requests go through uvicorn's own protocol and through ours, over connections in memory,
and the responses have to be the same bytes; then once more through the acceptor, over a loopback connection.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import structlog
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from registry.auth.access_table import AccessTable
from registry.core.clock import Clock
from registry.http.accepting_server import AcceptingServer, Listener
from registry.http.asgi import DiscoveryMiddleware, Receive, Scope, Send
from registry.http.lists.lists import Lists
from registry.http.v1.edge import EdgeQuestions
from registry.settings import Settings
from registry.usecases.authentication import Authentication
from registry.usecases.drop_in import DropInHosts
from registry.usecases.heartbeat import Heartbeats
from registry.usecases.traffic import Traffic
from registry.xds.discovery import Discovery
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.resources import ENDPOINTS, RestPath
from wire.edge_assignments import EDGE_PATH

log = structlog.get_logger()

_SELFTEST_TIMEOUT = 10.0
"""Seconds. The self-test takes milliseconds, but a machine that starts everything at once gives it little processor
time, and a protocol that fails it would lack its limits until the next start."""
_INSTEAD = "uvicorn's own HTTP protocol"
_MISSING = (
    "size limits and deadlines of requests; trailers become headers, and a request that asks for h2c loses its body: "
    "let only trusted clients connect, and install the uvicorn that this version of headcount names"
)
_HEADERS = [(b"date", b"today")]
_CLOSED = b"(closed)"
_POLL_URL = "/v3/discovery:endpoints"
_POLL = b"POST %b HTTP/1.1\r\nhost: selftest\r\n" % _POLL_URL.encode()
_HELD = _POLL + b"content-length: 7\r\n\r\ncurrent"
_QUESTION = b"POST %b HTTP/1.1\r\nhost: selftest\r\ncontent-length: 2\r\n\r\n{}" % EDGE_PATH.encode()
_OTHER = b"GET /selftest HTTP/1.1\r\nhost: selftest\r\n\r\n"
# The data that arrives at a time, and the number of responses that there have to be then.
_CONVERSATION = (
    (_POLL + b"content-length: 8\r\n\r\nin ", 0),
    (b"parts", 1),
    (_POLL + b"content-length: 8\r\n\r\nrepeated", 2),
    (_POLL + b"content-length: 8\r\n\r\nsplit", 2),
    (b"ted" + _OTHER, 4),
    (_HELD + _OTHER + _HELD, 7),
    (_HELD, 8),
    (_HELD, 9),
    (_QUESTION, 10),
    (_QUESTION, 11),
    (_POLL + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nlast\r\n0\r\n\r\n", 12),
)


def select_protocol(door: str) -> type[HttpToolsProtocol] | None:
    """Return the protocol for a value of REGISTRY_DOOR; None, with a warning in the log, if it fails the self-test."""
    try:
        # Imported here, because a name of uvicorn that they import may be gone.
        from registry.http.certificate_protocol import CertificateProtocol  # noqa: PLC0415
        from registry.http.fast_protocol import FastProtocol  # noqa: PLC0415

        ours = FastProtocol if door == "fast" else CertificateProtocol
        expected, seen = asyncio.run(_play(HttpToolsProtocol, ours))
    except Exception as error:  # noqa: BLE001  # whatever it is, the middleware works
        log.warning("protocol_unfit", error=repr(error), instead=_INSTEAD, missing=_MISSING)
        return None
    if seen != expected:
        log.warning("protocol_unfit", expected=expected, seen=seen, instead=_INSTEAD, missing=_MISSING)
        return None
    return ours


def acceptor_fits(protocol: type[asyncio.Protocol] | str) -> bool:
    """Return whether the acceptor can serve this protocol; if not, a warning is in the log."""
    try:
        config = _config(protocol)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            seen, expected = runner.run(_accepted(config))
    except Exception as error:  # noqa: BLE001  # whatever it is, libuv's accept loop works
        log.warning("acceptor_unfit", error=repr(error), instead="libuv's accept loop, one connection a turn")
        return False
    if seen != expected:
        log.warning(
            "acceptor_unfit", expected=expected, seen=seen, instead="libuv's accept loop, one connection a turn"
        )
        return False
    return True


async def _accepted(config: Config) -> tuple[bytes, bytes]:
    """Return the responses over an accepted connection, and those over a connection in memory."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        server = AcceptingServer(config, [Listener(listener)])
        server.lifespan = config.lifespan_class(config)  # as in uvicorn's serve()
        async with asyncio.timeout(_SELFTEST_TIMEOUT):
            await server.startup()
            if server.servers:
                raise RuntimeError("uvicorn listens by itself")
            server.server_state.default_headers = _HEADERS
            reader, writer = await asyncio.open_connection(*address)
            await _talk(writer.write, server.server_state)
            seen = await reader.read()
            writer.close()
            await writer.wait_closed()
            await _check_making_room(server, address)
            asyncio.get_running_loop().remove_reader(listener)
    return seen, (await _transcript(config.http_protocol_class)).replace(_CLOSED, b"")


async def _check_making_room(server: AcceptingServer, address: tuple[str, int]) -> None:
    """Check that a connection that is open while descriptors are scarce ends with its next response, and says so."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(_OTHER)
    await reader.readuntil(b"\r\n\r\n")
    server.make_room(1)
    writer.write(_OTHER)
    if b"connection: close" not in (await reader.read()).lower():
        raise RuntimeError("a response does not say that its connection ends")
    writer.close()
    await writer.wait_closed()


async def _play(*protocols: Callable[..., asyncio.Protocol]) -> list[bytes]:
    return [await _transcript(protocol) for protocol in protocols]


async def _transcript(protocol: Callable[..., Any]) -> bytes:
    """Return the responses of a protocol to the conversation, and whether it closed the connection."""
    config = _config(protocol)
    state = ServerState()
    state.default_headers = _HEADERS
    connection = protocol(config=config, server_state=state, app_state={})
    wire = _Wire(connection)
    connection.connection_made(wire)
    async with asyncio.timeout(_SELFTEST_TIMEOUT):
        await _talk(wire.receive, state)
    connection.connection_lost(None)
    return bytes(wire.sent)


async def _talk(send: Callable[[bytes], object], state: ServerState) -> None:
    """Send the conversation, each piece after the responses to those before it."""
    for piece, responses in _CONVERSATION:
        send(piece)
        while state.total_requests < responses:  # noqa: ASYNC110  # uvicorn counts, and tells nobody
            await asyncio.sleep(0)


def _config(protocol: Any) -> Config:  # noqa: ANN401  # as in uvicorn, which takes classes and names
    config = Config(
        _echo_middleware(),
        http=protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    config.load()
    return config


def _echo_middleware() -> DiscoveryMiddleware:
    """Return the middleware around an application, with a discovery, that are of the self-test alone."""
    settings = SimpleNamespace(door="fast", max_body=1024, hosts=(), connection_age=3600.0)
    # No heartbeat and no session is part of the self-test.
    authentication = Authentication(AccessTable(), cast("Any", None), Clock())
    return DiscoveryMiddleware(
        _application,
        cast("Discovery", _EchoDiscovery()),
        cast("Heartbeats", None),
        cast("DropInHosts", None),
        cast("Lists", None),
        authentication,
        cast("Settings", settings),
        cast("Traffic", None),
        cast("EdgeQuestions", _EchoQuestions()),
    )


async def _application(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


class _EchoDiscovery:
    """A discovery that answers a poll by its own body, and holds the poll "current" for a moment."""

    paths = {_POLL_URL: RestPath(ENDPOINTS, "v3")}  # noqa: RUF012  # as an attribute of Discovery

    def read(self, _path: object, _principal: object, *parts: bytes) -> DiscoveryRequest:
        return DiscoveryRequest((b"".join(parts).decode(),))

    def now(self, _path: object, request: DiscoveryRequest, _peer: str) -> DiscoveryResponse | None:
        return None if request.names == ("current",) else DiscoveryResponse(200, request.names[0].encode())

    async def later(self, *_poll: object) -> DiscoveryResponse:
        return DiscoveryResponse(304)

    def hold(self, *poll: Any) -> Callable[[], None]:  # noqa: ANN401  # the last one takes the response
        return asyncio.get_running_loop().call_soon(poll[-1], DiscoveryResponse(304)).cancel


class _EchoQuestions:
    """Leaves the questions of edges to the application."""

    def read(self, _sent: bytes) -> None:
        return None


class _Wire(asyncio.Transport):
    """A connection in memory: keeps what is sent, and whether it was closed."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.sent = bytearray()
        self._protocol: asyncio.BaseProtocol = protocol
        self._closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def receive(self, data: bytes) -> None:
        """Give a piece to the protocol as an event loop does."""
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            memoryview(protocol.get_buffer(-1))[: len(data)] = data
            protocol.buffer_updated(len(data))
        else:
            cast("asyncio.Protocol", protocol).data_received(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self.sent += _CLOSED

    def pause_reading(self) -> None:
        """Nothing arrives by itself."""

    def resume_reading(self) -> None:
        """Nothing arrives by itself."""
