"""Calls over one connection, with h2 as the client, both with DATA frames beside h2 and without."""

from typing import Any

import pytest
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from harness.http2_memory import ECHO, LIMITS, EchoService, MemoryClient, frame
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from registry.http2 import connection as connection_module
from registry.http2.call import Status
from registry.http2.connection import END_TIMEOUT, GRACE, MAX_FRAMES_PER_TURN
from registry.http2.failures import Failures
from registry.http2.lifetime import KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STALL_TIMEOUT
from registry.http2.limits import Limits, StreamCount
from registry.http2.sender import MAX_BURST, MAX_UNSENT

WAYS = pytest.mark.parametrize("beside", [True, False])
BIG = 2**31 - 1


def open_call(service: EchoService, **options: Any) -> tuple[MemoryClient, int]:
    """Return a client and the stream of a call that it has opened."""
    client = MemoryClient(service, **options)
    stream = client.open()
    client.exchange()
    return client, stream


@WAYS
def test_a_message_is_answered(beside: bool) -> None:
    """A message gets to the call, and its answer back, behind the headers of the response."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    client.send(stream, b"hello")
    client.exchange()
    assert service.calls[0].received == [b"hello"]
    assert client.messages(stream) == [b"hello"]
    assert client.headers[stream][":status"] == "200"
    assert client.status(stream) is None


@WAYS
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=4),
    piece=st.sampled_from([0, 1, 7, 1_000]),
    window=st.integers(1, 70_000),
    frame_size=st.sampled_from([16_384, 20_000, 2**24 - 1]),
)
def test_windows_are_kept(beside: bool, sizes: list[int], piece: int, window: int, frame_size: int) -> None:
    """Whatever windows and frames the client takes, each message arrives whole and in order, and no window is overrun.

    h2, as the client, raises an error if more comes than its windows allow.
    """
    if window < 1_000:
        sizes = [size % 50 for size in sizes]
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame_size}
    service = EchoService()
    client = MemoryClient(service, beside=beside, piece=piece, settings=settings)
    stream = client.open()
    client.exchange()
    messages = [bytes([number]) * size for number, size in enumerate(sizes, start=1)]
    for message in messages:
        client.send(stream, message)
    client.exchange()
    assert service.calls[0].received == messages
    assert client.messages(stream) == messages
    assert max(length for kind, _, length in client.frames if kind == 0) <= frame_size


@WAYS
def test_nothing_is_sent_into_a_closed_window(beside: bool) -> None:
    """With a window of 0 the call is not asked; each byte of window takes a byte, and the rest comes with the rest."""
    service = EchoService()
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 0}
    client, stream = open_call(service, beside=beside, settings=settings, window_updates=False)
    call = service.calls[0]
    call.push(b"abc")
    client.exchange()
    assert call.asked == 0
    assert stream not in client.received
    for number in range(1, 9):
        client.client.increment_flow_control_window(1, stream)
        client.exchange()
        assert client.received[stream] == frame(b"abc")[:number]
    assert client.messages(stream) == [b"abc"]


@WAYS
def test_settings_that_shrink_a_window_are_kept(beside: bool) -> None:
    """A window that SETTINGS makes negative takes nothing until updates have made it positive again."""
    service = EchoService()
    client, stream = open_call(service, beside=beside, window_updates=False)
    service.calls[0].push(bytes(60_000))
    client.exchange()
    client.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    client.exchange()
    service.calls[0].push(b"more")
    client.exchange()
    before = len(client.received[stream])
    client.client.increment_flow_control_window(60_000 + 5 - 100, stream)
    client.exchange()
    assert len(client.received[stream]) == before
    client.client.increment_flow_control_window(9, stream)
    client.exchange()
    assert client.messages(stream) == [bytes(60_000), b"more"]


def test_windows_of_two_streams_are_shared_fairly() -> None:
    """Streams that wait for the connection's window get it one after the other."""
    service = EchoService()
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: BIG}
    client = MemoryClient(service, settings=settings, window_updates=False)
    streams = [client.open() for _ in range(3)]
    client.exchange()
    for call in service.calls:
        call.push(bytes(200_000))
    client.exchange()
    for _ in range(12):
        client.client.increment_flow_control_window(60_000)
        client.exchange()
    assert [client.messages(stream) for stream in streams] == [[bytes(200_000)]] * 3


def test_parts_are_not_copied() -> None:
    """A part of a message that fits a frame is handed on as the same object, to every stream."""
    service = EchoService()
    client, _ = open_call(service)
    part = bytes(1_000)
    service.calls[0].push(b"own", part)
    client.turns.popleft().run(0.0)
    assert any(piece is part for piece in client.server.take_output())
    service.calls[0].push(bytes(20_000))
    client.turns.popleft().run(0.0)
    assert sum(map(len, client.server.take_output())) > 20_000


def test_the_window_of_the_client_is_given_back() -> None:
    """A client that sends for long never finds its windows closed."""
    service = EchoService()
    client, stream = open_call(service)
    for _ in range(40):
        client.send(stream, bytes(10_000))
        service.calls[0].outgoing.clear()
    client.exchange()
    assert len(service.calls[0].received) == 40
    assert sum(1 for kind, _, _ in client.frames if kind == 8) <= 2 * 400_000 // 32_768 + 2


@WAYS
def test_padded_and_last_frames_of_the_client_are_read(beside: bool) -> None:
    """Frames with flags go through h2; the call ends when the client has ended and all answers are sent."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    client.send(stream, b"padded", pad=10)
    client.send(stream, b"last", end=True)
    client.exchange()
    assert client.messages(stream) == [b"padded", b"last"]
    assert client.status(stream) == (0, "")
    assert service.calls[0].closed == 1
    assert stream not in client.reset


@WAYS
def test_a_client_that_ends_is_answered_what_its_call_waits_for(beside: bool) -> None:
    """A stream whose client sends nothing more goes on for as long as its call says that something is pending."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    (call,) = service.calls
    call.waits = True
    client.send(stream, b"silent", end=True)
    client.exchange()
    assert client.status(stream) is None
    call.waits = False
    call.push(b"later")
    client.exchange()
    assert client.messages(stream) == [b"later"]
    assert client.status(stream) == (0, "")


def test_a_stream_that_ends_within_a_message_fails() -> None:
    """Half a message and an end is an error of the client."""
    service = EchoService()
    client, stream = open_call(service)
    client.client.send_data(stream, frame(b"hello")[:7], end_stream=True)
    client.exchange()
    assert client.status(stream) == (13, "the stream ends within a message")


@WAYS
def test_a_call_ends_with_its_status(beside: bool) -> None:
    """An error of the call ends it with these words, and the client need not send the rest."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    client.send(stream, b"hello")
    client.exchange()
    client.send(stream, b"refuse")
    client.exchange()
    assert client.messages(stream) == [b"hello"]
    assert client.status(stream) == (3, "no: 100 %25 wrong%0A")
    assert client.reset[stream] == 0
    assert service.calls[0].closed == 1
    assert client.count.open == 0
    other = client.open()
    client.send(other, b"again")
    client.exchange()
    assert client.messages(other) == [b"again"]


def test_a_call_that_is_not_opened_gets_trailers_alone() -> None:
    """A refusal before any message is one frame of headers."""
    client = MemoryClient(EchoService())
    stream = client.open("/nothing")
    client.exchange()
    assert client.status(stream) == (Status.UNIMPLEMENTED, "/nothing is not served")
    assert client.headers[stream]["content-type"] == "application/grpc"
    assert stream not in client.trailers


@pytest.mark.parametrize("where", ["open", "receive", "next"])
def test_a_defect_of_a_call_ends_its_stream_alone(where: str) -> None:
    """An exception of a call ends its stream with INTERNAL, and others go on."""
    service = EchoService()
    client, other = open_call(service)
    stream = client.open(crash="now") if where == "open" else client.open()
    client.exchange()
    if where == "receive":
        client.send(stream, b"crash")
    elif where == "next":
        service.calls[1].push(b"crash next")
    client.send(other, b"hello")
    client.exchange()
    status = client.status(stream)
    assert status is not None
    assert status[0] == Status.INTERNAL
    assert client.messages(other) == [b"hello"]
    assert client.count.open == 1


def test_metadata_are_joined() -> None:
    """Metadata of one name come as one value; pseudo-headers are none."""
    service = EchoService()
    client = MemoryClient(service)
    stream = client.client.get_next_available_stream_id()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", ECHO), (":authority", "registry")]
    fields += [("content-type", "application/grpc+proto"), ("user-agent", "a"), ("x", "1"), ("x", "2")]
    client.client.send_headers(stream, fields)
    client.exchange()
    expected = {"content-type": "application/grpc+proto", "user-agent": "a", "x": "1,2"}
    assert service.metadata == [expected]


@pytest.mark.parametrize(("method", "status"), [("GET", "405"), ("POST", "415")])
def test_other_requests_are_told_what_is_served_here(method: str, status: str) -> None:
    """A request that is none of gRPC's gets an answer of HTTP that says so."""
    client = MemoryClient(EchoService())
    stream = client.client.get_next_available_stream_id()
    fields = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "registry")]
    client.client.send_headers(stream, fields, end_stream=True)
    client.exchange()
    assert client.headers[stream][":status"] == status
    assert b"REGISTRY_XDS_LISTEN" in client.received[stream]
    assert stream in client.ended


def test_a_client_of_http_1_is_told_what_is_served_here() -> None:
    """A client without HTTP/2 gets an answer that it can show."""
    client = MemoryClient(EchoService())
    client.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert b"".join(client.server.take_output()).startswith(b"HTTP/1.1 400 ")
    assert client.server.ended == "protocol_error"


def test_streams_beyond_the_limit_are_refused_before_any_answer() -> None:
    """Beyond the limit of the process a call gets UNAVAILABLE, and its connection ends unless it has other calls."""
    service, count = EchoService(), StreamCount(2)
    first = MemoryClient(service, count=count)
    streams = [first.open() for _ in range(3)]
    first.exchange()
    status = first.status(streams[2])
    assert status is not None
    assert status[0] == Status.UNAVAILABLE
    assert "at most 2 (REGISTRY_XDS_MAX_STREAMS" in status[1]
    assert not first.goaways
    second = MemoryClient(service, count=count)
    refused = second.open()
    second.exchange()
    assert second.status(refused) == status
    assert len(second.goaways) == 1
    second.now += GRACE
    second.server.on_time(second.now)
    assert second.server.ended == "no_room"
    first.client.reset_stream(streams[0])
    first.exchange()
    assert count.open == 1


def test_a_deadline_of_a_call_is_kept() -> None:
    """A call is asked again at the time that it says, without any other reason."""
    service = EchoService()
    client, stream = open_call(service)
    call = service.calls[0]
    call.due = 12.0
    client.send(stream, b"silent")
    client.exchange()
    assert client.server.due <= 12.0
    call.outgoing.append((b"late",))
    client.now = 11.0
    client.server.on_time(client.now)
    client.exchange()
    assert not client.messages(stream)
    assert client.server.due == 12.0
    client.now, call.due = 12.0, None
    client.server.on_time(client.now)
    client.exchange()
    assert client.messages(stream) == [b"late"]


def test_a_long_message_takes_several_turns() -> None:
    """One stream sends 64 kB in a turn, so that others have theirs."""
    service = EchoService()
    client, _ = open_call(service, settings={SettingCodes.INITIAL_WINDOW_SIZE: BIG})
    client.client.increment_flow_control_window(BIG - 65_535)
    client.exchange()
    service.calls[0].push(bytes(4 * MAX_BURST))
    for _ in range(4):
        client.turns.popleft().run(0.0)
        assert sum(map(len, client.server.take_output())) <= MAX_BURST + 100
        assert len(client.turns) == 1


def test_a_full_transport_gets_nothing_and_continues() -> None:
    """While the transport takes nothing no call is asked; afterwards all streams go on."""
    service = EchoService()
    client = MemoryClient(service)
    streams = [client.open() for _ in range(3)]
    client.exchange()
    client.server.pause(0.0)
    for call in service.calls:
        call.push(b"hello")
    client.exchange()
    assert [call.asked for call in service.calls] == [0, 0, 0]
    client.server.resume(1.0)
    client.exchange()
    assert [client.messages(stream) for stream in streams] == [[b"hello"]] * 3


def test_a_transport_that_stays_full_ends_the_connection() -> None:
    """A client that reads nothing for half a minute is gone."""
    service = EchoService()
    client, _ = open_call(service)
    client.server.pause(0.0)
    assert client.server.due <= STALL_TIMEOUT
    client.server.on_time(STALL_TIMEOUT)
    assert client.server.ended == "stalled"
    assert service.calls[0].closed == 1


def test_a_silent_client_gets_a_ping_and_ends_without_an_answer() -> None:
    """After 20 seconds of silence comes a PING; without an answer in 10 the connection ends, with its calls."""
    service = EchoService()
    client, stream = open_call(service)
    client.send(stream, b"nothing")
    client.exchange()
    assert client.server.due <= KEEPALIVE_INTERVAL
    client.server.on_time(KEEPALIVE_INTERVAL)
    assert client.server.due == KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT
    client.now = KEEPALIVE_INTERVAL + 1
    client.exchange()
    client.server.on_time(client.now + KEEPALIVE_TIMEOUT)
    assert client.count.open == 1
    # The next silence is not answered.
    client.server.on_time(client.now + KEEPALIVE_INTERVAL)
    client.server.take_output()
    client.server.on_time(client.now + KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT)
    assert client.server.ended == "keepalive"
    assert service.calls[0].closed == 1
    assert client.count.open == 0


def test_an_aged_connection_ends_with_goaway_and_then_ok() -> None:
    """At its age the client is told; a second later its streams end with OK, and the connection with them."""
    service = EchoService()
    client, stream = open_call(service, limits=Limits(max_message=1_000, max_age=1_800.0))
    client.send(stream, b"nothing")
    client.exchange()
    client.now = 1_800.0 * 1.2
    client.server.on_time(client.now)
    client.exchange()
    assert [goaway.last_stream_id for goaway in client.goaways] == [BIG]
    service.calls[0].push(b"still served")
    client.turns.popleft().run(client.now)
    client.now += GRACE
    client.server.on_time(client.now)
    client.exchange()
    assert client.messages(stream) == [b"still served"]
    assert client.status(stream) == (0, "")
    assert [goaway.last_stream_id for goaway in client.goaways] == [BIG, stream]
    assert service.calls[0].closed == 1
    assert client.server.ended == "max_age"


def test_a_certificate_that_expires_ends_its_connection() -> None:
    """A connection is not used longer than its client's certificate is valid."""
    client, _ = open_call(EchoService(), expires_at=50.0)
    client.server.on_time(49.0)
    client.exchange()
    assert not client.goaways
    client.server.on_time(50.0)
    client.server.on_time(50.0 + GRACE)
    client.exchange()
    assert client.server.ended == "max_age"


def test_a_stream_that_cannot_end_is_cut() -> None:
    """A connection that drains does not wait for ever for a client whose window is closed."""
    service = EchoService()
    client, _ = open_call(service, window_updates=False)
    service.calls[0].push(bytes(100_000))
    client.exchange()
    client.server.drain(5.0, 5.0, "shutdown")
    assert service.calls[0].closed == 1
    assert client.server.ended is None
    assert client.server.due <= 5.0 + END_TIMEOUT
    client.server.on_time(5.0 + END_TIMEOUT)
    assert client.server.ended == "shutdown"


def test_a_stream_on_a_connection_that_ends_is_refused() -> None:
    """A client that has not seen the GOAWAY yet is told to connect anew."""
    client, _ = open_call(EchoService())
    client.server.drain(0.0, 10.0, "shutdown")
    late = client.open()
    client.exchange()
    assert client.status(late) == (Status.UNAVAILABLE, "this connection ends; the next one takes the stream")


def test_a_lost_transport_ends_all_calls() -> None:
    """Nothing is left of a connection whose transport is lost."""
    service = EchoService()
    client, _ = open_call(service)
    client.server.lose(0.0)
    assert client.server.ended == "client"
    assert [call.closed for call in service.calls] == [1]
    assert client.count.open == 0
    service.calls[0].wake()
    assert not client.turns


@WAYS
def test_a_message_that_is_too_long_ends_the_connection(beside: bool) -> None:
    """The announcement of 10 MiB is enough: the client is told, and nothing is collected."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    client.client.send_data(stream, b"\x00" + (10 * 2**20).to_bytes(4, "big"))
    client.exchange()
    assert client.server.ended == "oversized"
    assert "10485760" in client.server.fault
    status = client.status(stream)
    assert status is not None
    assert status[0] == Status.RESOURCE_EXHAUSTED
    assert "10485760" in status[1]
    assert "REGISTRY_MAX_BODY" in status[1]
    assert [goaway.error_code for goaway in client.goaways] == [11]
    assert service.calls[0].closed == 1


def test_a_compressed_message_is_refused() -> None:
    """A message with gRPC's flag of compression ends its call."""
    service = EchoService()
    client, stream = open_call(service)
    client.client.send_data(stream, frame(b"squeezed", flag=1))
    client.exchange()
    status = client.status(stream)
    assert status is not None
    assert status[0] == Status.UNIMPLEMENTED
    assert client.headers[stream]["grpc-accept-encoding"] == "identity"
    assert client.server.ended is None


def test_messages_that_are_never_complete_end_the_connection() -> None:
    """Half a message for half a minute is no message."""
    client, stream = open_call(EchoService())
    client.client.send_data(stream, frame(b"hello")[:6])
    client.exchange()
    client.server.on_time(STALL_TIMEOUT)
    assert client.server.ended == "stalled"


def test_incomplete_messages_of_many_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams may not hold more incomplete messages together than 32 of the largest size."""
    monkeypatch.setattr(connection_module, "MAX_INCOMPLETE", 2)
    client = MemoryClient(EchoService(), limits=Limits(max_message=10_000, max_age=0.0))
    for _ in range(3):
        stream = client.open()
        client.client.send_data(stream, frame(bytes(10_000))[:9_000])
        client.exchange()
    assert client.server.ended == "oversized"
    assert client.count.open == 0


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8), id="ping"),
        pytest.param(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), id="settings"),
        pytest.param(bytes((0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1)), id="window_update"),
        pytest.param(bytes((0, 0, 0, 0, 0, 0, 0, 0, 1)), id="empty_data"),
        pytest.param(bytes((0, 0, 5, 2, 0, 0, 0, 0, 3)) + bytes(5), id="priority"),
        pytest.param(bytes((0, 0, 1, 99, 0, 0, 0, 0, 0, 0)), id="unknown"),
    ],
)
def test_a_flood_of_frames_ends_its_connection(flood: bytes) -> None:
    """Frames that cost more than they bring are bounded to 1,000 a second, after 4,000 at once."""
    client, _ = open_call(EchoService())
    turns = 0
    data = flood * 6_000
    while client.feed(data) and client.server.ended is None:
        data = b""
        turns += 1
    assert client.server.ended == "flood"
    assert turns >= 6_000 // MAX_FRAMES_PER_TURN // 20
    # The same number of them over a minute is no flood.
    patient, _ = open_call(EchoService())
    for second in range(60):
        patient.now = float(second)
        assert not patient.feed(flood * min(64, 100))
        patient.server.take_output()
    assert patient.server.ended is None


def test_a_flood_of_resets_ends_its_connection() -> None:
    """Streams that are opened and reset at once (CVE-2023-44487) end the connection; no call stays."""
    service = EchoService()
    client = MemoryClient(service)
    for _ in range(3_000):
        stream = client.open()
        client.client.reset_stream(stream)
        client.exchange()
        if client.server.ended:
            break
    assert client.server.ended == "flood"
    assert len(service.calls) < 2_000
    assert all(call.closed for call in service.calls)


def test_headers_without_end_end_the_connection() -> None:
    """A header block that goes on and on is refused at 64 kB, before it is decoded."""
    client, _ = open_call(EchoService())
    block = bytes(16_000)
    client.feed(len(block).to_bytes(3, "big") + bytes((1, 0)) + (3).to_bytes(4, "big") + block)
    for _ in range(3):
        assert client.server.ended is None
        client.feed(len(block).to_bytes(3, "big") + bytes((9, 0)) + (3).to_bytes(4, "big") + block)
    client.feed(len(block).to_bytes(3, "big") + bytes((9, 0)) + (3).to_bytes(4, "big") + block)
    assert client.server.ended == "oversized"


def test_a_frame_that_lies_about_its_length_ends_the_connection() -> None:
    """A frame of 16 MB is refused by its header: nothing is collected for it."""
    client, _ = open_call(EchoService())
    client.feed(bytes((255, 255, 255, 0, 0, 0, 0, 0, 1)))
    assert client.server.ended == "protocol_error"


def test_answers_that_nobody_reads_are_bounded() -> None:
    """A client that sends PINGs and reads no answer ends before they fill the memory."""
    client, _ = open_call(EchoService())
    client.server.pause(0.0)
    ping = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)
    for second in range(1, 1_000):
        client.now = float(second)
        client.feed(ping * 64)
        if client.server.ended:
            break
    assert client.server.ended == "flood"
    assert sum(map(len, client.server.take_output())) < MAX_UNSENT + 10_000


@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_end_the_connection_or_leave_it_whole(data: bytes, prefix: int) -> None:
    """Whatever a client sends, no exception escapes, and what ends, ends with all of its calls."""
    service = EchoService()
    client, _ = open_call(service)
    client.feed(
        (b"", bytes((0, 0, len(data) % 256, 0, 0, 0, 0, 0, 1)), frame(data), b"\0\0\0\4\0\0\0\0\0")[prefix] + data
    )
    while client.turns:
        client.turns.popleft().run(0.0)
    if client.server.ended:
        assert client.count.open == 0
        assert all(call.closed == 1 for call in service.calls)


def test_other_protocols_end_the_connection() -> None:
    """A client of TLS on the plain port, for one, is cut."""
    client = MemoryClient(EchoService())
    client.feed(b"\x16\x03\x01\x02\x00" + bytes(100))
    assert client.server.ended == "protocol_error"


def test_a_client_without_a_preface_is_cut() -> None:
    """A connection over which nothing comes ends after ten seconds."""
    client = MemoryClient(EchoService())
    assert client.server.due == 10.0
    client.server.on_time(10.0)
    assert client.server.ended == "idle"


def test_a_connection_without_streams_ends_some_time() -> None:
    """Five minutes without a stream are enough; a PING of the client is no use of it."""
    client = MemoryClient(EchoService(), limits=LIMITS)
    client.exchange()
    for second in range(0, 300, 10):
        client.now = float(second)
        client.client.ping(bytes(8))
        client.exchange()
        client.server.on_time(client.now)
    assert client.server.ended is None
    client.server.on_time(300.0)
    client.server.on_time(300.0 + GRACE)
    assert client.server.ended == "idle"


def test_h2_refuses_what_the_client_may_not_do() -> None:
    """The client of these tests is strict: it would see a window that is overrun."""
    client, stream = open_call(EchoService(), window_updates=False)
    with pytest.raises(ProtocolError):
        client.client.receive_data(bytes((0, 255, 255, 0, 0, 0, 0, 0, stream)) + bytes(65_535))


@WAYS
def test_a_call_that_has_nothing_is_not_asked(beside: bool) -> None:
    """Nearly all messages are ACKs, behind which there is nothing to send: they cost no turn."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    client.send(stream, b"hello")
    client.exchange()
    asked = service.calls[0].asked
    client.send(stream, b"nothing")
    client.exchange()
    assert service.calls[0].received[-1] == b"nothing"
    assert service.calls[0].asked == asked
    client.send(stream, b"crash")
    client.exchange()
    assert client.status(stream) == (Status.INTERNAL, "the registry failed to answer; its log has the reason")


def test_messages_of_one_part_are_framed_once() -> None:
    """Connections whose streams have one number send the same bytes; windows are kept, and long ones go in pieces."""
    service = EchoService()
    talks = [open_call(service) for _ in range(2)]
    for client, stream in talks:
        client.send(stream, b"hello")
        client.exchange()
    framed = talks[0][0].server, talks[1][0].server
    for size in (100, 40_000, 30_000):
        message = bytes(size)
        for call in service.calls:
            call.push(message)
        for client, stream in talks:
            client.exchange()
            assert client.messages(stream)[-1] == message
    assert all(not server.ended for server in framed)


@WAYS
@pytest.mark.parametrize("stream_id", [0, 1])
@pytest.mark.parametrize("increment", [0, BIG])
def test_a_window_that_grows_too_far_ends_what_it_is_of(beside: bool, stream_id: int, increment: int) -> None:
    """An update by 0, or above what a window may have, ends the stream or the connection (RFC 9113, 6.9)."""
    service = EchoService()
    client, stream = open_call(service, beside=beside)
    assert stream == 1
    service.calls[0].push(b"x")
    client.exchange()
    update = b"\x00\x00\x04\x08\x00" + stream_id.to_bytes(4, "big") + increment.to_bytes(4, "big")
    client.feed(update)
    client.read()
    assert service.calls[0].closed == 1
    assert (client.server.ended is not None) == (stream_id == 0 or increment == 0)


def test_of_calls_without_a_message_one_keeps_its_place() -> None:
    """A client that opens streams and asks for nothing keeps one of them; one that has asked may be silent.

    An Envoy with ADS and nothing that comes over it opens one stream, and would open it again for ever.
    """
    service = EchoService()
    client, silent = open_call(service)
    kept = client.open()
    asking = client.open()
    client.send(asking, b"nothing")
    client.exchange()
    for client.now in (1.0, 20.0, STALL_TIMEOUT - 1, STALL_TIMEOUT):
        assert client.status(silent) is None
        assert client.server.due <= STALL_TIMEOUT or client.now >= STALL_TIMEOUT
        client.server.on_time(client.now)
        client.client.ping(bytes(8))
        client.exchange()
    words = "nothing was asked for in the first 30 seconds of this stream"
    assert client.status(silent) == (Status.DEADLINE_EXCEEDED, words)
    assert client.status(kept) is None
    assert client.status(asking) is None
    assert client.count.open == 2
    client.now = 3 * STALL_TIMEOUT
    client.client.ping(bytes(8))
    client.exchange()
    client.server.on_time(client.now)
    client.exchange()
    assert client.status(asking) is None
    assert client.status(kept) is None
    client.send(kept, b"late")
    client.exchange()
    assert client.messages(kept) == [b"late"]


def test_defects_are_logged_one_a_second() -> None:
    """Thousands of clients may come upon the same one; the next line says how many were left out."""
    failures = Failures(0.0)
    with capture_logs() as logged:
        for _ in range(25):
            failures.note("call_failed", "10.0.0.1", ValueError(), 0.0)
        failures.note("call_failed", "10.0.0.1", ValueError(), 2.0)
    assert [each["left_out"] for each in logged] == [*[0] * 10, 15]
