"""Watchdog timers of the tasks, and the keep-alive messages for systemd (WatchdogSec in systemd.service)."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Never

from registrar.event_log import EventLogger
from wire.sd_notify import notify

_TOLERANCE = 10.0
"""Seconds that a task may be late: a machine that swaps or was suspended for a moment is slow, not stuck."""

log = EventLogger(__name__)


class Watchdog:
    """The watchdog timer of one task: the task has to reset it before it expires."""

    def __init__(self) -> None:
        # Loop time at which the timer expires; written by the task itself, infinite until its first reset.
        self._expires_at = math.inf

    def reset(self, now: float, within: float) -> None:
        """Reset the timer: the next reset has to come within that many seconds."""
        self._expires_at = now + within + _TOLERANCE

    def alive(self, now: float) -> bool:
        """Tell whether the timer has not expired."""
        return now <= self._expires_at


async def notify_systemd(watchdogs: Callable[[], Mapping[str, Watchdog]], interval: float) -> Never:
    """Send WATCHDOG=1 three times in each ``interval``, as long as every task resets its timer.

    A single stuck task stops the messages. systemd then restarts the process; the leases outlive the restart.
    """
    loop = asyncio.get_running_loop()
    while True:
        stuck = [name for name, watchdog in watchdogs().items() if not watchdog.alive(loop.time())]
        if stuck:
            log.error("task_stuck", tasks=stuck)
        else:
            notify("WATCHDOG=1")
        await asyncio.sleep(interval / 3)
