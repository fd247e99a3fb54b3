"""A connection of the gRPC listener on its transport: reads, writes and timers."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from registry.auth.certificate import read_certificate
from registry.auth.principal import peer_of
from registry.http2.call import Peer, Service
from registry.http2.connection import GRACE, Connection
from registry.http2.failures import Failures
from registry.http2.lifetime import PREFACE_TIMEOUT, EndReason
from registry.http2.limits import Limits, StreamCount
from registry.http2.sender import FramedMessages
from registry.http2.turns import Turns

READ_BUFFER: Final = 65_536
"""Bytes that are read of a connection at a time."""
MAX_EARLY: Final = 1_024
"""Bytes that are read of a connection before its first turn."""
MIN_SHARED: Final = 4_096
"""Bytes from which on they are read in place. Slices of fewer cost more than their copy."""
MAX_QUEUED: Final = 262_144
"""Bytes of a client that wait for a turn, beyond which no more are read."""
LINGER: Final = 1.0
"""Seconds for which an ended connection takes and drops what comes. The kernel would reset it otherwise, and the client
would lose the last frames, which say why it ended."""
MAX_LATENESS: Final = 1.0
"""Seconds by which a timer may be late before the process is taken to have been away: stopped, or too busy."""
CATCH_UP: Final = 1.0
"""Seconds that a process which was away reads what came meanwhile, before it ends a connection for its silence."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds after which a connection is cut whose client does not take the last frames."""


class Host(Protocol):
    """The listener, as far as its connections call it."""

    service: Service
    limits: Limits
    count: StreamCount
    turns: Turns
    framed: FramedMessages
    failures: Failures
    beside: bool
    read_buffer: memoryview

    def on_opened(self, connection: "Http2Protocol") -> None:
        """Note a connection."""

    def on_closed(self, connection: "Http2Protocol", reason: EndReason) -> None:
        """Note that a connection has ended."""

    def on_fault(self, peer: str, reason: EndReason, words: str) -> None:
        """Note what a client did that ended its connection."""


class Http2Protocol(asyncio.BufferedProtocol):
    """One connection, which reads into a buffer that all connections of the listener share.

    In a storm of connections, each with a first request of 61 kB, other buffers would stay as holes in the memory.

    Args:
        host: the listener.
        loop: the event loop.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_early_end",
        "_host",
        "_is_late",
        "_joins",
        "_loop",
        "_paused",
        "_queued",
        "_reading_paused",
        "_timer",
        "_timer_at",
        "_transport",
        "on_lost",
        "opened_at",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self.on_lost: Callable[[], None] | None = None
        """Ends the connection's count among those of its peer. Written by the acceptor."""
        self.opened_at = 0.0
        """When the connection was made (monotonic)."""
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        """None until the turn of the first bytes: in a storm, connections are taken at once, and begin in turns."""
        self._early_end: EndReason = "client"
        """Why the connection ended if it never began. Written by abort()."""
        self._joins = False
        """Whether what is written is joined: with TLS each part would be a record of its own."""
        self._chunks: list[bytes] = []
        """What has come and waits for a turn."""
        self._queued = False
        """Whether the connection waits for a turn."""
        self._reading_paused = False
        self._paused = False
        """Whether the transport takes nothing more."""
        self._is_late = False
        """Whether the process was away when the timer was to call. Written by _on_time()."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """When the timer calls (monotonic)."""

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as of all sockets
        """Note a connection, which begins with the first bytes of the client."""
        self._transport = transport
        self._joins = transport.get_extra_info("ssl_object") is not None
        self.opened_at = time.monotonic()
        self._host.on_opened(self)
        self._timer = self._loop.call_later(PREFACE_TIMEOUT, self._on_silent)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # as in asyncio
        """Return where the transport is to write what comes."""
        # Before its first turn the connection takes a little, and leaves the rest to the kernel.
        return self._host.read_buffer if self._connection is not None else self._host.read_buffer[:MAX_EARLY]

    def buffer_updated(self, nbytes: int) -> None:
        """Read what came, at once unless something before it waits."""
        connection, buffer = self._connection, self._host.read_buffer
        if connection is not None and connection.ended is not None:
            return
        if self._chunks or self._queued or connection is None:
            self._chunks.append(bytes(buffer[:nbytes]))
            self._check_queued()
            self._queue()
            return
        now = time.monotonic()
        if nbytes >= MIN_SHARED:
            more = connection.receive(buffer[:nbytes], now)
        else:
            data = bytes(buffer[:nbytes])
            if connection.receive_message(data, now):
                # As nearly always: nothing is due by it, and nearly never is there something to write.
                if connection.has_output:
                    self.flush()
                return
            more = connection.receive(data, now)
        if more:
            self._chunks.append(b"")
            self._queue()
        self.flush()

    def pause_writing(self) -> None:
        """Send nothing more until the transport has sent what it has."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause(time.monotonic())
            self._arm()

    def resume_writing(self) -> None:
        """Send again."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume(time.monotonic())
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # as in asyncio
        """Forget the connection and its calls."""
        if self._timer is not None:
            self._timer.cancel()
        self._chunks.clear()
        reason = self._early_end
        if self._connection is not None:
            self._connection.lose(time.monotonic())
            reason = self._connection.ended or reason
            if self._connection.fault:
                self._host.on_fault(self._connection.peer, reason, self._connection.fault)
        self._connection = self._transport = None
        if self.on_lost is not None:
            self.on_lost()
        self._host.on_closed(self, reason)

    # Called by the host.

    @property
    def is_idle(self) -> bool:
        """Whether no stream is open."""
        return self._connection is None or self._connection.is_idle

    def drain(self, now: float, at: float, reason: EndReason) -> None:
        """Tell the client that the connection ends, and end its streams at a time."""
        if self._connection is None:
            self._begin(now)
        if self._connection is not None:
            self._connection.drain(now, at, reason)
            self.flush()

    def abort(self, reason: EndReason) -> None:
        """End the connection at once."""
        if self._connection is not None:
            self._connection.abort(reason, time.monotonic())
            self.flush()
        elif self._transport is not None:
            self._early_end = reason
            self._transport.abort()

    # Called by the turns.

    def run(self, now: float) -> None:
        """Read what waits."""
        self._queued = False
        if self._transport is None or self._transport.is_closing():
            return
        if self._connection is None:
            self._begin(now)
        connection = self._connection
        while connection is not None and self._chunks and connection.ended is None:
            if connection.receive(self._chunks.pop(0), now):
                # The rest is in the connection.
                self._chunks.insert(0, b"")
                self._queue()
                break
        if connection is not None and connection.ended is not None:
            self._chunks.clear()
        self._check_queued()
        self.flush()

    def flush(self) -> None:
        """Write what the connection has to send, and close the transport behind the last of it."""
        connection, transport = self._connection, self._transport
        if connection is None or transport is None:
            return
        out = connection.take_output()
        if out:
            if len(out) == 1:
                transport.write(out[0])
            elif self._joins:
                transport.write(b"".join(out))
            else:
                transport.writelines(out)
        if connection.ended is not None:
            self._close()
        elif self._timer is None or connection.due < self._timer_at:
            self._arm()

    # All that follows is private.

    def _begin(self, now: float) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        certificate = read_certificate(transport.get_extra_info("peercert"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection = Connection(
            self._host.service,
            self._host.limits,
            self._host.count,
            Peer(peer_of(transport.get_extra_info("peername")), certificate),
            self._host.framed,
            self._host.failures,
            self._host.turns.add,
            self.flush,
            now,
            expires_at=None if certificate is None else now + max(0.0, certificate.not_after - time.time()),
            beside=self._host.beside,
        )
        if self._paused:
            self._connection.pause(now)
        if self._host.count.stopping:
            self._connection.drain(now, now + GRACE, "shutdown")

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._host.turns.add(self)

    def _check_queued(self) -> None:
        """Stop reading while too much waits, and read again when it does not."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        early = self._connection is None and self._chunks
        if not self._reading_paused and (early or sum(map(len, self._chunks)) > MAX_QUEUED):
            self._reading_paused = True
            transport.pause_reading()
        elif self._reading_paused and not self._chunks:
            self._reading_paused = False
            transport.resume_reading()

    def _close(self) -> None:
        """Close the transport: at once if the client is gone, else a moment after the last frames."""
        transport, connection = self._transport, self._connection
        if transport is None or connection is None or transport.is_closing() or self._timer_at == float("inf"):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = float("inf")
        if connection.ended in {"keepalive", "stalled"}:
            transport.abort()
        elif connection.ended in {"flood", "client", "no_room"}:
            transport.close()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, transport.abort)
        else:
            if transport.can_write_eof():
                transport.write_eof()
            self._timer = self._loop.call_later(LINGER, self._close_at_last)

    def _close_at_last(self) -> None:
        transport = self._transport
        if transport is not None:
            transport.close()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, transport.abort)

    def _arm(self) -> None:
        """Have the timer call when something is due; it is only ever moved to an earlier time."""
        connection = self._connection
        if connection is None or connection.ended is not None:
            return
        if self._timer is not None:
            if connection.due >= self._timer_at:
                return
            self._timer.cancel()
        self._timer_at = connection.due
        self._timer = self._loop.call_later(max(0.0, connection.due - time.monotonic()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        connection, now = self._connection, time.monotonic()
        if connection is None or connection.ended is not None:
            return
        if now > self._timer_at + MAX_LATENESS and not self._is_late:
            self._is_late, self._timer_at = True, now + CATCH_UP
            self._timer = self._loop.call_later(CATCH_UP, self._on_time)
            return
        self._is_late = False
        connection.on_time(now)
        self.flush()

    def _on_silent(self) -> None:
        """Cut a client that has sent nothing; one that waits for its turn in a storm has."""
        if self._connection is None and not self._chunks:
            self.abort("idle")
