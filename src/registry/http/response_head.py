"""The heads of responses, as they stand on the wire."""

from collections.abc import Sequence
from http import HTTPStatus

from msgspec import Struct

from registry.http.headers import JSON
from registry.http.request_head import REQUEST_ID

_Headers = Sequence[tuple[bytes, bytes]]

_JSON_LINE = b"%b: %b\r\n" % JSON
_CLOSE = (b"connection", b"close")


class ResponseStart(Struct, frozen=True, gc=False):
    """The beginning of all responses of one status, for as long as the server's headers are the same.

    Attributes:
        headers: the server's, of which uvicorn makes a new list when the date changes.
        lines: the status line and these headers.
        closes: whether they end the connection.
    """

    headers: _Headers
    lines: bytes
    closes: bool


_starts: dict[int, ResponseStart] = {}
"""The newest start of each status, of all connections. Written by response_start()."""


def response_start(status: int, headers: _Headers) -> ResponseStart:
    """Return the beginning of a response with the server's headers."""
    start = _starts.get(status)
    if start is None or start.headers is not headers:
        line = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
        start = _starts[status] = ResponseStart(headers, line + header_lines(headers), _CLOSE in headers)
    return start


def header_lines(headers: _Headers) -> bytes:
    """Return headers as they stand on the wire."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def json_lines(body: bytes) -> bytes:
    """Return the headers of a body in JSON; none for an empty one."""
    return b"content-length: %d\r\n%b" % (len(body), _JSON_LINE) if body else b""


def request_id_line(request_id: bytes) -> bytes:
    """Return the header that has the id of a request."""
    return b"%b: %b\r\n" % (REQUEST_ID, request_id)
