"""One running registrar: its endpoints, their checks, the agent, and its end."""

import asyncio
import math
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from registrar.admin.report import endpoint_status, instance_id_of, registry_status
from registrar.admin.status import RegistrarStatus, ready
from registrar.checks.result import Outcome
from registrar.config.settings import STOP_RESERVE, OnSigterm, Settings
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitors import Monitors
from registrar.endpoint.port_follower import PortFollower
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.lifecycle.app import FORWARDED, App
from registrar.lifecycle.drain import Drain
from registrar.lifecycle.reload import Reloader, ReloadPlan
from registrar.lifecycle.signals import Signals
from registrar.lifecycle.startup_gate import StartupGate
from registrar.orphans import OrphanReaper
from registrar.registry_client.client import RegistryClient
from registrar.watchdog import Watchdog, notify_systemd
from wire.logging import configure_logs
from wire.sd_notify import notify, watchdog_interval

# How long an app that died by itself keeps its supervisor waiting for the deregistration.
_FAREWELL = 5.0
# What a drain gets of the stop timeout when the app still has to end after it.
_DRAIN_SHARE = 2 / 3
# What the deregistration after the app's end may take of the reserve.
_LAST_WORD = 1.0

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class Sidecar:
    """The tasks of one process; one that ends by a defect ends them all, loudly, and the app with its grace.

    Args:
        settings: of the start; a reload exchanges them.
        client: speaks to the registry.
        endpoints: of the start.
        signals: what this process is asked to do.
        reloader: reads the settings again.
    """

    def __init__(
        self,
        settings: Settings,
        client: RegistryClient,
        endpoints: list[Endpoint],
        signals: Signals,
        reloader: Reloader,
    ) -> None:
        self._settings = settings
        self._client = client
        self._signals = signals
        self._reloader = reloader
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._latch = StartupGate(self._started)
        published: list[Endpoint] = []
        self._agent = HeartbeatAgent(client, published)
        self._monitors = Monitors(published, self._agent.changed)
        self._tasks = asyncio.TaskGroup()
        # Held from the making of a plan to its end: two of them must not be made from the same state.
        self._planning = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._drained = "serving"
        self._deadline: float | None = None
        for endpoint in endpoints:
            self._monitors.add(endpoint)

    async def run(self, app: App | None = None) -> int:
        """Return the exit status when the process is to exit: the app's, or 0, or 70 after a defect of our own.

        Args:
            app: the child that is to end with this process, and the other way round.
        """
        try:
            return await self._run(app)
        except ExceptionGroup as defects:
            log.critical("broken", exc_info=defects, status=os.EX_SOFTWARE)
            if app is not None:
                await self._stop_unsupervised(app)
            return os.EX_SOFTWARE

    async def _run(self, app: App | None) -> int:
        async with self._tasks:
            self._spawn(self._agent.run(), "heartbeats")
            self._spawn(self._reload(), "reload")
            self._spawn(OrphanReaper().run(), "orphans")
            follower = PortFollower(self._reloader.asked, self._monitors.active_endpoints, self._move)
            if follower.needed:
                self._spawn(follower.run(), "follower")
            interval = watchdog_interval()
            if interval is not None:
                self._spawn(notify_systemd(self._watchdogs, interval), "watchdog")
            self._monitors.start(self._tasks)
            status = await (self._until_stopped() if app is None else self._until_ended(app))
            self._monitors.stop()
            for task in self._running:
                task.cancel()
        return status

    def status(self) -> RegistrarStatus:
        """Return everything at this moment."""
        now = self._loop.time()
        endpoints = [endpoint_status(monitor, now) for monitor in self._monitors]
        return RegistrarStatus(
            instance_id=instance_id_of(self._monitors.endpoints),
            seconds_up=round(now - self._started, 3),
            healthy=self._latch.healthy(now, self._agent.registered, self._drain_wait()),
            ready=bool(endpoints) and all(one.accepted and not one.fenced and ready(one.state) for one in endpoints),
            drain=self._drained,
            registry=registry_status(self._agent, now),
            reloads=self._reloader.reloads,
            endpoints=endpoints,
        )

    def start_drain(self) -> None:
        """Take every endpoint out of rotation, for good; the process goes on without them."""
        if self._draining is None:
            self._monitors.stop()
            self._draining = self._spawn(self._drain(math.inf), "drain")

    async def drained(self) -> None:
        """Wait until a drain has come to its end."""
        if self._draining is not None:
            await asyncio.wait({self._draining})

    def push(self, service: str, name: str, state: Outcome, detail: str) -> int:
        """Hand a state to the push checks it is for and return how many there are.

        Raises:
            ValueError: an app may not push that state.
        """
        return self._monitors.inbox.receive(service, state, detail, name)

    async def _until_stopped(self) -> int:
        await self._signals.stop.wait()
        deadline = self._stopping()
        if self._settings.on_sigterm is OnSigterm.DRAIN:
            await _first(self._drain(deadline), self._signals.stop_now.wait())
        return 0

    async def _until_ended(self, app: App) -> int:
        for number in FORWARDED:
            self._signals.on(number, partial(self._forward, app, number))
        await _first(self._signals.stop.wait(), app.ended())
        if not self._signals.stop.is_set():
            status = await app.ended()
            log.warning("app_ended", status=status)
            await self._leave(self._loop.time() + _FAREWELL)
            return status
        deadline = self._stopping()
        if self._settings.on_sigterm is OnSigterm.KEEP:
            return await app.stop(deadline)
        share = self._loop.time() + (deadline - self._loop.time()) * _DRAIN_SHARE
        await _first(self._drain(share), self._signals.stop_now.wait(), app.ended())
        status = await app.stop(deadline)
        await self._leave(deadline + _LAST_WORD)
        return status

    def _stopping(self) -> float:
        """Begin to stop, and return the moment by which it has to be over."""
        notify("STOPPING=1")
        self._monitors.stop()
        log.info("stopping", on_sigterm=self._settings.on_sigterm)
        self._deadline = self._loop.time() + self._settings.stop_timeout - STOP_RESERVE
        return self._deadline

    async def _stop_unsupervised(self, app: App) -> None:
        """End an app that nobody checks any more, and that has done nothing wrong: with the grace of any stop."""
        deadline = self._deadline or self._stopping()
        try:
            await self._leave(min(deadline, self._loop.time() + _FAREWELL))
        finally:
            await app.stop(deadline)

    async def _drain(self, deadline: float) -> None:
        if self._draining is not None and self._draining is not asyncio.current_task():
            # The admin API began it already.
            await asyncio.wait({self._draining}, timeout=deadline - self._loop.time())
            return
        self._drained = "draining"
        drain = Drain(self._agent, self._client, self._settings.drain_wait, deadline)
        await drain.run(self._monitors.endpoints)
        self._monitors.count_transitions()
        self._drained = "refused" if drain.refused else "drained"

    async def _leave(self, deadline: float) -> None:
        self._monitors.stop()
        await Drain(self._agent, self._client, None, deadline).deregister(self._monitors.endpoints)

    async def _reload(self) -> None:
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            await self._follow(lambda: self._reloader.plan(self._settings, self._monitors))

    async def _move(self, endpoint: Endpoint) -> None:
        monitor = next((monitor for monitor in self._monitors if monitor.endpoint is endpoint), None)
        if monitor is not None:
            await self._follow(lambda: self._reloader.move(self._settings, monitor))

    async def _follow(self, make: Callable[[], Awaitable[ReloadPlan | None]]) -> None:
        async with self._planning:
            plan = await make() if self._serving else None
            # A plan may take as long as its addresses do: what began to drain meanwhile must not come back.
            if plan is not None and self._serving:
                self._apply(plan)

    def _apply(self, plan: ReloadPlan) -> None:
        self._settings = plan.settings
        configure_logs(plan.settings.log_level)
        self._client.use_token(plan.settings.bearer)
        gone = plan.apply(self._monitors)
        if gone:
            self._spawn(self._remove(gone), "removal")
        self._agent.changed()

    async def _remove(self, endpoints: Sequence[Endpoint]) -> None:
        await Drain(self._agent, self._client, self._settings.drain_wait, math.inf).run(endpoints)
        self._monitors.forget(endpoints)

    def _forward(self, app: App, number: int) -> None:
        app.signal(number)
        if number == signal.SIGHUP:
            self._signals.reload.set()

    @property
    def _serving(self) -> bool:
        return self._draining is None and not self._signals.stop.is_set()

    def _drain_wait(self) -> float:
        """Return how long an Envoy needs to hear of a change, as far as anybody said so."""
        told = [endpoint.lease.grant.drain_wait for endpoint in self._monitors.endpoints if endpoint.lease.grant]
        return self._settings.drain_wait or max(told, default=0.0)

    def _watchdogs(self) -> Mapping[str, Watchdog]:
        return {"heartbeats": self._agent.watchdog, **self._monitors.watchdogs}

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


async def _first(*work: Coroutine[Any, Any, object]) -> None:
    """Return when the first of them has come to its end, and give up the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        # The end of a task that was given up must not be still to come when the loop is closed.
        await asyncio.gather(*tasks, return_exceptions=True)
