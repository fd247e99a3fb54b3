"""A TCP proxy that can be slow, or half open: connections that stand and carry nothing."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

_CHUNK = 65_536


class Proxy:
    """Passes bytes between its own port and another one, on loopback.

    Attributes:
        delay: seconds that each chunk of bytes takes in each direction.
        port: where it listens.
        target: the port that new connections go to.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.port = 0
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flows: set[_Flow] = set()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        """Close everything."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def drop(self) -> int:
        """Carry nothing any more on the connections that stand, and close none; return how many those are.

        It is what a NAT or a firewall does that has forgotten them; new connections work.
        """
        flows = list(self._flows)
        for flow in flows:
            flow.dropped = True
        return len(flows)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for flow in list(self._flows):
            flow.end()
        while self._flows:
            await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        flow = _Flow(self, (reader, far_writer), (far_reader, writer))
        self._flows.add(flow)
        try:
            await flow.run()
        finally:
            self._flows.discard(flow)


_Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Flow:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, there: _Way, back: _Way) -> None:
        self.dropped = False
        self._proxy = proxy
        self._ways = (there, back)
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Pass bytes until either side closes."""
        self._tasks = [asyncio.create_task(self._pass(*way)) for way in self._ways]
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        # A flow that was dropped does not tell one side that the other one has gone.
        if self.dropped:
            await asyncio.wait(self._tasks)
        self.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self._ways:
            writer.close()

    def end(self) -> None:
        """Stop passing."""
        for task in self._tasks:
            task.cancel()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if not self.dropped:
                    writer.write(chunk)
                    await writer.drain()


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """Run a proxy to a port of loopback for the length of the block."""
    started = Proxy(target)
    started.start()
    try:
        yield started
    finally:
        started.stop()
