"""uvicorn's server with an acceptor in place of the accept loop of libuv."""

import asyncio
import socket
import ssl

import uvicorn

from registry.abilities import Ability
from registry.door.acceptor import Acceptor


class AcceptingServer(uvicorn.Server):
    """uvicorn's server on one listening socket, which its acceptor reads.

    uvicorn starts without sockets: uvloop refuses a second reader on a socket that it serves itself, and a duplicate
    of the socket would go on listening after the server closed.

    Args:
        config: as for uvicorn.
        listener: a non-blocking listening socket, which the server closes.
        tls: the context of a TLS listener; None for a plain one.
        ability: is told whether connections are accepted.
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
        accepts: bool = True,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls = tls
        self._ability = ability
        self._accepts = accepts

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and then accept connections."""
        await super().startup([] if self._accepts else sockets)
        if self._accepts and self.started:
            self.acceptor = Acceptor(self._listener, self._make_protocol, self._tls, self._ability)
            self.acceptor.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take every connection that waits, close the listener, and answer the requests that are under way."""
        if self.acceptor is not None:
            await self.acceptor.stop()
        await super().shutdown(None if self._accepts else sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        # As in uvicorn's own startup.
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return made
