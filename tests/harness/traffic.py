"""A steady load through an Envoy, in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from registry_demo.traffic import Traffic


@contextlib.contextmanager
def traffic(port: int, rate: float = 150.0) -> Iterator[Traffic]:
    """Send ``rate`` requests a second to ``port`` for the length of the block; the last ones end before it does."""
    load = Traffic(port, rate)
    started = threading.Event()
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def run() -> None:
        task = asyncio.create_task(load.run())
        stop.append((asyncio.get_running_loop(), task))
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="traffic")
    thread.start()
    started.wait(5)
    try:
        yield load
    finally:
        loop, task = stop[0]
        loop.call_soon_threadsafe(task.cancel)
        thread.join(15)
