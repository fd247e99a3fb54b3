"""An app to be checked: answers each connection with fixed bytes, or not at all."""

import asyncio
import ssl
from typing import Self


class FakeApp:
    """Listens on loopback, or on a unix socket, while it is entered.

    Args:
        answer: as below.
        context: for TLS.
        unix: path of a socket to listen on.

    Attributes:
        answer: bytes for each request; None accepts and never answers.
        requests: the heads that came.
    """

    def __init__(
        self,
        answer: bytes | None = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        *,
        context: ssl.SSLContext | None = None,
        unix: str = "",
    ) -> None:
        self.answer = answer
        self.port = 0
        self._context = context
        self._unix = unix
        self.requests: list[str] = []
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        if self._unix:
            self._server = await asyncio.start_unix_server(self._serve, self._unix, ssl=self._context)
            return self
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._connections):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()
