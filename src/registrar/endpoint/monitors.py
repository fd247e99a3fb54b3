"""The monitors of all endpoints of the process, as a reload adds and removes them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from registrar.checks.inbox import Inbox
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitor import Monitor
from registrar.watchdog import Watchdog


class Monitors:
    """Starts and stops the monitor of each endpoint.

    Args:
        endpoints: the endpoints whose states are sent; the agent reads this list, so it is changed in place.
        changed: called when the published state of an endpoint changes.

    Attributes:
        endpoints: as given.
        inbox: the inbox of pushed states.
    """

    def __init__(self, endpoints: list[Endpoint], changed: Callable[[], None]) -> None:
        self.endpoints = endpoints
        self.inbox = Inbox()
        self._changed = changed
        self._monitors: list[Monitor] = []
        # The task group of the checks; None until start().
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Monitor]:
        return iter(self._monitors)

    def active_endpoints(self) -> list[Endpoint]:
        """Return the endpoints that are checked: neither draining nor replaced ones."""
        return [monitor.endpoint for monitor in self._monitors]

    @property
    def watchdogs(self) -> Mapping[str, Watchdog]:
        """The watchdogs of all running checks, by the name of their task."""
        return {name: watchdog for monitor in self._monitors for name, watchdog in monitor.watchdogs.items()}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start all monitors; monitors that are added later start at once."""
        self._tasks = tasks
        for monitor in self._monitors:
            monitor.start(tasks)

    def stop(self) -> None:
        """Stop all monitors."""
        for monitor in self._monitors:
            monitor.stop()

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint and monitor it."""
        self.endpoints.append(endpoint)
        self._start(Monitor(endpoint, self.inbox, self._changed))

    def replace(self, old: Monitor, endpoint: Endpoint) -> None:
        """Replace the checks of an endpoint by those of ``endpoint``.

        The old state is sent until the new checks have a verdict: a reload of the settings must not take an endpoint
        out of rotation.
        """
        # From `sent`: the old monitor's own endpoint may have had no verdict yet either.
        endpoint.inherit(old.sent)

        def changed() -> None:
            if monitor.sent is not endpoint and endpoint.report is not None:
                self.endpoints[self.endpoints.index(monitor.sent)] = endpoint
                monitor.sent = endpoint
            self._changed()

        monitor = Monitor(endpoint, self.inbox, changed)
        monitor.sent = old.sent
        old.stop()
        self._monitors.remove(old)
        self._start(monitor)

    def remove(self, old: Monitor) -> None:
        """Stop the monitor of an endpoint; its state is sent until ``forget``."""
        old.stop()
        self._monitors.remove(old)

    def forget(self, endpoints: Sequence[Endpoint]) -> None:
        """Send the states of these endpoints no longer."""
        self.endpoints[:] = [endpoint for endpoint in self.endpoints if endpoint not in endpoints]

    def count_transitions(self) -> None:
        """Count the states that the endpoints entered without a check result, such as a drain."""
        for monitor in self._monitors:
            monitor.count_transition()

    def _start(self, monitor: Monitor) -> None:
        self._monitors.append(monitor)
        if self._tasks is not None:
            monitor.start(self._tasks)
