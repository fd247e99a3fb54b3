"""A gRPC client of streams over sockets, on h2: many of them in one event loop, and what a bad one sends."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from harness.goaway import FrameSplitter
from harness.xds_messages import DiscoveryRequest, DiscoveryResponse, Node
from registry.http2.messages import MessageReader
from registry.xds.eds import TYPE_URL

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
TIMEOUT = 20.0


class StreamClient:
    """One connection with one stream.

    Attributes:
        messages: what came and was not taken yet.
        status: of the end of the stream; None before it.
        closed: whether the registry has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.messages: deque[bytes] = deque()
        self.status: tuple[int, str] | None = None
        self.closed = False
        self._splitter = FrameSplitter()
        self._acknowledged = 0
        self._news = asyncio.Event()
        self._messages = MessageReader(2**31)
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None, window: int = 65_535) -> Self:
        """Connect to a listener on loopback, with a window for each stream."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))
        client.h2.local_settings.initial_window_size = window
        client.h2.local_settings.acknowledge()
        client.h2.initiate_connection()
        return client

    async def open(self, path: str = ADS, **headers: str) -> None:
        """Begin with the call."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "registry", "te": "trailers"}
        fields |= {"content-type": "application/grpc"} | headers
        self.h2.send_headers(1, list(fields.items()))
        await self.flush()

    async def send(self, message: bytes) -> None:
        """Send a message."""
        data = b"\x00" + len(message).to_bytes(4, "big") + message
        while data:
            size = min(len(data), self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size)
            if size == 0:
                await self._wait()
                continue
            self.h2.send_data(1, data[:size])
            data = data[size:]
            await self.flush()

    async def subscribe(self, *names: str, version: str = "", nonce: str = "", node: int = 0) -> None:
        """Ask for assignments, as the state of the world; ``node`` is the size of the node's metadata."""
        request = DiscoveryRequest(
            type_url=TYPE_URL["v3"], resource_names=names, version_info=version, response_nonce=nonce
        )
        if not nonce:
            request.node.CopyFrom(Node(id="test", cluster="tests", user_agent_name="envoy"))
            if node:
                request.node.metadata.fields["filler"].string_value = "x" * node
        await self.send(request.SerializeToString())

    async def answer(self) -> DiscoveryResponse:
        """Wait for an answer, and acknowledge it."""
        message = await self.message()
        response = DiscoveryResponse.FromString(message)
        ack = DiscoveryRequest(
            type_url=response.type_url, version_info=response.version_info, response_nonce=response.nonce
        )
        ack.resource_names.extend(self._names)
        await self.send(ack.SerializeToString())
        return response

    _names: tuple[str, ...] = ()

    async def follow(self, *names: str, node: int = 0) -> DiscoveryResponse:
        """Open the call, ask for assignments, and return the first answer."""
        self._names = names
        await self.open()
        await self.subscribe(*names, node=node)
        return await self.answer()

    @property
    def announced(self) -> bool:
        """Whether the registry has said that the connection will end."""
        return bool(self._splitter.goaways)

    async def message(self) -> bytes:
        """Wait for a message."""
        async with asyncio.timeout(TIMEOUT):
            while not self.messages:
                assert self.status is None, f"the stream has ended: {self.status}"
                assert not self.closed, "the connection is closed"
                await self._wait()
        return self.messages.popleft()

    async def end(self) -> tuple[int, str] | None:
        """Wait for the end of the stream, and return its status; None: the connection ended without one."""
        async with asyncio.timeout(TIMEOUT):
            while self.status is None and not self.closed:
                await self._wait()
        return self.status

    async def close_of_server(self) -> None:
        """Wait until the registry closes the connection."""
        async with asyncio.timeout(TIMEOUT):
            while not self.closed:
                await self._wait()

    async def settle(self) -> None:
        """Wait until the registry has read what was sent."""
        before = self._acknowledged
        self.h2.ping(bytes(8))
        await self.flush()
        async with asyncio.timeout(TIMEOUT):
            while self._acknowledged == before:
                await self._wait()

    async def flush(self) -> None:
        """Send what h2 has to send."""
        data = self.h2.data_to_send()
        if data and not self.closed:
            self.writer.write(data)
            await self.writer.drain()

    async def close(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65_536):
                readable = self._splitter.feed(data)
                for event in self.h2.receive_data(readable) if readable else ():
                    self._on_event(event)
                await self.flush()
                self._news.set()
        except OSError:
            pass
        finally:
            self.closed = True
            self._news.set()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.messages.extend(self._messages.feed(event.data or b""))
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, (TrailersReceived, ResponseReceived)):
            fields = {str(name): str(value) for name, value in event.headers or ()}
            if "grpc-status" in fields:
                self.status = int(fields["grpc-status"]), fields["grpc-message"]
        elif isinstance(event, PingAckReceived):
            self._acknowledged += 1
        elif isinstance(event, (StreamEnded, StreamReset)):
            self.status = self.status or (-1, "without a status")


@asynccontextmanager
async def stream_client(
    port: int, tls: ssl.SSLContext | None = None, window: int = 65_535
) -> AsyncIterator[StreamClient]:
    """Have a client until the end of the block."""
    client = await StreamClient.connect(port, tls, window)
    try:
        yield client
    finally:
        await client.close()
