"""AWS STS for tests: moto on loopback, which checks signatures if it is asked to, and servers that answer wrongly."""

import asyncio
import contextlib
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Self

import boto3
from moto.server import ThreadedMotoServer

from harness.aws_login import Keys


class Moto:
    """A moto server on a port of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Self]:
        """Serve within a block; each request's signature is checked."""
        server = ThreadedMotoServer("127.0.0.1", 0)
        server.start()
        host, port = server.get_host_and_port()
        moto = cls(f"http://{host}:{port}")
        try:
            yield moto
        finally:
            # It is a setting of the process, which other servers of moto in it would keep.
            moto.check_signatures(on=False)
            server.stop()

    def keys(self, role: str, session: str, region: str = "eu-west-1", account: str = "111122223333") -> Keys:
        """Return the keys of a new session of a role."""
        self.check_signatures(on=False)
        sts = boto3.client(
            "sts",
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        answer = sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/{role}", RoleSessionName=session)
        self.check_signatures(on=True)
        keys = answer["Credentials"]
        return Keys(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])

    def check_signatures(self, *, on: bool) -> None:
        """Let moto check the signature of each request, which it does not by itself."""
        order = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", b"0" if on else b"inf", {"content-type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(order, timeout=10).close()


@dataclass
class FakeSts:
    """A server that answers every request with the same bytes, or not at all.

    Attributes:
        answer: the bytes; nothing: it never answers.
        requests: what it received.
        connections: how many there were.
    """

    answer: bytes
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """Serve within a block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                    self.requests.append(head + await reader.readexactly(length))
                    writer.write(self.answer)
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Return the bytes of a response."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
