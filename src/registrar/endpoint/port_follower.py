"""Endpoints that move under a running process: a container that is restarted in place may get another host port.

Only bridge mode with dynamic ports does that. Nothing tells of it, and the checks of the old port would fail until
the task is replaced.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Never

import structlog

from registrar.endpoint.endpoint import Endpoint
from registrar.identity.ecs_task import EcsTask
from registrar.identity.source import Source
from registrar.jitter import around

_INTERVAL = 5.0

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class PortFollower:
    """Looks now and then whether an endpoint's port on its host is still the one that was found.

    Args:
        asked: the sources of addresses.
        endpoints: returns those that are checked at that moment.
        moved: called with each one that is elsewhere; finds out where.
        interval: seconds between two looks.
    """

    def __init__(
        self,
        asked: Sequence[Source],
        endpoints: Callable[[], Sequence[Endpoint]],
        moved: Callable[[Endpoint], Awaitable[None]],
        interval: float = _INTERVAL,
    ) -> None:
        self._task = next((source for source in asked if isinstance(source, EcsTask)), None)
        self._endpoints = endpoints
        self._moved = moved
        self._interval = interval

    @property
    def needed(self) -> bool:
        """Whether endpoints can move at all: in ECS tasks only."""
        return self._task is not None and self._task.there

    async def run(self) -> Never:
        """Look until cancelled; where no port is mapped, nobody is asked."""
        while True:
            await asyncio.sleep(around(self._interval, 0.2))
            for endpoint in [one for one in self._endpoints() if _mapped(one)]:
                if await self._has_moved(endpoint):
                    log.warning("endpoint_moved", endpoint=endpoint.name, service=endpoint.service.service)
                    await self._moved(endpoint)

    async def _has_moved(self, endpoint: Endpoint) -> bool:
        service, location = endpoint.service, endpoint.location
        return self._task is not None and await self._task.moved(service.endpoint, service.container, location)


def _mapped(endpoint: Endpoint) -> bool:
    return not endpoint.retired and endpoint.location.port != endpoint.service.endpoint.port
