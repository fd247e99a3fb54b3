"""Signs of life: by when each task has to be heard of, and what systemd's watchdog is told of it."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Never

import structlog

from wire.sd_notify import notify

# A machine that swaps, or was frozen for a moment, is slow and not stuck.
_SLACK = 10.0

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class Watchdog:
    """One task's promise."""

    def __init__(self) -> None:
        self._by = math.inf

    def expect(self, now: float, within: float) -> None:
        """The task goes on, and will do so again within that many seconds."""
        self._by = now + within + _SLACK

    def alive(self, now: float) -> bool:
        """Tell whether the promise still holds."""
        return now <= self._by


async def notify_systemd(watchdogs: Callable[[], Mapping[str, Watchdog]], interval: float) -> Never:
    """Tell systemd that all is well, thrice within each ``interval``, as long as every pulse is alive.

    One silent task silences the process: systemd then starts it again, and the lease outlives that.
    """
    loop = asyncio.get_running_loop()
    while True:
        silent = [name for name, watchdog in watchdogs().items() if not watchdog.alive(loop.time())]
        if silent:
            log.error("stuck", tasks=silent)
        else:
            notify("WATCHDOG=1")
        await asyncio.sleep(interval / 3)
