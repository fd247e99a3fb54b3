"""All endpoints of the process under observation, as they come and go with its settings."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from registrar.checks.inbox import Inbox
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitor import Monitor
from registrar.watchdog import Watchdog


class Monitors:
    """Starts and ends the checks of each endpoint.

    Args:
        endpoints: whose states are sent; the same list for as long as the process lives.
        changed: called when what is to be published changed.

    Attributes:
        endpoints: as above.
        inbox: where push checks get their states from.
    """

    def __init__(self, endpoints: list[Endpoint], changed: Callable[[], None]) -> None:
        self.endpoints = endpoints
        self.inbox = Inbox()
        self._changed = changed
        self._monitors: list[Monitor] = []
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Monitor]:
        return iter(self._monitors)

    def active_endpoints(self) -> list[Endpoint]:
        """Return the endpoints that are checked now: neither those that drain, nor those that were succeeded."""
        return [monitor.endpoint for monitor in self._monitors]

    @property
    def watchdogs(self) -> Mapping[str, Watchdog]:
        """The signs of life of all checks."""
        return {name: watchdog for monitor in self._monitors for name, watchdog in monitor.watchdogs.items()}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin with all checks, and with those that are added later at once."""
        self._tasks = tasks
        for monitor in self._monitors:
            monitor.start(tasks)

    def stop(self) -> None:
        """End all checks."""
        for monitor in self._monitors:
            monitor.stop()

    def add(self, endpoint: Endpoint) -> None:
        """Watch one more endpoint."""
        self.endpoints.append(endpoint)
        self._begin(Monitor(endpoint, self.inbox, self._changed))

    def replace(self, old: Monitor, endpoint: Endpoint) -> None:
        """Check an endpoint in another way from now on.

        The old state is sent until the new checks have a verdict: an endpoint must not lose its traffic
        because its settings were read again.
        """
        # Not the old watch's own endpoint: that may have had no verdict either.
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
        self._begin(monitor)

    def remove(self, old: Monitor) -> None:
        """End the checks of an endpoint; its state is sent until ``forget``."""
        old.stop()
        self._monitors.remove(old)

    def forget(self, endpoints: Sequence[Endpoint]) -> None:
        """Send nothing of these any more."""
        self.endpoints[:] = [one for one in self.endpoints if one not in endpoints]

    def count_transitions(self) -> None:
        """Count the states that were entered by other ways than a check."""
        for monitor in self._monitors:
            monitor.count_transition()

    def _begin(self, monitor: Monitor) -> None:
        self._monitors.append(monitor)
        if self._tasks is not None:
            monitor.start(self._tasks)
