"""The http check against an app on loopback: request, status, body, unix socket and address."""

from pathlib import Path

import msgspec
import pytest
from harness.fake_app import FakeApp
from harness.probing import probe

from registrar.checks.check import CheckTarget
from registrar.checks.http import HttpOptions, StatusRange
from registrar.checks.result import Outcome, Result
from registrar.config.conversion import convert
from registrar.duration import Duration

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INVALID = "the answer's body is not valid HTTP/1.1"
FRAME = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0\0\x06\0\x01\0\0\0\0\x08\x07\0\0\0\0\0" + bytes(8)


def ok(status: str, headers: str = "", body: bytes = b"") -> bytes:
    """Return an answer's bytes."""
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def http(path: str = "/healthz", interval: float = 0.2, *status: StatusRange) -> HttpOptions:
    """Return http options with a short interval."""
    return HttpOptions(path=path, interval=Duration(interval), expect_status=status or (StatusRange(200, 299),))


async def test_http_passes_on_an_expected_status(app: FakeApp) -> None:
    """200 passes, and the request names path, address and sender."""
    result = await probe(http("/healthz?deep=1"), app.port)
    assert result == Result(Outcome.PASSED, "200 OK")
    assert app.requests[0].startswith(f"GET /healthz?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:{app.port}\r\n")
    assert "connection: close" in app.requests[0]


async def test_http_sends_method_and_headers(app: FakeApp) -> None:
    """The method and headers of the configuration reach the app, also another Host."""
    options = HttpOptions(path="/", method="HEAD", headers={"Host": "shop.internal", "X-Why": "check"})
    await probe(options, app.port)
    assert app.requests[0].startswith("HEAD / HTTP/1.1\r\nhost: shop.internal\r\n")
    assert "x-why: check\r\n" in app.requests[0]


async def test_http_fails_on_any_other_status_and_says_why(app: FakeApp) -> None:
    """A 503 fails, with the start of its body for people."""
    app.answer = ok("503 Whatever", body=b"database\naway")
    result = await probe(http(), app.port)
    assert result == Result(Outcome.FAILED, "503 Service Unavailable database away")


async def test_http_takes_ranges_of_statuses(app: FakeApp) -> None:
    """The configured statuses replace 2xx: 404 can pass and 200 can fail."""
    app.answer = ok("404 No")
    result = await probe(http("/", 0.2, StatusRange(401, 404)), app.port)
    assert result.outcome is Outcome.PASSED
    app.answer = ok("200 OK")
    result = await probe(http("/", 0.2, StatusRange(401, 404)), app.port)
    assert result.outcome is Outcome.FAILED


async def test_http_knows_envoys_degraded_header(app: FakeApp) -> None:
    """x-envoy-degraded on a passing answer is DEGRADED."""
    app.answer = ok("200 OK", "X-Envoy-Degraded: true\r\n")
    result = await probe(http(), app.port)
    assert result.outcome is Outcome.DEGRADED


async def test_http_skips_interim_answers(app: FakeApp) -> None:
    """103 Early Hints is not the verdict."""
    app.answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok("200 OK")
    result = await probe(http(), app.port)
    assert result.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"x" * 40_000],
)
async def test_what_is_not_http_fails(app: FakeApp, answer: bytes) -> None:
    """Another protocol, half an answer and an endless head are failures with a reason, not crashes."""
    app.answer = answer
    result = await probe(http(), app.port)
    assert result.outcome is Outcome.FAILED
    assert result.detail


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nall is well, x",
        b"HTTP/1.1 200 OK\r\n\r\nall is well",
        CHUNKED + b"6\r\nall is\r\n5;ext=1\r\n well\r\n0\r\n\r\n",
        # An endless stream is not read further than needed.
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\nall is well",
    ],
)
async def test_the_expected_text_is_found_however_the_body_is_framed(app: FakeApp, answer: bytes) -> None:
    """Length, end of connection and chunks, also where a chunk ends within the text."""
    app.answer = answer
    result = await probe(HttpOptions(path="/", expect_body="all is well"), app.port)
    assert (result.outcome, result.detail) == (Outcome.PASSED, "200 OK")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nall is well",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        CHUNKED + b"3\r\nall\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\nall is well\r\n",
        CHUNKED + b"ffff\r\nall",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70_000 + b"all is well",
    ],
)
async def test_a_body_without_the_expected_text_fails(app: FakeApp, answer: bytes) -> None:
    """A wrong body, a broken one and one that says it too late are failures with a reason."""
    app.answer = answer
    result = await probe(HttpOptions(path="/", expect_body="all is well"), app.port)
    assert result.outcome is Outcome.FAILED
    assert result.detail


async def test_the_status_is_judged_before_the_body(app: FakeApp) -> None:
    """A 503 that contains the text is still a 503, shown without the framing of its chunks."""
    app.answer = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall i\r\n6\r\ns well\r\n0\r\n\r\n"
    result = await probe(HttpOptions(path="/", expect_body="all is well"), app.port)
    assert (result.outcome, result.detail) == (Outcome.FAILED, "503 Service Unavailable all is well")


async def test_a_unix_socket_is_asked_instead_of_the_address(tmp_path: Path) -> None:
    """The request names the advertised endpoint; a socket that is not there says its path."""
    path = str(tmp_path / "app.sock")
    missing = await probe(HttpOptions(path="/", unix=path), 8080)
    async with FakeApp(unix=path) as app:
        assert (await probe(HttpOptions(path="/healthz", unix=path), 8080)).outcome is Outcome.PASSED
    assert app.requests[0].startswith("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n")
    assert (missing.outcome, missing.detail) == (Outcome.FAILED, "No such file or directory")


async def test_the_advertised_address_is_asked_unless_another_is_named(app: FakeApp) -> None:
    """An app on loopback only fails at the advertised address, and the override finds it."""
    advertised = CheckTarget("127.0.0.2", app.port)
    assert (await probe(HttpOptions(path="/"), target=advertised)).detail == "Connection refused"
    assert (await probe(HttpOptions(path="/", address="127.0.0.1"), target=advertised)).outcome is Outcome.PASSED
    elsewhere = CheckTarget("127.0.0.1", 1)
    assert (await probe(HttpOptions(path="/", port=app.port), target=elsewhere)).outcome is Outcome.PASSED
    assert f"host: 127.0.0.1:{app.port}\r\n" in app.requests[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"type": "http", "path": "/", "unix": "/x", "port": 1}', "unix stands in place"),
        ('{"type": "http", "path": "/", "unix": "x"}', "unix"),
        ('{"type": "http", "path": "/", "address": "app"}', "app"),
        ('{"type": "http", "path": "/", "port": 70000}', "port"),
        ('{"type": "http", "path": "/", "method": "HEAD", "expect_body": "x"}', "expect_body"),
        ('{"type": "http", "path": "/", "tls": {"key_file": "/x"}}', "tls: key_file needs a cert_file"),
        ('{"type": "http", "path": "/", "tls": {"verify": false, "ca_file": "/x"}}', "tls: ca_file verifies nothing"),
        ('{"type": "http", "path": "/", "tls": {"verfy": false}}', "verfy"),
        ('{"type": "http", "path": "/", "on_fail": "panic"}', "on_fail"),
    ],
)
def test_options_that_contradict_each_other_are_refused(text: str, reason: str) -> None:
    """The message names the key."""
    with pytest.raises(ValueError, match=reason):
        convert(msgspec.json.decode(text), HttpOptions)


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (b"HTTP/1.1 200 OK\ncontent-type: text/plain\n\nall is well\n", Outcome.PASSED, "200 OK"),
        (b"HTTP/1.0 200\n\nall is well\n", Outcome.PASSED, "200 OK"),
        (b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\r\nx: y\n\r\nall is well", Outcome.PASSED, "200 OK"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 60_000 + b"\r\n\r\nall is well", Outcome.PASSED, "200 OK"),
        (CHUNKED.replace(b"\r", b"") + b"b\r\nall is well\r\n0\r\n\r\n", Outcome.PASSED, "200 OK"),
        # Only the lines of the head may end with a bare LF (RFC 9112, 2.2): in chunks it splits messages in two.
        (CHUNKED + b"b\nall is well\n0\n\n", Outcome.FAILED, "the answer's body never ended"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
            Outcome.FAILED,
            "the answer's head is longer than 65536 bytes",
        ),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 90_000, Outcome.FAILED, "the answer's head is longer than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\nx: y\r\n", Outcome.FAILED, "the answer's head never ended"),
        (b"", Outcome.FAILED, "the server hung up without an answer; set tls if it speaks TLS"),
        (FRAME, Outcome.FAILED, "the server speaks HTTP/2 alone: use a grpc check, or a port that speaks HTTP/1.1"),
        (b"\x15\x03\x01\0\x02\x02\x46", Outcome.FAILED, "the server speaks TLS: set tls"),
        (b"SSH-2.0-OpenSSH\r\n", Outcome.FAILED, "not an HTTP answer: SSH-2.0-OpenSSH"),
        (
            CHUNKED + b"-5\r\nall is well\r\n0\r\n\r\n",
            Outcome.FAILED,
            f"{INVALID}: illegal chunk header: '-5\\r\\n'",
        ),
        (
            CHUNKED + b"1_0\r\nall is well\r\n0\r\n\r\n",
            Outcome.FAILED,
            f"{INVALID}: illegal chunk header: '1_0\\r\\n'",
        ),
        (
            CHUNKED + b"3\r\nall is well\r\n0\r\n\r\n",
            Outcome.FAILED,
            f"{INVALID}: malformed chunk footer: ' i' (expected '\\r\\n')",
        ),
    ],
)
async def test_heads_are_read_as_others_read_them_or_told_apart(
    app: FakeApp, answer: bytes, outcome: Outcome, detail: str
) -> None:
    """Heads that curl and nginx accept pass, and other protocols are named."""
    app.answer = answer
    result = await probe(HttpOptions(path="/", expect_body="all is well"), app.port)
    assert (result.outcome, result.detail) == (outcome, detail)


@pytest.mark.parametrize("headers", [{"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}])
def test_headers_of_a_body_are_refused_in_the_configuration(headers: dict[str, str]) -> None:
    """The request has none, so that it could never be sent; a length of 0 is right."""
    with pytest.raises(ValueError, match="announces a body, and the request has none; remove it"):
        HttpOptions(path="/", method="POST", headers=headers)
    assert HttpOptions(path="/", method="POST", headers={"Content-Length": "0"}).headers
