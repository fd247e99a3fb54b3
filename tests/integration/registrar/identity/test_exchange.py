"""One request to something that may be anything."""

import pytest
from harness.fake_app import FakeApp

from registrar.identity.exchange import exchange
from wire.http1 import Response


async def ask(app: FakeApp, timeout: float = 2.0) -> Response:
    """Send one request."""
    return await exchange("PUT", f"http://127.0.0.1:{app.port}/a/b", {"x-name": "value"}, timeout)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", 200, b"ok"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nto the end", 404, b"to the end"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            200,
            b"abcd",
        ),
        (b"HTTP/1.1 204\r\ncontent-length: 0\r\n\r\n", 204, b""),
    ],
)
async def test_each_way_to_end_a_body_is_understood(app: FakeApp, answer: bytes, status: int, body: bytes) -> None:
    """By its length, in chunks, or with the connection."""
    app.answer = answer
    response = await ask(app)
    assert (response.status, response.body) == (status, body)
    head = app.requests[0].lower()
    assert head.startswith(f"put /a/b http/1.1\r\nhost: 127.0.0.1:{app.port}\r\n")
    assert "x-name: value\r\n" in head


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ],
)
async def test_what_is_no_answer_is_a_value_error(app: FakeApp, answer: bytes) -> None:
    """It breaks off, lies about its size, or is no HTTP: never half a body."""
    app.answer = answer
    with pytest.raises(ValueError, match=r"\w"):
        await ask(app)


async def test_silence_ends_with_the_timeout(app: FakeApp) -> None:
    """The whole exchange has one limit."""
    app.answer = None
    with pytest.raises(TimeoutError):
        await ask(app, 0.1)
