"""Client certificates on real connections: what the application hears of them, and how long they are believed."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from harness.probing import Authority

from registry.auth.certificate import ClientCertificate, certificate_of
from registry.background.server_tls import ServerTls
from registry.http import protocol_selftest as selftest
from registry.http.accepting_server import AcceptingServer, Listener
from registry.http.certificate_protocol import CertificateProtocol
from registry.http.fast_protocol import FastProtocol
from registry.settings import Settings
from registry.xds.discovery_response import DiscoveryResponse

SPIFFE = "spiffe://example.org/shop"
GET = b"GET /names HTTP/1.1\r\nhost: test\r\n\r\n"
POLL = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\nin parts"
HELD = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: test\r\ncontent-length: 7\r\n\r\ncurrent"


async def names(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the names of the client's certificate."""
    while (await receive()).get("more_body"):
        pass
    certificate = certificate_of(scope)
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await receive()
        return
    body = b"nobody" if certificate is None else " ".join((*certificate.uris, *certificate.dns_names)).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server:
    """A server with TLS of an authority, and connections to it."""

    def __init__(self, authority: Authority, folder: Path, server: AcceptingServer, port: int) -> None:
        self.authority = authority
        self.folder = folder
        self.server = server
        self.port = port

    def trusting(self, **options: Any) -> ssl.SSLContext:
        """Return the context of a client that trusts the server."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        for name, value in options.items():
            setattr(context, name, value)
        return context

    async def connect(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as a client."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    @property
    def connections(self) -> set[Any]:
        """The connections of the server."""
        return self.server.server_state.connections


@pytest.fixture(params=[CertificateProtocol, FastProtocol])
async def server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Server]:
    """A server with TLS and optional client certificates, whose connections with one are used for half a second."""
    monkeypatch.setattr(selftest, "_application", names)
    authority = Authority(tmp_path)
    config = selftest._config(request.param)
    age_of_connections(config, 0.5)
    tls = ServerTls.of_http(Settings(tls_cert_file=authority.issue("127.0.0.1"), tls_client_ca_file=authority.ca))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    accepting = AcceptingServer(config, [Listener(listener, tls)])
    accepting.lifespan = config.lifespan_class(config)
    await accepting.startup()
    yield Server(authority, tmp_path, accepting, listener.getsockname()[1])
    for connection in list(accepting.server_state.connections):
        connection.transport.abort()
    await accepting.shutdown()


def age_of_connections(config: Any, seconds: float) -> None:
    """Set how long connections with a certificate are used, as the setting of whole seconds does."""
    config.app.connection_age = seconds


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Read a response: its status, its head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return int(head.split()[1]), head, await reader.readexactly(length)


@contextlib.asynccontextmanager
async def talking(server: Server, context: ssl.SSLContext) -> AsyncIterator[Callable[[bytes], Awaitable[Any]]]:
    """Send requests over one connection, and read the response of each."""
    reader, writer = await server.connect(context)

    async def ask(request: bytes) -> tuple[int, bytes, bytes]:
        writer.write(request)
        async with asyncio.timeout(5):
            return await answer(reader)

    try:
        yield ask
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_names_reach_the_application(server: Server, version: ssl.TLSVersion) -> None:
    """For each request of the connection; the protocol has them for the requests that it answers itself."""
    context = server.trusting(maximum_version=version)
    context.load_cert_chain(server.authority.issue(SPIFFE, "shop.internal", file="client.pem"))
    async with talking(server, context) as ask:
        for _ in range(2):
            status, _, body = await ask(GET)
            assert (status, body) == (200, f"{SPIFFE} shop.internal".encode())
        assert (await ask(POLL))[2] == b"in parts"
        (connection,) = server.connections
        assert abs(connection.certificate.not_after - time.time() - 86_400) < 60
        assert connection.certificate == ClientCertificate(
            (SPIFFE,), ("shop.internal",), connection.certificate.not_after
        )


async def test_a_client_needs_no_certificate(server: Server) -> None:
    """It has no names then, and its connection has no age."""
    async with talking(server, server.trusting()) as ask:
        assert (await ask(GET))[2] == b"nobody"
        await asyncio.sleep(0.7)
        _, head, _ = await ask(POLL)
        assert b"connection: close" not in head


@pytest.mark.parametrize("case", ["another authority", "expired"])
async def test_a_certificate_that_is_not_valid_fails_the_handshake(server: Server, case: str) -> None:
    """No request is answered over it, not even as one of nobody."""
    context = server.trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    if case == "expired":
        context.load_cert_chain(server.authority.issue(SPIFFE, valid_for=-60, file="client.pem"))
    else:
        context.load_cert_chain(Authority(server.folder / "other").issue(SPIFFE, file="client.pem"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.connect(context)


async def test_a_certificate_that_expires_is_refused_and_the_connection_ends(server: Server) -> None:
    """By whatever front: the answer says why, and is the last. Streams end; a resumed session is no way round."""
    age_of_connections(server.server.config, 60)
    context = server.trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.load_cert_chain(server.authority.issue(SPIFFE, valid_for=2, file="client.pem"))
    streaming, stream = await server.connect(context)
    stream.write(GET.replace(b"/names", b"/stream"))
    assert (await streaming.readuntil(b"begun")).startswith(b"HTTP/1.1 200")
    async with talking(server, context) as ask, talking(server, context) as poll:
        assert [(await ask(GET))[0], (await poll(POLL))[0]] == [200, 200]
        session, _, said = await asyncio.to_thread(once, server.port, context)
        assert SPIFFE.encode() in said
        _, reused, said = await asyncio.to_thread(once, server.port, context, session)
        assert reused
        assert SPIFFE.encode() in said
        await asyncio.sleep(2.1)
        for status, head, body in (await ask(GET), await poll(POLL)):
            assert status == 401
            assert b"connection: close" in head
            assert b"www-authenticate: Bearer" in head
            assert b"has expired at" in body
    async with asyncio.timeout(1):
        assert await streaming.read() == b""
    stream.close()
    _, reused, said = await asyncio.to_thread(once, server.port, context, session)
    assert reused
    assert said.startswith(b"HTTP/1.1 401")


def once(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool, bytes]:
    """Send one request over a connection, perhaps with a session of one before; return its session and the answer."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as line,
        line.makefile("rb") as stream,
    ):
        line.sendall(GET.replace(b"host: test", b"host: test\r\nconnection: close"))
        return line.session, bool(line.session_reused), stream.read()


async def test_an_old_connection_ends_with_its_next_response(server: Server) -> None:
    """Not before it, and not without saying so."""
    context = server.trusting()
    context.load_cert_chain(server.authority.issue(SPIFFE, file="client.pem"))
    async with talking(server, context) as ask:
        assert b"connection: close" not in (await ask(POLL))[1]
        await asyncio.sleep(0.7)
        status, head, body = await ask(POLL)
        assert (status, body) == (200, b"in parts")
        assert b"connection: close" in head


async def test_a_held_poll_is_answered_by_an_old_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held for as long as it would be, and its response is the last."""
    context = server.trusting()
    context.load_cert_chain(server.authority.issue(SPIFFE, file="client.pem"))

    def hold(_self: object, *poll: Any) -> Callable[[], None]:
        return asyncio.get_running_loop().call_later(1, poll[-1], DiscoveryResponse(304)).cancel

    async def later(*_poll: object) -> DiscoveryResponse:
        await asyncio.sleep(1)
        return DiscoveryResponse(304)

    monkeypatch.setattr(selftest._EchoDiscovery, "hold", hold)
    monkeypatch.setattr(selftest._EchoDiscovery, "later", later)
    async with talking(server, context) as ask:
        begun = time.monotonic()
        status, head, _ = await ask(HELD)
        assert time.monotonic() - begun >= 0.9
        assert status == 304
        assert b"connection: close" in head


async def test_names_that_are_no_text_end_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A certificate of a trusted authority with such names is nobody's, and the log says whose connection it was."""
    spoilt = x509.UnrecognizedExtension(
        x509.SubjectAlternativeName.oid, bytes([0x30, 0x0A, 0x86, 0x08]) + b"spif\xff\xfe:/"
    )
    monkeypatch.setattr(x509, "SubjectAlternativeName", lambda _: spoilt)
    context = server.trusting()
    context.load_cert_chain(server.authority.issue("x", file="client.pem"))
    reader, writer = await server.connect(context)
    writer.write(GET)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert "client_certificate_unreadable" in capsys.readouterr().out
    assert server.connections == set()
