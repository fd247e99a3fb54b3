"""The end of an endpoint: out of rotation, still serving for a while, then deregistered."""

import asyncio
from collections.abc import Sequence

import structlog

from registrar.agent import Agent
from registrar.client import Client
from registrar.endpoint import Endpoint
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.jitter import Backoff
from wire.model import Report

# What the deregistration gets of a time that is too short for the whole wait.
_DEREGISTER_TIME = 0.5

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class Drain:
    """Drains endpoints side by side.

    Args:
        agent: sends the drain with its heartbeats, and repeats it until the registry stored it.
        client: deregisters.
        wait: seconds to go on serving, or None for what the registry granted.
        deadline: moment on the loop's clock at which it gives up; the TTL finishes the job then.
    """

    def __init__(self, agent: Agent, client: Client, wait: float | None, deadline: float) -> None:
        self._agent = agent
        self._client = client
        self._wait = wait
        self._deadline = deadline

    async def run(self, endpoints: Sequence[Endpoint]) -> None:
        """Latch DRAINING for all of them at once and return when each is gone, or at the deadline."""
        for endpoint in endpoints:
            endpoint.drain()
        self._agent.changed()
        log.info("draining", endpoints=len(endpoints))
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as tasks:
                for endpoint in endpoints:
                    tasks.create_task(self._end(endpoint))
        except TimeoutError:
            log.warning("drain_unfinished", left_to_ttl=[one.name for one in endpoints if not one.retired])

    async def leave(self, endpoints: Sequence[Endpoint]) -> None:
        """Deregister all of them without a wait: nobody serves there any more."""
        for endpoint in endpoints:
            endpoint.drain()
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as tasks:
                for endpoint in endpoints:
                    if _perhaps_published(endpoint):
                        tasks.create_task(self._deregister(endpoint))
        except TimeoutError:
            log.warning("left_to_ttl", endpoints=[one.name for one in endpoints])

    async def _end(self, endpoint: Endpoint) -> None:
        # An endpoint that Envoy never saw, or no longer sends to, has nobody to wait for.
        if not _perhaps_published(endpoint):
            return
        if endpoint.report is not Report.UNHEALTHY:
            await endpoint.settled.wait()
            await self._serve_on(endpoint)
        if not _perhaps_published(endpoint):
            # It turned out while we waited: a refused heartbeat was under way when the drain began.
            return
        await self._deregister(endpoint)

    async def _serve_on(self, endpoint: Endpoint) -> None:
        """Wait from the answer that acknowledged the drain: only since then does Envoy hear of it."""
        lease = endpoint.lease
        if lease.drained_at is None or lease.grant is None:
            return
        wait = lease.grant.drain_wait if self._wait is None else self._wait
        until = min(lease.drained_at + wait, self._deadline - _DEREGISTER_TIME)
        log.info("drain_acknowledged", service=endpoint.service.service, endpoint=endpoint.name, wait=wait)
        await asyncio.sleep(until - asyncio.get_running_loop().time())

    async def _deregister(self, endpoint: Endpoint) -> None:
        beat = endpoint.beat()
        problem = endpoint.lease.problem
        if beat is None or (problem is not None and problem.status == 409):
            # Somebody else's, and so not ours to deregister.
            return
        endpoint.retire()
        backoff = Backoff()
        while True:
            try:
                left = await self._client.deregister(beat)
            except RegistryUnavailable as error:
                await asyncio.sleep(backoff.failed(self._agent.ttl, error.retry_after))
            except RegistryRefused as error:
                log.warning("deregistration_refused", endpoint=endpoint.name, reason=str(error))
                return
            else:
                log.info("deregistered", service=beat.service, endpoint=endpoint.name, was_registered=left)
                return


def _perhaps_published(endpoint: Endpoint) -> bool:
    return endpoint.report is not None and endpoint.lease.known
