"""Signal handling: the first SIGTERM or SIGINT stops, the second stops at once, SIGHUP reloads the settings.

``registrar.lifecycle.sidecar`` waits for these events, and does what a stop and a reload are.
"""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

from registrar import early_signals

_STOP = (signal.SIGTERM, signal.SIGINT)

_Handler = Callable[[int, FrameType | None], object] | int | None


class Signals:
    """The signal handlers of the running process, installed as a context manager.

    Attributes:
        stop: set by the first SIGTERM or SIGINT.
        stop_now: set by the second one.
        reload: set by each SIGHUP; cleared by the task that reloads.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.stop_now = asyncio.Event()
        self.reload = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # The handlers that were installed before, by signal number; restored on exit.
        self._before: dict[int, _Handler] = {}

    def __enter__(self) -> Self:
        for number in _STOP:
            self.on(number, self._received)
        self.on(signal.SIGHUP, self.reload.set)
        if early_signals.take_over():
            self.reload.set()
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            self._loop.remove_signal_handler(number)
            if before is not None:
                signal.signal(number, before)

    def on(self, number: int, do: Callable[[], None]) -> None:
        """Call ``do`` at each signal of that number from now on, instead of the handler before."""
        before = signal.getsignal(number)
        self._loop.add_signal_handler(number, do)
        self._before.setdefault(number, before)

    def _received(self) -> None:
        (self.stop_now if self.stop.is_set() else self.stop).set()
