"""A TCP port in front of a registry that works, refuses, hangs, or answers 503: what an outage looks like to others."""

import asyncio
import contextlib
import enum
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

from harness.process import free_port

_CHUNK = 65_536
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Condition(enum.Enum):
    """The condition of the registry, as its clients see it."""

    UP = "up"
    REFUSING = "refusing connections"
    FROZEN = "accepting connections, and silent without a reset"
    BUSY = "answering 503"


class Gate:
    """Listens on loopback and passes bytes on to a port, while its condition lets it.

    Attributes:
        port: where it listens.
        target: the port that connections are passed on to.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._condition = Condition.UP
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL of the registry behind it."""
        return f"http://127.0.0.1:{self.port}"

    def turn(self, condition: Condition) -> None:
        """Change the condition; connections that stand end, or hang where everything does."""
        self._do(self._turn(condition))

    async def _turn(self, condition: Condition) -> None:
        self._condition = condition
        if condition is not Condition.FROZEN:
            for task in list(self._tasks):
                task.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        if condition is not Condition.REFUSING:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
                if self._condition is Condition.BUSY:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(_BUSY)
                    await writer.drain()
                else:
                    await self._pass(reader, writer)
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._until_flowing()
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            flows = [
                asyncio.create_task(self._flow(reader, inner_writer)),
                asyncio.create_task(self._flow(inner_reader, writer)),
            ]
            try:
                await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for flow in flows:
                    flow.cancel()
        finally:
            inner_writer.close()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._until_flowing()
                writer.write(data)
                await writer.drain()

    async def _until_flowing(self) -> None:
        while self._condition is Condition.FROZEN:
            await asyncio.sleep(0.05)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self.turn(Condition.UP)

    def stop(self) -> None:
        """Close everything."""
        self.turn(Condition.REFUSING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextlib.contextmanager
def gate(target: int) -> Iterator[Gate]:
    """Run a gate in front of a port for the length of the block."""
    made = Gate(target)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def listens(port: int) -> bool:
    """Tell whether a port of this machine accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
