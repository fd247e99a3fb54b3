"""Periodic jobs: each runs in a task of its own, at intervals of monotonic time.

Setting the wall clock, or its time zone, has no effect. A scheduler whose next run is a time of day would wait for an
hour when the clock is set back by one.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from registry.errors import UnavailableError

log = structlog.get_logger()

Work = Callable[[], Awaitable[None]]

OVERDUE_INTERVALS = 10.0
"""Intervals after which a pass that still runs is logged as overdue."""
MIN_OVERDUE = 30.0
"""Seconds after which a pass is logged as overdue at the earliest."""


def next_pass(due: float, interval: float, now: float) -> float:
    """Return the time of the pass after the one of ``due``: an interval later, or now if that has passed."""
    return max(due + interval, now)


class Periodic:
    """The periodic jobs of one process.

    The passes of a job never overlap. A pass that fails is logged, once for each reason in a row (in one line when
    PostgreSQL is away, else with its traceback), and the next pass begins on time. A pass that takes longer than the
    interval is followed by the next one at once; missed passes are not repeated.
    """

    def __init__(self) -> None:
        # A task for each job, until ``stop``.
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, seconds: float, name: str, work: Work) -> None:
        """Repeat ``work`` every ``seconds``, for the first time after one interval."""
        self._tasks.append(asyncio.create_task(_Job(name, seconds, work).run(), name=name))

    async def stop(self) -> None:
        """Cancel all jobs, also in the middle of a pass, and wait until they have ended."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class _Job:
    """One periodic job.

    Args:
        name: its name in the log.
        interval: seconds from the beginning of one pass to that of the next.
        work: one pass.
    """

    def __init__(self, name: str, interval: float, work: Work) -> None:
        self._name = name
        self._interval = interval
        self._work = work
        # The reason of the last pass's failure; None: it did not fail.
        self._failure: str | None = None

    async def run(self) -> None:
        """Repeat the work until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not _is_cancelled():
            due = next_pass(due, self._interval, loop.time())
            await asyncio.sleep(due - loop.time())
            await self._pass()

    async def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        patience = max(MIN_OVERDUE, OVERDUE_INTERVALS * self._interval)
        overdue = loop.call_later(patience, self._note_overdue, patience)
        try:
            await self._work()
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            # Something that the pass awaited was cancelled, and not the job itself.
            self._note_failure(error)
        except Exception as error:  # noqa: BLE001  # the next pass may succeed, whatever the error is
            self._note_failure(error)
        else:
            self._note_success()
        finally:
            overdue.cancel()

    def _note_overdue(self, seconds: float) -> None:
        log.warning("job_overdue", job=self._name, running_for=seconds)

    def _note_failure(self, error: BaseException) -> None:
        reason = repr(error)
        if reason != self._failure:
            if isinstance(error, UnavailableError):
                # An outage is no defect: one line is enough.
                log.warning("job_postponed", job=self._name, reason=error.cause)
            else:
                log.error("job_failed", job=self._name, exc_info=error)
        self._failure = reason

    def _note_success(self) -> None:
        if self._failure is not None:
            log.info("job_recovered", job=self._name)
        self._failure = None


def _is_cancelled() -> bool:
    """Return whether the job itself was cancelled, even if the pass raised another error or none."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
