"""How long a request may be on its way: real connections, and times of a test's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from registry.http import protocol_limits as bounded
from registry.http import protocol_selftest as selftest
from registry.http.certificate_protocol import CertificateProtocol
from registry.http.fast_protocol import FastProtocol

HEAD = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\n"
BODY = b"in parts"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer ``/slow`` after what its name says."""
    if scope["path"].startswith("/slow/"):
        await asyncio.sleep(float(scope["path"].removeprefix("/slow/")))
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture(params=[CertificateProtocol, FastProtocol])
async def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """A connection to a server that waits 0.3 s for whatever it waits for."""
    monkeypatch.setattr(bounded, "_REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(selftest, "_application", slow)
    config = Config(selftest._echo_middleware(), ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    config.timeout_keep_alive = 0.3  # type: ignore[assignment]  # whole seconds are long in a test
    loop = asyncio.get_running_loop()
    state = ServerState()
    server = await loop.create_server(lambda: request.param(config, state, {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield reader, writer
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_who_says_nothing_is_not_waited_for(connection: Connection) -> None:
    """A connection without a request is closed as one is whose last request is long ago."""
    async with asyncio.timeout(2):
        assert await connection[0].read() == b""


@pytest.mark.parametrize("begun", [b"POST /v3/disc", HEAD, HEAD + BODY[:3]])
async def test_a_request_that_does_not_become_whole_is_not_waited_for(connection: Connection, begun: bytes) -> None:
    """However much of it came, and however it drips."""
    reader, writer = connection
    writer.write(begun)
    drip = asyncio.create_task(dripping(writer, begun))
    async with asyncio.timeout(2):
        # A byte that is under way when the connection is closed is answered by a reset.
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    drip.cancel()


async def dripping(writer: asyncio.StreamWriter, begun: bytes) -> None:
    """Send a byte of a header now and then, or nothing when the head is there."""
    while HEAD not in begun:
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def test_a_request_in_time_is_answered(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it comes in parts, and again on the same connection, where the time of each is its own."""
    monkeypatch.setattr(bounded, "_REQUEST_TIMEOUT", 0.8)
    reader, writer = connection
    for _ in range(3):
        writer.write(HEAD)
        await asyncio.sleep(0.3)
        writer.write(BODY)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(len(BODY)) == BODY


async def test_our_own_slowness_is_not_the_clients(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent behind a request that takes its time is not read until then, and has all of its own: 1 s."""
    monkeypatch.setattr(bounded, "_REQUEST_TIMEOUT", 1.0)
    second = await asyncio.open_connection(*connection[1].get_extra_info("peername"))
    try:
        await asyncio.gather(sent_behind(connection, 0.7, 0.8), sent_behind(second, 1.1, 0.6))
    finally:
        second[1].close()


async def sent_behind(connection: Connection, answered: float, later: float) -> None:
    """Send half a request behind one that is answered after some seconds, and the rest some seconds after that."""
    reader, writer = connection
    writer.write(b"GET /slow/%g HTTP/1.1\r\nhost: test\r\n\r\n" % answered + HEAD + BODY[:3])
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        await asyncio.sleep(later)
        writer.write(BODY[3:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
