"""Signals: the first SIGTERM or SIGINT asks to stop, the second not to wait for it, SIGHUP to read again."""

import asyncio
import signal
from collections.abc import Callable
from typing import Self

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Listens while it is entered.

    Attributes:
        stop: set by the first signal.
        hurry: set by the second.
        reload: set by each SIGHUP, for the reader to clear.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.reload = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard: set[int] = set()

    def __enter__(self) -> Self:
        for number in _STOP:
            self.on(number, self._received)
        self.on(signal.SIGHUP, self.reload.set)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._heard:
            self._loop.remove_signal_handler(number)

    def on(self, number: int, do: Callable[[], None]) -> None:
        """Call ``do`` at each signal of that number from now on, in place of what was done before."""
        self._loop.add_signal_handler(number, do)
        self._heard.add(number)

    def _received(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()
