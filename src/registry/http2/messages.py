"""The messages of gRPC in the data of a stream: a flag, the length, the message (doc/PROTOCOL-HTTP2.md of gRPC)."""

from collections.abc import Iterator
from typing import Final

from registry.http2.call import Status, StatusError

PREFIX_LENGTH: Final = 5
"""Bytes in front of each message."""


class OversizedMessageError(Exception):
    """A client announces a message that is longer than any may be."""


class MessageReader:
    """Takes the data of a stream and returns whole messages.

    Args:
        max_message: bytes that a message may have.
    """

    __slots__ = ("_buffer", "_max_message")

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._buffer = bytearray()
        """What has come of the message under way, its prefix included."""

    @property
    def held(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield the messages that are complete with this data.

        Raises:
            OversizedMessageError: a message is announced that is too long.
            StatusError: a message is compressed.
        """
        if not self._buffer and len(data) >= PREFIX_LENGTH and self._length(data) == len(data) - PREFIX_LENGTH:
            yield bytes(data[PREFIX_LENGTH:])
            return
        buffer = self._buffer
        buffer += data
        begin = 0
        try:
            while len(buffer) - begin >= PREFIX_LENGTH:
                end = begin + PREFIX_LENGTH + self._length(buffer[begin : begin + PREFIX_LENGTH])
                if end > len(buffer):
                    return
                message, begin = bytes(buffer[begin + PREFIX_LENGTH : end]), end
                yield message
        finally:
            del buffer[:begin]

    def _length(self, data: bytes | bytearray | memoryview) -> int:
        length = int.from_bytes(data[1:PREFIX_LENGTH], "big")
        if length > self._max_message:
            raise OversizedMessageError(
                f"a message of {length} bytes was announced, and at most {self._max_message} are taken "
                "(REGISTRY_MAX_BODY)"
            )
        if data[0]:
            raise StatusError(Status.UNIMPLEMENTED, "the message is compressed, and only identity is understood")
        return length
