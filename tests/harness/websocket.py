"""Websockets of RFC 6455: a client, and an app's end that echoes; as little of it as a proxy has to carry."""

import base64
import hashlib
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from io import BufferedIOBase

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE = 0x1, 0x8
_FINAL, _MASKED = 0x80, 0x80
_MAX_MESSAGE = 125
"""Bytes of a message: longer ones have another form of length, which no test needs."""


class RefusedHandshakeError(Exception):
    """A handshake had another answer than 101.

    Attributes:
        status: the status; 0 where the connection ended without one.
    """

    def __init__(self, status: int, head: str) -> None:
        super().__init__(f"{status} {head}")
        self.status = status


class Websocket:
    """The client's end of a websocket.

    Args:
        port: where a proxy listens on loopback.
        host: the host that is asked for.
        path: the path.
        tls: the TLS of the connection, whose server name is the host.
        headers: headers of the handshake, with a low line for each hyphen.

    Raises:
        RefusedHandshakeError: the answer is no 101.
    """

    def __init__(
        self, port: int, host: str, path: str = "/", *, tls: ssl.SSLContext | None = None, **headers: str
    ) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket = raw if tls is None else tls.wrap_socket(raw, server_hostname=host)
        self._file = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "host": host,
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-version": "13",
            "sec-websocket-key": key,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head = _head(self._file)
        status = int(head.split()[1]) if head else 0
        if status != 101 or f"sec-websocket-accept: {_accept(key)}" not in head.splitlines():
            self.close()
            raise RefusedHandshakeError(status, head)

    def ask(self, message: str) -> str:
        """Send a message and return the answer.

        Raises:
            ConnectionError: the websocket has ended.
        """
        self._socket.sendall(_frame(message, masked=True))
        answer = _message(self._file)
        if answer is None:
            raise ConnectionError(message)
        return answer

    def ends(self) -> bool:
        """Wait until the other side ends it; tell whether it sent nothing before.

        Raises:
            TimeoutError: it did not for ten seconds.
        """
        try:
            return _message(self._file) is None
        except ConnectionError:
            return True

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()


def serve_websocket(
    headers: Mapping[str, str], reader: BufferedIOBase, write: Callable[[bytes], object], name: str
) -> None:
    """Answer a handshake, and then each message with a name before it, until the websocket ends."""
    lines = (
        "HTTP/1.1 101 Switching Protocols",
        "upgrade: websocket",
        "connection: Upgrade",
        f"sec-websocket-accept: {_accept(headers['sec-websocket-key'])}",
    )
    write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    while (message := _message(reader)) is not None:
        write(_frame(f"{name} {message}"))


def _head(reader: BufferedIOBase) -> str:
    lines = []
    while (line := reader.readline(65_536)) not in (b"", b"\r\n"):
        lines.append(line.decode("latin-1"))
    return "".join(lines)


def _accept(key: str) -> str:
    return base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode()).digest()).decode()  # as RFC 6455 has it


def _frame(message: str, *, masked: bool = False) -> bytes:
    payload = message.encode()
    assert len(payload) <= _MAX_MESSAGE
    head = bytes([_FINAL | _TEXT, (_MASKED if masked else 0) | len(payload)])
    mask = os.urandom(4) if masked else b""
    return head + mask + (_unmasked(payload, mask) if masked else payload)


def _message(reader: BufferedIOBase) -> str | None:
    """Return the next message; None at the end."""
    head = reader.read(2)
    if len(head) < len(b"12") or head[0] & 0xF == _CLOSE:
        return None
    mask = reader.read(4) if head[1] & _MASKED else b""
    payload = reader.read(head[1] & ~_MASKED)
    return (_unmasked(payload, mask) if mask else payload).decode()


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
