"""One HTTP/1.1 connection that stays open between requests.

The traffic has to see each lost request as it is: a client library that opens a new connection and tries again would
hide some. That is why this is ``wire``'s connection without a pool and without retries, and not httpx.
"""

import asyncio
from collections.abc import Mapping

from wire.http1 import Http1Connection, Request, Response

_MAX_BODY_BYTES = 16 * 1024 * 1024


class Connection:
    """A connection to one address; it opens itself when it is needed.

    Args:
        port: the port.
        host: the address.
        authority: the Host of its requests.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", authority: str = "demo") -> None:
        self._host = host
        self._port = port
        self._authority = authority
        # The open connection while it can carry another request.
        self._open: Http1Connection | None = None

    async def get(self, path: str, within: float) -> Response:
        """Send one GET and return its response.

        Raises:
            OSError: no connection, or it broke before the response was complete; a TimeoutError is one too.
        """
        return await self._send(Request("GET", path, {"host": self._authority}), within)

    async def post(self, path: str, headers: Mapping[str, str], body: bytes, within: float) -> Response:
        """Send one POST and return its response.

        Raises:
            OSError: as for ``get``.
        """
        return await self._send(Request("POST", path, {"host": self._authority, **headers}, body), within)

    async def _send(self, request: Request, within: float) -> Response:
        # Out of reach of the next request until this one has its whole response, which would be taken for that one's.
        connection, self._open = self._open, None
        try:
            async with asyncio.timeout(within):
                connection = connection or await Http1Connection.open(self._host, self._port)
                response = await connection.exchange(request, _MAX_BODY_BYTES)
        except BaseException as error:
            if connection is not None:
                connection.abort()
            if isinstance(error, ValueError):
                raise ConnectionError("the connection closed before the answer was complete") from error
            raise
        if connection.reusable:
            self._open = connection
        else:
            connection.abort()
        return response

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._open is not None:
            self._open.abort()
            self._open = None


async def fetch(port: int, path: str, within: float = 2.0) -> Response:
    """Send one GET on a connection of its own.

    Raises:
        OSError: no connection, or it broke before the response was complete.
    """
    connection = Connection(port)
    try:
        return await connection.get(path, within)
    finally:
        connection.close()
