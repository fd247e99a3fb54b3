"""One running registrar: its endpoints, their checks, the agent, and its end."""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from registrar.agent import Agent
from registrar.checks.check import Target
from registrar.checks.schedule import repeat
from registrar.client import Client
from registrar.drain import Drain
from registrar.endpoint import Endpoint
from registrar.identity.configured import Configured
from registrar.identity.resolver import resolve_identity, resolve_location
from registrar.identity.source import Facts
from registrar.identity.vm import Vm
from registrar.result import Result
from registrar.settings import STOP_RESERVE, OnSigterm, Settings
from registrar.signals import Signals
from wire.systemd import notify

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


async def serve(settings: Settings) -> None:
    """Check and register until SIGTERM or SIGINT, and then end as ``on_sigterm`` says.

    Raises:
        AddressError: an endpoint has no address that may be advertised.
    """
    endpoints = await _endpoints(settings)
    with Signals() as signals:
        async with Client(settings.registry_url) as client:
            sidecar = Sidecar(settings, client, endpoints, signals)
            # Not when the registry answered: an app's start must not wait for ours.
            notify("READY=1")
            await sidecar.run()


class Sidecar:
    """The tasks of one process; one that ends by an error ends them all, loudly."""

    def __init__(self, settings: Settings, client: Client, endpoints: Sequence[Endpoint], signals: Signals) -> None:
        self._settings = settings
        self._client = client
        self._endpoints = endpoints
        self._signals = signals
        self._loop = asyncio.get_running_loop()
        self._agent = Agent(client, endpoints)

    async def run(self) -> None:
        """Return when the process is to exit."""
        async with asyncio.TaskGroup() as tasks:
            heartbeats = tasks.create_task(self._agent.run(), name="heartbeats")
            checks = [
                tasks.create_task(self._check(endpoint, index), name=f"check {endpoint.name} {index}")
                for endpoint in self._endpoints
                for index in range(len(endpoint.service.checks))
            ]
            await self._signals.stop.wait()
            deadline = self._loop.time() + self._settings.stop_timeout - STOP_RESERVE
            notify("STOPPING=1")
            for check in checks:
                check.cancel()
            log.info("stopping", on_sigterm=self._settings.on_sigterm)
            if self._settings.on_sigterm is OnSigterm.DRAIN:
                await self._drain(tasks, deadline)
            heartbeats.cancel()

    async def _drain(self, tasks: asyncio.TaskGroup, deadline: float) -> None:
        drain = Drain(self._agent, self._client, self._settings.drain_wait, deadline)
        draining = tasks.create_task(drain.run(self._endpoints), name="drain")
        hurry = tasks.create_task(self._signals.hurry.wait(), name="hurry")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        hurry.cancel()

    async def _check(self, endpoint: Endpoint, index: int) -> None:
        options = endpoint.service.checks[index]
        check = options.check(Target(endpoint.location.address, endpoint.location.port))
        await repeat(check, options, partial(self._observe, endpoint, index))

    def _observe(self, endpoint: Endpoint, index: int, result: Result) -> None:
        if endpoint.observe(index, result, self._loop.time()):
            log.info(
                "health_changed",
                service=endpoint.service.service,
                endpoint=endpoint.name,
                state=endpoint.state,
                detail=endpoint.detail,
                suppressed=endpoint.suppressed,
            )
            self._agent.changed()


async def _endpoints(settings: Settings) -> list[Endpoint]:
    configured = Facts(settings.instance_id or "", settings.region or "", settings.zone or "")
    sources = (Configured(configured), Vm())
    identity = await resolve_identity(sources)
    now = asyncio.get_running_loop().time()
    return [
        Endpoint(service, await resolve_location(service.endpoint, sources), identity, now)
        for service in settings.services
    ]
