"""The acceptor: takes connections from one listening socket, many of them in each turn of the event loop.

libuv's own accept loop takes one connection a turn, and a turn answers every request that is ready. With 500 busy
connections the last client of a storm then waits in the kernel's queue for as long as 500 times 500 answers take.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog

from registry.core.abilities import Ability
from registry.descriptors import descriptor_limit
from registry.metrics import ACCEPTS_REFUSED, CONNECTIONS_FAILED

log = structlog.get_logger()

MAX_PLAIN_PER_TURN = 128
"""Connections taken in one turn of the loop: 5 ms of work, after which other clients have their turn."""
MAX_TLS_PER_TURN = 8
"""The same with TLS, where each connection costs a handshake of 1 to 2.5 ms."""
REFUSED_PAUSE = 0.1
"""Seconds without reading after the kernel refused a connection. The socket stays readable: without a pause the loop
would ask again at once, and use a whole core for it."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds a client may take for its TLS handshake."""
MAX_HANDSHAKES = 1024
"""TLS handshakes under way on one listener. Beyond it the oldest is given up: a client that goes on with its own takes
milliseconds, while those that never will would keep a descriptor each for as long as they may."""
SHUTDOWN_TIMEOUT = 5.0
"""Seconds that a TLS connection which the server closes waits for the client's close_notify."""
STOP_TIMEOUT = 2.0
"""Seconds that TLS handshakes under way have when the acceptor stops."""
BACKLOG = 4096
"""Connections that the kernel queues for a listener, if net.core.somaxconn allows as many."""
_ROUND_TRIP = 0.05
"""Seconds between the last SYN that is taken and the close of the listener, for TCP handshakes under way."""

# accept(2): errors of one connection, which Linux reports in its place. The next connection may be fine. All others,
# such as EMFILE, ENFILE, ENOBUFS and ENOMEM, would meet the next connection too.
_OF_ONE_CONNECTION = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)

_SO_ATTACH_FILTER = 26
# A classic BPF program over the TCP header (linux/filter.h): drop what has the SYN flag, keep the rest.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of the flags
        (0x45, 0, 1, 0x02),  # unless it has SYN, skip one
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
)


class TlsContexts(Protocol):
    """The TLS contexts of a listener, which change while it is open."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context of a connection that is accepted now."""

    def listener_context(self) -> ssl.SSLContext:
        """Return one context for all connections, whatever changes."""


class PeerLimit(Protocol):
    """Counts the connections of each peer."""

    def take(self, address: str) -> Callable[[], None] | None:
        """Count a connection, and return what ends its count; None if it has to be refused."""


class Acceptor:
    """Accepts the connections of one listening socket until it is stopped.

    Args:
        listener: a non-blocking listening socket. The acceptor closes it when it stops.
        make_protocol: returns the protocol of a new connection.
        tls: gives the context of each connection of a TLS listener; None for a plain one.
        ability: records whether connections are accepted.
        spare: descriptors that connections leave to everything else: a process that cannot open one to PostgreSQL
            stores no heartbeat.
        make_room: called for each refused connection, with the number that waits, to close some that are less needed.
        peers: counts the connections of each peer, and refuses those beyond its limit; None: there is none. The
            protocol calls its ``on_lost`` when the connection has ended.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        tls: TlsContexts | None = None,
        *,
        ability: Ability | None = None,
        spare: int = 0,
        make_room: Callable[[int], object] = int,
        peers: PeerLimit | None = None,
    ) -> None:
        self._peers = peers
        self._listener = listener
        self._make_protocol = make_protocol
        self._tls = tls
        self._ability = ability
        self._spare = spare
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self.refused_since: float | None = None
        """When the kernel refused the first of the connections that still wait (monotonic); None while none waits.
        Written by _on_refused() and _on_queue_empty()."""
        self._opening: dict[asyncio.Task[None], None] = {}
        """Connections without a protocol yet, for one turn of the loop or a TLS handshake; the oldest first."""
        self._pause: asyncio.TimerHandle | None = None
        """Ends the pause after a refused connection. Written by _on_refused()."""
        self._stopping = False
        """Set by stop(), for good."""

    def start(self) -> None:
        """Begin to accept connections, or continue after a pause."""
        self._loop.add_reader(self._listener, self._accept_some)

    async def stop(self) -> None:
        """Accept what the kernel has queued, close the listener, and give TLS handshakes two seconds."""
        if self._stopping:
            return
        self._stopping = True
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        # Closing a listener resets every connection in its queue.
        _drop_syns(self._listener)
        self._accept_queue()
        await asyncio.sleep(_ROUND_TRIP)
        self._accept_queue()
        self._listener.close()
        if self._opening:
            await asyncio.wait(self._opening, timeout=STOP_TIMEOUT)
            await self._cancel_opening()

    async def _cancel_opening(self) -> None:
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    def _accept_some(self) -> None:
        """Accept as many connections as one turn of the loop may take."""
        accepted = 0
        while accepted < (MAX_TLS_PER_TURN if self._tls else MAX_PLAIN_PER_TURN) and self._accept_one():
            accepted += 1
        if accepted and self._ability is not None:
            self._ability.worked(time.monotonic())

    def _accept_queue(self) -> None:
        """Accept until the queue is empty, or the kernel refuses a connection."""
        for _ in range(BACKLOG):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept one connection; return False when none waits, or the kernel refuses it."""
        try:
            self._check_spare()
            connection, address = self._listener.accept()
        except BlockingIOError:
            self._on_queue_empty()
            return False
        except OSError as error:
            if error.errno in _OF_ONE_CONNECTION:
                return True
            self._on_refused(error)
            return False
        ended = None
        if self._peers is not None:
            ended = self._peers.take(str(address[0]))
            if ended is None:
                connection.close()
                return True
        self._open(connection, ended)
        return True

    def _check_spare(self) -> None:
        """Refuse a connection, as the kernel does, if it would take one of the spare descriptors."""
        # The kernel gives out the lowest number that is free.
        lowest = os.dup(self._listener.fileno())
        os.close(lowest)
        if lowest >= descriptor_limit() - self._spare and self._waiting():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _waiting(self) -> int:
        """Return the number of connections in the kernel's queue."""
        # struct tcp_info of linux/tcp.h: of a listener, tcpi_unacked is the length of its queue.
        waiting: int = struct.unpack_from("I", self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)[
            0
        ]
        return waiting

    def _on_queue_empty(self) -> None:
        if self.refused_since is not None:
            log.info("accepts_resumed", seconds=round(time.monotonic() - self.refused_since, 1))
            self.refused_since = None

    def _on_refused(self, error: OSError) -> None:
        """Pause for a moment: an exhausted resource does not come back within this turn of the loop."""
        ACCEPTS_REFUSED.inc()
        if self._ability is not None:
            self._ability.failed(str(error), time.monotonic())
        if self.refused_since is None:
            self.refused_since = time.monotonic()
            log.error("accepts_refused", error=str(error), descriptor_limit=descriptor_limit())
        if not self._stopping:
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(REFUSED_PAUSE, self.start)
            self._make_room(self._waiting())

    def _open(self, connection: socket.socket, ended: Callable[[], None] | None) -> None:
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection, ended))
        if self._tls is not None and len(self._opening) >= MAX_HANDSHAKES:
            # Removed at once: its end comes in the next turn, and others are given up before that.
            oldest = next(iter(self._opening))
            del self._opening[oldest]
            oldest.cancel()
        self._opening[task] = None
        task.add_done_callback(partial(self._on_opened, connection, ended))

    async def _connect(self, connection: socket.socket, ended: Callable[[], None] | None) -> None:
        tls = self._tls
        await self._loop.connect_accepted_socket(
            self._make_protocol if ended is None else partial(self._make_counted, ended),
            connection,
            ssl=None if tls is None else tls.context,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_TIMEOUT,
            ssl_shutdown_timeout=None if tls is None else SHUTDOWN_TIMEOUT,
        )

    def _make_counted(self, ended: Callable[[], None]) -> asyncio.BaseProtocol:
        protocol = self._make_protocol()
        protocol.on_lost = ended  # type: ignore[attr-defined]  # of BoundedProtocol, whose module may not be imported
        return protocol

    def _on_opened(
        self, connection: socket.socket, ended: Callable[[], None] | None, task: "asyncio.Task[None]"
    ) -> None:
        self._opening.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        if ended is not None:
            # No protocol has got the connection.
            ended()
        connection.close()
        CONNECTIONS_FAILED.inc()
        if isinstance(error, UnicodeError) and self._tls is not None:
            # Of an authority that is trusted, which signed names that Python cannot read.
            log.warning("client_certificate_unreadable", reason=str(error))
        elif error is not None and not isinstance(error, OSError):
            # An OSError is the client's or the network's: it disconnected, or does not speak TLS.
            log.error("connection_failed", exc_info=error)


def _drop_syns(listener: socket.socket) -> None:
    """Let the kernel drop new SYNs to a listener about to close; clients repeat them after a second.

    Otherwise a connection that enters the queue between the last accept and the close would be reset. Without the
    filter, where it is forbidden, that window remains: some microseconds.
    """
    program = ctypes.create_string_buffer(_NO_SYN)
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
        )
