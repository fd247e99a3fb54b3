"""The task that sends the heartbeats of all endpoints of this process in one request."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Never

from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.lease import RefusalEffect
from registrar.errors import RegistryRefused, RegistryRequestError, RegistryUnavailable
from registrar.heartbeat.response import apply_refusal, apply_result
from registrar.heartbeat.schedule import DEFAULT_INTERVAL, HeartbeatSchedule
from registrar.jitter import Backoff
from registrar.registry_client.client import ATTEMPT_TIMEOUT, RegistryClient
from registrar.registry_client.log_deduplication import LogDeduplication
from registrar.registry_client.response import overloaded
from registrar.watchdog import Watchdog
from wire.model import Heartbeat, HeartbeatResult
from wire.probe_request import ProbeRequest
from wire.problem import Problem

DEFAULT_TTL = 20.0
"""Seconds that a lease lasts until a grant says otherwise; the default of REGISTRY_LEASE_TTL."""
_MAX_BATCH = 1000
"""Endpoints in one request."""


class HeartbeatAgent:
    """Sends the full state of every endpoint, periodically and after changes, until it is cancelled.

    Args:
        client: sends the requests.
        endpoints: the endpoints to send; the list may change while the agent runs.
        probe: called with the probes that a grant of an endpoint asks for.

    Attributes:
        sent: requests sent.
        failed: requests without a usable response.
        registered: loop time of the first grant, or None.
        acknowledged: loop time of the newest grant, or None.
        watchdog: expires if no heartbeat is sent in time.
    """

    def __init__(
        self,
        client: RegistryClient,
        endpoints: Sequence[Endpoint],
        probe: Callable[[Endpoint, ProbeRequest], None] = lambda _endpoint, _request: None,
    ) -> None:
        self._client = client
        self._probe = probe
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._schedule = HeartbeatSchedule(self._loop.time())
        self._backoff = Backoff()
        self._log_deduplication = LogDeduplication()
        # Set by changed(), so that the wait for the periodic heartbeat ends early.
        self._wake = asyncio.Event()
        self.sent = self.failed = 0
        self.registered: float | None = None
        self.acknowledged: float | None = None
        self.watchdog = Watchdog()

    @property
    def ttl(self) -> float:
        """The seconds of the shortest lease."""
        grants = [endpoint.lease.grant for endpoint in self._endpoints]
        return min((grant.ttl for grant in grants if grant), default=DEFAULT_TTL)

    @property
    def registry(self) -> str:
        """The base URL of the registry that gets the next heartbeat."""
        return self._client.registry

    @property
    def away(self) -> str | None:
        """The error of the newest attempt; None after a response."""
        return self._log_deduplication.reason

    @property
    def refused(self) -> bool:
        """Whether that error is the refusal of a registry that answers."""
        return self._log_deduplication.refused

    def changed(self) -> None:
        """Send the new state soon, ahead of the periodic heartbeat."""
        self._schedule.change(self._loop.time())
        self._wake.set()

    async def run(self) -> Never:
        """Send heartbeats until cancelled."""
        while True:
            now = self._loop.time()
            self.watchdog.reset(now, self._schedule.delay(now))
            await self._until_due()
            self.watchdog.reset(self._loop.time(), ATTEMPT_TIMEOUT * (1 + len(self._endpoints) // _MAX_BATCH))
            await self._send()

    async def _until_due(self) -> None:
        while (delay := self._schedule.delay(self._loop.time())) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _send(self) -> None:
        self._schedule.sent(self._loop.time())
        batch = [
            (endpoint, heartbeat) for endpoint in self._endpoints if (heartbeat := endpoint.heartbeat()) is not None
        ]
        if not batch:
            self._schedule.idle(self._loop.time())
            return
        registry = self._client.registry
        try:
            for start in range(0, len(batch), _MAX_BATCH):
                await self._exchange(batch[start : start + _MAX_BATCH])
        except RegistryUnavailable as error:
            self._log_deduplication.began(str(error), registry, refused=error.unauthenticated)
            self._hold(error.retry_after)
        except RegistryRefused as error:
            # A retry of the same request would be refused too; the next period sends the state of that moment.
            self._log_deduplication.began(str(error), registry, refused=True)
            self._schedule.answered(self._loop.time(), self._interval())

    async def _exchange(self, batch: Sequence[tuple[Endpoint, Heartbeat]]) -> None:
        try:
            results = await self._request(batch)
        except RegistryUnavailable:
            self.failed += 1
            raise
        except RegistryRefused as error:
            if not error.about_content:
                self.failed += 1
                apply_refusal(batch, error.problem)
                raise
            if len(batch) > 1:
                # The registry refuses a request as a whole. Halving it finds the endpoint that is at fault.
                half = len(batch) // 2
                await self._exchange(batch[:half])
                await self._exchange(batch[half:])
                return
            results = [HeartbeatResult(batch[0][1].service, batch[0][1].endpoint, problem=error.problem)]
        self._take_in(batch, results)

    async def _request(self, batch: Sequence[tuple[Endpoint, Heartbeat]]) -> list[HeartbeatResult]:
        # Kept, because an endpoint gets a new lease if its next incarnation begins during the request.
        leases = [endpoint.lease for endpoint, _ in batch]
        before = [lease.perhaps_stored for lease in leases]
        for lease in leases:
            lease.perhaps_stored = True
        self.sent += 1
        try:
            results = await self._client.heartbeats([heartbeat for _, heartbeat in batch])
        except RegistryRequestError as error:
            for lease, was in zip(leases, before, strict=True):
                lease.perhaps_stored = was or error.perhaps_stored
            raise
        for lease, was, result in zip(leases, before, results, strict=True):
            # After a refusal nothing is stored; an overloaded registry may have stored it all the same.
            if result.problem is not None and not overloaded(result.problem.status):
                lease.perhaps_stored = was
        return results

    def _take_in(self, batch: Sequence[tuple[Endpoint, Heartbeat]], results: Sequence[HeartbeatResult]) -> None:
        self._log_deduplication.ended(self._client.registry)
        now = self._loop.time()
        if any(result.grant is not None for result in results):
            self.acknowledged = now
            self.registered = now if self.registered is None else self.registered
        effects = [apply_result(*sent, result, now) for sent, result in zip(batch, results, strict=True)]
        for (endpoint, _), result in zip(batch, results, strict=True):
            if result.grant is not None and result.grant.probes is not None:
                self._probe(endpoint, result.grant.probes)
        self._set_next([result.problem for result in results if result.problem])
        if RefusalEffect.RAISED in effects:
            self.changed()

    def _set_next(self, problems: Sequence[Problem]) -> None:
        waits = [problem.retry_after or 0.0 for problem in problems if overloaded(problem.status)]
        if waits:
            self._hold(max(waits))
            return
        self._backoff.reset()
        self._schedule.answered(self._loop.time(), self._interval())

    def _hold(self, retry_after: float | None) -> None:
        self._schedule.failed(self._loop.time(), self._backoff.failed(self.ttl, retry_after))

    def _interval(self) -> float:
        """Return the shortest interval that was granted: one request carries all endpoints."""
        grants = [endpoint.lease.grant for endpoint in self._endpoints]
        return min((grant.interval for grant in grants if grant), default=DEFAULT_INTERVAL)
