"""HTTP/1.1 as a client speaks it: h11 writes requests and reads responses, asyncio streams carry the bytes.

h11 decides what is HTTP. This module adds what h11 leaves to its user: bounds on what a server may send, an early end
where it speaks another protocol, and the decision whether a connection can carry another request. A response that
breaks a rule raises ValueError. Trailers and informational responses are read and dropped.

The registrar (checks, metadata, heartbeats) and the demo share it; neither may import the other.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Self

import h11
from msgspec import Struct

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a response's head, informational responses in front of it included; nginx and Envoy allow about as much."""
_READ_BYTES = 64 * 1024
_FIRST_BYTES = b"HTTP/1."
_MAX_SHOWN_BYTES = 100
_MAX_REASON_LENGTH = 200
_RECEIVED = re.compile(r"bytearray\(b(?P<text>(?P<quote>['\"]).*?(?P=quote))\)|\bb(?P<expected>'[^']*'(?=\)))")
_FRAMING = re.compile(rb"^(?:transfer-encoding|content-length):[^\n]*\n", re.IGNORECASE | re.MULTILINE)


class NoResponseError(ValueError):
    """The server closed the connection before the first byte of its response."""


class NotHttpError(ValueError):
    """The server sent bytes that begin no HTTP/1 response.

    Attributes:
        received: the first of them.
    """

    def __init__(self, received: bytes) -> None:
        line = received.partition(b"\n")[0].rstrip(b"\r")
        super().__init__(f"not an HTTP answer: {line[:_MAX_SHOWN_BYTES].decode('latin-1')}")
        self.received = received


class TooLongError(ValueError):
    """The body of a response is longer than its reader takes."""


class Request(Struct, frozen=True):
    """A request with its whole body.

    Attributes:
        method: in capitals.
        target: path and query, as they are sent.
        headers: by name; ``host`` has to be among them.
        body: sent with a content-length, unless the headers say otherwise.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


class ResponseHead(Struct, frozen=True):
    """A status line and headers.

    Attributes:
        status: from 200 on.
        reason: the phrase behind it, which may be empty.
        headers: by names in lower case; the values of a name that is sent several times are joined by commas.
    """

    status: int
    reason: str
    headers: Mapping[str, str]


class Response(ResponseHead, frozen=True):
    """A response whose body was read to its end."""

    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


class Http1Protocol:
    """Requests and responses of one connection, one at a time, without I/O.

    ``send`` returns bytes to write and ``receive`` takes those that came; ``next_head`` and ``next_piece`` return None
    while they need more of them.

    Args:
        ignore_framing: take a head whose length or transfer coding h11 refuses; its body then ends with the connection.
    """

    def __init__(self, *, ignore_framing: bool = False) -> None:
        # The head as far as it came, while its framing may have to be ignored; None where it is not, or after the head.
        self._raw_head: bytes | None = b"" if ignore_framing else None
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        # Bytes of the response that came so far; set back with each request.
        self._received = 0
        # The first bytes of the response while they are too few to tell HTTP from other protocols, and None after that.
        self._first: bytes | None = b""
        self._head: ResponseHead | None = None
        self._ended = False

    @property
    def response_began(self) -> bool:
        """Whether anything of the response to the last request came."""
        return self._received > 0

    @property
    def reusable(self) -> bool:
        """Whether the last response ended, and the connection can carry another request."""
        states = (self._h11.our_state, self._h11.their_state)
        return states == (h11.DONE, h11.DONE) and self._h11.trailing_data == (b"", False)

    def send(self, request: Request) -> bytes:
        """Return the bytes of a request.

        Raises:
            ValueError: it cannot be written as HTTP.
        """
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        self._received, self._first, self._head = 0, b"", None
        headers = {name.lower(): value.strip() for name, value in request.headers.items()}
        if request.body and "transfer-encoding" not in headers:
            headers["content-length"] = str(len(request.body))
        try:
            head = h11.Request(method=request.method, target=request.target, headers=list(headers.items()))
            events: list[h11.Event] = [head, h11.EndOfMessage()]
            if request.body:
                events.insert(1, h11.Data(data=request.body))
            return b"".join(self._h11.send(event) or b"" for event in events)
        except h11.LocalProtocolError as error:
            raise ValueError(f"the request cannot be sent: {error}") from error

    def receive(self, data: bytes) -> None:
        """Take in what came; nothing means that the server closed the connection.

        Raises:
            NoResponseError: it did so before it answered.
            NotHttpError: it speaks another protocol.
        """
        if not data and not self._received:
            raise NoResponseError("the server hung up without an answer")
        self._received += len(data)
        self._ended = not data
        if self._first is not None:
            self._first += data
            begin = self._first[: len(_FIRST_BYTES)]
            if not _FIRST_BYTES.startswith(begin):
                raise NotHttpError(self._first)
            if begin == _FIRST_BYTES:
                self._first = None
        if self._raw_head is not None:
            self._raw_head += data
        self._h11.receive_data(data)

    def next_head(self) -> ResponseHead | None:
        """Return the head of the final response, or None while it has not come.

        Raises:
            ValueError: it is not valid, never ended, or is longer than ``MAX_HEAD_BYTES``.
        """
        while self._head is None:
            event = self._next_head_event()
            if event is h11.NEED_DATA:
                return None
            if event is h11.PAUSED:
                raise ValueError("the server switched to another protocol")
            if isinstance(event, h11.Response):
                self._head, self._raw_head = _head(event), None
            if self._received - len(self._h11.trailing_data[0]) > MAX_HEAD_BYTES:
                raise _too_long("head")
        return self._head

    def next_piece(self) -> bytes | None:
        """Return the next bytes of the body, nothing at its end, or None while no more has come.

        Raises:
            ValueError: the body is not valid, or never ended.
        """
        event = self._next_event("body")
        if event is h11.NEED_DATA:
            return None
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def _next_head_event(self) -> object:
        try:
            return self._next_event("head")
        except ValueError:
            raw, self._raw_head = self._raw_head, None
            if raw is None or not _FRAMING.search(raw):
                raise
            # Any request will do: without framing the body ends with the connection.
            self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            self._h11.send(h11.Request(method="GET", target="/", headers=[("host", "-"), ("connection", "close")]))
            self._h11.send(h11.EndOfMessage())
            self._h11.receive_data(_FRAMING.sub(b"", raw))
            if self._ended:
                self._h11.receive_data(b"")
            return self._next_event("head")

    def _next_event(self, part: str) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if self._ended:
                raise ValueError(f"the answer's {part} never ended") from error
            if error.error_status_hint == 431:
                raise _too_long("head" if self._head is None else "chunk header or trailer") from error
            raise ValueError(f"the answer's {part} is not valid HTTP/1.1: {_readable(error)}") from error


class Http1Connection:
    """A connection of a client over open streams; after an error it has to be aborted."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ignore_framing: bool = False
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = Http1Protocol(ignore_framing=ignore_framing)

    @classmethod
    async def open(
        cls, host: str, port: int, context: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> Self:
        """Connect, with TLS where there is a context; ``server_name`` is then asked for (SNI) and verified.

        Raises:
            OSError: no connection, or its certificate is refused.
        """
        return cls(*await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name))

    @property
    def response_began(self) -> bool:
        """Whether anything of the response to the last request came."""
        return self._protocol.response_began

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the last exchange is whole, and nothing else was sent by the server."""
        return (
            self._protocol.reusable
            # A server may answer before it has the whole request; the rest of it would be taken for the next one.
            and self._writer.transport.get_write_buffer_size() == 0
            and not self._writer.is_closing()
            and _waits(self._reader)
        )

    def send(self, request: Request) -> None:
        """Write a request, without waiting for the server to take it: it may answer, and close, before that.

        Raises:
            ValueError: it cannot be written as HTTP.
        """
        self._writer.write(self._protocol.send(request))

    async def read_head(self) -> ResponseHead:
        """Return the head of the final response.

        Raises:
            OSError: the connection broke.
            ValueError: what came is no response; NoResponseError: nothing came.
        """
        while (head := self._protocol.next_head()) is None:
            self._protocol.receive(await self._reader.read(_READ_BYTES))
        return head

    async def read_piece(self) -> bytes:
        """Return the next bytes of the body, without their framing; nothing at its end.

        Raises:
            OSError: the connection broke.
            ValueError: the body is not valid, or never ended.
        """
        while (piece := self._protocol.next_piece()) is None:
            self._protocol.receive(await self._reader.read(_READ_BYTES))
        return piece

    async def exchange(self, request: Request, max_body_bytes: int) -> Response:
        """Send a request and return its whole response.

        Raises:
            OSError: the connection broke.
            ValueError: what came is no response; TooLongError: its body is longer than ``max_body_bytes``.
        """
        self.send(request)
        head = await self.read_head()
        body = bytearray()
        while piece := await self.read_piece():
            body += piece
            if len(body) > max_body_bytes:
                raise TooLongError(f"the answer's body is longer than {max_body_bytes} bytes")
        return Response(head.status, head.reason, head.headers, bytes(body))

    async def wait_until_unusable(self) -> None:
        """Return when the server closes the connection, or sends something, while no request is under way."""
        try:
            await self._reader.read(1)
        except OSError:
            return

    def abort(self) -> None:
        """Close the connection at once: a farewell of TLS would wait for a server that may hang."""
        self._writer.transport.abort()


def _waits(reader: asyncio.StreamReader) -> bool:
    """Return whether a reader has nothing to give: no bytes, no end and no error.

    asyncio has no call for that. The first step of a read ends it at once, unless it has to wait; it is closed then.
    """
    read = reader.read(1)
    try:
        read.send(None)
    except (StopIteration, OSError):
        return False
    read.close()
    return True


def _head(event: h11.Response) -> ResponseHead:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return ResponseHead(event.status_code, event.reason.decode("latin-1"), headers)


def _readable(error: Exception) -> str:
    """Return h11's reason without the type around received bytes; control characters in them stay escaped."""
    return _RECEIVED.sub(r"\g<text>\g<expected>", str(error))[:_MAX_REASON_LENGTH]


def _too_long(part: str) -> ValueError:
    return ValueError(f"the answer's {part} is longer than {MAX_HEAD_BYTES} bytes")
