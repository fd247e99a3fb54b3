"""SIGTERM and SIGINT: the first asks to stop, the second not to wait for it."""

import asyncio
import signal
from typing import Self

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Listens while it is entered.

    Attributes:
        stop: set by the first signal.
        hurry: set by the second.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        for number in _STOP:
            self._loop.add_signal_handler(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number in _STOP:
            self._loop.remove_signal_handler(number)

    def _received(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()
