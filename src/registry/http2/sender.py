"""The sending half of a connection: frames of h2, and DATA frames beside it as windows and transport allow."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from h2.connection import H2Connection

from registry.core.token_bucket import TokenBucket
from registry.http2 import frames
from registry.http2.messages import PREFIX_LENGTH
from registry.http2.stream import Part, Stream

MAX_BURST: Final = 65_536
"""Bytes that one stream sends in one turn."""
MAX_UNSENT: Final = 65_536
"""Bytes that answer frames of the client (ACKs of PING and SETTINGS) while its transport takes nothing."""
MAX_FRAMED: Final = 65_536
"""Bytes of a message that is put into frames as a whole; of a longer one, each frame has its own parts."""
MAX_KEPT_FRAMES: Final = 16
"""Messages that are kept in frames: as many as are pushed to many streams in one moment."""
RESPONSE: Final = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
)
"""The headers of each response of gRPC."""


class FramedMessages:
    """The last messages in DATA frames. Connections with one stream each, as nearly all are, send the same bytes."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, int], tuple[bytes, bytes]] = {}
        """Each message and its frames, by its id (the message is kept, so no other has it), the stream and the largest
        frame."""

    def frames(self, message: bytes, stream_id: int, max_frame_length: int) -> bytes:
        """Return a message in frames for a stream."""
        key = (id(message), stream_id, max_frame_length)
        kept = self._kept.get(key)
        if kept is not None:
            return kept[1]
        if len(self._kept) >= MAX_KEPT_FRAMES:
            self._kept.clear()
        framed = frames.message_frames(message, stream_id, max_frame_length)
        self._kept[key] = message, framed
        return framed


class Sender:
    """The sending half of one connection.

    Args:
        h2: the connection of h2.
        framed: puts messages into frames.
        allowance: the frames that the client may send; each kB sent allows one more, as for updates of windows.
        add_turn: has a stream run in a turn of its own.
        beside: False to have h2 send all DATA frames.
    """

    __slots__ = ("_add_turn", "_allowance", "_beside", "_framed", "_h2", "_unsent", "_waiting", "out", "paused")

    def __init__(
        self,
        h2: H2Connection,
        framed: FramedMessages,
        allowance: TokenBucket,
        add_turn: Callable[[Stream], None],
        *,
        beside: bool,
    ) -> None:
        self._h2 = h2
        self._framed = framed
        self._allowance = allowance
        self._add_turn = add_turn
        self._beside = beside
        self._waiting: deque[Stream] | None = None
        """Streams that wait for the connection's window or for the transport, the longest first; None: none ever did.
        An empty deque takes 760 bytes."""
        self._unsent = 0
        """Bytes that h2 had to send since the transport takes nothing."""
        self.paused = False
        """Whether the transport takes nothing. Written by pause() and resume()."""
        self.out: list[Part] = []
        """What is to be written. Taken, and emptied, by the connection's owner."""

    @property
    def has_waiting(self) -> bool:
        """Whether streams wait for the connection's window or for the transport."""
        return bool(self._waiting)

    @property
    def is_flooded(self) -> bool:
        """Whether the client has too many answers coming while it reads none."""
        return self._unsent > MAX_UNSENT

    def collect(self) -> None:
        """Take what h2 has to send."""
        data = self._h2.data_to_send()
        if data:
            self.out.append(data)
            if self.paused:
                self._unsent += len(data)

    def pause(self) -> None:
        """Send no more data: the transport has enough."""
        self.paused = True

    def resume(self) -> None:
        """Send data again."""
        self.paused, self._unsent = False, 0
        self.resume_waiting()

    def make_ready(self, stream: Stream) -> None:
        """Have a stream run in a turn of its own, unless it waits for one."""
        if not stream.queued and not stream.waits:
            stream.queued = True
            self._add_turn(stream)

    def may_send(self, stream: Stream) -> bool:
        """Return whether windows and transport take something of a stream."""
        return (
            not self.paused
            and self._h2.outbound_flow_control_window > 0
            and stream.flow.outbound_flow_control_window > 0
        )

    def send_whole(self, stream: Stream, parts: Sequence[bytes]) -> int:
        """Send a message of one part, if windows and transport take all of it; return the bytes sent."""
        if len(parts) != 1 or self.paused or not stream.headers_sent or not self._beside:
            return 0
        message, h2, flow = parts[0], self._h2, stream.flow
        size = len(message) + PREFIX_LENGTH
        if size > MAX_FRAMED or size > flow.outbound_flow_control_window or size > h2.outbound_flow_control_window:
            return 0
        h2.outbound_flow_control_window -= size
        flow.outbound_flow_control_window -= size
        self.out.append(self._framed.frames(message, stream.id, h2.max_outbound_frame_size))
        self._allowance.give(size / 1024)
        return size

    def send_data(self, stream: Stream, most: int) -> int:
        """Send of a stream's data what windows and transport take, and at most so many bytes; return their number."""
        if self.paused:
            return 0
        if not stream.headers_sent:
            self._h2.send_headers(stream.id, RESPONSE)
            self.collect()
            stream.headers_sent = True
        sent = 0
        while stream.left:
            size = min(stream.left, self._window_of(stream), self._h2.max_outbound_frame_size, most - sent)
            if size <= 0:
                break
            self._send_frame(stream, size)
            sent += size
        self._allowance.give(sent / 1024)
        return sent

    def send_trailers(self, stream: Stream) -> None:
        """End a stream."""
        trailers = stream.trailers
        if not trailers:
            self._h2.end_stream(stream.id)
        else:
            headers = trailers if stream.headers_sent else (*RESPONSE, *trailers)
            self._h2.send_headers(stream.id, headers, end_stream=True)
        if not stream.half_closed:
            # The client need not send the rest (RFC 9113, 8.1).
            self._h2.reset_stream(stream.id, frames.NO_ERROR)
        self.collect()

    def postpone(self, stream: Stream) -> None:
        """Have a stream go on when it can. When its own window opens, the connection makes it ready."""
        if self.paused or self._h2.outbound_flow_control_window <= 0:
            if not stream.waits:
                stream.waits = True
                if self._waiting is None:
                    self._waiting = deque()
                self._waiting.append(stream)
        elif stream.flow.outbound_flow_control_window > 0:
            self.make_ready(stream)

    def resume_waiting(self) -> None:
        """Let the stream that waits for the longest go on, if there is room; behind it come the others."""
        while self._waiting and not self.paused and self._h2.outbound_flow_control_window > 0:
            stream = self._waiting.popleft()
            stream.waits = False
            if not stream.ended:
                self.make_ready(stream)
                break

    def _window_of(self, stream: Stream) -> int:
        return min(self._h2.outbound_flow_control_window, stream.flow.outbound_flow_control_window)

    def _send_frame(self, stream: Stream, size: int) -> None:
        if not self._beside:
            self._h2.send_data(stream.id, b"".join(stream.take(size)))
            self.collect()
            return
        self._h2.outbound_flow_control_window -= size
        stream.flow.outbound_flow_control_window -= size
        self.out.append(frames.data_header(size, stream.id))
        self.out.extend(stream.take(size))
