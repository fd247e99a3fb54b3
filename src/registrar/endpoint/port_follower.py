"""The task that follows an endpoint to its new host port after its container was restarted in place.

That happens in ECS bridge mode with dynamic ports alone. ECS sends no event for it, and the checks of the old port
would fail until the task is replaced.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Never

from registrar.endpoint.endpoint import Endpoint
from registrar.event_log import EventLogger
from registrar.identity.ecs_task import EcsTask
from registrar.identity.source import Source
from registrar.jitter import around

_POLL_INTERVAL = 5.0
"""Seconds between two requests for the port mappings, ±20 %."""

log = EventLogger(__name__)


class PortFollower:
    """Polls the task metadata and reports endpoints whose host port changed.

    Args:
        sources: the identity sources, in their order.
        endpoints: returns the endpoints that are checked at that moment.
        moved: called with each endpoint whose port changed; it looks up the new address.
        interval: seconds between two polls.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        endpoints: Callable[[], Sequence[Endpoint]],
        moved: Callable[[Endpoint], Awaitable[None]],
        interval: float = _POLL_INTERVAL,
    ) -> None:
        self._task = next((source for source in sources if isinstance(source, EcsTask)), None)
        self._endpoints = endpoints
        self._moved = moved
        self._interval = interval

    @property
    def needed(self) -> bool:
        """Whether endpoints can move: in ECS tasks only."""
        return self._task is not None and self._task.there

    async def run(self) -> Never:
        """Poll until cancelled; endpoints without a mapped port need no request."""
        while True:
            await asyncio.sleep(around(self._interval, 0.2))
            for endpoint in [endpoint for endpoint in self._endpoints() if _mapped(endpoint)]:
                if await self._has_moved(endpoint):
                    log.warning("endpoint_moved", endpoint=endpoint.name, service=endpoint.service.service)
                    await self._moved(endpoint)

    async def _has_moved(self, endpoint: Endpoint) -> bool:
        service, location = endpoint.service, endpoint.location
        return self._task is not None and await self._task.moved(service.endpoint, service.container, location)


def _mapped(endpoint: Endpoint) -> bool:
    return not endpoint.retired and endpoint.location.port != endpoint.service.endpoint.port
