"""The http check: a request whose answer has an expected status.

Spoken over a plain socket: a client library would cost more memory than the rest of the sidecar's checks, and
its pooled connections would hide that nobody accepts new ones.
"""

import asyncio
import re
import ssl
from http import HTTPStatus
from typing import Annotated, Self

from msgspec import Meta, field

from registrar.checks.answer import read_body
from registrar.checks.check import Check, CheckTarget
from registrar.checks.network import NetworkOptions, Streams, connect, connect_unix
from registrar.checks.result import Outcome, Result
from registrar.checks.tls import Tls, TlsOptions
from registrar.http1 import LARGEST_HEAD, Head, HungUpError, read_head
from wire.address import format_endpoint

_BODY_FOR_PEOPLE = 512
# What OpenSSL says of an answer that is none of TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_BODY_PATIENCE = 0.1
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

    def check(self, target: CheckTarget) -> Check:
        """Return the check of this type for ``target``."""
        return HttpCheck(self, target)


class HttpCheck:
    """Sends one request over its own connection.

    An answer with ``x-envoy-degraded`` is DEGRADED, as in Envoy's own health checks.
    """

    def __init__(self, options: HttpOptions, target: CheckTarget) -> None:
        self._options = options
        self._place = options.place(target)
        self._request = _request(options, target)
        self._tls = Tls(options.tls, ["http/1.1"]) if options.tls else None

    async def probe(self) -> Result:
        """Judge the first final answer; anything that is not HTTP raises ValueError."""
        try:
            return await self._ask()
        except (ssl.SSLCertVerificationError, ConnectionRefusedError):
            raise
        except (ssl.SSLError, ConnectionError, HungUpError) as error:
            if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
                raise ValueError("the server speaks no TLS: leave tls out, or ask the port that speaks TLS") from error
            if self._options.tls is None and isinstance(error, HungUpError):
                raise ValueError(f"{error}; set tls if it speaks TLS") from error
            if self._options.tls is None or self._options.tls.cert_file:
                raise
            # In TLS 1.3 a server says so, or hangs up, only after the handshake; many just hang up.
            said = str(error) or type(error).__name__
            raise ValueError(
                f"the server ended the TLS connection, as one does that wants a client certificate "
                f"(tls.cert_file): {said}"
            ) from error

    async def _ask(self) -> Result:
        reader, writer = await self._connect()
        try:
            writer.write(self._request)
            await writer.drain()
            return await self._judge(await read_head(reader), reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ValueError("the answer's body never ended") from error
        finally:
            # Not close(): with TLS that would wait for a farewell that a hanging app never sends.
            writer.transport.abort()

    async def _connect(self) -> Streams:
        context, name = (self._tls.context, self._tls.server_name) if self._tls else (None, "")
        if self._options.unix:
            return await connect_unix(self._options.unix, LARGEST_HEAD, context, name)
        return await connect(self._place, LARGEST_HEAD, context, name)

    async def _judge(self, head: Head, reader: asyncio.StreamReader) -> Result:
        phrase = _phrase(head.status)
        if not any(head.status in expected for expected in self._options.expect_status):
            return Result(Outcome.FAILED, f"{phrase} {await _excerpt(reader, head)}")
        wanted = self._options.expect_body
        if wanted and not await _contains(reader, head, wanted.encode()):
            return Result(Outcome.FAILED, f"{phrase}, but its body has no {wanted[:100]!r}")
        if "x-envoy-degraded" in head.fields:
            return Result(Outcome.DEGRADED, f"{phrase} x-envoy-degraded")
        return Result(Outcome.PASSED, phrase)


def _request(options: HttpOptions, target: CheckTarget) -> bytes:
    headers = {
        "host": (options.tls.server_name if options.tls else "") or format_endpoint(*options.place(target)),
        "user-agent": "headcount-registrar",
        "connection": "close",
        **{name.lower(): value for name, value in options.headers.items()},
    }
    lines = [f"{options.method} {options.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _contains(reader: asyncio.StreamReader, head: Head, wanted: bytes) -> bool:
    """Read no further than needed: an app may stream without an end."""
    body = bytearray()
    async for piece in read_body(reader, head):
        body += piece
        if wanted in body:
            return True
    return False


async def _excerpt(reader: asyncio.StreamReader, head: Head) -> str:
    """Return the start of a failed answer's body, as long as it comes at once."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_PATIENCE):
            async for piece in read_body(reader, head):
                body += piece
                if len(body) >= _BODY_FOR_PEOPLE:
                    break
    except (TimeoutError, ValueError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        # The status has been judged already.
        pass
    return body[:_BODY_FOR_PEOPLE].decode(errors="replace")


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
