"""The client of Envoy's admin interface, against servers that answer in every way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from harness.process import free_port

from registrar.envoy_admin import client as client_module
from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.errors import EnvoyAdminError


class Admin:
    """A server that sends what it is given, and notes what it was asked."""

    def __init__(self, answer: bytes, *, hang: bool = False) -> None:
        self.answer = answer
        self.hang = hang
        self.asked = b""
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self.asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        await writer.drain()
        if self.hang:
            await reader.read()
        writer.close()
        self.closed.set()


@asynccontextmanager
async def serving(admin: Admin, socket: Path | None = None) -> AsyncIterator[EnvoyAdminClient]:
    """Serve, and yield a client."""
    if socket is not None:
        server = await asyncio.start_unix_server(admin.serve, socket)
        address = EnvoyAdminAddress(path=socket)
    else:
        server = await asyncio.start_server(admin.serve, "127.0.0.1", 0)
        address = EnvoyAdminAddress("127.0.0.1", server.sockets[0].getsockname()[1])
    async with server:
        yield EnvoyAdminClient(address)


def answer(body: bytes, status: str = "200 OK") -> bytes:
    """Return a response whose body ends with the connection, as Envoy's long ones do."""
    return b"HTTP/1.1 " + status.encode() + b"\r\nconnection: close\r\n\r\n" + body


async def lines(client: EnvoyAdminClient) -> list[bytes]:
    """Return all lines of the statistics."""
    async with aclosing(client.lines("/stats?usedonly")) as found:
        return [line async for line in found]


async def test_a_response_is_read_from_loopback_and_from_a_unix_socket(tmp_path: Path) -> None:
    """Each with the authority that Envoy expects."""
    for socket, host in ((None, b"127.0.0.1:"), (tmp_path / "admin.sock", b"localhost")):
        admin = Admin(answer(b"a: 1\nb: 2\r\n\nlast"))
        async with serving(admin, socket) as client:
            assert await lines(client) == [b"a: 1", b"b: 2", b"", b"last"]
            assert admin.asked.startswith(b"GET /stats?usedonly HTTP/1.1\r\nhost: " + host)
            assert await client.read("/stats", max_bytes=100) == b"a: 1\nb: 2\r\n\nlast"


async def test_a_write_has_its_method_and_body() -> None:
    """Envoy takes changes by POST alone."""
    admin = Admin(answer(b"OK"))
    async with serving(admin) as client:
        assert await client.read("/logging?level=info", max_bytes=100, method="POST") == b"OK"
        assert admin.asked.startswith(b"POST /logging?level=info HTTP/1.1\r\n")
        assert b"content-length: 0\r\n" in admin.asked


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (answer(b"x" * 200), "the answer is longer than 100 bytes"),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP answer: SSH-2.0-OpenSSH"),
        (b"", "hung up without an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", "the answer's body never ended"),
        (answer(b"invalid path\n", "404 Not Found"), "404 invalid path"),
    ],
)
async def test_an_answer_of_no_use_is_an_error_with_its_reason(sent: bytes, reason: str) -> None:
    """Too long, of another program, cut off, refused."""
    async with serving(Admin(sent)) as client:
        with pytest.raises(EnvoyAdminError, match=reason) as raised:
            await client.read("/stats?filter=x", max_bytes=100)
        assert str(raised.value).startswith(f"Envoy's admin interface at {client.address}, /stats: ")
        assert raised.value.status == (404 if b"404" in sent else None)


async def test_an_endless_line_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever listens there, the registrar stays small."""
    monkeypatch.setattr(client_module, "MAX_LINE_BYTES", 1_000)
    async with serving(Admin(answer(b"x" * 5_000), hang=True)) as client:
        with pytest.raises(EnvoyAdminError, match="a line is longer than 1000 bytes"):
            await lines(client)


async def test_a_slow_answer_is_given_up_and_its_connection_closed() -> None:
    """Envoy's main thread may be busy, and must not find old requests waiting."""
    admin = Admin(answer(b"begun"), hang=True)
    async with serving(admin) as client:
        with pytest.raises(EnvoyAdminError, match=r"no complete answer within 0\.1s"):
            await client.read("/stats", max_bytes=100, seconds=0.1)
        await asyncio.wait_for(admin.closed.wait(), 10)


async def test_an_interface_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """An Envoy that restarts is not there for a while."""
    for address in (
        EnvoyAdminAddress("127.0.0.1", free_port()),
        EnvoyAdminAddress(path=tmp_path / "no.sock"),
    ):
        with pytest.raises(EnvoyAdminError, match=r"Connect call failed|No such file"):
            await EnvoyAdminClient(address).read("/stats", max_bytes=100)
