"""State of one run of the demo: its processes, the traffic, Envoy's view, and the measures so far."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from registry_demo.envoy import EnvoyWatcher
from registry_demo.live_view import EndpointTraffic, LiveState
from registry_demo.measure import Measure
from registry_demo.processes import DemoProcesses, Instance
from registry_demo.screen import DemoScreen
from registry_demo.traffic import Traffic, TrafficCount

POLL_INTERVAL = 0.02
"""Seconds between two looks at what is waited for."""
GRACE = 3.0
"""Seconds beyond a bound for which an event is still waited for, so that the measure has a figure."""
SETTLE_TIME = 1.0
"""Seconds that Envoy's workers may learn of a change after its admin interface."""
LIVE_WINDOW = 1.0
"""Seconds back that the live view counts."""
_OUT = {"UNHEALTHY", "TIMEOUT", "DRAINING", ""}
"""Health of an endpoint that Envoy gives no requests; empty: Envoy does not list it."""


def now() -> float:
    """Return the time by the clock of all measures."""
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a task for the length of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


class DemoRun:
    """State of one run while its acts are played."""

    def __init__(self, processes: DemoProcesses, traffic: Traffic, admin: EnvoyWatcher, screen: DemoScreen) -> None:
        self.processes = processes
        self.traffic = traffic
        self.watcher = admin
        self.screen = screen
        # Every measure so far, in the order of the acts.
        self.measures: list[Measure] = []

    def record(self, measure: Measure) -> None:
        """Remember a measure and show it."""
        self.measures.append(measure)
        self.screen.measure(measure)

    def lost(self, start: float) -> int:
        """Return how many requests failed from ``start`` on."""
        return len(self.traffic.failures(start))

    async def until(self, event: Callable[[], float | None], within: float) -> float | None:
        """Wait until ``event`` returns a time and return it; None after ``within`` seconds and a grace.

        Raises:
            BrokenError: a process ended meanwhile that should not have.
        """
        end = now() + within + GRACE
        while (value := event()) is None and now() < end:
            self.processes.check()
            await asyncio.sleep(POLL_INTERVAL)
        return value

    async def pause(self, seconds: float) -> None:
        """Let the traffic go on.

        Raises:
            BrokenError: a process ended meanwhile that should not have.
        """
        end = now() + seconds
        while now() < end:
            self.processes.check()
            await asyncio.sleep(POLL_INTERVAL)

    async def unused(self, instance: Instance, start: float, within: float) -> float | None:
        """Return the seconds from ``start`` until Envoy held the endpoint as unusable and used it no more."""
        marked = await self.until(lambda: self.watcher.first(instance.endpoint, _OUT, start), within)
        # Envoy's workers learn of a change after its admin interface, so the traffic has the last word.
        await self.pause(SETTLE_TIME)
        return None if marked is None else max(marked, self.traffic.last_sent(instance.endpoint)) - start

    async def used(self, instance: Instance, start: float, within: float) -> float | None:
        """Return the seconds from ``start`` until the endpoint answered its first request."""
        first = await self.until(lambda: self.traffic.first_passed(instance.endpoint, start), within)
        return None if first is None else first - start

    def live_state(self) -> LiveState:
        """Return the state that the live view shows."""
        counts = self.traffic.since(now() - LIVE_WINDOW)
        rows = [
            self._row(instance, counts.get(instance.endpoint, TrafficCount()))
            for instance in self.processes.instances.values()
        ]
        return LiveState(rows, self.traffic.rate, self.traffic.sent, self.traffic.failed)

    def _row(self, instance: Instance, count: TrafficCount) -> EndpointTraffic:
        health = self.watcher.health.get(instance.endpoint, "")
        return EndpointTraffic(instance.name, instance.endpoint, instance.zone, health, count.passed, count.failed)
