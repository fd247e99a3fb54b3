"""The drain of endpoints: out of rotation, still serving for the drain wait, then deregistered."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from registrar.endpoint.endpoint import Endpoint
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.event_log import EventLogger
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.jitter import Backoff
from registrar.registry_client.client import RegistryClient
from wire.model import Health, Report

T = TypeVar("T")

_DEREGISTER_TIME = 0.5
"""Seconds before the deadline that are kept for the deregistration."""
_DEFAULT_WAIT = 12.0
"""Seconds of drain wait while the registry has not sent its own; the default of REGISTRY_DRAIN_WAIT."""

log = EventLogger(__name__)


class Drain:
    """Drains and deregisters endpoints concurrently.

    Args:
        agent: sends the drain with its heartbeats, and repeats it until the registry has stored it.
        client: sends the deregistration.
        wait: seconds to go on serving, or None for the drain_wait of the grant.
        deadline: loop time at which the drain is given up; the leases then expire after their TTL.

    Attributes:
        refused: endpoints whose drain or deregistration the registry refused; their leases expire by themselves.
    """

    def __init__(self, agent: HeartbeatAgent, client: RegistryClient, wait: float | None, deadline: float) -> None:
        self._agent = agent
        self._client = client
        self._wait = wait
        self._deadline = deadline
        self.refused: list[Endpoint] = []

    async def run(self, endpoints: Sequence[Endpoint]) -> None:
        """Drain all endpoints and return when each is deregistered, or at the deadline."""
        for endpoint in endpoints:
            endpoint.drain()
        self._agent.changed()
        log.info("drain_started", endpoints=len(endpoints))
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as tasks:
                for endpoint in endpoints:
                    tasks.create_task(self._end(endpoint))
        except TimeoutError:
            unfinished = [endpoint.name for endpoint in endpoints if not endpoint.retired]
            log.warning("drain_timed_out", endpoints=unfinished)

    async def deregister(self, endpoints: Sequence[Endpoint]) -> None:
        """Deregister all endpoints without a drain wait: their app has ended."""
        for endpoint in endpoints:
            endpoint.drain()
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as tasks:
                for endpoint in endpoints:
                    if not endpoint.retired:
                        tasks.create_task(self._deregister(endpoint))
        except TimeoutError:
            log.warning("deregistration_timed_out", endpoints=[endpoint.name for endpoint in endpoints])

    async def _end(self, endpoint: Endpoint) -> None:
        # An UNHEALTHY endpoint gets no requests from Envoy any more, so there is no wait.
        if not endpoint.lease.may_be_registered or endpoint.report is not Report.UNHEALTHY:
            await self._take_out(endpoint)
            await self._serve_on(endpoint)
        if endpoint.lease.may_be_registered:
            await self._deregister(endpoint)
        endpoint.retire()

    async def _take_out(self, endpoint: Endpoint) -> None:
        """Return when the registry lists the endpoint as DRAINING, or not at all.

        Even if this process published nothing, an earlier start of the instance may have: its lease outlives a crash,
        and the registry alone knows of it.
        """
        lease = endpoint.lease
        if lease.may_be_registered:
            await endpoint.drain_settled.wait()
        if lease.drained_at is not None or lease.owned_by_another:
            return
        try:
            listed = await self._retry(partial(self._client.drain, endpoint.ref))
        except RegistryRefused as error:
            if not lease.may_be_registered:
                # The registration of an earlier start may be listed, and cannot be taken out of rotation.
                lease.problem = error.problem
                self.refused.append(endpoint)
            # The heartbeats are refused too, so the lease expires, and the registry takes the endpoint out by itself.
            left = max(0.0, lease.ends - asyncio.get_running_loop().time())
            log.warning("drain_refused", endpoint=endpoint.name, reason=str(error), lease_ends_in=round(left, 1))
            await asyncio.sleep(left)
            if lease.may_be_registered:
                await self._wait_since(endpoint, lease.ends)
            return
        if listed is None:
            return
        log.info("earlier_registration_drained", service=endpoint.service.service, endpoint=endpoint.name)
        lease.perhaps_stored = True
        if listed.status is Health.DRAINING:
            lease.drained_at = asyncio.get_running_loop().time()
            # Heartbeats keep the lease until the wait is over, and their grant says how long the wait is.
            endpoint.adopt(listed.health, listed.detail)
            self._agent.changed()
            await endpoint.drain_settled.wait()

    async def _serve_on(self, endpoint: Endpoint) -> None:
        """Wait for the drain wait, counted from the response that acknowledged the drain."""
        drained_at = endpoint.lease.drained_at
        if drained_at is None:
            return
        wait = self._drain_wait(endpoint)
        log.info("drain_acknowledged", service=endpoint.service.service, endpoint=endpoint.name, wait=wait)
        await self._wait_since(endpoint, drained_at)

    async def _wait_since(self, endpoint: Endpoint, begun: float) -> None:
        """Wait until Envoys have stopped using an endpoint that left the rotation at a time of the loop."""
        until = min(begun + self._drain_wait(endpoint), self._deadline - _DEREGISTER_TIME)
        await asyncio.sleep(until - asyncio.get_running_loop().time())

    def _drain_wait(self, endpoint: Endpoint) -> float:
        grant = endpoint.lease.grant
        if self._wait is not None:
            return self._wait
        return grant.drain_wait if grant else _DEFAULT_WAIT

    async def _deregister(self, endpoint: Endpoint) -> None:
        if endpoint.lease.owned_by_another:
            return
        endpoint.retire()
        ref = endpoint.ref
        try:
            was_registered = await self._retry(partial(self._client.deregister, ref))
        except RegistryRefused as error:
            log.warning("deregistration_refused", endpoint=endpoint.name, reason=str(error))
            endpoint.lease.problem = error.problem
            self.refused.append(endpoint)
        else:
            log.info(
                "endpoint_deregistered",
                service=ref.service,
                endpoint=endpoint.name,
                was_registered=was_registered,
            )

    async def _retry(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a request until the registry responds, with backoff."""
        backoff = Backoff()
        while True:
            try:
                return await send()
            except RegistryUnavailable as error:
                await asyncio.sleep(backoff.failed(self._agent.ttl, error.retry_after))
