"""A gRPC client and the registry's HTTP/2 connection, joined in memory: h2 on one side, the clock is an argument."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from harness.goaway import FrameSplitter
from registry.http2.call import Metadata, Peer, Status, StatusError
from registry.http2.connection import Connection
from registry.http2.failures import Failures
from registry.http2.limits import Limits, StreamCount
from registry.http2.messages import MessageReader
from registry.http2.sender import FramedMessages
from registry.http2.stream import Stream

ECHO = "/test.Echo/Stream"
LIMITS = Limits(max_message=1_048_576, max_age=0.0)


def frame(message: bytes, *, flag: int = 0) -> bytes:
    """Return a message with gRPC's prefix."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


class EchoCall:
    """Sends each message back, and what is given to ``push``; misbehaves on request."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.received: list[bytes] = []
        self.outgoing: deque[Sequence[bytes]] = deque()
        self.due: float | None = None
        self.waits = False
        self.closed = 0
        self.asked = 0

    def push(self, *parts: bytes) -> None:
        """Have a message sent."""
        self.outgoing.append(parts)
        self.wake()

    def receive(self, message: bytes, now: float) -> bool:
        """Take a message; some are orders."""
        self.received.append(message)
        if message == b"refuse":
            raise StatusError(Status.INVALID_ARGUMENT, "no: 100 % wrong\n")
        if message == b"crash":
            raise ZeroDivisionError
        if message not in {b"silent", b"nothing"}:
            self.outgoing.append((message,))
        return message != b"nothing"

    def next(self, now: float) -> Sequence[bytes] | None:
        """Return the next message."""
        self.asked += 1
        if self.outgoing and self.outgoing[0] == (b"crash next",):
            raise ZeroDivisionError
        return self.outgoing.popleft() if self.outgoing else None

    def pending(self) -> bool:
        """Return whether a message comes by ``push``."""
        return self.waits

    def deadline(self) -> float | None:
        """Return when to be asked again."""
        return self.due

    def close(self, now: float) -> None:
        """Note the end."""
        self.closed += 1


class EchoService:
    """Opens calls that echo."""

    def __init__(self) -> None:
        self.calls: list[EchoCall] = []
        self.metadata: list[Metadata] = []
        self.peers: list[Peer] = []

    def open(self, path: str, metadata: Metadata, peer: Peer, wake: Callable[[], None]) -> EchoCall:
        """Begin with a call."""
        if path != ECHO:
            raise StatusError(Status.UNIMPLEMENTED, f"{path} is not served")
        if "crash" in metadata:
            raise ZeroDivisionError
        self.metadata.append(metadata)
        self.peers.append(peer)
        self.calls.append(EchoCall(wake))
        return self.calls[-1]


class MemoryClient:
    """A client and the connection that it talks to.

    Args:
        service: opens the calls.
        beside: as of the connection.
        piece: bytes that arrive at the registry at a time; 0: all of them.
        settings: the client's SETTINGS, sent with its preface.
        window_updates: whether the client gives back its windows by itself.
    """

    def __init__(
        self,
        service: EchoService,
        *,
        beside: bool = True,
        piece: int = 0,
        settings: Mapping[SettingCodes, int] | None = None,
        window_updates: bool = True,
        limits: Limits = LIMITS,
        count: StreamCount | None = None,
        now: float = 0.0,
        **options: Any,
    ) -> None:
        self.now = now
        self.piece = piece
        self.window_updates = window_updates
        self.turns: deque[Stream] = deque()
        self.count = StreamCount(100) if count is None else count
        self.server = Connection(
            service,
            limits,
            self.count,
            Peer("203.0.113.7"),
            FramedMessages(),
            Failures(now),
            self.turns.append,
            lambda: None,
            now,
            beside=beside,
            **options,
        )
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        if settings:
            self.client.local_settings.update({int(code): value for code, value in settings.items()})
            self.client.local_settings.acknowledge()
            self.client.max_inbound_frame_size = self.client.local_settings.max_frame_size
        self.client.initiate_connection()
        self.events: list[Event] = []
        self.received: dict[int, bytearray] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self._splitter = FrameSplitter()
        self.frames = self._splitter.frames
        """Type, flags and length of each frame that the registry sent."""
        self.goaways = self._splitter.goaways

    def open(self, path: str = ECHO, *, end: bool = False, **headers: str) -> int:
        """Begin with a call; return its stream."""
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(
            stream_id,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "registry"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                *((name.replace("_", "-"), value) for name, value in headers.items()),
            ],
            end_stream=end,
        )
        return stream_id

    def send(self, stream_id: int, message: bytes, *, end: bool = False, pad: int | None = None) -> None:
        """Send a message as far as the windows allow, exchanging frames until it is sent."""
        data = frame(message)
        while data:
            size = min(len(data), self.client.local_flow_control_window(stream_id), 16_384)
            if size == 0:
                self.exchange()
                continue
            self.client.send_data(stream_id, data[:size], end_stream=end and size == len(data), pad_length=pad)
            data = data[size:]

    def exchange(self) -> None:
        """Carry bytes in both directions, and run turns, until nothing more happens."""
        while self.step():
            pass

    def step(self) -> bool:
        """Carry what is there once; return whether anything was."""
        outgoing = self.client.data_to_send()
        for begin in range(0, len(outgoing), self.piece or len(outgoing) or 1):
            more = self.feed(outgoing[begin : begin + (self.piece or len(outgoing))])
            while more:
                more = self.feed(b"")
        ran = bool(self.turns)
        for _ in range(len(self.turns)):
            self.turns.popleft().run(self.now)
        return self.read() or bool(outgoing) or ran

    def feed(self, data: bytes) -> bool:
        """Give bytes to the registry's side."""
        if self.server.ended is not None or self.server.receive_message(data, self.now):
            return False
        return self.server.receive(data, self.now)

    def read(self) -> bool:
        """Take what the registry's side sends; return whether it was anything."""
        data = b"".join(self.server.take_output())
        readable = self._splitter.feed(data)
        for event in self.client.receive_data(readable) if readable else ():
            self._on_event(event)
        return bool(data)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ResponseReceived):
            self.headers[event.stream_id] = _words(event.headers)
        elif isinstance(event, TrailersReceived):
            self.trailers[event.stream_id] = _words(event.headers)
        elif isinstance(event, DataReceived):
            self.received.setdefault(event.stream_id, bytearray()).extend(event.data or b"")
            if self.window_updates:
                self.client.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.reset[event.stream_id] = int(event.error_code)

    def messages(self, stream_id: int) -> list[bytes]:
        """Return the whole messages that came on a stream."""
        return list(MessageReader(2**31).feed(bytes(self.received.get(stream_id, b""))))

    def status(self, stream_id: int) -> tuple[int, str] | None:
        """Return the status with which a call ended, and its words; None: it goes on."""
        ended = self.trailers.get(stream_id) or self.headers.get(stream_id) or {}
        return (int(ended["grpc-status"]), ended["grpc-message"]) if "grpc-status" in ended else None


def _words(headers: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers or ()}
