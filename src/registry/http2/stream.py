"""One stream of an HTTP/2 connection: a call, and what is sent of its message under way."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from h2.stream import H2Stream

from registry.http2.call import Call
from registry.http2.messages import PREFIX_LENGTH, MessageReader

Part = bytes | memoryview


class Runner(Protocol):
    """The connection of a stream, as far as the stream calls it."""

    def add_turn(self, stream: "Stream") -> None:
        """Have a stream run in a turn of its own, which it does not wait for yet."""

    def run(self, stream: "Stream", now: float) -> None:
        """Send what a stream has, in its turn."""


class Stream:
    """One stream, which its connection drives; in its turn it sends the next message of its call.

    Args:
        connection: the connection that it is of.
        stream_id: its number there.
        flow: h2's stream, which has the client's window.
        max_message: bytes that a message may have which is received.
    """

    __slots__ = (
        "_connection",
        "_offset",
        "_parts",
        "asks",
        "call",
        "due",
        "ended",
        "flow",
        "half_closed",
        "headers_sent",
        "id",
        "left",
        "queued",
        "reader",
        "silent_since",
        "started",
        "takes_data",
        "trailers",
        "unreturned",
        "waits",
    )

    def __init__(self, connection: Runner, stream_id: int, flow: H2Stream, max_message: int) -> None:
        self._connection: Final = connection
        self.id: Final = stream_id
        self.flow: Final = flow
        self.reader: Final = MessageReader(max_message)
        self.call: Call | None = None
        """None before it is opened, and when it has ended. Written by the connection, as all that is not private."""
        self.silent_since: float | None = None
        """When the call was opened, until its first message; None: it has come, or there is no call."""
        self.asks = False
        """Whether the call may have a message, and has not been asked."""
        self.due: float | None = None
        """When the call is to be asked without another reason; stale from a message of the client on."""
        self.queued = False
        """Whether the stream waits for its turn."""
        self.waits = False
        """Whether it waits for the connection's window, or for the transport."""
        self.takes_data = False
        """Whether its DATA frames may pass beside h2."""
        self.half_closed = False
        """Whether the client sends no more."""
        self.headers_sent = False
        self.ended = False
        """Whether it is gone from the connection."""
        self.trailers: Sequence[tuple[bytes, bytes]] | None = None
        """What ends the stream behind the message under way; empty: an empty DATA frame does; None: it goes on."""
        self.unreturned = 0
        """Bytes that have passed beside h2, and whose window the client has not got back."""
        self.left = 0
        """Bytes of the message under way that are not sent."""
        self.started = False
        """Whether some of them are."""
        self._parts: Sequence[Part] = ()
        """The parts of the message under way that are not sent, the first one from the offset on."""
        self._offset = 0

    def wake(self) -> None:
        """Have the call asked for its next message in a turn of its own."""
        if self.call is not None:
            self.asks = True
            if not self.queued and not self.waits:
                self.queued = True
                self._connection.add_turn(self)

    def run(self, now: float) -> None:
        """Send what the call has, in the turn of the stream."""
        self._connection.run(self, now)

    def begin_message(self, parts: Sequence[bytes]) -> None:
        """Begin to send a message, with gRPC's prefix in front."""
        length = sum(map(len, parts))
        self.begin_data((b"\x00" + length.to_bytes(PREFIX_LENGTH - 1, "big"), *parts))

    def begin_data(self, parts: Sequence[bytes]) -> None:
        """Begin to send data as they are."""
        self._parts, self._offset, self.started = parts, 0, False
        self.left = sum(map(len, parts))

    def drop_data(self) -> None:
        """Forget what is left to send."""
        self._parts, self._offset, self.left = (), 0, 0

    def take(self, size: int) -> Iterator[Part]:
        """Take the next bytes of what is left, at most as many as that, in parts that are not copied."""
        self.started = True
        self.left -= size
        if self.left == 0 and self._offset == 0:
            parts, self._parts = self._parts, ()
            yield from parts
            return
        number, offset = 0, self._offset
        while size:
            part = self._parts[number]
            end = offset + size
            if end < len(part):
                yield memoryview(part)[offset:end]
                offset = end
                break
            yield memoryview(part)[offset:] if offset else part
            size -= len(part) - offset
            number, offset = number + 1, 0
        self._parts, self._offset = self._parts[number:], offset
