"""The self-test of DATA frames that pass beside h2, which counts on attributes that no release of h2 promises.

It runs at each start, in memory, with h2 as the client. The same conversation goes through a connection with frames
beside h2 and through one without, and the client has to see the same. It has two short messages, one longer than its
window, then a SETTINGS that shrinks the window, and one that fills it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, TrailersReceived
from h2.settings import SettingCodes

from registry.http2.call import Metadata, Peer, Status, StatusError
from registry.http2.connection import Connection
from registry.http2.failures import Failures
from registry.http2.limits import Limits, StreamCount
from registry.http2.messages import PREFIX_LENGTH
from registry.http2.sender import FramedMessages
from registry.http2.stream import Stream

log = structlog.get_logger()

_WINDOW: Final = 30_000
"""Bytes of the client's first window of a stream."""
_SMALL_WINDOW: Final = 1_000
"""Bytes of its second one."""
_LONG: Final = bytes(range(256)) * 400
_SHORT: Final = b"short"
"""A message that is sent back in one part, and so in frames that are made once for all connections."""
_END: Final = b"end"
_MAX_STEPS: Final = 200
"""Exchanges after which a conversation has failed; it takes 20."""


def fits() -> bool:
    """Return whether DATA frames may pass beside the installed h2; if not, a warning is in the log."""
    try:
        seen, expected = (_Conversation(beside=beside).transcript() for beside in (True, False))
    except Exception as error:  # noqa: BLE001  # whatever it is, plain h2 works
        log.warning("streams_unfit", error=repr(error), instead="all frames by h2, at three times the cost")
        return False
    if seen != expected:
        log.warning("streams_unfit", expected=expected, seen=seen, instead="all frames by h2, at three times the cost")
    return seen == expected


class _Conversation:
    """A client and a connection, joined in memory."""

    def __init__(self, *, beside: bool) -> None:
        self._turns: deque[Stream] = deque()
        self._server = Connection(
            _Echo(),
            Limits(max_message=len(_LONG), max_age=0.0),
            StreamCount(1),
            Peer(""),
            FramedMessages(),
            Failures(0.0),
            self._turns.append,
            _do_nothing,
            0.0,
            beside=beside,
        )
        self._client = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self._data = 0
        """Bytes that the client has received, their content aside."""
        self._content: list[bytes] = []
        self._events: list[tuple[object, ...]] = []
        """What the client has seen beside data."""
        self._gives_back = True
        """Whether the client gives its window back."""

    def transcript(self) -> tuple[object, ...]:
        """Return what the client has seen."""
        client = self._client
        client.initiate_connection()
        client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        headers = {":method": "POST", ":scheme": "http", ":path": "/", ":authority": "-"}
        client.send_headers(1, [*headers.items(), ("content-type", "application/grpc")])
        self._exchange()
        self._say(_SHORT)
        self._say(_SHORT)
        self._say(_LONG)
        first = self._data
        self._gives_back = False
        client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _SMALL_WINDOW})
        client.increment_flow_control_window(_WINDOW, 1)
        self._exchange()
        self._say(_LONG)
        second = self._data
        client.increment_flow_control_window(len(_LONG) * 2)
        client.increment_flow_control_window(len(_LONG) * 2, 1)
        self._exchange()
        self._say(_END)
        whole = b"".join(self._content) == 2 * _prefixed(_SHORT) + 2 * _prefixed(_LONG)
        return first, second, self._data, whole, *self._events

    def _say(self, message: bytes) -> None:
        data = _prefixed(message)
        while data:
            size = min(len(data), self._client.local_flow_control_window(1), 16_384)
            if size:
                self._client.send_data(1, data[:size])
                data = data[size:]
            self._exchange()

    def _exchange(self) -> None:
        for _ in range(_MAX_STEPS):
            outgoing = self._client.data_to_send()
            if outgoing and not self._server.receive_message(outgoing, 0.0):
                self._server.receive(outgoing, 0.0)
            while self._turns:
                self._turns.popleft().run(0.0)
            incoming = b"".join(self._server.take_output())
            for event in self._client.receive_data(incoming) if incoming else ():
                self._on_event(event)
            if not outgoing and not incoming:
                return
        raise RuntimeError("the conversation does not end")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data += len(event.data or b"")
            self._content.append(event.data or b"")
            if self._gives_back:
                self._client.acknowledge_received_data(event.flow_controlled_length or 0, 1)
        elif isinstance(event, (ResponseReceived, TrailersReceived)):
            self._events.append((type(event).__name__, event.stream_id, tuple(map(tuple, event.headers or ()))))


class _Echo:
    """A service, and its one call, that sends each message back: a short one in one part, others in two."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()

    def open(self, _path: str, _metadata: Metadata, _peer: Peer, _wake: Callable[[], None]) -> "_Echo":
        return self

    def receive(self, message: bytes, _now: float) -> bool:
        if message == _END:
            raise StatusError(Status.NOT_FOUND, "the end")
        self._messages.append(message)
        return True

    def next(self, _now: float) -> Sequence[bytes] | None:
        if not self._messages:
            return None
        message = self._messages.popleft()
        return (message,) if message == _SHORT else (message[:100], message[100:])

    def pending(self) -> bool:
        return False

    def deadline(self) -> float | None:
        return None

    def close(self, _now: float) -> None:
        """Nothing is to be forgotten."""


def _prefixed(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(PREFIX_LENGTH - 1, "big") + message


def _do_nothing() -> None:
    """Nothing is to be written: the conversation takes what there is."""
