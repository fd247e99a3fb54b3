"""What a thing looked like over time, and a load that runs beside a test."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import httpx

from registry_demo.traffic import RequestOutcome, Traffic

State = TypeVar("State")


class Watch(Generic[State]):
    """Each state that ``read`` returned and that differed from the one before, with its moment."""

    def __init__(self, read: Callable[[], State], every: float) -> None:
        self.seen: list[tuple[float, State]] = []
        self._read = read
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(10)

    def states(self) -> list[State]:
        """Return the states in their order."""
        return [state for _, state in self.seen]

    def first(self, holds: Callable[[State], bool], since: float = 0.0) -> float | None:
        """Return the first moment from ``since`` on whose state held."""
        return next((at for at, state in self.seen if at >= since and holds(state)), None)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self._look()
        # What was there at the end, too.
        self._look()

    def _look(self) -> None:
        # A registry that is away, or not ready, has no state.
        with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
            state = self._read()
            if not self.seen or self.seen[-1][1] != state:
                self.seen.append((time.monotonic(), state))


@contextlib.contextmanager
def watch(read: Callable[[], State], every: float = 0.05) -> Iterator[Watch[State]]:
    """Watch for the length of the block."""
    started = Watch(read, every)
    started.start()
    try:
        yield started
    finally:
        started.stop()


class Load:
    """A steady load through Envoy in a thread of its own; its outcomes are read when the block is over."""

    def __init__(self, port: int, rate: float) -> None:
        self.traffic = Traffic(port, rate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def sent(self) -> int:
        """How many requests are over."""
        return self.traffic.sent

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self.traffic.failed

    def failures(self) -> list[RequestOutcome]:
        """Return the requests that failed."""
        return [outcome for outcome in list(self.traffic.outcomes) if outcome.failure]

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once the requests under way are over."""
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(15)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError), contextlib.closing(self._loop):
            self._task = self._loop.create_task(self.traffic.run())
            self._loop.run_until_complete(self._task)


@contextlib.contextmanager
def load(port: int, rate: float = 150.0) -> Iterator[Load]:
    """Send requests for the length of the block."""
    started = Load(port, rate)
    started.start()
    try:
        yield started
    finally:
        started.stop()
