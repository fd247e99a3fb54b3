"""The http check: a request whose response has an expected status.

Each probe opens a connection of its own: one that was kept would hide that the app accepts no new ones.
"""

import asyncio
import re
import ssl
from http import HTTPStatus
from typing import Annotated, Self

from msgspec import Meta, field

from registrar.checks.check import Check, CheckTarget
from registrar.checks.network import NetworkOptions, Streams, connect, connect_unix
from registrar.checks.result import Outcome, Result
from registrar.checks.tls import Tls, TlsOptions
from wire.address import format_endpoint
from wire.http1 import Http1Connection, NoResponseError, NotHttpError, Request, ResponseHead

MAX_BODY_BYTES = 64 * 1024
"""Bytes of a body in which the expected text has to be."""
_MAX_EXCERPT_BYTES = 512
"""Bytes of a failed response's body that its result shows."""
_EXCERPT_TIMEOUT = 0.1
"""Seconds that a result waits for the body of a failed response."""
# OpenSSL's reasons where the server sent something else than TLS.
_NOT_TLS_REASONS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_RANGE = re.compile(r"(?P<low>[0-9]{3})(?:-(?P<high>[0-9]{3}))?")
_PRINTABLE = r"^[\x20-\x7e]*$(?!\n)"


class StatusRange:
    """The statuses from ``low`` to ``high``, both included."""

    __slots__ = ("high", "low")

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``200-299`` or ``204``.

        Raises:
            ValueError: no range between 100 and 599.
        """
        match = _RANGE.fullmatch(str(value))
        if match is None:
            raise ValueError(f"{value!r} is no status range; write it like 200-299 or 204")
        low, high = int(match["low"]), int(match["high"] or match["low"])
        if not 100 <= low <= high <= 599:
            raise ValueError(f"{value!r} is not within 100-599")
        return cls(low, high)

    def __contains__(self, status: int) -> bool:
        return self.low <= status <= self.high

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


class HttpOptions(NetworkOptions, frozen=True, tag="http"):
    """Ask for a path, and expect a status and a text."""

    path: Annotated[
        str,
        Meta(
            pattern=r"^/[!-~]*$(?!\n)",
            description="Path of the http check, like /healthz. Let it answer for what this instance can "
            "serve by itself: a shared database in it takes every instance out at once. Without "
            "this the check is tcp, which does not notice an app that accepts and hangs.",
        ),
    ]
    method: Annotated[str, Meta(pattern=r"^[A-Z]{1,16}$(?!\n)", description="The request's method.")] = "GET"
    headers: Annotated[
        dict[
            Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$(?!\n)")],
            Annotated[str, Meta(pattern=_PRINTABLE)],
        ],
        Meta(description="Headers to send besides Host, User-Agent and Connection; Host may be replaced."),
    ] = field(default_factory=dict)
    expect_status: Annotated[
        tuple[StatusRange, ...],
        Meta(min_length=1, description="Statuses that pass, like 200-299 or 204; all others fail."),
    ] = (StatusRange(200, 299),)
    expect_body: Annotated[
        str,
        Meta(
            description="Text that must be in the first 64 KiB of the answer's body, as it stands there. Unset: the "
            "body is not read."
        ),
    ] = ""
    tls: Annotated[
        TlsOptions | None,
        Meta(description="Speak https; `{}` takes the defaults of its keys. Unset: plain http."),
    ] = None
    unix: Annotated[
        str,
        Meta(
            pattern=r"^(/[^\x00]+)?$(?!\n)",
            description="Path of the unix socket to connect to, in place of address and port. It says nothing "
            "about the advertised address: add a tcp check for that.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unix and (self.address or self.port):
            raise ValueError("unix stands in place of address and port: set one of the two")
        if self.expect_body and self.method == "HEAD":
            raise ValueError("expect_body needs another method: an answer to HEAD has no body")

        # The request has no body, so that no other framing could be sent.
        for name, value in self.headers.items():
            if name.lower() == "transfer-encoding" or (name.lower() == "content-length" and value.strip() != "0"):
                raise ValueError(f"headers: {name} {value!r} announces a body, and the request has none; remove it")

    def check(self, target: CheckTarget) -> Check:
        """Return the check of this type for ``target``."""
        return HttpCheck(self, target)


class HttpCheck:
    """Sends one request over a connection of its own.

    A response with ``x-envoy-degraded`` is DEGRADED, as in Envoy's own health checks.
    """

    def __init__(self, options: HttpOptions, target: CheckTarget) -> None:
        self._options = options
        self._address, self._port = options.address_port(target)
        self._request = _request(options, target)
        self._tls = Tls(options.tls, ["http/1.1"]) if options.tls else None

    async def probe(self) -> Result:
        """Judge the first final response; a server that speaks something else raises ValueError."""
        try:
            return await self._ask()
        except NotHttpError as error:
            raise ValueError(_explained(error)) from error
        except (ssl.SSLCertVerificationError, ConnectionRefusedError):
            raise
        except (ssl.SSLError, ConnectionError, NoResponseError) as error:
            if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS_REASONS:
                raise ValueError("the server speaks no TLS: leave tls out, or ask the port that speaks TLS") from error
            if self._options.tls is None and isinstance(error, NoResponseError):
                raise ValueError(f"{error}; set tls if it speaks TLS") from error
            if self._options.tls is None or self._options.tls.cert_file:
                raise
            # In TLS 1.3 a server refuses a missing certificate only after the handshake, and many just close.
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"the server ended the TLS connection, as one does that wants a client certificate "
                f"(tls.cert_file): {reason}"
            ) from error

    async def _ask(self) -> Result:
        # Only a body that is read needs valid framing: an app that copies the headers of another one may serve well.
        connection = Http1Connection(*await self._connect(), ignore_framing=not self._options.expect_body)
        try:
            connection.send(self._request)
            return await self._judge(connection, await connection.read_head())
        finally:
            connection.abort()

    async def _connect(self) -> Streams:
        context, name = (self._tls.context, self._tls.server_name) if self._tls else (None, "")
        if self._options.unix:
            return await connect_unix(self._options.unix, context, name)
        return await connect(self._address, self._port, context, name)

    async def _judge(self, connection: Http1Connection, head: ResponseHead) -> Result:
        status_line = _status_line(head.status)
        if not any(head.status in expected for expected in self._options.expect_status):
            return Result(Outcome.FAILED, f"{status_line} {await _excerpt(connection)}")
        text = self._options.expect_body
        if text and not await _contains(connection, text.encode()):
            return Result(Outcome.FAILED, f"{status_line}, but its body has no {text[:100]!r}")
        if "x-envoy-degraded" in head.headers:
            return Result(Outcome.DEGRADED, f"{status_line} x-envoy-degraded")
        return Result(Outcome.PASSED, status_line)


def _request(options: HttpOptions, target: CheckTarget) -> Request:
    headers = {
        "host": (options.tls.server_name if options.tls else "") or format_endpoint(*options.address_port(target)),
        "user-agent": "headcount-registrar",
        "connection": "close",
        **{name.lower(): value for name, value in options.headers.items()},
    }
    return Request(options.method, options.path, headers)


def _explained(error: NotHttpError) -> str:
    """Return what to do about a server of another protocol, where its first bytes tell which it is."""
    if error.received[:1] == b"\0" and error.received[3:4] == b"\x04":
        return "the server speaks HTTP/2 alone: use a grpc check, or a port that speaks HTTP/1.1"
    if error.received[:2] == b"\x15\x03":
        return "the server speaks TLS: set tls"
    return str(error)


async def _contains(connection: Http1Connection, text: bytes) -> bool:
    """Read no further than needed: an app may stream without an end."""
    body = bytearray()
    while len(body) < MAX_BODY_BYTES and (piece := await connection.read_piece()):
        body += piece[: MAX_BODY_BYTES - len(body)]
        if text in body:
            return True
    return False


async def _excerpt(connection: Http1Connection) -> str:
    """Return the start of a failed response's body, as far as it comes at once."""
    body = bytearray()
    try:
        async with asyncio.timeout(_EXCERPT_TIMEOUT):
            while len(body) < _MAX_EXCERPT_BYTES and (piece := await connection.read_piece()):
                body += piece
    except (TimeoutError, ValueError, OSError):
        # The status has been judged already.
        pass
    return body[:_MAX_EXCERPT_BYTES].decode(errors="replace")


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
