"""The small server of the admin interface, with what browsers, scanners and slow clients send."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from registrar.admin import server as listener
from registrar.admin.api import problem_response
from registrar.admin.server import AdminRequest, AdminResponse, AdminServer
from registrar.config.listen import ListenAddress


async def _echo(request: AdminRequest) -> AdminResponse:
    if request.path == "/broken":
        raise RuntimeError("a defect")
    return AdminResponse(200, f"{request.method} {request.path} {len(request.body)}".encode(), "text/plain")


@pytest.fixture
async def port(unused_tcp_port: int) -> AsyncIterator[int]:
    """A server that echoes what was asked."""
    async with AdminServer(ListenAddress("127.0.0.1", unused_tcp_port), _echo, problem_response):
        yield unused_tcp_port


async def ask(port: int, raw: bytes) -> bytes:
    """Send bytes and return all that comes back until the server hangs up, or for half a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    said = b""
    try:
        async with asyncio.timeout(0.5):
            while chunk := await reader.read(65536):
                said += chunk
    except (TimeoutError, ConnectionResetError):
        # Hung up on, with what was sent still unread.
        pass
    finally:
        writer.close()
    return said


async def test_a_connection_serves_many_requests(port: int) -> None:
    """Two requests in one go have two answers."""
    said = await ask(port, b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\nGET /b HTTP/1.1\r\nhost: [::1]\r\n\r\n")
    assert said.count(b"HTTP/1.1 200") == 2
    assert b"GET /b 0" in said


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"host: evil.example", b"403"),
        (b"host: 10.0.0.5:9902", b"403"),
        (b"host: localhost\r\norigin: http://evil.example", b"403"),
        (b"host: 127.0.0.1:9902", b"200"),
    ],
)
async def test_web_pages_are_refused(port: int, head: bytes, status: bytes) -> None:
    """A name that was bent to loopback, and any request of a page, is no request of this machine's people."""
    assert (await ask(port, b"POST /drain HTTP/1.1\r\n" + head + b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000, b"431"),
        (b"PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 70000\r\n\r\n" + b"a" * 70_000, b"413"),
        (b"GET /broken HTTP/1.1\r\nhost: localhost\r\n\r\n", b"500"),
        (b"GET //[ HTTP/1.1\r\nhost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: [\r\n\r\n", b"403"),
    ],
)
async def test_what_cannot_be_served_is_refused(port: int, raw: bytes, status: bytes) -> None:
    """No HTTP, heads and bodies beyond their limits and our own defects each have their status."""
    assert (await ask(port, raw)).startswith(b"HTTP/1.1 " + status)


async def test_head_is_answered_without_a_body(port: int) -> None:
    """And the connection goes on."""
    head = b" / HTTP/1.1\r\nhost: localhost\r\n\r\n"
    said = await ask(port, b"HEAD" + head + b"GET" + head)
    assert said.count(b"HTTP/1.1 200") == 2
    assert b"HEAD / 0" not in said


async def test_a_silent_client_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request does not hold a connection for ever."""
    monkeypatch.setattr(listener, "_REQUEST_TIMEOUT", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HT")
    async with asyncio.timeout(3):
        assert await reader.read() == b""
    writer.close()


GET = b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def test_the_idlest_connection_makes_room(port: int) -> None:
    """Idle connections, or slow ones, keep no health check out: the one that waits longest is hung up on."""
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(32)]
    held[1][1].write(b"GET / HT")
    await asyncio.sleep(0.05)
    # The first is no longer the idlest once it was answered.
    held[0][1].write(GET)
    assert (await held[0][0].readuntil(b"GET /a 0")).startswith(b"HTTP/1.1 200")
    for _ in range(3):
        assert (await ask(port, GET)).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(3):
        assert await held[1][0].read() == b""
    held[0][1].write(GET)
    assert (await held[0][0].readuntil(b"GET /a 0")).startswith(b"HTTP/1.1 200")
    for _, writer in held:
        writer.close()


async def test_connections_are_bounded(unused_tcp_port: int) -> None:
    """While each of 32 is being answered, four more are read: probes are answered, and others are told to wait."""
    answer = asyncio.Event()

    async def slow(request: AdminRequest) -> AdminResponse:
        if request.path != "/livez":
            await answer.wait()
        return await _echo(request)

    async with AdminServer(ListenAddress("127.0.0.1", unused_tcp_port), slow, problem_response, ["/livez"]):
        held = [await asyncio.open_connection("127.0.0.1", unused_tcp_port) for _ in range(32)]
        for _, writer in held:
            writer.write(GET)
        await asyncio.sleep(0.1)
        idle = [await asyncio.open_connection("127.0.0.1", unused_tcp_port) for _ in range(6)]
        for _ in range(5):
            assert (await ask(unused_tcp_port, GET)).startswith(b"HTTP/1.1 503")
            said = await ask(unused_tcp_port, GET.replace(b"/a", b"/livez"))
            assert said.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in said
        for _, writer in idle:
            writer.close()
        answer.set()
        for reader, writer in held:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
