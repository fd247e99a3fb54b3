"""One HTTP/1.1 connection that stays open between requests, on bare asyncio streams.

The traffic must see each lost request as it is: a client library that opens a new connection and tries again
would hide some.
"""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection to one address; it opens itself when it is needed."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, within: float) -> Answer:
        """Send one GET and return its answer.

        Raises:
            OSError: no connection, or it broke before the answer was complete; a TimeoutError is one too.
        """
        try:
            async with asyncio.timeout(within):
                return await self._exchange(path)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as broken:
            self.close()
            raise ConnectionError("the connection closed before the answer was complete") from broken
        except BaseException:
            # An answer that is still on its way would be taken for the next request's.
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, path: str) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n".encode())
        await writer.drain()
        answer = await _read_answer(reader)
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer


async def fetch(port: int, path: str, within: float = 2.0) -> Answer:
    """Send one GET on a connection of its own.

    Raises:
        OSError: no connection, or it broke before the answer was complete.
    """
    connection = Connection(port)
    try:
        return await connection.get(path, within)
    finally:
        connection.close()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head[:-4].split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(status_line.split(" ", 2)[1])
    return Answer(status, headers, await _read_body(reader, status, headers))


async def _read_body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
    if status in {204, 304}:
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    return await reader.readexactly(int(headers.get("content-length", "0")))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body
