"""Requests as bytes on a connection of one's own, for what no client library would send."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, Self

from harness.registry import Registry


class Line:
    """A connection, and the answers that come over it."""

    def __init__(self, registry: Registry) -> None:
        self.socket = socket.create_connection(("127.0.0.1", registry.port), timeout=30)
        self._stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send pieces as they are."""
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer: its status, its headers and its body."""
        status = int(self._stream.readline().split()[1])
        headers = {}
        while (line := self._stream.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self._stream.read(int(headers.get("content-length", "0")))

    def rest(self) -> bytes:
        """Read all that comes until the other end closes."""
        return self._stream.read()

    def leave(self, hang_up: Callable[[socket.socket], None]) -> None:
        """Hang up in a way of one's own."""
        self._stream.close()
        hang_up(self.socket)

    def closed(self) -> bool:
        """Wait for the other end to close."""
        try:
            return self._stream.read(1) == b""
        except ConnectionResetError:
            return True


def poll(*names: str, version: str = "", hold: float = 0, head: str = "", protocol: str = "1.1") -> bytes:
    """Return a poll on the wire, with other header lines."""
    document: dict[str, Any] = {"version_info": version, "node": {"id": "x" * 3000}, "resource_names": list(names)}
    body = json.dumps(document, separators=(",", ":")).encode()
    patience = f"x-envoy-expected-rq-timeout-ms: {int(hold * 1000)}\r\n" if hold else ""
    start = f"POST /v3/discovery:endpoints HTTP/{protocol}\r\nhost: test\r\n{head}{patience}"
    return f"{start}content-length: {len(body)}\r\n\r\n".encode() + body


def chunked(body: bytes, size: int) -> Iterator[bytes]:
    """Yield a poll whose length is not announced."""
    yield b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n"
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def heartbeat(service: str, endpoint: str = "10.0.0.1:80", *, head: str = "", **fields: Any) -> bytes:
    """Return a heartbeat as ``Registry.register`` sends it, on the wire."""
    body = json.dumps({"instance_id": f"i-{endpoint}", "incarnation": 1} | fields).encode()
    start = f"PUT /v1/services/{service}/endpoints/{endpoint} HTTP/1.1\r\nhost: test\r\n{head}"
    return f"{start}content-length: {len(body)}\r\n\r\n".encode() + body
