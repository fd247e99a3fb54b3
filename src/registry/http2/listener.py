"""The gRPC listener of one process: its connections share a service, limits and turns, and end together."""

import asyncio
import heapq
import random
import time
from typing import Final

import structlog

from registry.core.token_bucket import TokenBucket
from registry.http2.call import Service
from registry.http2.connection import END_TIMEOUT, GRACE
from registry.http2.failures import Failures
from registry.http2.lifetime import EndReason
from registry.http2.limits import Limits, StreamCount
from registry.http2.protocol import LINGER, READ_BUFFER, Http2Protocol
from registry.http2.sender import FramedMessages
from registry.http2.turns import MAX_ITEMS_PER_TURN, Turns
from registry.metrics import STREAM_CONNECTIONS, STREAM_CONNECTIONS_ENDED, STREAM_CONNECTS

log = structlog.get_logger()

_MAX_LOGGED: Final = 1.0
"""Faults of clients that are logged a second; `registry_xds_ended_total` counts all of them."""
MIN_IDLE: Final = 1.0
"""Seconds for which a connection has to be open before it is closed to make room for others."""


class Http2Listener:
    """The connections of the gRPC listener of one process.

    Args:
        service: opens the calls.
        limits: of each connection.
        max_streams: streams that all connections together may have.
        beside: False to have h2 send and receive all DATA frames.
    """

    def __init__(self, service: Service, limits: Limits, max_streams: int, *, beside: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self.service = service
        self.limits = limits
        self.count = StreamCount(max_streams)
        self.turns = Turns(self._loop.call_soon)
        self.framed = FramedMessages()
        self.failures = Failures(time.monotonic())
        self.beside = beside
        self.read_buffer = memoryview(bytearray(READ_BUFFER))
        """The transports of all connections write into it, one after the other."""
        self._connections: set[Http2Protocol] = set()
        """Those that are open. Written by on_opened() and on_closed()."""
        self._empty = asyncio.Event()
        """Set while there is no connection."""
        self._empty.set()
        self._logged = TokenBucket(_MAX_LOGGED, _MAX_LOGGED, time.monotonic())
        """The faults of clients that are logged."""

    def make_protocol(self) -> Http2Protocol:
        """Return the protocol of a new connection."""
        return Http2Protocol(self, self._loop)

    def on_opened(self, connection: Http2Protocol) -> None:
        """Note a connection."""
        self._connections.add(connection)
        self._empty.clear()
        STREAM_CONNECTS.inc()
        STREAM_CONNECTIONS.inc()

    def on_closed(self, connection: Http2Protocol, reason: EndReason) -> None:
        """Note that a connection has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        STREAM_CONNECTIONS_ENDED.labels(reason).inc()
        STREAM_CONNECTIONS.dec()

    def on_fault(self, peer: str, reason: EndReason, words: str) -> None:
        """Log what a client did that ended its connection; it comes again, and is told nowhere else."""
        if self._logged.take(time.monotonic()):
            log.warning("stream_connection_refused", peer=peer, reason=reason, error=words)

    def make_room(self, count: int) -> int:
        """Close up to ``count`` connections without a stream, the oldest first; return their number.

        Streams stay: their number leaves descriptors to others.
        """
        now = time.monotonic()
        idle = [(each.opened_at, id(each), each) for each in self._connections if each.is_idle]
        closed = 0
        for opened_at, _, connection in heapq.nsmallest(count, idle):
            if opened_at + MIN_IDLE <= now:
                connection.drain(now, now, "no_room")
                closed += 1
        return closed

    async def drain(self, seconds: float) -> None:
        """Take no new stream, tell all clients, and end their connections one after the other within a time.

        Clients go to other processes as soon as their streams end, which are to get them spread over the time.
        """
        self.count.stopping = True
        connections = list(self._connections)
        random.shuffle(connections)
        now = time.monotonic()
        for number, connection in enumerate(connections, start=1):
            connection.drain(time.monotonic(), now + seconds * number / len(connections), "shutdown")
            if number % MAX_ITEMS_PER_TURN == 0:
                await asyncio.sleep(0)
        left = max(0.0, now + seconds - time.monotonic()) + GRACE + END_TIMEOUT + LINGER
        try:
            async with asyncio.timeout(left):
                await self._empty.wait()
        except TimeoutError:
            log.warning("streams_cut", connections=len(self._connections))

    def abort(self) -> None:
        """Cut all connections that are open."""
        for connection in list(self._connections):
            connection.abort("shutdown")
