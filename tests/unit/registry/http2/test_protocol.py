"""A connection on its transport: what it reads when, how it writes, and how it closes."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from harness.http2_memory import ECHO, LIMITS, EchoService, frame
from structlog.testing import capture_logs

from registry.http2 import protocol as protocol_module
from registry.http2.lifetime import KEEPALIVE_INTERVAL
from registry.http2.listener import Http2Listener
from registry.http2.protocol import MAX_EARLY, READ_BUFFER, Http2Protocol


class Wire(asyncio.Transport):
    """A transport in memory."""

    def __init__(self, peer: str = "203.0.113.7") -> None:
        super().__init__({"peername": (peer, 4711)})
        self.sent = bytearray()
        self.reading = True
        self.ended = ""
        self.eof = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take what is sent."""
        self.sent += data

    def pause_reading(self) -> None:
        """Have nothing read."""
        self.reading = False

    def resume_reading(self) -> None:
        """Have it read again."""
        self.reading = True

    def can_write_eof(self) -> bool:
        """Be of TCP."""
        return True

    def write_eof(self) -> None:
        """Note the end of one direction."""
        self.eof = True

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return bool(self.ended)

    def close(self) -> None:
        """Note the end."""
        self.ended = "closed"

    def abort(self) -> None:
        """Note the cut."""
        self.ended = "aborted"


class Fixture:
    """A connection of a listener, and the client of it."""

    def __init__(self, peer: str = "203.0.113.7") -> None:
        self.service = EchoService()
        self.listener = Http2Listener(self.service, LIMITS, 10)
        self.connection: Http2Protocol = self.listener.make_protocol()
        self.wire = Wire(peer)
        self.connection.connection_made(self.wire)
        self.client = H2Connection(H2Configuration(client_side=True))
        self.client.initiate_connection()
        fields = {":method": "POST", ":scheme": "http", ":path": ECHO, ":authority": "r"}
        self.client.send_headers(1, [*fields.items(), ("content-type", "application/grpc")])

    def receive(self, data: bytes) -> None:
        """Have bytes read, as many at a time as the connection wants."""
        while data:
            assert self.wire.reading
            buffer = self.connection.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.connection.buffer_updated(size)
            data = data[size:]

    async def begin(self) -> None:
        """Have the call opened."""
        self.receive(self.client.data_to_send())
        await turns()
        assert len(self.service.calls) == 1


async def turns() -> None:
    """Let some turns of the loop pass."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def fixture() -> AsyncIterator[Fixture]:
    """A new connection."""
    made = Fixture()
    yield made
    if not made.wire.ended:
        made.connection.connection_lost(None)


async def test_addresses_are_those_of_the_network() -> None:
    """A listener on all addresses shows IPv4 clients as IPv6; networks and grants have the IPv4 address."""
    mapped = Fixture("::ffff:10.0.0.9")
    await mapped.begin()
    assert mapped.service.peers[0].address == "10.0.0.9"
    mapped.connection.connection_lost(None)


async def test_a_connection_reads_little_before_its_turn(fixture: Fixture) -> None:
    """In a storm the rest waits in the kernel, and is read when its turn has come."""
    assert len(fixture.connection.get_buffer(-1)) == MAX_EARLY
    data = fixture.client.data_to_send()
    fixture.receive(data[:100])
    assert (fixture.wire.reading, bytes(fixture.wire.sent)) == (False, b"")
    await turns()
    assert (fixture.wire.reading, bool(fixture.wire.sent)) == (True, True)
    assert len(fixture.connection.get_buffer(-1)) == READ_BUFFER
    fixture.receive(data[100:])
    await turns()
    assert len(fixture.service.calls) == 1


async def test_messages_are_not_mixed_up_by_the_shared_buffer(fixture: Fixture) -> None:
    """What a connection keeps of the buffer is a copy: others write into it in between."""
    await fixture.begin()
    other = Fixture()
    await other.begin()
    message = bytes(range(256)) * 60
    fixture.client.send_data(1, frame(message)[:16_000])
    data = fixture.client.data_to_send()
    fixture.receive(data[:10_000])
    fixture.listener.read_buffer[:] = bytes(READ_BUFFER)
    fixture.receive(data[10_000:])
    await turns()
    assert fixture.service.calls[0].received == [message]
    other.connection.connection_lost(None)


async def test_what_is_too_much_at_once_waits_in_the_kernel(fixture: Fixture) -> None:
    """Frames are read 64 in a turn; meanwhile no more than 256 kB are taken from the kernel."""
    await fixture.begin()
    pings = (bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)) * 3_000
    fixture.receive(pings)
    assert fixture.wire.sent.count(bytes((0, 0, 8, 6, 1))) == 64
    await turns()
    assert 64 < fixture.wire.sent.count(bytes((0, 0, 8, 6, 1))) < 3_000
    for _ in range(10):
        await turns()
    assert fixture.wire.sent.count(bytes((0, 0, 8, 6, 1))) == 3_000
    assert fixture.wire.reading


async def test_a_full_transport_gets_no_more_data(fixture: Fixture) -> None:
    """pause_writing() stops streams, and resume_writing() lets them go on."""
    await fixture.begin()
    fixture.connection.pause_writing()
    fixture.service.calls[0].push(b"hello")
    await turns()
    assert b"hello" not in fixture.wire.sent
    fixture.connection.resume_writing()
    await turns()
    assert b"hello" in fixture.wire.sent


async def test_the_last_frames_get_time_to_arrive(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends takes and drops what comes for a moment; then it is closed."""
    monkeypatch.setattr(protocol_module, "LINGER", 0.05)
    await fixture.begin()
    fixture.connection.drain(0.0, 0.0, "shutdown")
    await turns()
    assert (fixture.wire.eof, fixture.wire.is_closing()) == (True, False)
    fixture.receive(bytes(100))
    await asyncio.sleep(0.2)
    assert fixture.wire.ended == "closed"
    fixture.connection.connection_lost(None)
    assert fixture.service.calls[0].closed == 1


async def test_a_connection_without_a_byte_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that connects and says nothing costs a descriptor for ten seconds at most."""
    monkeypatch.setattr(protocol_module, "PREFACE_TIMEOUT", 0.01)
    silent = Fixture()
    await asyncio.sleep(0.1)
    assert silent.wire.ended == "aborted"
    silent.connection.connection_lost(None)


async def test_a_client_that_waits_for_its_turn_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a storm a connection may wait for longer than a silent one may live."""
    monkeypatch.setattr(protocol_module, "PREFACE_TIMEOUT", 0.01)
    waiting = Fixture()
    monkeypatch.setattr(waiting.listener.turns, "add", lambda _: None)
    waiting.receive(waiting.client.data_to_send()[:MAX_EARLY])
    await asyncio.sleep(0.1)
    assert not waiting.wire.ended
    waiting.connection.connection_lost(None)


async def test_a_process_that_was_away_reads_before_it_judges(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute in which the process did not run, answers to PINGs wait to be read."""
    await fixture.begin()
    connection = fixture.connection._connection
    assert connection is not None
    now = time.monotonic()
    connection.on_time(now + KEEPALIVE_INTERVAL)
    fixture.connection._timer_at = now
    monkeypatch.setattr(time, "monotonic", lambda: now + KEEPALIVE_INTERVAL + 60)
    fixture.connection._on_time()
    assert fixture.listener.count.open == 1
    fixture.connection._on_time()
    assert connection.ended == "keepalive"
    fixture.connection.connection_lost(None)


async def test_the_count_of_a_peer_ends_with_its_connection(fixture: Fixture) -> None:
    """The acceptor has the connection tell when it is lost."""
    ended: list[bool] = []
    fixture.connection.on_lost = lambda: ended.append(True)
    await fixture.begin()
    fixture.connection.connection_lost(None)
    fixture.wire.ended = "closed"
    assert ended == [True]
    assert fixture.listener.count.open == 0


async def test_nothing_of_a_connection_is_left_to_the_garbage_collector() -> None:
    """Collections are rare, and 10,000 clients that come back would be 50 MB of cycles until the next one."""
    gc.collect()
    gc.disable()
    try:
        lost = Fixture()
        await lost.begin()
        lost.service.calls[0].push(b"hello")
        await turns()
        lost.service.calls[0].push(b"never sent")
        connection = lost.connection._connection
        assert connection is not None
        left = [weakref.ref(each) for each in (connection._h2, connection._h2.streams[1])]
        del connection
        lost.connection.connection_lost(None)
        await turns()
        lost.service.calls.clear()
        assert [each for each in left if each() is not None] == []
    finally:
        gc.enable()


async def test_room_is_made_of_idle_connections(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a stream is closed when descriptors run out; one with a stream stays."""
    assert fixture.listener.make_room(5) == 0
    monkeypatch.setattr("registry.http2.listener.MIN_IDLE", 0.0)
    await fixture.begin()
    assert fixture.listener.make_room(5) == 0
    fixture.client.reset_stream(1)
    fixture.receive(fixture.client.data_to_send())
    await turns()
    assert fixture.listener.make_room(5) == 1
    assert fixture.wire.ended == "closed"
    fixture.connection.connection_lost(None)


async def test_what_a_client_did_wrong_is_logged_once_a_second() -> None:
    """With its address: it comes again for ever, keeps old endpoints, and nothing else says who it is."""
    made = Fixture()
    await made.begin()
    with capture_logs() as logged:
        made.client.send_data(1, b"\x00" + (10 * 2**20).to_bytes(4, "big"))
        made.receive(made.client.data_to_send())
        await turns()
        made.connection.connection_lost(None)
        for _ in range(5):
            made.listener.on_fault("203.0.113.8", "flood", "too many frames")
    assert [(each["event"], each["peer"], each["reason"]) for each in logged] == [
        ("stream_connection_refused", "203.0.113.7", "oversized")
    ]
    assert "REGISTRY_MAX_BODY" in logged[0]["error"]
