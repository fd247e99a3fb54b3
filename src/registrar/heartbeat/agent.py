"""The heartbeats of all endpoints of this process, in one request."""

import asyncio
from collections.abc import Sequence
from typing import Never

from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.lease import RefusalEffect
from registrar.errors import RegistryRefused, RegistryRequestError, RegistryUnavailable
from registrar.heartbeat.response import apply_refusal, apply_response
from registrar.heartbeat.schedule import DEFAULT_INTERVAL, HeartbeatSchedule
from registrar.jitter import Backoff
from registrar.registry_client.client import ATTEMPT_TIMEOUT, RegistryClient, overloaded
from registrar.registry_client.log_deduplication import LogDeduplication
from registrar.watchdog import Watchdog
from wire.model import Heartbeat, HeartbeatResult
from wire.problem import Problem

DEFAULT_TTL = 20.0
_LARGEST_BATCH = 1000


class HeartbeatAgent:
    """Sends what the endpoints say of themselves, for as long as it runs, whatever the registry does.

    Args:
        client: carries it.
        endpoints: whose states are sent; the list may change while it runs.

    Attributes:
        sent: requests that left.
        failed: those of them that were not answered.
        registered: moment of the first grant on the loop's clock, or None.
        acknowledged: moment of the last one, or None.
        pulse: by when the next heartbeat has to leave.
    """

    def __init__(self, client: RegistryClient, endpoints: Sequence[Endpoint]) -> None:
        self._client = client
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._pace = HeartbeatSchedule(self._loop.time())
        self._backoff = Backoff()
        self._log_deduplication = LogDeduplication()
        self._wake = asyncio.Event()
        self.sent = self.failed = 0
        self.registered: float | None = None
        self.acknowledged: float | None = None
        self.watchdog = Watchdog()

    @property
    def ttl(self) -> float:
        """Seconds that the shortest lease lasts."""
        return min((e.lease.grant.ttl for e in self._endpoints if e.lease.grant), default=DEFAULT_TTL)

    @property
    def registry(self) -> str:
        """The base URL that the next heartbeat goes to."""
        return self._client.registry

    @property
    def away(self) -> str | None:
        """Why the last attempt failed; None when it was answered."""
        return self._log_deduplication.reason

    def changed(self) -> None:
        """Send the new state soon instead of with the next period."""
        self._pace.change(self._loop.time())
        self._wake.set()

    async def run(self) -> Never:
        """Send heartbeats until cancelled."""
        while True:
            now = self._loop.time()
            self.watchdog.expect(now, self._pace.delay(now))
            await self._until_due()
            self.watchdog.expect(self._loop.time(), ATTEMPT_TIMEOUT * (1 + len(self._endpoints) // _LARGEST_BATCH))
            await self._send()

    async def _until_due(self) -> None:
        while (delay := self._pace.delay(self._loop.time())) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _send(self) -> None:
        self._pace.sent(self._loop.time())
        batch = [(endpoint, beat) for endpoint in self._endpoints if (beat := endpoint.heartbeat()) is not None]
        if not batch:
            self._pace.idle(self._loop.time())
            return
        registry = self._client.registry
        try:
            for start in range(0, len(batch), _LARGEST_BATCH):
                await self._exchange(batch[start : start + _LARGEST_BATCH])
        except RegistryUnavailable as error:
            self._log_deduplication.began(str(error), registry)
            self._hold(error.retry_after)
        except RegistryRefused as error:
            # Asking the same again soon would not help; the next period sends the state of that moment.
            self._log_deduplication.began(str(error), registry)
            self._pace.answered(self._loop.time(), self._interval())

    async def _exchange(self, batch: Sequence[tuple[Endpoint, Heartbeat]]) -> None:
        try:
            answers = await self._answers(batch)
        except RegistryUnavailable:
            self.failed += 1
            raise
        except RegistryRefused as error:
            if not error.about_content:
                self.failed += 1
                apply_refusal(batch, error.problem)
                raise
            if len(batch) > 1:
                # The registry reads a request as a whole: one endpoint that it refuses must not cost the others.
                half = len(batch) // 2
                await self._exchange(batch[:half])
                await self._exchange(batch[half:])
                return
            answers = [HeartbeatResult(batch[0][1].service, batch[0][1].endpoint, problem=error.problem)]
        self._take_in(batch, answers)

    async def _answers(self, batch: Sequence[tuple[Endpoint, Heartbeat]]) -> list[HeartbeatResult]:
        # The leases of this moment: an endpoint whose next incarnation begins meanwhile has another one.
        leases = [endpoint.lease for endpoint, _ in batch]
        before = [lease.perhaps_stored for lease in leases]
        for lease in leases:
            lease.perhaps_stored = True
        self.sent += 1
        try:
            answers = await self._client.heartbeats([beat for _, beat in batch])
        except RegistryRequestError as error:
            for lease, was in zip(leases, before, strict=True):
                lease.perhaps_stored = was or error.perhaps_stored
            raise
        for lease, was, answer in zip(leases, before, answers, strict=True):
            # A refusal says that nothing was stored; only one of an overloaded registry may be wrong about it.
            if answer.problem is not None and not overloaded(answer.problem.status):
                lease.perhaps_stored = was
        return answers

    def _take_in(self, batch: Sequence[tuple[Endpoint, Heartbeat]], answers: Sequence[HeartbeatResult]) -> None:
        self._log_deduplication.ended(self._client.registry)
        now = self._loop.time()
        if any(answer.grant is not None for answer in answers):
            self.acknowledged = now
            self.registered = now if self.registered is None else self.registered
        verdicts = [apply_response(*sent, answer, now) for sent, answer in zip(batch, answers, strict=True)]
        self._schedule([answer.problem for answer in answers if answer.problem])
        if RefusalEffect.RAISED in verdicts:
            self.changed()

    def _schedule(self, problems: Sequence[Problem]) -> None:
        waits = [problem.retry_after or 0.0 for problem in problems if overloaded(problem.status)]
        if waits:
            self._hold(max(waits))
            return
        self._backoff.reset()
        self._pace.answered(self._loop.time(), self._interval())

    def _hold(self, retry_after: float | None) -> None:
        self._pace.failed(self._loop.time(), self._backoff.failed(self.ttl, retry_after))

    def _interval(self) -> float:
        """Return the shortest period that was granted: one request carries all endpoints."""
        grants = [endpoint.lease.grant for endpoint in self._endpoints]
        return min((grant.interval for grant in grants if grant), default=DEFAULT_INTERVAL)
