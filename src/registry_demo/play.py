"""What every act needs: the stage, the traffic, Envoy's view, and the measures so far."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from registry_demo.board import Row, Scene
from registry_demo.envoy import Admin
from registry_demo.measure import Measure
from registry_demo.screen import Screen
from registry_demo.stage import Shop, Stage
from registry_demo.traffic import Count, Traffic

_STEP = 0.02
_PATIENCE = 3.0
_SETTLE = 1.0
_SECOND = 1.0
_OUT = {"UNHEALTHY", "TIMEOUT", "DRAINING", ""}


def now() -> float:
    """Return the clock of all measures."""
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do some work for the length of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


class Play:
    """The state of the story while its acts are played."""

    def __init__(self, stage: Stage, traffic: Traffic, admin: Admin, screen: Screen) -> None:
        self.stage = stage
        self.traffic = traffic
        self.admin = admin
        self.screen = screen
        self.measures: list[Measure] = []

    def keep(self, measure: Measure) -> None:
        """Note a measure and show it."""
        self.measures.append(measure)
        self.screen.found(measure)

    def lost(self, start: float) -> int:
        """Return how many requests failed from ``start`` on."""
        return len(self.traffic.failures(start))

    async def until(self, found: Callable[[], float | None], within: float) -> float | None:
        """Wait until ``found`` returns a time and return it; None after ``within`` seconds and some patience.

        Raises:
            BrokenError: a process ended meanwhile that should not have.
        """
        end = now() + within + _PATIENCE
        while (value := found()) is None and now() < end:
            self.stage.check()
            await asyncio.sleep(_STEP)
        return value

    async def pause(self, seconds: float) -> None:
        """Let the traffic go on.

        Raises:
            BrokenError: a process ended meanwhile that should not have.
        """
        end = now() + seconds
        while now() < end:
            self.stage.check()
            await asyncio.sleep(_STEP)

    async def unused(self, shop: Shop, start: float, within: float) -> float | None:
        """Return the seconds from ``start`` until Envoy held the endpoint as unusable and used it no more."""
        listed = await self.until(lambda: self.admin.first(shop.endpoint, _OUT, start), within)
        # Its workers learn of a change after its admin does, so the traffic has the last word.
        await self.pause(_SETTLE)
        return None if listed is None else max(listed, self.traffic.last_sent(shop.endpoint)) - start

    async def used(self, shop: Shop, start: float, within: float) -> float | None:
        """Return the seconds from ``start`` until the endpoint answered its first request."""
        first = await self.until(lambda: self.traffic.first_passed(shop.endpoint, start), within)
        return None if first is None else first - start

    def scene(self) -> Scene:
        """Return what the live picture shows."""
        counts = self.traffic.since(now() - _SECOND)
        rows = [self._row(shop, counts.get(shop.endpoint, Count())) for shop in self.stage.shops.values()]
        return Scene(rows, self.traffic.rate, self.traffic.sent, self.traffic.failed)

    def _row(self, shop: Shop, count: Count) -> Row:
        health = self.admin.health.get(shop.endpoint, "")
        return Row(shop.name, shop.endpoint, shop.zone, health, count.passed, count.failed)
