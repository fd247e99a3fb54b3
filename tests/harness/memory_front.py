"""A registry's HTTP front in memory: the real protocol and parts, without a socket, a server and PostgreSQL."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from uvicorn import Config
from uvicorn.server import ServerState

from registry.app import build_asgi_app
from registry.auth.credential import Credential
from registry.core.endpoint import Endpoint
from registry.core.snapshot import SnapshotDelta
from registry.http.fast_protocol import FastProtocol
from registry.process import RegistryProcess
from registry.settings import Settings
from wire.model import Registration

DATABASE_ID = "0123456789abcdef"
POLL_URL = "/v3/discovery:endpoints"
_NO_DATABASE = "postgresql://nobody@localhost/none"
"""Never connected to, because nothing here starts the process."""
_HEADERS = [(b"date", b"Sun, 29 Nov 2026 08:00:00 GMT")]
_CLIENT = ("10.0.0.9", 40_000)
_SERVER = ("10.0.0.1", 8080)


class Wire(asyncio.Transport):
    """A connection in memory, which keeps what was sent last."""

    def __init__(self) -> None:
        super().__init__({"peername": _CLIENT, "sockname": _SERVER})
        self.sent: list[bytes | bytearray | memoryview] = []
        """The pieces that were sent since it was last emptied, by whoever reads them."""
        self.closed = False
        """Whether the server has closed the connection."""
        self._receiver: asyncio.BaseProtocol | None = None
        """The protocol that gets what is received. Written by set_protocol()."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what is received to another protocol than the one that was connected."""
        self._receiver = protocol

    def receive(self, data: bytes) -> None:
        """Receive some bytes of a client, as an event loop does: into the buffer of the protocol."""
        receiver = self._receiver
        assert isinstance(receiver, asyncio.BufferedProtocol)
        buffer = memoryview(receiver.get_buffer(-1))
        for start in range(0, len(data), len(buffer)):
            piece = data[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            receiver.buffer_updated(len(piece))

    def overwrite(self) -> None:
        """Receive something else into the same buffer, as another connection of the process does."""
        receiver = self._receiver
        assert isinstance(receiver, asyncio.BufferedProtocol)
        buffer = memoryview(receiver.get_buffer(-1))
        buffer[:] = bytes(len(buffer))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep a piece."""
        self.sent.append(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Keep some pieces."""
        self.sent += list_of_data

    def is_closing(self) -> bool:
        """Return whether the server has closed the connection."""
        return self.closed

    def close(self) -> None:
        """Note that the server has closed the connection."""
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing arrives by itself."""

    def resume_reading(self) -> None:
        """Nothing arrives by itself."""


class Connection(Struct, frozen=True):
    """A connection to a front: the protocol takes what a client sends, and the wire what it answers."""

    protocol: FastProtocol
    wire: Wire

    def answer(self) -> bytes:
        """Return what was sent since the last call."""
        sent = b"".join(bytes(piece) for piece in self.wire.sent)
        self.wire.sent.clear()
        return sent


class MemoryFront:
    """The front of a process that has read its state; in a running event loop.

    Args:
        services: names, and how many endpoints each has, at version 1.
        credentials: those that the process knows.
        owner: the identity that registered the endpoints; empty: they were registered without access control.
        loop: the name of the event loop as uvicorn has it.
        settings: of the process.
    """

    def __init__(
        self,
        services: dict[str, int],
        *credentials: Credential,
        owner: str = "",
        loop: Literal["auto", "asyncio", "uvloop"] = "asyncio",
        **settings: Any,
    ) -> None:
        # Nothing is written there before the process starts.
        self.process = RegistryProcess(Settings(**({"data_dir": Path("nowhere")} | settings)), _NO_DATABASE)
        cache = self.process.cache
        cache.set_database(DATABASE_ID)
        cache.apply(
            SnapshotDelta(name, 1, 1, listed=_endpoints(name, count, owner)) for name, count in services.items()
        )
        cache.mark_ready(time.monotonic())
        self.process.access.replace(credentials, (), ())
        self._config = Config(
            build_asgi_app(self.process),
            http=FastProtocol,
            loop=loop,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            reset_contextvars=True,
        )
        self._config.load()
        self._state = ServerState()
        self._state.default_headers = _HEADERS

    @property
    def answered(self) -> int:
        """The number of requests that were answered."""
        return self._state.total_requests

    def connect(self) -> Connection:
        """Return a new connection."""
        wire = Wire()
        protocol = FastProtocol(self._config, self._state, {}, asyncio.get_running_loop())
        protocol.connection_made(wire)
        return Connection(protocol, wire)


def _endpoints(service: str, count: int, owner: str) -> list[Endpoint]:
    now = time.time()
    return [
        Endpoint(number, service, f"10.0.1.{number}", 8080, registration(number), now, now, owner=owner)
        for number in range(1, count + 1)
    ]


def registration(number: int) -> Registration:
    """Return what the instance of that number says of itself."""
    zone = f"eu-west-1{'abc'[number % 3]}"
    return Registration(f"i-{number:017x}", 1, region="eu-west-1", zone=zone, ttl=86_400.0)


def poll(
    body: bytes, *lines: bytes, url: str = POLL_URL, method: bytes = b"POST", version: bytes = b"HTTP/1.1"
) -> bytes:
    """Return a poll with a body as an Envoy sends it, with further lines in its head."""
    head = b"\r\n".join(
        [
            b"%b %b %b" % (method, url.encode(), version),
            b"host: registry",
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"x-envoy-internal: true",
            b"x-forwarded-for: 192.0.2.2",
            *lines,
        ]
    )
    return head + b"\r\n\r\n" + body
