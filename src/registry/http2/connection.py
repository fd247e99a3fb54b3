"""One HTTP/2 connection with the calls of its streams: no I/O, and time is an argument.

h2 keeps the connection: preface, SETTINGS, header compression, windows, PING, RST_STREAM, GOAWAY and errors. Ordinary
DATA frames of calls pass beside it, because they are nearly all frames, and h2 takes 15 µs for one of them. Sent frames
are then counted in both of h2's windows of the client; received ones are unknown to h2, which neither counts them nor
gives their window back.
"""

from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote_from_bytes

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from registry.core.token_bucket import TokenBucket
from registry.http2 import frames
from registry.http2.call import Peer, Service, Status, StatusError
from registry.http2.failures import Failures
from registry.http2.lean_settings import LeanSettings
from registry.http2.lifetime import STALL_TIMEOUT, EndReason, Lifetime, Verdict
from registry.http2.limits import Limits, StreamCount
from registry.http2.messages import PREFIX_LENGTH, OversizedMessageError
from registry.http2.sender import MAX_BURST, FramedMessages, Sender
from registry.http2.stream import Part, Stream

GRACE: Final = 1.0
"""Seconds from the GOAWAY of an aged connection to the end of its streams, for requests that are on their way."""
END_TIMEOUT: Final = 5.0
"""Seconds that a stream which ends has to take the rest of its message."""
MAX_STREAMS: Final = 1_000
"""Streams of one connection, which h2 looks through at each new one. Envoy opens another connection for more."""
MAX_FRAMES_PER_TURN: Final = 64
"""Frames that h2 reads of one connection in one turn: 3 ms. DATA frames beside it cost a tenth, and are not counted."""
MAX_HEADERS: Final = 65_536
"""Bytes of a header block, HEADERS and CONTINUATION frames together."""
MAX_INCOMPLETE: Final = 32
"""Incomplete messages of the largest size that the streams of a connection may hold together."""
RETURNED_WINDOW: Final = 32_768
"""Bytes for which the client gets its window back at a time."""
FRAME_RATE: Final = 1_000.0
"""Frames a second that h2 may read of one connection."""
FRAME_BURST: Final = 4_000.0
"""The same at once: 1,000 streams that begin in one moment."""
MAX_STATUS_WORDS: Final = 1_000
"""Characters of the words that come with a status."""

_COSTS: Final = {frames.RST_STREAM: 2.0, frames.SETTINGS: 10.0}
"""Frames that count as several: a stream was opened in vain, and h2 looks through all streams at SETTINGS."""
_CONFIG: Final = H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)
_NO_GRPC: Final = (
    b"this address answers calls of gRPC alone: xDS for Envoy and proxyless gRPC clients (REGISTRY_XDS_LISTEN); "
    b"the HTTP API is at REGISTRY_LISTEN\n"
)
_HTTP_1_METHODS: Final = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN")
_HTTP_1_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_NO_GRPC), _NO_GRPC)
)
_UNQUOTED: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""Characters of a status message that are sent as they are: printable ASCII but for the percent sign."""


class Connection:
    """One connection. Frames to send are in ``out``, which its owner takes after each call.

    Args:
        service: opens the calls.
        limits: of the connection.
        count: counts its streams among those of the process.
        peer: the client.
        framed: puts messages into frames, for all connections of the process.
        failures: logs defects.
        add_turn: has a stream run in a turn of its own.
        flush: writes what is in ``out``, after such a turn.
        now: the time, as in every call.
        expires_at: when it ends however young it is, as its client's certificate expires; None: never.
        beside: False to have h2 send and receive all DATA frames.
    """

    __slots__ = (
        "_allowance",
        "_beside",
        "_buffer",
        "_count",
        "_drain_at",
        "_drain_reason",
        "_end_by",
        "_failures",
        "_flush",
        "_h2",
        "_header_bytes",
        "_held",
        "_lifetime",
        "_limits",
        "_peer",
        "_sender",
        "_service",
        "_streams",
        "_unreturned",
        "add_turn",
        "due",
        "ended",
        "fault",
    )

    def __init__(  # noqa: PLR0913  # all parts of a connection come from its owner
        self,
        service: Service,
        limits: Limits,
        count: StreamCount,
        peer: Peer,
        framed: FramedMessages,
        failures: Failures,
        add_turn: Callable[[Stream], None],
        flush: Callable[[], None],
        now: float,
        *,
        expires_at: float | None = None,
        beside: bool = True,
    ) -> None:
        self._service = service
        self._limits = limits
        self._count = count
        self._peer = peer
        self._failures = failures
        self.add_turn = add_turn
        """Has a stream run in a turn of its own, which it does not wait for yet."""
        self._flush = flush
        self._beside = beside
        self._h2 = _begin_h2()
        self._allowance = TokenBucket(FRAME_RATE, FRAME_BURST, now)
        """The frames that h2 may read."""
        self._sender = Sender(self._h2, framed, self._allowance, add_turn, beside=beside)
        self._lifetime = Lifetime(now, limits.max_age, expires_at)
        self._streams: dict[int, Stream] = {}
        """The streams that are open, by number."""
        self._buffer = b""
        """What has come and is not read: less than a frame, or what waits for the next turn."""
        self._header_bytes = 0
        """Bytes of the header block under way; 0: there is none. While there is one, all frames go through h2."""
        self._held = 0
        """Bytes of incomplete messages, of all streams."""
        self._unreturned = 0
        """Bytes that have passed beside h2, and whose window of the connection the client has not got back."""
        self._drain_at: float | None = None
        """When the streams are ended; None: the connection does not end. Written by drain()."""
        self._drain_reason: EndReason = "max_age"
        self._end_by: float | None = None
        """When streams that have not ended by themselves are reset; None: they have not been asked to end."""
        self.ended: EndReason | None = None
        """Why the connection has ended: nothing more is to be read then, and what is in ``out`` is the last."""
        self.fault = ""
        """What the client did that ended the connection, in the words that it was told; empty: nothing."""
        self.due = self._lifetime.next_check(now)
        """When on_time() is to be called at the latest. It only becomes earlier between two calls of on_time()."""
        self._sender.collect()

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self._peer.address

    @property
    def is_idle(self) -> bool:
        """Whether there is no stream."""
        return not self._streams

    @property
    def has_output(self) -> bool:
        """Whether something is to be written."""
        return bool(self._sender.out)

    def take_output(self) -> list[Part]:
        """Return what is to be written, and forget it."""
        out, self._sender.out = self._sender.out, []
        return out

    # Called by the transport.

    def receive(self, data: bytes | memoryview, now: float) -> bool:
        """Read what came; return whether the rest is to be read in a later turn, by a call without data."""
        self._lifetime.hear(now)
        buffer: bytes | memoryview = self._buffer + data if self._buffer else data
        position = 0 if self._lifetime.begun else self._read_preface(buffer, now)
        size, allowed = len(buffer), MAX_FRAMES_PER_TURN
        streams = self._streams if self._beside else {}
        more = False
        while self._lifetime.begun and self.ended is None:
            begin = position + frames.HEADER_LENGTH
            if begin > size:
                break
            length = buffer[position] << 16 | buffer[position + 1] << 8 | buffer[position + 2]
            if length > frames.MAX_FRAME_LENGTH:
                self._fail(frames.FRAME_SIZE_ERROR, "protocol_error", f"a frame of {length} bytes, above 16384", now)
                break
            end = begin + length
            if end > size:
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            if kind == frames.DATA and flags == 0 and length and not self._header_bytes:
                stream = streams.get(int.from_bytes(buffer[position + 5 : begin], "big"))
                if stream is not None and stream.takes_data:
                    self._unreturned += length
                    stream.unreturned += length
                    self._return_windows(stream)
                    self._take_data(stream, buffer[begin:end], now)
                    position = end
                    continue
            if not allowed:
                more = True
                break
            allowed -= 1
            if kind != frames.WINDOW_UPDATE or not self._open_window(bytes(buffer[position:end]), now):
                self._receive_by_h2(buffer[position:end], kind, flags, now)
            position = end
        self._buffer = bytes(buffer[position:]) if self.ended is None else b""
        self._note_incomplete(now)
        return more

    def receive_message(self, data: bytes, now: float) -> bool:
        """Take what came if it is one whole message in one DATA frame; return whether it is.

        Nearly all of what clients send is an acknowledgement, which comes so. Nothing ends a connection here.
        """
        if len(data) < frames.MESSAGE_HEAD.size or self._buffer or self._header_bytes or not self._beside:
            return False
        high, low, kind, flags, stream_id, compressed, length = frames.MESSAGE_HEAD.unpack_from(data)
        stream = self._streams.get(stream_id)
        if (
            stream is None
            or kind != frames.DATA
            or flags
            or compressed
            or length != len(data) - frames.MESSAGE_HEAD.size
            or (high << 8 | low) != length + PREFIX_LENGTH
            or length > self._limits.max_message
            or not stream.takes_data
            or stream.call is None
            or stream.reader.held
        ):
            return False
        self._lifetime.hear(now)
        stream.silent_since = None
        size = length + PREFIX_LENGTH
        self._unreturned += size
        stream.unreturned += size
        if self._unreturned >= RETURNED_WINDOW or stream.unreturned >= RETURNED_WINDOW:
            self._return_windows(stream)
        try:
            if stream.call.receive(data[frames.MESSAGE_HEAD.size :], now):
                stream.asks = True
                self.make_ready(stream)
        except StatusError as error:
            self._finish(stream, error.status, error.message, now)
        except Exception as error:  # noqa: BLE001  # it ends this stream alone
            self._on_failure(stream, error, now)
        return True

    def pause(self, now: float) -> None:
        """Send no more data: the transport has enough."""
        self._sender.pause()
        self._lifetime.paused_since = now
        self._expect(self._lifetime.next_check(now))

    def resume(self, now: float) -> None:
        """Send again. That the transport takes more is a sign of life, too."""
        self._lifetime.paused_since = None
        self._lifetime.hear(now)
        self._sender.resume()

    def lose(self, now: float) -> None:
        """Forget all calls: the transport is lost. Nothing else is called after it but turns that were asked for."""
        self._end(self.ended or "client", now)
        # h2's connection refers to itself, and the owner's method to the owner: each would be garbage that only a
        # collection finds, and collections are rare.
        vars(self._h2).clear()
        del self._flush

    # Called by the clock, and by the listener.

    def on_time(self, now: float) -> None:
        """Do what is due, and set when something is due next."""
        if self.ended is not None:
            return
        verdict = self._lifetime.check(now)
        if verdict is not None:
            self._follow(verdict, now)
        if self._drain_at is not None and now >= self._drain_at:
            self._end_streams(now)
        self.due = self._lifetime.next_check(now)
        if self._drain_at is not None:
            self._expect(self._drain_at if self._end_by is None else self._end_by)
        for stream in list(self._streams.values()):
            self._check_due(stream, now)

    def drain(self, now: float, at: float, reason: EndReason) -> None:
        """Tell the client that the connection ends, and end its streams at a time."""
        if self.ended is not None or (self._drain_at is not None and self._drain_at <= at):
            return
        if self._drain_at is None:
            self._sender.out.append(frames.goaway(frames.LAST_STREAM, frames.NO_ERROR, reason.encode()))
        self._drain_at, self._drain_reason = at, reason
        self._lifetime.age_at = None
        if at <= now:
            self._end_streams(now)
        self._expect(at)

    def abort(self, reason: EndReason, now: float) -> None:
        """End the connection at once."""
        self._fail(frames.NO_ERROR, reason, reason, now)

    # Called by the turns.

    def make_ready(self, stream: Stream) -> None:
        """Have a stream run in a turn of its own."""
        self._sender.make_ready(stream)

    def run(self, stream: Stream, now: float) -> None:
        """Send what a stream has, as far as windows, transport and turn allow."""
        stream.queued = False
        if self.ended is not None:
            return
        try:
            self._send(stream, now)
        except Exception as error:  # noqa: BLE001  # it ends this connection alone
            self._failures.note("stream_connection_failed", self._peer.address, error, now)
            self._fail(frames.INTERNAL_ERROR, "failed", "the registry failed to send a frame", now)
        self._flush()

    # All that follows is private: frames that come.

    def _read_preface(self, buffer: bytes | memoryview, now: float) -> int:
        """Return how many bytes of the buffer were the preface, which h2 checks as far as it has come."""
        begin = bytes(buffer[: len(frames.PREFACE)])
        if begin[:4] in _HTTP_1_METHODS:
            self._sender.out = [_HTTP_1_ANSWER]
            self._end("protocol_error", now)
            return 0
        if len(begin) < len(frames.PREFACE) and frames.PREFACE.startswith(begin):
            return 0
        self._lifetime.begun = True
        self._receive_by_h2(begin, frames.DATA, 0, now)
        return len(frames.PREFACE)

    def _open_window(self, frame: bytes, now: float) -> bool:
        """Take a WINDOW_UPDATE frame beside h2, and return whether it can be: it is legal, and its stream open.

        Some clients send two with every dozen messages, and h2 takes 15 µs for each.
        """
        if len(frame) != frames.HEADER_LENGTH + 4 or self._header_bytes or not self._beside:
            return False
        stream_id = int.from_bytes(frame[5:9], "big")
        increment = int.from_bytes(frame[9:13], "big")
        stream = self._streams.get(stream_id)
        if stream is None and stream_id:
            return False
        window = (self._h2 if stream is None else stream.flow).outbound_flow_control_window
        if not 0 < increment <= frames.MAX_WINDOW - max(0, window) or not self._allowance.take(now):
            return False
        if stream is None:
            self._h2.outbound_flow_control_window += increment
        else:
            stream.flow.outbound_flow_control_window += increment
            self._go_on(stream)
        self._sender.resume_waiting()
        return True

    def _return_windows(self, stream: Stream) -> None:
        """Give the window of data back that have passed beside h2, of the connection and of the stream."""
        if self._unreturned >= RETURNED_WINDOW:
            self._sender.out.append(frames.window_update(0, self._unreturned))
            self._unreturned = 0
        if stream.unreturned >= RETURNED_WINDOW:
            self._sender.out.append(frames.window_update(stream.id, stream.unreturned))
            stream.unreturned = 0

    def _receive_by_h2(self, frame: bytes | memoryview, kind: int, flags: int, now: float) -> None:
        if not self._allowance.take(now, _COSTS.get(kind, 1.0)):
            self._fail(frames.ENHANCE_YOUR_CALM, "flood", "too many frames", now)
            return
        if kind == frames.HEADERS or (kind == frames.CONTINUATION and self._header_bytes):
            self._header_bytes += len(frame)
            if self._header_bytes > MAX_HEADERS:
                self._fail(frames.ENHANCE_YOUR_CALM, "oversized", "a header block of more than 65536 bytes", now)
                return
            if flags & frames.END_HEADERS:
                self._header_bytes = 0
        try:
            for event in self._h2.receive_data(frame):
                self._on_event(event, now)
            self._sender.collect()
        except ProtocolError:
            # h2 has made the GOAWAY.
            self._sender.collect()
            self._end("protocol_error", now)
        except Exception as error:  # noqa: BLE001  # of h2, where a frame is one that it does not expect
            self._failures.note("stream_connection_failed", self._peer.address, error, now)
            self._fail(frames.INTERNAL_ERROR, "failed", "the registry failed to read a frame", now)
        if self._sender.is_flooded:
            self._fail(frames.ENHANCE_YOUR_CALM, "flood", "too many frames, and nothing is read", now)

    def _note_incomplete(self, now: float) -> None:
        if not self._buffer and not self._header_bytes and not self._held:
            self._lifetime.incomplete_since = None
        elif self._lifetime.incomplete_since is None:
            self._lifetime.incomplete_since = now
        if self._held > MAX_INCOMPLETE * self._limits.max_message:
            self._fail(frames.ENHANCE_YOUR_CALM, "oversized", "too many incomplete messages", now)

    # Events of h2.

    def _on_event(self, event: Event, now: float) -> None:
        if self.ended is not None:
            return
        if isinstance(event, RequestReceived):
            self._on_request(event, now)
        elif isinstance(event, DataReceived):
            self._on_data(event, now)
        elif isinstance(event, StreamEnded):
            self._on_half_closed(event.stream_id, now)
        elif isinstance(event, StreamReset):
            self._forget(event.stream_id, now)
        elif isinstance(event, ConnectionTerminated):
            self._end("client", now)
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            self._on_window(event)

    def _on_window(self, event: WindowUpdated | RemoteSettingsChanged) -> None:
        """Let streams go on whose window may have opened."""
        if isinstance(event, RemoteSettingsChanged):
            for stream in self._streams.values():
                self._go_on(stream)
        elif event.stream_id:
            self._go_on(self._streams.get(event.stream_id))
        self._sender.resume_waiting()

    def _on_request(self, event: RequestReceived, now: float) -> None:
        stream = Stream(self, event.stream_id, self._h2.streams[event.stream_id], self._limits.max_message)
        self._streams[stream.id] = stream
        self._lifetime.idle_since = None
        headers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
        named = dict(headers)
        if named.get(b":method") != b"POST":
            self._answer_http(stream, b"405")
        elif not named.get(b"content-type", b"").startswith(b"application/grpc"):
            self._answer_http(stream, b"415")
        else:
            # h2 compares the announced length with the data.
            stream.takes_data = b"content-length" not in named
            self._open(stream, named.get(b":path", b"").decode("latin-1"), headers, now)
        self._go_on(stream)

    def _open(self, stream: Stream, path: str, headers: Iterable[tuple[bytes, bytes]], now: float) -> None:
        if self._drain_at is not None:
            self._finish(stream, Status.UNAVAILABLE, "this connection ends; the next one takes the stream", now)
            return
        try:
            self._count.take()
        except StatusError as error:
            self._finish(stream, error.status, error.message, now)
            if all(other.call is None for other in self._streams.values()):
                # Each connection takes a descriptor.
                self.drain(now, now + GRACE, "no_room")
            return
        try:
            stream.call = self._service.open(path, _metadata(headers), self._peer, stream.wake)
            stream.silent_since = now
            self._expect(now + STALL_TIMEOUT)
        except StatusError as error:
            self._count.give()
            self._finish(stream, error.status, error.message, now)
        except Exception as error:  # noqa: BLE001  # it ends this stream alone
            self._count.give()
            self._on_failure(stream, error, now)

    def _answer_http(self, stream: Stream, status: bytes) -> None:
        """Answer a request that is none of gRPC's (415: doc/PROTOCOL-HTTP2.md of gRPC)."""
        self._h2.send_headers(stream.id, ((b":status", status), (b"content-type", b"text/plain")))
        stream.headers_sent, stream.trailers = True, ()
        stream.begin_data((_NO_GRPC,))

    def _on_data(self, event: DataReceived, now: float) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is not None and event.data:
            self._take_data(stream, event.data, now)

    def _on_half_closed(self, stream_id: int, now: float) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.half_closed, stream.takes_data = True, False
        if stream.call is not None and stream.reader.held:
            self._finish(stream, Status.INTERNAL, "the stream ends within a message", now)
        stream.asks = stream.call is not None
        self._go_on(stream)

    # Calls.

    def _take_data(self, stream: Stream, data: bytes | memoryview, now: float) -> None:
        """Give the messages that are complete with this data to the call."""
        held = stream.reader.held
        try:
            for message in stream.reader.feed(data):
                if stream.call is None:
                    break
                stream.silent_since = None
                stream.asks |= stream.call.receive(message, now)
        except StatusError as error:
            self._finish(stream, error.status, error.message, now)
        except OversizedMessageError as error:
            self._finish(stream, Status.RESOURCE_EXHAUSTED, str(error), now)
            self._send(stream, now)
            self._fail(frames.ENHANCE_YOUR_CALM, "oversized", str(error), now)
            return
        except Exception as error:  # noqa: BLE001  # it ends this stream alone
            self._on_failure(stream, error, now)
        self._held += stream.reader.held - held
        self._go_on(stream)

    def _ask(self, stream: Stream, now: float) -> int:
        """Begin with the next message of the call, if it has one; return the bytes that were sent of it."""
        call = stream.call
        if call is None:
            stream.asks = False
            return 0
        try:
            parts = call.next(now)
            if parts is not None:
                sent = self._sender.send_whole(stream, parts)
                if not sent:
                    stream.begin_message(parts)
                return sent
            stream.asks, stream.due = False, call.deadline()
        except StatusError as error:
            self._finish(stream, error.status, error.message, now)
        except Exception as error:  # noqa: BLE001  # it ends this stream alone
            self._on_failure(stream, error, now)
        else:
            if stream.half_closed and not call.pending():
                self._finish(stream, Status.OK, "", now)
            elif stream.due is not None:
                self._expect(stream.due)
        return 0

    def _check_due(self, stream: Stream, now: float) -> None:
        """Ask a call whose time has come."""
        if stream.call is None:
            return
        if stream.silent_since is not None:
            if now >= stream.silent_since + STALL_TIMEOUT:
                if self._has_other_silent(stream):
                    words = f"nothing was asked for in the first {STALL_TIMEOUT:.0f} seconds of this stream"
                    self._finish(stream, Status.DEADLINE_EXCEEDED, words, now)
                    return
                # An Envoy whose bootstrap has ADS, and nothing that comes over it, would come again for ever.
                stream.silent_since = now
            self._expect(stream.silent_since + STALL_TIMEOUT)
        if stream.due is None:
            return
        if stream.due <= now:
            stream.due, stream.asks = None, True
            self.make_ready(stream)
        else:
            self._expect(stream.due)

    def _has_other_silent(self, stream: Stream) -> bool:
        """Return whether the client has asked for nothing on another stream either: one of them keeps its place."""
        others = (other for other in self._streams.values() if other is not stream and other.call is not None)
        return any(other.silent_since is not None for other in others)

    def _send(self, stream: Stream, now: float) -> None:
        sender, burst = self._sender, MAX_BURST
        while not stream.ended and self.ended is None:
            if stream.left:
                burst -= sender.send_data(stream, burst)
                if stream.left:
                    break
            if stream.trailers is not None:
                sender.send_trailers(stream)
                self._forget(stream.id, now)
            elif not stream.asks or burst <= 0 or not sender.may_send(stream):
                break
            else:
                burst -= self._ask(stream, now)
        if not stream.ended and self.ended is None and (stream.left or stream.asks):
            sender.postpone(stream)
        if self._end_by is not None and not self._streams:
            self._fail(frames.NO_ERROR, self._drain_reason, "", now)
        if sender.has_waiting:
            sender.resume_waiting()

    def _go_on(self, stream: Stream | None) -> None:
        """Let a stream go on that has something to send or to ask."""
        if stream is not None and (stream.left or stream.asks or stream.trailers is not None):
            self.make_ready(stream)

    def _finish(self, stream: Stream, status: Status, message: str, now: float) -> None:
        """End a stream with a status, behind the message that is under way."""
        self._close_call(stream, now)
        if stream.trailers is not None:
            return
        words = quote_from_bytes(message[:MAX_STATUS_WORDS].encode(), safe=_UNQUOTED)
        stream.trailers = ((b"grpc-status", b"%d" % status), (b"grpc-message", words.encode()))
        if not stream.started:
            stream.drop_data()
        # The rest then needs no window.
        stream.waits = stream.waits and stream.left > 0
        self.make_ready(stream)

    def _on_failure(self, stream: Stream, error: Exception, now: float) -> None:
        """End a stream whose call has raised what it must not."""
        self._failures.note("call_failed", self._peer.address, error, now)
        self._finish(stream, Status.INTERNAL, "the registry failed to answer; its log has the reason", now)

    def _close_call(self, stream: Stream, now: float) -> None:
        call, stream.call = stream.call, None
        stream.asks, stream.due = False, None
        if call is None:
            return
        self._count.give()
        try:
            call.close(now)
        except Exception as error:  # noqa: BLE001  # the stream has ended
            self._failures.note("call_failed", self._peer.address, error, now)

    # Ends.

    def _follow(self, verdict: Verdict, now: float) -> None:
        if verdict.action == "ping":
            self._h2.ping(bytes(8))
            self._sender.collect()
            self._lifetime.ping(now)
        elif verdict.action == "drain":
            self.drain(now, now + GRACE, verdict.reason)
        elif verdict.reason == "keepalive":
            self._end("keepalive", now)
        else:
            self._fail(frames.NO_ERROR, verdict.reason, verdict.reason, now)

    def _end_streams(self, now: float) -> None:
        """End the streams of a connection that ends, and the connection behind the last one."""
        if self._end_by is None:
            self._end_by = now + END_TIMEOUT
            for stream in list(self._streams.values()):
                self._finish(stream, Status.OK, "", now)
        if not self._streams or now >= self._end_by:
            self._fail(frames.NO_ERROR, self._drain_reason, "", now)

    def _fail(self, code: int, reason: EndReason, words: str, now: float) -> None:
        """End the connection, and tell the client why."""
        if self.ended is None:
            self._sender.collect()
            self._sender.out.append(frames.goaway(self._h2.highest_inbound_stream_id, code, words.encode()))
            self.fault = words
            self._end(reason, now)

    def _end(self, reason: EndReason, now: float) -> None:
        self.ended = reason
        for stream_id in list(self._streams):
            self._forget(stream_id, now)

    def _forget(self, stream_id: int, now: float) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.ended = True
            self._held -= stream.reader.held
            self._close_call(stream, now)
            stream.drop_data()
            if not self._streams:
                self._lifetime.idle_since = now

    def _expect(self, at: float) -> None:
        """Have on_time() called by then."""
        self.due = min(self.due, at)


def _begin_h2() -> H2Connection:
    connection = H2Connection(_CONFIG)
    connection.remote_settings = LeanSettings(client=True)
    connection.local_settings = LeanSettings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
        },
    )
    connection.initiate_connection()
    return connection


def _metadata(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for name, value in headers:
        if not name.startswith(b":"):
            key, text = name.decode("latin-1"), value.decode("latin-1")
            metadata[key] = f"{metadata[key]},{text}" if key in metadata else text
    return metadata
