"""uvicorn's server with an acceptor in place of the accept loop of libuv."""

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
SCARCE = 5.0
"""Seconds after a refused connection in which connections are not kept."""
_IDLE = 1.0
"""Seconds without a request after which a connection may be closed to make room."""


class AcceptingServer(uvicorn.Server):
    """uvicorn's server on one listening socket, which its acceptor reads.

    uvicorn starts without sockets: uvloop refuses a second reader on a socket that it serves itself, and a duplicate
    of the socket would go on listening after the server closed.

    Args:
        config: as for uvicorn.
        listener: a non-blocking listening socket, which the server closes.
        tls: the context of a TLS listener; None for a plain one.
        ability: is told whether connections are accepted.
        spare: descriptors that connections leave to everything else.
        accepts: False to leave the accepting to libuv, when the acceptor does not fit the installed uvicorn.
    """

    acceptor: Acceptor | None = None
    """Is there from start to stop, unless libuv accepts."""

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
        # Until then (monotonic) each answer ends its connection, so that others can connect.
        self._scarce_until = 0.0
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
        """Take every connection that waits, close the listener, and answer the requests that are under way."""
        if self.acceptor is not None:
            await self.acceptor.stop()
        await super().shutdown(None if self._accepts else sockets)

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second; it sets the headers of all answers anew once a second."""
        leaves = await super().on_tick(counter)
        if time.monotonic() < self._scarce_until:
            self._set_close_header()
        return leaves

    def make_room(self, count: int) -> int:
        """Close up to ``count`` idle connections, the longest idle first, and the others with their next answer.

        Returns:
            How many were closed.
        """
        self._scarce_until = time.monotonic() + SCARCE
        self.close_after_answers()
        loop = asyncio.get_running_loop()
        idle = [(one.timeout_keep_alive_task.when(), id(one), one) for one in self._idle()]
        # The timer of an idle connection runs from its last answer, or from its begin.
        latest = loop.time() + self.config.timeout_keep_alive - _IDLE
        closed = 0
        for when, _, connection in heapq.nsmallest(count, idle):
            if when <= latest:
                connection.transport.close()
                closed += 1
        return closed

    def _idle(self) -> list[Any]:
        connections: set[Any] = self.server_state.connections
        return [one for one in connections if one.timeout_keep_alive_task is not None]

    def close_after_answers(self) -> None:
        """Have each connection end with its next answer, which says so."""
        self._set_close_header()
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            # A request that is under way has the headers of the time when it came.
            if connection.cycle is not None:
                connection.cycle.keep_alive = False

    def _set_close_header(self) -> None:
        headers = self.server_state.default_headers
        if _CLOSE not in headers:
            self.server_state.default_headers = [*headers, _CLOSE]

    def _make_protocol(self) -> asyncio.Protocol:
        # As in uvicorn's own startup.
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return made
