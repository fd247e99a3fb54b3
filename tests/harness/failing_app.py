"""An app that fails in the way it is asked to: ``python -m harness.failing_app PORT NAME LOG``, a process of its own.

A request for ``/mode/NAME`` changes how it answers from then on: ``ok``, ``reset``, ``unavailable``, ``slow`` (one
request at a time, 25 ms each, however many wait), ``rejecting`` (as slow, but at most ten wait) or ``long`` (400 ms
each, any number at once). It writes the x-id of each POST that it has begun to the log. At SIGTERM it ends as most apps
do: it closes its port and idle connections.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

WORK_TIME = 0.005
SLOW_WORK_TIME = 0.025
LONG_WORK_TIME = 0.4
MAX_WAITING = 10


class FailingApp:
    """The app's state."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.mode = "ok"
        self.busy = asyncio.Lock()
        self.waiting = 0
        self.idle: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                self.idle.add(writer)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.idle.discard(writer)
                status = await self._status(head)
                if status is None:
                    writer.transport.abort()
                    return
                writer.write(f"HTTP/1.1 {status} x\r\nx-app: {self.name}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        self.idle.discard(writer)
        writer.close()

    async def _status(self, head: str) -> int | None:
        """Return the status of an answer; None for a reset."""
        path = head.split(" ", 2)[1]
        if path.startswith("/mode/"):
            self.mode = path.removeprefix("/mode/")
        if path != "/work":
            return 200
        if self.mode in ("reset", "unavailable"):
            return None if self.mode == "reset" else 503
        self._note(head)
        if self.mode in ("ok", "long"):
            await asyncio.sleep(WORK_TIME if self.mode == "ok" else LONG_WORK_TIME)
            return 200
        return await self._slow_status()

    async def _slow_status(self) -> int:
        if self.mode == "rejecting" and self.waiting >= MAX_WAITING:
            return 503
        self.waiting += 1
        async with self.busy:
            await asyncio.sleep(SLOW_WORK_TIME)
        self.waiting -= 1
        return 200

    def _note(self, head: str) -> None:
        if head.startswith("POST"):
            (number,) = [line[5:] for line in head.split("\r\n") if line.lower().startswith("x-id:")]
            with self.log.open("a") as log:
                log.write(f"{number.strip()}\n")


async def main(port: int, name: str, log: Path) -> None:
    """Serve until SIGTERM."""
    app, stop = FailingApp(name, log), asyncio.Event()
    server = await asyncio.start_server(app.serve, "127.0.0.1", port)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()
    for writer in list(app.idle):
        writer.close()
    # Requests under way are finished.
    await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
