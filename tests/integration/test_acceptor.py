"""The acceptor on real sockets: storms, TLS, descriptors that run out, and a stop in the middle of it all."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop
from harness.probing import Authority
from harness.process import eventually, free_port, running
from harness.registry import Registry, registry
from harness.scarcity import few_descriptors
from harness.storm import storm

from registry.core.peer_limit import PeerSlots, ReachedLimits
from registry.http import acceptor
from registry.http import protocol_selftest as selftest
from registry.http.accepting_server import AcceptingServer, Listener
from registry.http.acceptor import Acceptor
from registry.http.peer_connections import PeerConnections
from registry.metrics import ACCEPTS_REFUSED, CONNECTIONS_FAILED

LOOPS = pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]
REQUEST = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n"


def play(new_loop: NewLoop, test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop of its own, and fail for what the loop had to report."""
    reported: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: reported.append(context))
        runner.run(asyncio.wait_for(test, 20))
        runner.run(Greeting.close_all())
    assert reported == []


class Greeting(asyncio.Protocol):
    """Notes in which turn of the loop it got its connection, and sends a byte."""

    _open: ClassVar[set[asyncio.Transport]] = set()

    def __init__(self, opened: list[int], turn: Callable[[], int] = int) -> None:
        self._opened = opened
        self._turn = turn

    @classmethod
    async def close_all(cls) -> None:
        """Close every connection that was made."""
        for transport in list(cls._open):
            transport.abort()
        await until(lambda: not cls._open)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of a stream
        """Note it."""
        self._opened.append(self._turn())
        self._open.add(transport)
        self._transport = transport
        transport.write(b"!")

    def connection_lost(self, _error: Exception | None) -> None:
        """Note that it is closed."""
        self._open.discard(self._transport)


class Contexts:
    """The TLS contexts of a listener, which stay the same."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def listener_context(self) -> ssl.SSLContext:
        """Return the same one."""
        return self.context


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._next()

    def _next(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def stop(self) -> None:
        """Count no more."""
        self._handle.cancel()


@contextlib.contextmanager
def listening(kind: type[socket.socket] = socket.socket) -> Iterator[socket.socket]:
    """Listen on a port of loopback."""
    with kind(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(acceptor.BACKLOG)
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def connected(listener: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    """Connect so many clients; the kernel queues them."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(listener.getsockname(), 5)) for _ in range(count)]


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


class Connects:
    """Counts the clients of a storm that are connected."""

    count = 0

    def add(self) -> None:
        """Count one more."""
        self.count += 1


def closed(client: socket.socket) -> bool:
    """Tell whether the other end closed, in whatever way."""
    client.settimeout(5)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def failed() -> float:
    """Return how many connections failed before they were open."""
    return float(CONNECTIONS_FAILED._value.get())


@LOOPS
def test_a_turn_takes_many_connections_and_leaves_time_for_others(new_loop: NewLoop) -> None:
    """Three hundred that wait are open after a few turns, and no turn took more than 128."""

    async def test() -> None:
        opened: list[int] = []
        with listening() as listener, connected(listener, 300):
            turns = Turns()
            found = Acceptor(listener, lambda: Greeting(opened, lambda: turns.count))
            found.start()
            await until(lambda: len(opened) == 300)
            turns.stop()
            await found.stop()
        assert max(Counter(opened).values()) <= acceptor.MAX_PLAIN_PER_TURN
        assert max(opened) - min(opened) < 20

    play(new_loop, test())


def test_a_turn_takes_few_tls_connections(tmp_path: Path) -> None:
    """Their handshakes cost a hundred times as much, so that a turn begins eight at most."""
    context = Contexts(Authority(tmp_path).server("127.0.0.1"))

    async def test() -> None:
        made: list[int] = []
        with listening() as listener, connected(listener, 40):
            turns = Turns()

            def make() -> asyncio.Protocol:
                made.append(turns.count)
                return Greeting([])

            found = Acceptor(listener, make, context)
            found.start()
            await until(lambda: len(made) == 40)
            turns.stop()
            # Their clients say nothing, and are not waited for here.
            await found._cancel_opening()
            await found.stop()
        assert max(Counter(made).values()) <= acceptor.MAX_TLS_PER_TURN

    play(uvloop.new_event_loop, test())


@LOOPS
def test_a_tls_connection_is_served(new_loop: NewLoop, tmp_path: Path) -> None:
    """After its handshake a client hears what the protocol sends."""
    authority = Authority(tmp_path)

    async def test() -> None:
        opened: list[int] = []
        with listening() as listener:
            found = Acceptor(listener, lambda: Greeting(opened), Contexts(authority.server("127.0.0.1")))
            found.start()
            trusting = ssl.create_default_context(cafile=authority.ca)
            reader, writer = await asyncio.open_connection(*listener.getsockname(), ssl=trusting)
            assert await reader.readexactly(1) == b"!"
            writer.close()
            await writer.wait_closed()
            await found.stop()

    play(new_loop, test())


@LOOPS
def test_handshakes_that_fail_are_counted(new_loop: NewLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that speaks no TLS, one that hangs up, one that says nothing: each is closed and counted, none reported."""
    monkeypatch.setattr(acceptor, "HANDSHAKE_TIMEOUT", 0.3)
    context = Contexts(Authority(tmp_path).server("127.0.0.1"))

    async def test() -> None:
        before = failed()
        with listening() as listener, connected(listener, 3) as (plain, gone, silent):
            found = Acceptor(listener, lambda: Greeting([]), context)
            found.start()
            plain.sendall(REQUEST)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
            await until(lambda: failed() == before + 3)
            assert closed(silent)
            await found.stop()

    play(new_loop, test())


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> PeerSlots:
    """Slots for which loopback is a peer as any other: it has no limit otherwise."""
    monkeypatch.setattr("registry.core.peer_limit.peer_of_address", lambda address, _exempt: address)
    return PeerSlots()


@LOOPS
def test_a_peer_has_so_many_connections(new_loop: NewLoop, peers: PeerSlots) -> None:
    """One more is closed at once and noted; when one of its own ends, however it ends, another one is taken."""
    reached = ReachedLimits()
    config = selftest._config(selftest.select_protocol("fast"))

    async def test() -> None:
        with listening() as listener:
            limit = PeerConnections(peers, 3, reached)
            server = AcceptingServer(config, [Listener(listener)], peers=limit)
            server.lifespan = config.lifespan_class(config)
            await server.startup()
            address = listener.getsockname()
            streams = [await asyncio.open_connection(*address) for _ in range(3)]
            for reader, writer in streams:
                writer.write(REQUEST)
                assert await reader.readuntil(b"\r\n\r\n")
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*address)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            assert reached.reached["connections"].count == 2
            streams[0][1].close()
            streams[1][1].transport.abort()
            await until(lambda: peers._held == {"127.0.0.1": 1})
            reader, writer = await asyncio.open_connection(*address)
            writer.write(REQUEST)
            assert await reader.readuntil(b"\r\n\r\n")
            writer.close()
            streams[2][1].close()
            await until(lambda: not peers._held)
            await server.shutdown()

    play(new_loop, test())


def test_a_handshake_that_fails_is_no_connection_of_its_peer(
    peers: PeerSlots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that is given up; otherwise a peer would be locked out by what is closed long since."""
    monkeypatch.setattr(acceptor, "MAX_HANDSHAKES", 4)
    context = Contexts(Authority(tmp_path).server("127.0.0.1"))

    async def test() -> None:
        with listening() as listener:
            found = Acceptor(listener, lambda: Greeting([]), context, peers=PeerConnections(peers, 8, ReachedLimits()))
            found.start()
            with connected(listener, 8) as silent:
                await until(lambda: peers._held == {"127.0.0.1": 4})
                silent[7].sendall(b"GET / HTTP/1.1\r\n\r\n")
                await until(lambda: peers._held == {"127.0.0.1": 3})
            await until(lambda: not peers._held)
            await found.stop()

    play(uvloop.new_event_loop, test())


@LOOPS
def test_a_defect_of_a_protocol_ends_its_connection_alone(
    new_loop: NewLoop, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is counted, the log has its traceback, its client is not left waiting, and the next one is served."""

    async def test() -> None:
        before = failed()
        opened: list[int] = []
        protocols = iter([None, Greeting(opened)])

        def make() -> asyncio.Protocol:
            protocol = next(protocols)
            if protocol is None:
                raise RuntimeError("no protocol today")
            return protocol

        with listening() as listener, connected(listener, 1) as (first,):
            found = Acceptor(listener, make)
            found.start()
            await until(lambda: failed() == before + 1)
            assert closed(first)
            with connected(listener, 1):
                await until(lambda: len(opened) == 1)
            await found.stop()

    play(new_loop, test())
    assert "no protocol today" in capsys.readouterr().out


@LOOPS
def test_when_descriptors_run_out_it_waits_and_goes_on(new_loop: NewLoop, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel is asked ten times a second and not as fast as the processor can; what waits is served afterwards."""

    async def test() -> None:
        opened: list[int] = []
        before = ACCEPTS_REFUSED._value.get()
        with listening() as listener, connected(listener, 3):
            found = Acceptor(listener, lambda: Greeting(opened))
            with few_descriptors(spare=1):
                found.start()
                await until(lambda: found.refused_since is not None)
                used = time.process_time()
                await asyncio.sleep(1)
                used = time.process_time() - used
            assert len(opened) == 1
            assert 8 <= ACCEPTS_REFUSED._value.get() - before <= 12
            assert used < 0.3
            await until(lambda: len(opened) == 3)
            await until(lambda: found.refused_since is None)
            await found.stop()

    play(new_loop, test())
    told = capsys.readouterr().out
    assert told.count("accepts_refused") == told.count("accepts_resumed") == 1
    assert "Too many open files" in told


@LOOPS
def test_connections_leave_some_descriptors(new_loop: NewLoop) -> None:
    """A process that could not connect to PostgreSQL any more would accept heartbeats that it cannot store."""

    async def test() -> None:
        opened: list[int] = []
        asked: list[int] = []
        with listening() as listener, connected(listener, 6):
            found = Acceptor(listener, lambda: Greeting(opened), spare=5, make_room=asked.append)
            # The loop opens its last descriptor of its own in its first turn.
            await asyncio.sleep(0.01)
            with few_descriptors(spare=8):
                found.start()
                await until(lambda: found.refused_since is not None)
                assert len(opened) == 3
                # The log that tells of it may have opened one.
                own = [os.dup(0) for _ in range(4)]
                for one in own:
                    os.close(one)
            assert asked[0] == 3
            await until(lambda: len(opened) == 6)
            await found.stop()

    play(new_loop, test())


class Aborting(socket.socket):
    """A listener with one connection in its queue that its client aborted; Linux passes such errors on rarely."""

    error = errno.ECONNABORTED
    left = 1

    def accept(self) -> tuple[socket.socket, Any]:
        """Report the aborted one first."""
        if self.left:
            self.left -= 1
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH])
def test_an_aborted_connection_does_not_hold_up_the_next(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The acceptor goes on at once, without the pause after a refusal, and counts none."""
    monkeypatch.setattr(acceptor, "REFUSED_PAUSE", 60.0)

    async def test() -> None:
        opened: list[int] = []
        before = ACCEPTS_REFUSED._value.get()
        with listening(Aborting) as listener, connected(listener, 1):
            assert isinstance(listener, Aborting)
            listener.error = error
            found = Acceptor(listener, lambda: Greeting(opened))
            found.start()
            await until(lambda: len(opened) == 1)
            await found.stop()
        assert ACCEPTS_REFUSED._value.get() == before

    play(asyncio.new_event_loop, test())


@LOOPS
def test_a_stop_serves_what_is_queued_and_refuses_what_comes_later(new_loop: NewLoop) -> None:
    """Connections that the kernel holds get their protocol; after the stop nothing listens, also when stopped twice."""

    async def test() -> None:
        opened: list[int] = []
        with listening() as listener, connected(listener, 200):
            address = listener.getsockname()
            found = Acceptor(listener, lambda: Greeting(opened))
            await found.stop()
            assert len(opened) == 200
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 5)
            await found.stop()

    play(new_loop, test())


@LOOPS
def test_a_stop_waits_two_seconds_for_handshakes(new_loop: NewLoop, tmp_path: Path) -> None:
    """Who says nothing is then cut off."""
    context = Contexts(Authority(tmp_path).server("127.0.0.1"))

    async def test() -> None:
        with listening() as listener, connected(listener, 2) as clients:
            found = Acceptor(listener, lambda: Greeting([]), context)
            found.start()
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            await found.stop()
            assert 1.9 < time.monotonic() - begun < 4
            assert all(map(closed, clients))

    play(new_loop, test())


def test_a_stop_while_descriptors_are_out_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """What is queued cannot be taken then; the stop does not wait for it, and reads no more afterwards."""

    async def test() -> None:
        with listening() as listener, connected(listener, 2):
            found = Acceptor(listener, lambda: Greeting([]))
            with few_descriptors(spare=0):
                found.start()
                await until(lambda: found.refused_since is not None)
                begun = time.monotonic()
                await found.stop()
                assert time.monotonic() - begun < 1
            await asyncio.sleep(0.2)
            assert listener.fileno() == -1

    play(uvloop.new_event_loop, test())


@pytest.mark.parametrize("late", [0.0, 0.15], ids=["at once", "later"])
def test_sigterm_amid_connects_resets_nobody(database: str, workplace: Path, late: float) -> None:
    """Of 400 clients that connect meanwhile each is answered, or refused before it sent anything."""
    with registry(database, workplace) as found:
        outcomes = asyncio.run(storm_and_stop(found, late))
        assert found.process.wait(15) == 0
    assert set(outcomes) <= {"answered", "refused"}, outcomes
    assert outcomes["answered"] > 50


async def storm_and_stop(found: Registry, late: float) -> Counter[str]:
    """Stop a registry in the middle of 400 connects."""
    connects = Connects()
    clients = asyncio.create_task(storm(found.port, 400, REQUEST, spread=0.2, late=late, on_connect=connects.add))
    await until(lambda: connects.count >= 80, within=15)
    found.process.send_signal(signal.SIGTERM)
    return await clients


def test_a_stop_amid_tls_connects_resets_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on the acceptor itself, with TLS; a slow machine's handshakes have more than the usual two seconds."""
    monkeypatch.setattr(acceptor, "STOP_TIMEOUT", 12.0)
    monkeypatch.setattr("registry.http.protocol_limits._FIRST_REQUEST_TIMEOUT", 12.0)
    authority = Authority(tmp_path)
    config = selftest._config(selftest.select_protocol("fast"))

    async def test() -> None:
        with listening() as listener:
            port = listener.getsockname()[1]
            server = AcceptingServer(config, [Listener(listener, Contexts(authority.server("127.0.0.1")))])
            server.lifespan = config.lifespan_class(config)
            await server.startup()
            trusting = ssl.create_default_context(cafile=authority.ca)
            request = b"GET /selftest HTTP/1.1\r\nhost: test\r\n\r\n"
            connects = Connects()
            clients = asyncio.create_task(storm(port, 400, request, spread=0.4, tls=trusting, on_connect=connects.add))
            await until(lambda: connects.count >= 40, within=15)
            server.server_state.default_headers = [(b"connection", b"close")]
            await server.shutdown()
            outcomes = await clients
        assert set(outcomes) <= {"answered", "refused"}, outcomes
        assert outcomes["answered"] > 20

    play(uvloop.new_event_loop, test())


@pytest.mark.parametrize("workers", [1, 2])
def test_each_worker_accepts_on_a_socket_of_its_own(database: str, workplace: Path, workers: int) -> None:
    """2,000 connects at once are all answered, over every worker."""
    with registry(database, workplace, workers=workers) as found:
        outcomes = asyncio.run(storm(found.port, 500, REQUEST))
    assert outcomes == {"answered": 500}


UNFIT = """
import uvicorn

started = uvicorn.Server.startup


async def startup(self, sockets=None):
    if not sockets:
        raise ValueError("this uvicorn listens itself")
    await started(self, sockets)


uvicorn.Server.startup = startup

if __name__ == "__main__":
    from registry.cli import main

    main()
"""


def test_a_uvicorn_that_does_not_fit_is_served_by_libuv(database: str, tmp_path: Path) -> None:
    """When it does not start without sockets, the log says so, and libuv accepts as it did before."""
    program, log, port = tmp_path / "unfit.py", tmp_path / "log", free_port()
    program.write_text(UNFIT)
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env |= {"REGISTRY_LISTEN": f"127.0.0.1:{port}", "REGISTRY_DATABASE_URL": database}
    env |= {"REGISTRY_DATA_DIR": str(tmp_path)}
    with running([sys.executable, str(program), "serve"], env=env, log=log) as process:
        found = Registry(f"http://127.0.0.1:{port}", process, log)
        with contextlib.closing(found.client):
            eventually(found.ready, within=30, said=log.read_text)
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
    told = log.read_text()
    assert "acceptor_unfit" in told
    assert "this uvicorn listens itself" in told
    assert "one connection a turn" in told
