"""One HTTP/1.1 connection of a load generator: as little work for each request as Python allows.

The load shares the cores with what it measures, so what a client library does for a request would be measured too.
"""

import asyncio
import re
import time
from typing import Self, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STATUS = slice(9, 12)
_BODILESS = (b"204", b"304")


class Client(asyncio.Protocol):
    """A connection that has one request under way at a time; ``answered`` is the moment of its last answer."""

    def __init__(self) -> None:
        self.answered = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Open a connection to a port of this machine."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send one request; the future is its status and body, or a ConnectionError."""
        assert self._transport is not None, "connect() makes clients"  # noqa: S101  # for the type checker
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Close the connection, and wait for no answer any more."""
        if self._answer is not None:
            self._answer.cancel()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand over the answer when it is whole."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        begin = end + 4
        length = 0 if self._received[_STATUS] in _BODILESS else self._length(end)
        if len(self._received) >= begin + length:
            answer = int(self._received[_STATUS]), bytes(self._received[begin : begin + length])
            self._received.clear()
            self.answered = time.monotonic()
            if not self._answer.done():
                self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def _length(self, end: int) -> int:
        found = _LENGTH.search(self._received, 0, end + 2)
        if found is None:
            raise ConnectionError("an answer without content-length")
        return int(found[1])


def request(method: str, path: str, body: bytes, **headers: str) -> bytes:
    """Return the bytes of a request; underscores in the names of headers are hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench", "content-type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
