"""The HTTP client of heartbeats: connections that stay open between requests, TLS, and one retry."""

import asyncio
import os
import ssl
from types import TracebackType
from typing import Self

from msgspec import Struct

from registrar.registry_client.tls import RegistryTls
from wire.http1 import Http1Connection, NoResponseError, Request, Response

_IDLE_TIMEOUT = 60.0
"""Seconds that an idle connection is kept; longer than any interval that a registry grants by itself."""
_MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bytes of a registry's response; the results of the largest batch take about a megabyte."""


NO_RESPONSE = (OSError, ValueError)
"""The errors of a request that got no valid response."""


class ConnectError(OSError):
    """No connection was made, so nothing of the request was sent."""


class Origin(Struct, frozen=True):
    """A server to connect to.

    Attributes:
        address: an IP literal.
        port: its port.
        tls_name: the name to ask for (SNI) and to verify; empty for plain http.
    """

    address: str
    port: int
    tls_name: str = ""


class _IdleConnection(Struct, frozen=True):
    connection: Http1Connection
    # The context that it was opened with; None for plain http.
    context: ssl.SSLContext | None
    # Ends when the connection cannot be used any more; then it is no longer kept.
    watch: asyncio.Task[None]


class HttpClient:
    """Sends requests, and keeps one idle connection for each origin.

    After the files of TLS have changed, the next request uses a connection of its own.
    It follows no redirect, and reads no proxy settings: a sidecar's registry is reached directly.

    Args:
        tls: for origins with a ``tls_name``; None if there are none.
        connect_timeout: seconds for a connection, handshake included. The caller limits the time of a whole request.
        max_body: bytes of a response's body.
    """

    def __init__(self, tls: RegistryTls | None, connect_timeout: float, max_body: int = _MAX_BODY_BYTES) -> None:
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._max_body = max_body
        # By origin; a connection leaves for the length of a request, and when the server closes it.
        self._idle: dict[Origin, _IdleConnection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that are kept."""
        for origin, idle in list(self._idle.items()):
            if connection := await self._take(origin, idle.context):
                connection.abort()

    async def request(self, origin: Origin, request: Request) -> Response:
        """Send a request and return its response.

        A kept connection may be closed by the server while the request is on its way. If nothing of a response came,
        the request is sent again on a new connection, once: requests to a registry may be repeated (RFC 9110, 9.2.2).

        Raises:
            ConnectError: nothing was sent.
            OSError: the connection broke.
            ValueError: what came is no response.
        """
        context = self._context(origin)
        connection = await self._take(origin, context)
        if connection is None:
            return await self._exchange(origin, await self._connect(origin, context), context, request)
        try:
            return await self._exchange(origin, connection, context, request)
        except (OSError, NoResponseError) as error:
            if connection.response_began:
                raise
            first = error
        try:
            connection = await self._connect(origin, context)
        except ConnectError as error:
            # Not a ConnectError: the first connection may have delivered the request before it ended.
            raise NoResponseError(f"{_reason(first)}, and then: {error}") from error
        return await self._exchange(origin, connection, context, request)

    def _context(self, origin: Origin) -> ssl.SSLContext | None:
        if self._tls is None or not origin.tls_name:
            return None
        try:
            return self._tls.context
        except OSError as error:
            raise ConnectError(_reason(error)) from error

    async def _connect(self, origin: Origin, context: ssl.SSLContext | None) -> Http1Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await Http1Connection.open(origin.address, origin.port, context, origin.tls_name or None)
        except TimeoutError as error:
            raise ConnectError(f"no connection within {self._connect_timeout:g}s") from error
        # ValueError: a name that TLS cannot ask for.
        except (OSError, ValueError) as error:
            raise ConnectError(_reason(error)) from error

    async def _exchange(
        self, origin: Origin, connection: Http1Connection, context: ssl.SSLContext | None, request: Request
    ) -> Response:
        try:
            response = await connection.exchange(request, self._max_body)
        except BaseException:
            connection.abort()
            raise
        if connection.reusable and origin not in self._idle:
            watch = asyncio.create_task(self._watch(origin, connection), name="idle connection")
            self._idle[origin] = _IdleConnection(connection, context, watch)
        else:
            connection.abort()
        return response

    async def _take(self, origin: Origin, context: ssl.SSLContext | None) -> Http1Connection | None:
        """Return the connection that is kept for an origin, unless the server closed it or the files of TLS changed."""
        idle = self._idle.pop(origin, None)
        if idle is None:
            return None
        idle.watch.cancel()
        try:
            # Only one task may read from a connection.
            await asyncio.wait({idle.watch})
        except asyncio.CancelledError:
            idle.connection.abort()
            raise
        if idle.connection.reusable and idle.context is context:
            return idle.connection
        idle.connection.abort()
        return None

    async def _watch(self, origin: Origin, connection: Http1Connection) -> None:
        """Drop an idle connection as soon as it is of no use; cancelled when it is taken for a request."""
        try:
            async with asyncio.timeout(_IDLE_TIMEOUT):
                await connection.wait_until_unusable()
        except TimeoutError:
            pass
        del self._idle[origin]
        connection.abort()


def describe(error: Exception) -> str:
    """Return an error's type and reason, as logs show it."""
    kind = type(error).__name__
    return f"{kind} {reason}" if (reason := _reason(error)) != kind else kind


def _reason(error: Exception) -> str:
    """Return why a request failed: the system's words for an error of a socket, which asyncio puts in its own."""
    number = error.errno if isinstance(error, OSError) else None
    # An error of TLS has a number of its own, to which the system gives another meaning.
    if number and number > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(number)
    return str(error) or type(error).__name__
