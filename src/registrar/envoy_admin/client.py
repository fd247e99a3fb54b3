"""Requests to Envoy's admin interface, bounded in size and time.

Envoy answers them on its main thread, so a request that it does not answer in time is given up, and its connection
closed. Each request has a connection of its own: they are rare, and Envoy closes idle ones.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.errors import EnvoyAdminError
from wire.http1 import Http1Connection, Request, ResponseHead

REQUEST_TIMEOUT = 5.0
"""Seconds for one request, from connecting to the last byte."""
MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bytes of a body that is read as a stream; 1,000 clusters have about 1.5 MB of statistics."""
MAX_LINE_BYTES = 64 * 1024
"""Bytes of one line; a histogram of 300 buckets has 6 kB."""
_MAX_SHOWN = 200
"""Characters of a refusal that are shown."""


class EnvoyAdminClient:
    """Sends requests to the admin interface of one Envoy.

    Args:
        address: where it listens.
        timeout: seconds for one request, unless it names others.
    """

    def __init__(self, address: EnvoyAdminAddress, timeout: float = REQUEST_TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout

    async def read(
        self, target: str, *, max_bytes: int, method: str = "GET", body: bytes = b"", seconds: float | None = None
    ) -> bytes:
        """Return the whole body of a response.

        Args:
            target: path and query.
            max_bytes: the longest body that is read.
            method: ``GET``, or ``POST`` for what changes something.
            body: of the request.
            seconds: for the request, from connecting to the last byte; None for those of the client.

        Raises:
            EnvoyAdminError: there was no response in time, it is too long, or its status is not 200.
        """
        whole = bytearray()
        pieces = self.pieces(target, max_bytes=max_bytes, method=method, body=body, seconds=seconds)
        async with aclosing(pieces):
            async for piece in pieces:
                whole += piece
        return bytes(whole)

    async def lines(self, target: str, *, max_bytes: int = MAX_BODY_BYTES) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a response without their ends, so that a long one is never held as a whole.

        Close the generator, by ``contextlib.aclosing``, so that its connection ends with it.

        Raises:
            EnvoyAdminError: as ``read``; or a line is longer than ``MAX_LINE_BYTES``.
        """
        async with aclosing(self.line_groups(target, max_bytes=max_bytes)) as groups:
            async for group in groups:
                for line in group:
                    yield line

    async def line_groups(self, target: str, *, max_bytes: int = MAX_BODY_BYTES) -> AsyncGenerator[list[bytes], None]:
        """Yield the lines of a response as ``lines``, all those together that came together.

        Raises:
            EnvoyAdminError: as ``lines``.
        """
        rest = b""
        async with aclosing(self.pieces(target, max_bytes=max_bytes)) as pieces:
            async for piece in pieces:
                *ended, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n")
                yield ended
                if len(rest) > MAX_LINE_BYTES:
                    raise self._error(target, f"a line is longer than {MAX_LINE_BYTES} bytes")
        if rest:
            yield [rest]

    async def pieces(
        self,
        target: str,
        *,
        max_bytes: int = MAX_BODY_BYTES,
        method: str = "GET",
        body: bytes = b"",
        seconds: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of a response's body as they come; close the generator as that of ``lines``.

        Raises:
            EnvoyAdminError: as ``read``.
        """
        limit = self._timeout if seconds is None else seconds
        # Each step has the deadline of the whole, and not the block: a timeout must not cancel what the caller awaits.
        deadline = asyncio.get_running_loop().time() + limit
        connection = None
        received = 0
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect()
                connection.send(_request(self.address, method, target, body))
                head = await connection.read_head()
                if head.status != 200:
                    raise await self._refusal(target, head, connection)
            while piece := await _next_piece(connection, deadline):
                received += len(piece)
                if received > max_bytes:
                    raise self._error(target, f"the answer is longer than {max_bytes} bytes")
                yield piece
        except TimeoutError as error:
            raise self._error(target, f"no complete answer within {limit:g}s") from error
        except (OSError, ValueError) as error:
            raise self._error(target, str(error) or type(error).__name__) from error
        finally:
            if connection is not None:
                connection.abort()

    async def _connect(self) -> Http1Connection:
        if self.address.path is not None:
            return Http1Connection(*await asyncio.open_unix_connection(self.address.path))
        return await Http1Connection.open(self.address.host, self.address.port)

    async def _refusal(self, target: str, head: ResponseHead, connection: Http1Connection) -> EnvoyAdminError:
        said = (await connection.read_piece())[:_MAX_SHOWN].decode(errors="replace").strip()
        return self._error(target, f"{head.status} {said or head.reason}", head.status)

    def _error(self, target: str, reason: str, status: int | None = None) -> EnvoyAdminError:
        return EnvoyAdminError(str(self.address), target.partition("?")[0], reason, status)


async def _next_piece(connection: Http1Connection, deadline: float) -> bytes:
    async with asyncio.timeout_at(deadline):
        return await connection.read_piece()


def _request(address: EnvoyAdminAddress, method: str, target: str, body: bytes) -> Request:
    headers = {"host": address.authority, "connection": "close"}
    if method == "POST" and not body:
        headers["content-length"] = "0"
    return Request(method, target, headers, body)
