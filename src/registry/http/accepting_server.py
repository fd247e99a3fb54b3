"""uvicorn's server, with an acceptor in place of libuv's accept loop."""

import asyncio
import heapq
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from msgspec import Struct

from registry.core.abilities import Ability
from registry.http.acceptor import HANDSHAKE_TIMEOUT, Acceptor, PeerLimit, TlsContexts

_CLOSE = (b"connection", b"close")
SCARCITY_PERIOD = 5.0
"""Seconds after a refused connection in which every response ends its connection."""
_MIN_IDLE = 1.0
"""Seconds without a request after which a connection may be closed to make room."""


class Listener(Struct, frozen=True):
    """An address that is served.

    Attributes:
        socket: a non-blocking listening socket, which the server closes.
        tls: gives the context of each connection; None without TLS.
    """

    socket: socket.socket
    tls: TlsContexts | None = None


class AcceptingServer(uvicorn.Server):
    """uvicorn's server on listening sockets, each of which an acceptor reads.

    uvicorn starts without sockets: uvloop refuses a second reader on a socket that it serves itself, a duplicate of
    the socket would go on listening after the server closed, and uvicorn would have TLS on all of them or on none.

    Args:
        config: as for uvicorn.
        listeners: the addresses to serve, all alike.
        ability: records whether connections are accepted.
        spare: descriptors that connections leave to everything else.
        accepts: False to leave accepting to libuv, if the acceptor does not fit the installed uvicorn.
        peers: counts the connections of each peer on all listeners; None: there is no limit. libuv does not ask it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Sequence[Listener],
        *,
        ability: Ability | None = None,
        spare: int = 0,
        accepts: bool = True,
        peers: PeerLimit | None = None,
    ) -> None:
        super().__init__(config)
        self._listeners = listeners
        self._ability = ability
        self._spare = spare
        self._scarce_until = 0.0
        """Until then (monotonic) each response ends its connection, to let others connect. Written by make_room()."""
        self._peers = peers
        self._accepts = accepts
        self._acceptors: list[Acceptor] = []
        """Of the listeners, in their order. Written by startup(); empty before it, and where libuv accepts."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # as in uvicorn
        """Start the application, and then accept connections."""
        if self._accepts:
            await super().startup([])
            for listener in self._listeners if self.started else ():
                self._start_acceptor(listener)
            return
        first, *others = self._listeners
        self.config.ssl = None if first.tls is None else first.tls.listener_context()
        await super().startup([first.socket])
        for listener in others:
            self.servers.append(await self._create_server(listener))

    def _start_acceptor(self, listener: Listener) -> None:
        acceptor = self.make_acceptor(listener, self._make_protocol)
        self._acceptors.append(acceptor)
        acceptor.start()

    def make_acceptor(self, listener: Listener, make_protocol: Callable[[], asyncio.BaseProtocol]) -> Acceptor:
        """Return an acceptor that shares descriptors and peers with those of HTTP."""
        return Acceptor(
            listener.socket,
            make_protocol,
            listener.tls,
            ability=self._ability,
            spare=self._spare,
            make_room=self.make_room,
            peers=self._peers,
        )

    async def _create_server(self, listener: Listener) -> asyncio.Server:
        """Serve a socket as uvicorn does, with TLS or without it."""
        tls = listener.tls
        return await asyncio.get_running_loop().create_server(
            self._make_protocol,
            sock=listener.socket,
            backlog=self.config.backlog,
            ssl=None if tls is None else tls.listener_context(),
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_TIMEOUT,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # as in uvicorn
        """Accept every connection that waits, close the listeners, and answer the requests that are under way."""
        await asyncio.gather(*(acceptor.stop() for acceptor in self._acceptors))
        await super().shutdown([] if self._accepts else [listener.socket for listener in self._listeners])

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second; once a second it replaces the headers of all responses."""
        leaves = await super().on_tick(counter)
        if time.monotonic() < self._scarce_until:
            self._set_close_header()
        return leaves

    def make_room(self, count: int) -> int:
        """Close up to ``count`` idle connections, the longest idle first, and the others with their next response.

        Returns:
            The number of closed connections.
        """
        self._scarce_until = time.monotonic() + SCARCITY_PERIOD
        self.close_after_answers()
        loop = asyncio.get_running_loop()
        idle = [(self._idle_until(connection), id(connection), connection) for connection in self._idle()]
        latest = loop.time() + self.config.timeout_keep_alive - _MIN_IDLE
        closed = 0
        for when, _, connection in heapq.nsmallest(count, idle):
            if when <= latest:
                connection.transport.close()
                closed += 1
        return closed

    def _idle(self) -> list[Any]:
        connections: set[Any] = self.server_state.connections
        return [
            connection
            for connection in connections
            if connection.timeout_keep_alive_task is not None
            # The timer also runs while a renewal is stored.
            and (connection.cycle is None or connection.cycle.response_complete)
        ]

    def _idle_until(self, connection: Any) -> float:  # noqa: ANN401  # any protocol's
        """Return when a connection that stays idle is closed, on the loop's clock.

        Its timer runs from its last response or from its begin, but for responses that needed no new timer.
        """
        ends: float = connection.timeout_keep_alive_task.when()
        # Of protocols that are not ours each response has a timer.
        answered_at: float = getattr(connection, "answered_at", 0.0)
        return max(ends, answered_at + self.config.timeout_keep_alive)

    def close_after_answers(self) -> None:
        """End each connection with its next response, which says so."""
        self._set_close_header()
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            # A request that is under way keeps the headers of the moment when it arrived.
            if connection.cycle is not None:
                connection.cycle.keep_alive = False

    def _set_close_header(self) -> None:
        headers = self.server_state.default_headers
        if _CLOSE not in headers:
            self.server_state.default_headers = [*headers, _CLOSE]

    def _make_protocol(self) -> asyncio.Protocol:
        # As in uvicorn's own startup.
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return protocol
