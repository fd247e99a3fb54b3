"""The client of heartbeats over real sockets: what it keeps, repeats, refuses and bounds."""

import asyncio
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

import pytest
from harness.fake_registry import FakeRegistry
from harness.probing import Authority

from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client import http_client
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.http_client import ConnectError, HttpClient, Origin
from registrar.registry_client.registries import RegistryUrls
from registrar.registry_client.tls import RegistryTls
from wire.http1 import NoResponseError, Request
from wire.model import Heartbeat, Registration

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = Request("GET", "/", {"host": "registry"})
BEAT = Heartbeat("shop", "10.0.0.5:8080", Registration("i-1", 7))
Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(content: bytes) -> Step:
    """Answer one request with these bytes."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(content)
        await writer.drain()

    return step


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection in place of an answer."""
    del reader
    writer.close()


class Server:
    """Takes one step for each request, in order, whichever connection it comes on; then it answers ``OK``.

    Attributes:
        requests: the heads that came.
        connections: how many were opened.
        open: those that the client has not closed.
        names: the names that clients asked for (SNI).
    """

    def __init__(self, *steps: Step, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.requests: list[str] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.names: list[str | None] = []
        self._steps = deque(steps)
        self._context = context
        self._host = host
        if context is not None:
            context.sni_callback = lambda _, name, __: self.names.append(name)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self.open):
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def origin(self) -> Origin:
        """Where it listens, for plain http."""
        return Origin(self._host, self.port)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a state of the connections."""
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while not writer.is_closing():
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                await (self._steps.popleft() if self._steps else answer(OK))(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()


def client(tls: RegistryTls | None = None) -> HttpClient:
    """Return a client with a short patience."""
    return HttpClient(tls, 2.0)


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """Three requests, one connection, which ends with the client."""
    async with Server() as server:
        async with client() as http:
            for _ in range(3):
                assert (await http.request(server.origin, GET)).body == b"ok"
        assert (len(server.requests), server.connections) == (3, 1)
        await server.until(lambda: not server.open)


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    """One of the two is kept."""
    async with Server() as server, client() as http:
        await asyncio.gather(http.request(server.origin, GET), http.request(server.origin, GET))
        assert server.connections == 2
        await server.until(lambda: len(server.open) == 1)


async def test_a_connection_that_the_server_closed_while_idle_is_not_used() -> None:
    """It is dropped at once, and the next request goes out once, on a new one."""

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(OK)(reader, writer)
        writer.close()

    async with Server(answer_and_close) as server, client() as http:
        await http.request(server.origin, GET)
        await server.until(lambda: not http._idle)
        await http.request(server.origin, GET)
        assert (len(server.requests), server.connections) == (2, 2)


async def test_what_an_idle_connection_says_is_no_answer() -> None:
    """Proxies write 408 before they close; the next request must not take it for its own answer."""
    late = answer(OK + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(OK)(reader, writer)
        await asyncio.sleep(0.05)
        await answer(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")(reader, writer)

    async with Server(late, later) as server, client() as http:
        for number in range(3):
            assert (await http.request(server.origin, GET)).status == 200, number
            await server.until(lambda: len(http._idle) == (1 if server.connections == 3 else 0))
        assert server.connections == 3


@pytest.mark.parametrize("early", [True, False], ids=["behind the first read", "in its own segment"])
async def test_surplus_bytes_are_no_response_to_the_next_request(early: bool) -> None:
    """They came before that request was sent: behind a first read of 64 KiB, or while the process was busy."""
    surplus = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: "
    whole = begin + b"x" * (65_536 - len(begin) - 6) + b"\r\n\r\nok"
    assert len(whole) == 65_536
    written = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for response in (whole + surplus if early else OK, OK):
                try:
                    channel, _ = listener.accept()
                except TimeoutError:
                    return
                with channel:
                    channel.settimeout(5)
                    channel.recv(65_536)
                    channel.sendall(response)
                    if not written.is_set():
                        go.wait(5)
                        if not early:
                            channel.sendall(surplus)
                        written.set()
                        # The client closes the connection, or sends its next request on it.
                        if channel.recv(65_536):
                            channel.sendall(OK)

        go = threading.Event()
        listener.settimeout(5)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        async with client() as http:
            origin = Origin("127.0.0.1", listener.getsockname()[1])
            await http.request(origin, GET)
            go.set()
            # Holds up the event loop, so that it has not read them when the next request comes.
            written.wait(5)
            assert (await http.request(origin, GET)).status == 200
        thread.join(5)


async def test_a_request_that_meets_a_closed_connection_is_sent_again_once() -> None:
    """The server closed the kept connection while the request was on its way."""
    async with Server(answer(OK), close) as server, client() as http:
        await http.request(server.origin, GET)
        assert (await http.request(server.origin, GET)).body == b"ok"
        assert (len(server.requests), server.connections) == (3, 2)


async def test_a_request_is_not_sent_a_third_time() -> None:
    """A server that closes each connection fails it."""
    async with Server(answer(OK), close, close) as server, client() as http:
        await http.request(server.origin, GET)
        with pytest.raises(NoResponseError):
            await http.request(server.origin, GET)
        assert len(server.requests) == 3


async def test_a_request_on_a_new_connection_is_sent_once() -> None:
    """Nothing says that it was not carried out."""
    async with Server(close) as server, client() as http:
        with pytest.raises(NoResponseError):
            await http.request(server.origin, GET)
        assert len(server.requests) == 1


@pytest.mark.parametrize("begin", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]], ids=["byte", "continue", "body"])
async def test_a_request_whose_answer_began_is_not_sent_again(begin: bytes) -> None:
    """The server was at work on it."""

    async def begin_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(begin)(reader, writer)
        writer.close()

    async with Server(answer(OK), begin_and_close) as server, client() as http:
        await http.request(server.origin, GET)
        with pytest.raises(ValueError, match="never ended"):
            await http.request(server.origin, GET)
        assert len(server.requests) == 2


async def test_an_answer_that_is_reset_is_not_asked_for_again() -> None:
    """The connection breaks with an error of the socket in the middle of a body."""

    async def begin_and_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(OK[:-1])(reader, writer)
        await asyncio.sleep(0.1)
        channel = writer.get_extra_info("socket")
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with Server(answer(OK), begin_and_reset) as server, client() as http:
        await http.request(server.origin, GET)
        with pytest.raises(ConnectionResetError):
            await http.request(server.origin, GET)
        assert len(server.requests) == 2


async def test_a_request_is_not_written_to_a_connection_that_is_closed_already() -> None:
    """A server that went away while this process was busy got nothing, and so stored nothing."""
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            channel, _ = listener.accept()
            with channel:
                channel.recv(65_536)
                channel.sendall(OK)
                gone.wait(5)
            listener.close()

        origin = Origin("127.0.0.1", listener.getsockname()[1])
        thread = threading.Thread(target=serve)
        thread.start()
        async with client() as http:
            await http.request(origin, GET)
            gone.set()
            # Holds up the event loop, so that it does not notice before the next request.
            thread.join()
            with pytest.raises(ConnectError, match="Connection refused"):
                await http.request(origin, GET)


async def test_a_repeated_request_that_finds_no_server_may_have_been_stored() -> None:
    """The kept connection may have delivered it; that the next one was refused says nothing about that."""
    async with FakeRegistry() as registry, RegistryClient(RegistryUrls(registry.url), 2.0) as beating:
        await beating.heartbeats([BEAT])
        registry.silent = True
        sending = asyncio.create_task(beating.heartbeats([BEAT]))
        await registry.until(lambda: len(registry.batches) == 2)
        # As a killed process does: the port is closed, and so is the connection.
        registry._server.close()
        for writer in registry._connections:
            writer.close()
        with pytest.raises(
            RegistryUnavailable, match="hung up without an answer, and then: Connection refused"
        ) as raised:
            await sending
        assert raised.value.perhaps_stored


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """Its answer would be taken for the next request's."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        await answer(OK.replace(b"ok", b"no"))(reader, writer)

    async with Server(late) as server, client() as http:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await http.request(server.origin, GET)
        assert (await http.request(server.origin, GET)).body == b"ok"
        assert server.connections == 2


async def test_an_idle_connection_is_closed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a registry that is no longer asked keeps none."""
    monkeypatch.setattr(http_client, "_IDLE_TIMEOUT", 0.1)
    async with Server() as server, client() as http:
        await http.request(server.origin, GET)
        assert server.open
        await server.until(lambda: not server.open)
        assert not http._idle


@pytest.mark.parametrize("closes", [False, True])
async def test_an_answer_may_begin_before_the_request_is_whole(closes: bool) -> None:
    """A server that refuses a body by its length does not read it; what it says arrives, and the connection ends."""
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # so that most of the body stays with the client
        await answer(refused)(reader, writer)
        if closes:
            writer.close()
        else:
            await asyncio.sleep(0.2)

    async with Server(refuse) as server, client() as http:
        whole = Request("POST", "/v1/heartbeats", {"host": "registry"}, b"x" * 8_000_000)
        async with asyncio.timeout(3):
            response = await http.request(server.origin, whole)
        assert (response.status, response.body) == (413, b"big")
        assert not http._idle


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX: y\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
    ],
)
async def test_each_framing_is_read(content: bytes, body: bytes) -> None:
    """And a connection whose answer ends with it is not kept."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(content)(reader, writer)
        if content.startswith(b"HTTP/1.0"):
            writer.close()

    async with Server(one) as server, client() as http:
        response = await http.request(server.origin, GET)
        assert (response.body, response.headers.get("x")) == (body, None)
        assert bool(http._idle) is not content.startswith(b"HTTP/1.0")


@pytest.mark.parametrize("content", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
async def test_an_endless_answer_is_given_up(content: bytes) -> None:
    """At 64 KiB of head, and 16 MiB of body."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(content)
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with Server(endless) as server, client() as http:
        with pytest.raises(ValueError, match="is longer than"):
            await http.request(server.origin, GET)


async def test_a_certificate_of_another_name_is_refused(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent; the right name is asked for (SNI) and taken, from an authority of SSL_CERT_FILE."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    async with Server(context=authority.server("registry.internal")) as server, client(RegistryTls()) as http:
        with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.request(Origin("127.0.0.1", server.port, "other.internal"), GET)
        assert server.requests == []
        origin = Origin("127.0.0.1", server.port, "registry.internal")
        assert (await http.request(origin, GET)).body == b"ok"
        assert (await http.request(origin, GET)).body == b"ok"
        assert server.names == ["other.internal", "registry.internal"]


async def test_an_unknown_authority_is_refused(authority: Authority) -> None:
    """The system's authorities are asked where nothing else is set."""
    async with Server(context=authority.server("registry.internal")) as server, client(RegistryTls()) as http:
        with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.request(Origin("127.0.0.1", server.port, "registry.internal"), GET)


async def test_heartbeats_go_over_tls_by_name_and_by_address(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https URL with an address is verified by the address."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    for name in ("localhost", "127.0.0.1"):
        async with Server(context=authority.server(name)) as server:
            async with RegistryClient(RegistryUrls(f"https://{name}:{server.port}"), 2.0) as beating:
                with pytest.raises(RegistryUnavailable, match="answer not understood"):
                    await beating.heartbeats([BEAT])
            assert f"host: {name}:{server.port}\r\n" in server.requests[0]
            # An address is verified, and never asked for by name (RFC 6066, 3).
            assert server.names == ["localhost" if name == "localhost" else None]


async def test_an_ipv6_literal_is_a_registry() -> None:
    """Its Host header has brackets."""
    async with FakeRegistry(host="::1") as registry:
        port = registry._port
        async with RegistryClient(RegistryUrls(f"http://[::1]:{port}"), 2.0) as beating:
            assert len(await beating.heartbeats([BEAT])) == 1
    assert registry.headers["host"] == f"[::1]:{port}"


async def test_no_proxy_stands_between(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Settings of proxies are for what leaves the network."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{unused_tcp_port}")
    async with RegistryClient(RegistryUrls(registry.url), 2.0) as beating:
        assert len(await beating.heartbeats([BEAT])) == 1


async def test_a_redirect_is_not_followed(registry: FakeRegistry) -> None:
    """It could lead a token to another server."""
    registry.failures.append((307, {"location": f"{registry.url}/other"}, b""))
    async with RegistryClient(RegistryUrls(registry.url), 2.0) as beating:
        with pytest.raises(RegistryRefused, match="307"):
            await beating.heartbeats([BEAT])
    assert len(registry.batches) == 1


async def test_a_refused_connection_is_told_in_the_systems_words(unused_tcp_port: int) -> None:
    """Nothing was sent."""
    async with client() as http:
        with pytest.raises(ConnectError, match=r"^Connection refused$"):
            await http.request(Origin("127.0.0.1", unused_tcp_port), GET)


async def test_a_connection_is_not_waited_for_longer_than_its_time() -> None:
    """A server that accepts and never answers the handshake is no connection."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 20)
        await asyncio.sleep(1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server, HttpClient(RegistryTls(), 0.1) as http:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match=r"no connection within 0\.1s"):
            await http.request(Origin("127.0.0.1", port, "registry.internal"), GET)
