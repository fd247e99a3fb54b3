"""Whether our protocols fit the installed uvicorn, of which it uses what no release promises to keep.

Tried at each start: the same requests go through uvicorn's own protocol and through ours, over connections in
memory, and have to be answered by the same bytes.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import structlog
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from registry.door.plain import Door, Receive, Scope, Send
from registry.replica import Replica
from registry.xds.discovery import Answer
from registry.xds.poll import Poll

log = structlog.get_logger()

_PATIENCE = 2.0
_POLL = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: trial\r\n"
_HELD = _POLL + b"content-length: 7\r\n\r\ncurrent"
_OTHER = b"GET /trial HTTP/1.1\r\nhost: trial\r\n\r\n"
# What arrives at a time, and how many answers there have to be then.
_PIECES = (
    (_POLL + b"content-length: 8\r\n\r\nin ", 0),
    (b"parts", 1),
    (_OTHER, 2),
    (_HELD + _OTHER + _HELD, 5),
    (_POLL + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nlast\r\n0\r\n\r\n", 6),
)


def own_protocol(door: str) -> type[HttpToolsProtocol] | None:
    """Return the protocol for a door; None, with a warning in the log, when it does not fit."""
    try:
        # Only here: what they import of uvicorn may be gone.
        from registry.door.bounded import BoundedProtocol  # noqa: PLC0415
        from registry.door.fast import FastDoor  # noqa: PLC0415

        ours = FastDoor if door == "fast" else BoundedProtocol
        expected, seen = asyncio.run(_play(HttpToolsProtocol, ours))
    except Exception as error:  # noqa: BLE001  # whatever it is, the plain door works
        log.warning("our protocol does not fit the installed uvicorn; the plain one serves", error=repr(error))
        return None
    if seen != expected:
        log.warning("our protocol answers other bytes than the plain one, which serves", expected=expected, seen=seen)
        return None
    return ours


async def _play(*protocols: Callable[..., asyncio.Protocol]) -> list[bytes]:
    return [await _transcript(protocol) for protocol in protocols]


async def _transcript(protocol: Callable[..., Any]) -> bytes:
    """Return all that one protocol answers to the requests above, and what it did to the connection."""
    config = Config(_door(), ws="none", lifespan="off", log_config=None, access_log=False, server_header=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    wire = _Wire()
    connection = protocol(config=config, server_state=state, app_state={})
    connection.connection_made(wire)
    async with asyncio.timeout(_PATIENCE):
        for piece, answers in _PIECES:
            connection.data_received(piece)
            while state.total_requests < answers:  # noqa: ASYNC110  # uvicorn counts, and tells nobody
                await asyncio.sleep(0)
    connection.connection_lost(None)
    return bytes(wire.sent)


def _door() -> Door:
    """Return a plain door before an application and a replica that know nothing but the trial."""
    settings = SimpleNamespace(door="fast", max_body=1024)
    return Door(_application, cast("Replica", SimpleNamespace(discovery=_Polls(), settings=settings)))


async def _application(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


class _Polls:
    """What a door asks of discovery: a poll is answered by its own body, and "current" is held for a moment."""

    def read(self, _api: str, *parts: bytes) -> Poll:
        return Poll((b"".join(parts).decode(),))

    def now(self, _api: str, poll: Poll, _peer: str) -> Answer | None:
        return None if poll.names == ("current",) else Answer(200, poll.names[0].encode())

    async def later(self, *_told: object) -> Answer:
        return Answer(304)

    def hold(self, *told: Any) -> Callable[[], None]:  # noqa: ANN401  # the last one is whom to tell
        return asyncio.get_running_loop().call_soon(told[-1], Answer(304)).cancel


class _Wire(asyncio.Transport):
    """A connection in memory: keeps what is sent, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self.sent += b"(closed)"

    def pause_reading(self) -> None:
        """Nothing arrives by itself."""

    def resume_reading(self) -> None:
        """Nothing arrives by itself."""
