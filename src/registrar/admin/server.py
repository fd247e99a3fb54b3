"""A small HTTP/1.1 server for the local admin API, on h11 and asyncio, with limits on everything."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import h11
from msgspec import Struct, field

from registrar.config.listen import ListenAddress
from registrar.event_log import EventLogger
from registrar.unix_socket import unix_socket

_MAX_HEADER_BYTES = 16 * 1024
_MAX_BODY_BYTES = 64 * 1024
_MAX_CONNECTIONS = 32
_MAX_SPARE_CONNECTIONS = 4
"""Connections beyond the limit, for probes alone: a health check must not fail because other requests wait."""
_REQUEST_TIMEOUT = 10.0
"""Seconds for a request to arrive, for a response to be sent, and for an idle connection to be kept."""
_READ_BYTES = 16 * 1024

log = EventLogger(__name__)


class AdminRequest(Struct, frozen=True):
    """A received request; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class AdminResponse(Struct, frozen=True):
    """The response to a request."""

    status: int
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[AdminRequest], Awaitable[AdminResponse]]


class AdminServer:
    """Serves the admin API while it is entered as a context manager.

    Args:
        listen: the address to listen on.
        handle: handles a request; an exception becomes a 500 and a log event.
        refusal: makes the response to a request that breaks a rule of the transport.
        probes: paths that are served even at the limit of connections; each has to be handled without waiting.
    """

    def __init__(
        self,
        listen: ListenAddress,
        handle: Handler,
        refusal: Callable[[int, str], AdminResponse],
        probes: Collection[str] = (),
    ) -> None:
        self._listen = listen
        self._handle = handle
        self._refusal = refusal
        self._probes = probes
        # The task of each open connection.
        self._connections: set[asyncio.Task[None]] = set()
        # The connections that wait for a request, or for the rest of one, longest first; the value tells whether the
        # connection is a spare one.
        self._waiting: dict[asyncio.Task[None], bool] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Start to listen.

        Raises:
            OSError: the address or the path is not available.
        """
        if self._listen.path is not None:
            self._server = await asyncio.start_unix_server(
                self._accept, sock=unix_socket(self._listen.path, _MAX_CONNECTIONS)
            )
        elif self._listen.host:
            self._server = await asyncio.start_server(self._accept, self._listen.host, self._listen.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is None:
            return
        if self._listen.path is not None:
            # First: the next process takes a socket that refuses for a stale one, and its own would be removed here.
            with contextlib.suppress(OSError):
                self._listen.path.unlink(missing_ok=True)
        self._server.close()
        for task in self._connections:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        spare = not self._room(_MAX_CONNECTIONS, spare=False)
        if task is None or (spare and not self._room(_MAX_CONNECTIONS + _MAX_SPARE_CONNECTIONS, spare=True)):
            writer.close()
            return
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # A client that disconnects, or is silent for too long, is normal.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._converse(task, reader, writer, spare=spare)
        self._waiting.pop(task, None)
        writer.close()

    def _room(self, limit: int, *, spare: bool) -> bool:
        """Tell whether one more connection may be served, and close the longest idle one if necessary.

        Return False while every connection of that kind has a request that is being handled.
        """
        if len(self._connections) < limit:
            return True
        idlest = next((task for task, has_spare in self._waiting.items() if has_spare is spare), None)
        if idlest is None:
            return False
        del self._waiting[idlest]
        self._connections.discard(idlest)
        return idlest.cancel()

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, spare: bool
    ) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER_BYTES)
        while True:
            request = None
            self._waiting[task] = spare
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT):
                    request = await _receive(connection, reader, writer)
                self._waiting.pop(task, None)
                if request is None:
                    return
                response = await self._answer(request, spare=spare)
            except h11.RemoteProtocolError as error:
                response = self._refusal(error.error_status_hint, str(error))
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                head_only = request is not None and request.method == "HEAD"
                await _send(connection, writer, response, head_only=head_only, last=spare)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, request: AdminRequest, *, spare: bool) -> AdminResponse:
        if spare and request.path not in self._probes:
            return self._refusal(503, f"{_MAX_CONNECTIONS} requests are being handled already; retry later")
        if self._listen.path is None and _foreign(request):
            # A web page in a browser on this machine reaches loopback too, by DNS rebinding under any name.
            return self._refusal(
                403, "the Host header has to be a loopback address, and requests of web pages are refused"
            )
        try:
            return await self._handle(request)
        except Exception:
            log.exception("admin_request_failed", method=request.method, path=request.path)
            return self._refusal(500, "internal error; the registrar's log has it under admin_request_failed")


async def _receive(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AdminRequest | None:
    """Return one whole request, or None if the client has disconnected.

    Raises:
        h11.RemoteProtocolError: the request is not HTTP, or too large.
    """
    head, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MAX_BODY_BYTES:
                raise h11.RemoteProtocolError(f"the body has more than {_MAX_BODY_BYTES} bytes", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, body)
        else:
            return None


def _request(head: h11.Request, body: bytes) -> AdminRequest:
    try:
        target = urlsplit(head.target.decode("ascii"))
    except ValueError as error:
        raise h11.RemoteProtocolError(str(error)) from error
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    return AdminRequest(head.method.decode("ascii"), target.path, query, headers, bytes(body))


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: AdminResponse, *, head_only: bool, last: bool
) -> None:
    headers = [("content-type", response.content_type), ("content-length", str(len(response.body)))]
    if last:
        headers.append(("connection", "close"))
    writer.write(connection.send(h11.Response(status_code=response.status, headers=headers)) or b"")
    if not head_only:
        writer.write(connection.send(h11.Data(data=response.body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()


def _foreign(request: AdminRequest) -> bool:
    if "origin" in request.headers:
        return True
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return True
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("", "localhost")
