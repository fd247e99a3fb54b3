"""The options of the http check besides the path: body, TLS, unix socket and address."""

import asyncio
import ssl
from pathlib import Path

import msgspec
import pytest
from harness.fake_app import FakeApp
from harness.probing import Authority, probe

from registrar.checks.check import CheckTarget
from registrar.checks.http import HttpOptions
from registrar.checks.result import Outcome
from registrar.checks.tls import TlsOptions
from registrar.config.conversion import convert

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


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


async def test_tls_with_a_private_authority(authority: Authority) -> None:
    """The certificate's address is verified against the configured authority."""
    async with FakeApp(context=authority.server("127.0.0.1")) as app:
        result = await probe(HttpOptions(path="/", tls=TlsOptions(ca_file=str(authority.ca))), app.port)
        assert (result.outcome, result.detail) == (Outcome.PASSED, "200 OK")


async def test_tls_names_the_server(authority: Authority) -> None:
    """server_name is what the certificate has to carry, and what Host says."""
    async with FakeApp(context=authority.server("shop.internal")) as app:
        tls = TlsOptions(ca_file=str(authority.ca), server_name="shop.internal")
        assert (await probe(HttpOptions(path="/", tls=tls), app.port)).outcome is Outcome.PASSED
        assert "\r\nhost: shop.internal\r\n" in app.requests[0]
        other = await probe(HttpOptions(path="/", tls=TlsOptions(ca_file=str(authority.ca))), app.port)
    assert other.outcome is Outcome.FAILED
    assert "certificate" in other.detail


async def test_an_unknown_authority_fails_unless_nothing_is_verified(authority: Authority) -> None:
    """A self-signed app needs verify: false, and the detail says what is wrong without it."""
    async with FakeApp(context=authority.server("127.0.0.1")) as app:
        refused = await probe(HttpOptions(path="/", tls=TlsOptions()), app.port)
        taken = await probe(HttpOptions(path="/", tls=TlsOptions(verify=False)), app.port)
    assert (refused.outcome, "CERTIFICATE_VERIFY_FAILED" in refused.detail) == (Outcome.FAILED, True)
    assert taken.outcome is Outcome.PASSED


async def test_an_app_may_ask_for_a_certificate(authority: Authority) -> None:
    """cert_file is shown to it; without one the check fails."""
    context = authority.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca)
    client = str(authority.issue("registrar"))
    async with FakeApp(context=context) as app:
        shown = TlsOptions(ca_file=str(authority.ca), cert_file=client)
        assert (await probe(HttpOptions(path="/", tls=shown), app.port)).outcome is Outcome.PASSED
        silent = TlsOptions(ca_file=str(authority.ca))
        assert (await probe(HttpOptions(path="/", tls=silent), app.port)).outcome is Outcome.FAILED


async def test_a_missing_file_fails_with_its_name_and_is_read_once_it_is_there(
    authority: Authority, tmp_path: Path
) -> None:
    """Certificates that are rotated, or come late, need no restart of the registrar."""
    file = tmp_path / "ca.pem"
    options = HttpOptions(path="/", tls=TlsOptions(ca_file=str(file)))
    async with FakeApp(context=authority.server("127.0.0.1")) as app:
        check = options.check(CheckTarget("127.0.0.1", app.port))
        with pytest.raises(FileNotFoundError):
            await check.probe()
        missing = await probe(options, app.port)
        file.write_bytes(authority.ca.read_bytes())
        assert (await check.probe()).outcome is Outcome.PASSED
    assert (missing.outcome, missing.detail) == (Outcome.FAILED, f"{file}: No such file or directory")


async def test_plain_http_on_a_tls_port_and_the_other_way_round(authority: Authority) -> None:
    """Both are failures that say what to set."""
    async with FakeApp(context=authority.server("127.0.0.1")) as encrypted:
        plain = await probe(HttpOptions(path="/"), encrypted.port)

    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer as servers answer what they take for a malformed request."""
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(complain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reverse = await probe(HttpOptions(path="/", tls=TlsOptions(verify=False)), port)
    assert {plain.outcome, reverse.outcome} == {Outcome.FAILED}
    assert plain.detail == "the server hung up without an answer; set tls if it speaks TLS"
    assert reverse.detail == "the server speaks no TLS: leave tls out, or ask the port that speaks TLS"


async def test_a_unix_socket_is_asked_instead_of_the_address(tmp_path: Path) -> None:
    """The request names the advertised endpoint; a socket that is not there says its path."""
    path = str(tmp_path / "app.sock")
    missing = await probe(HttpOptions(path="/", unix=path), 8080)
    async with FakeApp(unix=path) as app:
        assert (await probe(HttpOptions(path="/healthz", unix=path), 8080)).outcome is Outcome.PASSED
    assert app.requests[0].startswith("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n")
    assert (missing.outcome, missing.detail) == (Outcome.FAILED, "No such file or directory")


async def test_a_unix_socket_may_speak_tls(tmp_path: Path, authority: Authority) -> None:
    """Its name is localhost, unless the options name another."""
    path = str(tmp_path / "app.sock")
    async with FakeApp(unix=path, context=authority.server("localhost")):
        tls = TlsOptions(ca_file=str(authority.ca))
        assert (await probe(HttpOptions(path="/", unix=path, tls=tls))).outcome is Outcome.PASSED


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


INVALID = "the answer's body is not valid HTTP/1.1"
FRAME = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0\0\x06\0\x01\0\0\0\0\x08\x07\0\0\0\0\0" + bytes(8)


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
            f"{INVALID}: illegal chunk header: bytearray(b'-5\\r\\n')",
        ),
        (
            CHUNKED + b"1_0\r\nall is well\r\n0\r\n\r\n",
            Outcome.FAILED,
            f"{INVALID}: illegal chunk header: bytearray(b'1_0\\r\\n')",
        ),
        (
            CHUNKED + b"3\r\nall is well\r\n0\r\n\r\n",
            Outcome.FAILED,
            f"{INVALID}: malformed chunk footer: bytearray(b' i') (expected b'\\r\\n')",
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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_a_client_certificate_is_named(authority: Authority, version: ssl.TLSVersion) -> None:
    """It refuses after the handshake in TLS 1.3, and within it before; the fix is the same."""
    context = authority.server("127.0.0.1")
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca)
    async with FakeApp(context=context) as app:
        result = await probe(HttpOptions(path="/", tls=TlsOptions(ca_file=str(authority.ca))), app.port)
    assert result.outcome is Outcome.FAILED
    assert "as one does that wants a client certificate (tls.cert_file)" in result.detail
