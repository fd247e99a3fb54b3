"""The grpc check: grpc.health.v1.Health/Check, as a raw call over HTTP/2."""

from typing import Annotated
from urllib.parse import unquote

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget
from registrar.checks.http2 import Answer, unary
from registrar.checks.network import NetworkOptions, connect
from registrar.checks.protobuf import last_number
from registrar.checks.result import Outcome, Result
from registrar.checks.tls import Tls, TlsOptions
from wire.address import format_endpoint

_PATH = "/grpc.health.v1.Health/Check"
_STATUS_FIELD = 1
_SERVING = 1
_STATES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_OK, _NOT_FOUND, _UNIMPLEMENTED = 0, 5, 12
_WORDS = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED"
)
_CODES = _WORDS.split()


class GrpcOptions(NetworkOptions, frozen=True, tag="grpc"):
    """Ask the server's health service."""

    service: Annotated[
        str,
        Meta(
            pattern=r"^[!-~]{0,255}$(?!\n)",
            description="Service to ask for, like shop.v1.Orders. Unset: the server as a whole.",
        ),
    ] = ""
    tls: Annotated[
        TlsOptions | None,
        Meta(description="Speak TLS; `{}` takes the defaults of its keys. Unset: plain HTTP/2 with prior knowledge."),
    ] = None

    def check(self, target: CheckTarget) -> Check:
        """Return the check of this type for ``target``."""
        return GrpcCheck(self, target)


class GrpcCheck:
    """Makes one call over a connection of its own; only SERVING passes."""

    def __init__(self, options: GrpcOptions, target: CheckTarget) -> None:
        self._address, self._port = options.address_port(target)
        self._service = options.service
        self._tls = Tls(options.tls, ["h2"]) if options.tls else None
        self._fields = [
            (":method", "POST"),
            (":scheme", "https" if self._tls else "http"),
            (":path", _PATH),
            (":authority", (self._tls.server_name if self._tls else "") or format_endpoint(self._address, self._port)),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", f"{max(1, round(options.probe_timeout * 1000))}m"),
            ("user-agent", "headcount-registrar"),
        ]

    async def probe(self) -> Result:
        """Judge the response; a server that speaks another protocol, or closes the connection, raises ValueError."""
        context, name = (self._tls.context, self._tls.server_name) if self._tls else (None, "")
        reader, writer = await connect(self._address, self._port, context, name)
        try:
            return self._judge(await unary(reader, writer, self._fields, _request(self._service)))
        except EOFError as error:
            raise ValueError("the server hung up before its answer ended") from error
        finally:
            writer.transport.abort()

    def _judge(self, answer: Answer) -> Result:
        status = answer.fields.get(":status", "")
        code = answer.fields.get("grpc-status", "")
        if not code.isdecimal():
            return Result(Outcome.FAILED, f"no gRPC: HTTP {status} {answer.fields.get('content-type', '')}")
        if int(code) != _OK:
            return Result(Outcome.FAILED, self._refusal(int(code), unquote(answer.fields.get("grpc-message", ""))))
        state = _state(answer.body)
        return Result(Outcome.PASSED if state == _STATES[_SERVING] else Outcome.FAILED, state)

    def _refusal(self, code: int, message: str) -> str:
        name = _CODES[code] if code < len(_CODES) else f"status {code}"
        if code == _UNIMPLEMENTED:
            return f"{name}: the server has no grpc.health.v1.Health ({message})"
        if code == _NOT_FOUND:
            return f"SERVICE_UNKNOWN: the server does not know {self._service or 'its own state'!r} ({message})"
        return f"{name}: {message}"


def _request(service: str) -> bytes:
    """Return a HealthCheckRequest in its gRPC frame."""
    name = service.encode("ascii")
    length = bytes([len(name)]) if len(name) < 0x80 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
    message = b"\x0a" + length + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _state(body: bytes) -> str:
    """Return the name of the status in a HealthCheckResponse."""
    if len(body) < 5 or body[0] or len(body) - 5 != int.from_bytes(body[1:5], "big"):
        raise ValueError("not the answer of a health service")
    number = last_number(body[5:], _STATUS_FIELD)
    return _STATES[number] if 0 <= number < len(_STATES) else f"status {number}"
