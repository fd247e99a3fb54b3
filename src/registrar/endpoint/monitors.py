"""All endpoints of the process under observation, as they come and go with its settings."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from registrar.checks.inbox import Inbox
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitor import Watch
from registrar.watchdog import Pulse


class Watches:
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
        self._watches: list[Watch] = []
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._watches)

    def checked(self) -> list[Endpoint]:
        """Return the endpoints that are checked now: neither those that drain, nor those that were succeeded."""
        return [watch.endpoint for watch in self._watches]

    @property
    def pulses(self) -> Mapping[str, Pulse]:
        """The signs of life of all checks."""
        return {name: pulse for watch in self._watches for name, pulse in watch.pulses.items()}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin with all checks, and with those that are added later at once."""
        self._tasks = tasks
        for watch in self._watches:
            watch.start(tasks)

    def stop(self) -> None:
        """End all checks."""
        for watch in self._watches:
            watch.stop()

    def add(self, endpoint: Endpoint) -> None:
        """Watch one more endpoint."""
        self.endpoints.append(endpoint)
        self._begin(Watch(endpoint, self.inbox, self._changed))

    def succeed(self, old: Watch, endpoint: Endpoint) -> None:
        """Check an endpoint in another way from now on.

        The old state is sent until the new checks have a verdict: an endpoint must not lose its traffic
        because its settings were read again.
        """
        # Not the old watch's own endpoint: that may have had no verdict either.
        endpoint.inherit(old.sent)

        def changed() -> None:
            if watch.sent is not endpoint and endpoint.report is not None:
                self.endpoints[self.endpoints.index(watch.sent)] = endpoint
                watch.sent = endpoint
            self._changed()

        watch = Watch(endpoint, self.inbox, changed)
        watch.sent = old.sent
        old.stop()
        self._watches.remove(old)
        self._begin(watch)

    def remove(self, old: Watch) -> None:
        """End the checks of an endpoint; its state is sent until ``forget``."""
        old.stop()
        self._watches.remove(old)

    def forget(self, endpoints: Sequence[Endpoint]) -> None:
        """Send nothing of these any more."""
        self.endpoints[:] = [one for one in self.endpoints if one not in endpoints]

    def note(self) -> None:
        """Count the states that were entered by other ways than a check."""
        for watch in self._watches:
            watch.note()

    def _begin(self, watch: Watch) -> None:
        self._watches.append(watch)
        if self._tasks is not None:
            watch.start(self._tasks)
