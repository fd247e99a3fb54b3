"""A receive buffer of the process, so that a poll of 77 kB is not copied before it is read.

An event loop that has a protocol's ``data_received`` to call copies each piece into an object of its own first. Here it
reads into a buffer that the next connection reads into as well, which is why nothing may keep a view of it.
"""

import asyncio
from typing import Protocol

_SIZE = 262_144
"""Bytes that are received at a time at most: three polls of an Envoy, and as many as libuv reads by itself."""
_BUFFER = bytearray(_SIZE)
"""Written by event loops between get_buffer() and buffer_updated(), which nothing comes between."""
_VIEW = memoryview(_BUFFER)


class Receiving(Protocol):
    """The part of a protocol that a receiver calls."""

    def data_received(self, data: memoryview) -> None:
        """Take a piece, and keep no view of it."""

    def eof_received(self) -> bool | None:
        """Take the end of what the client sends."""

    def pause_writing(self) -> None:
        """Write no more for now."""

    def resume_writing(self) -> None:
        """Write again."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End with the connection."""


class Receiver(asyncio.BufferedProtocol):
    """Stands between a transport and the protocol of its connection, which has made it.

    Args:
        protocol: gets all that the transport calls. It is no ``BufferedProtocol`` itself, because uvicorn's is another.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Receiving) -> None:
        self._protocol = protocol

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  # the buffer has one size
        """Return the buffer of the process."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was received."""
        self._protocol.data_received(_VIEW[:nbytes])

    def eof_received(self) -> bool | None:
        """Pass on that the client sends no more."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the client does not read."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client reads again."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection has ended."""
        self._protocol.connection_lost(exc)
