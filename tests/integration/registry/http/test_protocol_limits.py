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
SLOW = b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer after three times what a request may take to arrive."""
    if scope["path"] == "/slow":
        await asyncio.sleep(0.9)
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


async def test_a_request_in_time_is_answered(connection: Connection) -> None:
    """Also when it comes in parts, and again on the same connection."""
    reader, writer = connection
    for _ in range(3):
        writer.write(HEAD)
        await asyncio.sleep(0.15)
        writer.write(BODY)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(len(BODY)) == BODY


async def test_our_own_slowness_is_not_the_clients(connection: Connection) -> None:
    """What is sent behind a request that takes its time is not read until then, and has all of its own."""
    reader, writer = connection
    writer.write(SLOW + HEAD + BODY[:3])
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        writer.write(BODY[3:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
