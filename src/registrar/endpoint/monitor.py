"""One endpoint under observation: the tasks of its checks, and what they have seen so far."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from registrar.checks.check import Check, CheckTarget
from registrar.checks.inbox import Inbox
from registrar.checks.result import Outcome, Result
from registrar.checks.schedule import repeat
from registrar.checks.threshold import State
from registrar.endpoint.endpoint import Endpoint
from registrar.watchdog import Watchdog

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class MonitoredCheck:
    """One check of the endpoint.

    Attributes:
        kind: its type, as in the configuration.
        check: what is asked.
        counts: results by outcome.
        last: the newest result and its moment on the loop's clock, or None.
        pulse: by when the next result has to be there.
    """

    def __init__(self, kind: str, check: Check) -> None:
        self.kind = kind
        self.check = check
        self.counts: Counter[Outcome] = Counter()
        self.last: tuple[float, Result] | None = None
        self.watchdog = Watchdog()


class Monitor:
    """Checks an endpoint while it is started.

    Args:
        endpoint: takes in the results.
        inbox: where push checks get their states from.
        changed: called when what is to be published changed.

    Attributes:
        endpoint: as above.
        sent: the endpoint whose state is sent: this one, or until its checks have a verdict the one it succeeds.
        checks: its checks, in the order of its settings.
        transitions: how often each state was entered.
    """

    def __init__(self, endpoint: Endpoint, inbox: Inbox, changed: Callable[[], None]) -> None:
        self.endpoint = self.sent = endpoint
        self.checks: list[MonitoredCheck] = []
        self.transitions: Counter[State] = Counter()
        self._state = endpoint.state
        self._inbox = inbox
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Make the checks from their settings and begin with them."""
        where = self.endpoint.location
        target = CheckTarget(where.address, where.port, self.endpoint.service.service, self._inbox)
        for index, options in enumerate(self.endpoint.service.checks):
            self.checks.append(MonitoredCheck(str(options.__struct_config__.tag), options.check(target)))
            self._tasks.append(tasks.create_task(self._check(index), name=f"check {self.endpoint.name} {index}"))

    def stop(self) -> None:
        """End the checks."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for probe in self.checks:
            self._inbox.forget(probe.check)

    def count_transition(self) -> None:
        """Count the endpoint's state if it is another than before."""
        if self.endpoint.state is not self._state:
            self._state = self.endpoint.state
            self.transitions[self._state] += 1

    @property
    def watchdogs(self) -> Mapping[str, Watchdog]:
        """The signs of life of the checks that are running."""
        return {task.get_name(): probe.watchdog for task, probe in zip(self._tasks, self.checks, strict=False)}

    async def _check(self, index: int) -> None:
        options, probe = self.endpoint.service.checks[index], self.checks[index]
        within = options.interval + options.probe_timeout
        probe.watchdog.expect(self._loop.time(), within)
        await repeat(probe.check, options, partial(self._observe, index, within), partial(self._starting, index))

    def _starting(self, index: int) -> bool:
        return self.endpoint.starting(index, self._loop.time())

    def _observe(self, index: int, within: float, result: Result) -> None:
        now, probe, endpoint = self._loop.time(), self.checks[index], self.endpoint
        probe.watchdog.expect(now, within)
        probe.counts[result.outcome] += 1
        probe.last = (now, result)
        changed = endpoint.observe(index, result, now)
        self.count_transition()
        if changed:
            log.info(
                "health_changed",
                service=endpoint.service.service,
                endpoint=endpoint.name,
                state=endpoint.state,
                detail=endpoint.detail,
                suppressed=endpoint.suppressed,
            )
            self._changed()
