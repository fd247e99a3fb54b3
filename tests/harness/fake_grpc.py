"""A gRPC health server on the h2 package: an implementation of HTTP/2 and HPACK that is not ours."""

import asyncio
import ssl
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


class FakeGrpc:
    """Listens on loopback while it is entered.

    Attributes:
        states: the status of each service; the server as a whole has the empty name.
        requests: headers and messages that came.
        trailer: what to answer instead: a grpc-status and its message, without a body.
        status: the HTTP status.
        fields: more fields for the header, to fill its table.
        padding: how much to pad the message by.
        fault: ``silent``, ``reset``, ``goaway`` or ``hangup`` instead of an answer.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.states: dict[str, int] = {"": SERVING}
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.trailer: tuple[int, str] | None = None
        self.status = 200
        self.fields: list[tuple[str, str]] = []
        self.padding: int | None = None
        self.fault = ""
        self.protocols: list[str | None] = []
        self._context = context
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        tls = writer.get_extra_info("ssl_object")
        self.protocols.append(tls.selected_alpn_protocol() if tls else None)
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        # What a server may ask at any time.
        connection.ping(b"12345678")
        writer.write(connection.data_to_send())
        try:
            await self._talk(connection, reader, writer)
        except (ConnectionError, ProtocolError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _talk(self, connection: H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers: dict[str, str] = {}
        message = b""
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    headers = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, DataReceived):
                    message += event.data
                elif isinstance(event, StreamEnded):
                    self.requests.append((headers, message))
                    self._answer(connection, message)
                elif isinstance(event, ConnectionTerminated):
                    return
            writer.write(connection.data_to_send())
            await writer.drain()
            if self.requests and self.fault == "hangup":
                # An end, and no reset: that would come from what is still unread.
                writer.write_eof()

    def _answer(self, connection: H2Connection, message: bytes) -> None:
        if self.fault == "reset":
            connection.reset_stream(1, 7)
        elif self.fault == "goaway":
            connection.close_connection(11, b"too_many_pings", last_stream_id=0)
        elif not self.fault:
            self._reply(connection, self.states.get(message[7:].decode()))

    def _reply(self, connection: H2Connection, state: int | None) -> None:
        head = [(":status", str(self.status)), ("content-type", "application/grpc"), *self.fields]
        trailer = self.trailer or ((5, "unknown service") if state is None else None)
        if trailer:
            code, words = trailer
            connection.send_headers(1, [*head, ("grpc-status", str(code)), ("grpc-message", words)], end_stream=True)
            return
        body = b"\x08" + bytes([state or 0]) if state else b""
        connection.send_headers(1, head)
        connection.send_data(1, b"\0" + len(body).to_bytes(4, "big") + body, pad_length=self.padding)
        connection.send_headers(1, [("grpc-status", "0"), ("grpc-message", "")], end_stream=True)
