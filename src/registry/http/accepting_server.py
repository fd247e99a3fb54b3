"""uvicorn's server, with an acceptor in place of libuv's accept loop."""

import asyncio
import heapq
import socket
import ssl
import time
from typing import Any

import uvicorn

from registry.core.abilities import Ability
from registry.http.acceptor import Acceptor

_CLOSE = (b"connection", b"close")
SCARCITY_PERIOD = 5.0
"""Seconds after a refused connection in which every response ends its connection."""
_MIN_IDLE = 1.0
"""Seconds without a request after which a connection may be closed to make room."""


class AcceptingServer(uvicorn.Server):
    """uvicorn's server on one listening socket, which its acceptor reads.

    uvicorn starts without sockets: uvloop refuses a second reader on a socket that it serves itself, and a duplicate
    of the socket would go on listening after the server closed.

    Args:
        config: as for uvicorn.
        listener: a non-blocking listening socket, which the server closes.
        tls: the context of a TLS listener; None for a plain one.
        ability: records whether connections are accepted.
        spare: descriptors that connections leave to everything else.
        accepts: False to leave accepting to libuv, if the acceptor does not fit the installed uvicorn.
    """

    acceptor: Acceptor | None = None
    """Written by startup(); None before it, and where libuv accepts."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        ability: Ability | None = None,
        spare: int = 0,
        accepts: bool = True,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls = tls
        self._ability = ability
        self._spare = spare
        self._scarce_until = 0.0
        """Until then (monotonic) each response ends its connection, to let others connect. Written by make_room()."""
        self._accepts = accepts

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and then accept connections."""
        await super().startup([] if self._accepts else sockets)
        if self._accepts and self.started:
            self.acceptor = Acceptor(
                self._listener,
                self._make_protocol,
                self._tls,
                ability=self._ability,
                spare=self._spare,
                make_room=self.make_room,
            )
            self.acceptor.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept every connection that waits, close the listener, and answer the requests that are under way."""
        if self.acceptor is not None:
            await self.acceptor.stop()
        await super().shutdown(None if self._accepts else sockets)

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
        idle = [(connection.timeout_keep_alive_task.when(), id(connection), connection) for connection in self._idle()]
        # The timer of an idle connection runs from its last response, or from its begin.
        latest = loop.time() + self.config.timeout_keep_alive - _MIN_IDLE
        closed = 0
        for when, _, connection in heapq.nsmallest(count, idle):
            if when <= latest:
                connection.transport.close()
                closed += 1
        return closed

    def _idle(self) -> list[Any]:
        connections: set[Any] = self.server_state.connections
        return [connection for connection in connections if connection.timeout_keep_alive_task is not None]

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
