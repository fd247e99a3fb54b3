"""The monitor of one endpoint: the tasks of its checks, and their results so far."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from registrar.checks.check import Check, CheckTarget
from registrar.checks.inbox import Inbox
from registrar.checks.result import Outcome, Result
from registrar.checks.schedule import repeat
from registrar.checks.threshold import State
from registrar.endpoint.endpoint import Endpoint
from registrar.event_log import EventLogger
from registrar.watchdog import Watchdog

log = EventLogger(__name__)


class MonitoredCheck:
    """One check of the endpoint, with its results so far.

    Attributes:
        kind: the type of the check, as in the configuration.
        check: the check itself.
        counts: the number of results by outcome.
        last: the newest result and its loop time, or None.
        watchdog: expires if the next result does not come in time.
    """

    def __init__(self, kind: str, check: Check) -> None:
        self.kind = kind
        self.check = check
        self.counts: Counter[Outcome] = Counter()
        self.last: tuple[float, Result] | None = None
        self.watchdog = Watchdog()


class Monitor:
    """Runs the checks of one endpoint between start and stop.

    Args:
        endpoint: the endpoint that receives the results.
        inbox: the inbox of pushed states.
        changed: called when the published state changes.

    Attributes:
        endpoint: as given.
        sent: the endpoint whose state is sent: as given, or the one it replaces until the new checks have a verdict.
        checks: the checks, in the order of the settings.
        transitions: how often each state was entered.
    """

    def __init__(self, endpoint: Endpoint, inbox: Inbox, changed: Callable[[], None]) -> None:
        self.endpoint = self.sent = endpoint
        self.checks: list[MonitoredCheck] = []
        self.transitions: Counter[State] = Counter()
        # The state that was counted last in `transitions`.
        self._state = endpoint.state
        self._inbox = inbox
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Create the checks from the settings and start their tasks."""
        location = self.endpoint.location
        target = CheckTarget(location.address, location.port, self.endpoint.service.service, self._inbox)
        for index, options in enumerate(self.endpoint.service.checks):
            self.checks.append(MonitoredCheck(str(options.__struct_config__.tag), options.check(target)))
            self._tasks.append(tasks.create_task(self._check(index), name=f"check {self.endpoint.name} {index}"))

    def stop(self) -> None:
        """Cancel the tasks of the checks."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for monitored in self.checks:
            self._inbox.unregister(monitored.check)

    def count_transition(self) -> None:
        """Count the endpoint's state if it has changed since the last call."""
        if self.endpoint.state is not self._state:
            self._state = self.endpoint.state
            self.transitions[self._state] += 1

    @property
    def watchdogs(self) -> Mapping[str, Watchdog]:
        """The watchdogs of the running checks, by the name of their task."""
        return {task.get_name(): monitored.watchdog for task, monitored in zip(self._tasks, self.checks, strict=False)}

    async def _check(self, index: int) -> None:
        options, monitored = self.endpoint.service.checks[index], self.checks[index]
        within = options.interval + options.probe_timeout
        monitored.watchdog.reset(self._loop.time(), within)
        await repeat(monitored.check, options, partial(self._observe, index, within), partial(self._starting, index))

    def _starting(self, index: int) -> bool:
        return self.endpoint.starting(index, self._loop.time())

    def _observe(self, index: int, within: float, result: Result) -> None:
        now, monitored, endpoint = self._loop.time(), self.checks[index], self.endpoint
        monitored.watchdog.reset(now, within)
        monitored.counts[result.outcome] += 1
        monitored.last = (now, result)
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
