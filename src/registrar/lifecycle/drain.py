"""The end of an endpoint: out of rotation, still serving for a while, then deregistered."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog

from registrar.endpoint.endpoint import Endpoint
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.jitter import Backoff
from registrar.registry_client.client import RegistryClient
from wire.model import Health, Report

T = TypeVar("T")

# What the deregistration gets of a time that is too short for the whole wait.
_DEREGISTER_TIME = 0.5
# The registry's default, where it has not told us its own.
_UNTOLD_WAIT = 12.0

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class Drain:
    """Drains endpoints side by side.

    Args:
        agent: sends the drain with its heartbeats, and repeats it until the registry stored it.
        client: deregisters.
        wait: seconds to go on serving, or None for what the registry granted.
        deadline: moment on the loop's clock at which it gives up; the TTL finishes the job then.

    Attributes:
        refused: endpoints that the registry would not take back; their leases end by themselves.
    """

    def __init__(self, agent: HeartbeatAgent, client: RegistryClient, wait: float | None, deadline: float) -> None:
        self._agent = agent
        self._client = client
        self._wait = wait
        self._deadline = deadline
        self.refused: list[Endpoint] = []

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

    async def deregister(self, endpoints: Sequence[Endpoint]) -> None:
        """Deregister all of them without a wait: nobody serves there any more."""
        for endpoint in endpoints:
            endpoint.drain()
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as tasks:
                for endpoint in endpoints:
                    if not endpoint.retired:
                        tasks.create_task(self._deregister(endpoint))
        except TimeoutError:
            log.warning("left_to_ttl", endpoints=[one.name for one in endpoints])

    async def _end(self, endpoint: Endpoint) -> None:
        # Envoy no longer sends to an endpoint that is UNHEALTHY: there is nobody to wait for.
        if not endpoint.lease.may_be_registered or endpoint.report is not Report.UNHEALTHY:
            await self._take_out(endpoint)
            await self._serve_on(endpoint)
        if endpoint.lease.may_be_registered:
            await self._deregister(endpoint)
        endpoint.retire()

    async def _take_out(self, endpoint: Endpoint) -> None:
        """Return when nothing that is listed of the endpoint is in rotation.

        That this process published nothing says nothing of an earlier start, whose lease may outlive its crash:
        only the registry knows.
        """
        lease = endpoint.lease
        if lease.may_be_registered:
            await endpoint.drain_settled.wait()
        if lease.drained_at is not None or lease.owned_by_another:
            return
        try:
            listed = await self._insist(partial(self._client.drain, endpoint.ref))
        except RegistryRefused as error:
            if not lease.may_be_registered:
                # What an earlier start may have published cannot be taken back.
                lease.problem = error.problem
                self.refused.append(endpoint)
            # Its heartbeats are refused too, but not for longer than what they would renew lasts.
            left = max(0.0, lease.ends - asyncio.get_running_loop().time())
            log.warning("drain_refused", endpoint=endpoint.name, reason=str(error), lease_ends_in=round(left, 1))
            await asyncio.sleep(left)
            return
        if listed is None:
            return
        log.info("drained_what_was_listed", service=endpoint.service.service, endpoint=endpoint.name)
        lease.perhaps_stored = True
        if listed.status is Health.DRAINING:
            lease.drained_at = asyncio.get_running_loop().time()
            # The lease must not end before the wait, and its grant tells how long that is.
            endpoint.adopt(listed.health, listed.detail)
            self._agent.changed()
            await endpoint.drain_settled.wait()

    async def _serve_on(self, endpoint: Endpoint) -> None:
        """Wait from the answer that acknowledged the drain: only since then does Envoy hear of it."""
        lease = endpoint.lease
        if lease.drained_at is None:
            return
        told = lease.grant.drain_wait if lease.grant else _UNTOLD_WAIT
        wait = told if self._wait is None else self._wait
        until = min(lease.drained_at + wait, self._deadline - _DEREGISTER_TIME)
        log.info("drain_acknowledged", service=endpoint.service.service, endpoint=endpoint.name, wait=wait)
        await asyncio.sleep(until - asyncio.get_running_loop().time())

    async def _deregister(self, endpoint: Endpoint) -> None:
        if endpoint.lease.owned_by_another:
            return
        endpoint.retire()
        ref = endpoint.ref
        try:
            left = await self._insist(partial(self._client.deregister, ref))
        except RegistryRefused as error:
            log.warning("deregistration_refused", endpoint=endpoint.name, reason=str(error))
            endpoint.lease.problem = error.problem
            self.refused.append(endpoint)
        else:
            log.info("deregistered", service=ref.service, endpoint=endpoint.name, was_registered=left)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer."""
        backoff = Backoff()
        while True:
            try:
                return await ask()
            except RegistryUnavailable as error:
                await asyncio.sleep(backoff.failed(self._agent.ttl, error.retry_after))
