"""The running registrar: it owns the monitors, the heartbeat agent, the drain and the stop."""

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Never

from registrar.admin.report import credential_status, edge_status, endpoint_status, instance_id_of, registry_status
from registrar.admin.status import RegistrarStatus, in_service, ready
from registrar.checks.result import Outcome
from registrar.config.settings import STOP_RESERVE, OnSigterm, Settings
from registrar.credentials.credentials import Credentials
from registrar.edge.server import EdgeServer
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitors import Monitors
from registrar.endpoint.port_follower import PortFollower
from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.event_log import EventLogger, configure_logs
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.lifecycle.app import FORWARDED, App
from registrar.lifecycle.drain import Drain
from registrar.lifecycle.reload import Reloader, ReloadPlan
from registrar.lifecycle.signals import Signals
from registrar.lifecycle.startup_gate import StartupGate
from registrar.probing.prober import Prober
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.response import overloaded
from registrar.traffic.envoy import Envoy
from registrar.traffic.reporter import TrafficReporter
from registrar.watchdog import Watchdog, notify_systemd
from wire.log_stream import flush_log
from wire.orphans import OrphanReaper
from wire.sd_notify import notify, watchdog_interval

_APP_ENDED_TIMEOUT = 5.0
"""Seconds for the deregistration after the app ended by itself; the supervisor waits for them."""
_FIRST_LOGIN_TIMEOUT = 5.0
"""Seconds that the first heartbeat waits for the first login; a slow one must not delay it further."""
_DRAIN_SHARE = 2 / 3
"""Share of the stop timeout for the drain if the app still has to be stopped after it."""
_LAST_DEREGISTER_TIMEOUT = 1.0
"""Seconds of the stop reserve for the deregistration after the app's end."""

_FLUSH_INTERVAL = 1.0
"""Seconds between two tries to write lines that wait for the reader of the log."""

RESTART_PAUSE = 5.0
"""Seconds from a defect of work beside the heartbeats to its next beginning."""

Work = Callable[[], Coroutine[Any, Any, None]]
"""Begins work that goes on until it is cancelled."""

log = EventLogger(__name__)


class Sidecar:
    """Runs all tasks of the process.

    An unexpected error in one that the heartbeats depend on stops the process with status 70. Work beside them is begun
    again: no operator's question is worth the registration of an app.

    Args:
        settings: the settings of the start; a reload replaces them.
        client: the client of the registry.
        endpoints: the endpoints of the start.
        signals: the signal handlers of the process.
        reloader: reads the settings again.
        credentials: what the client sends; None for nothing.
        edge: answers the polls of the Envoy beside this process; None where it polls the registry.
    """

    def __init__(
        self,
        settings: Settings,
        client: RegistryClient,
        endpoints: list[Endpoint],
        signals: Signals,
        reloader: Reloader,
        credentials: Credentials | None = None,
        edge: EdgeServer | None = None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._signals = signals
        self._reloader = reloader
        self._credentials = credentials
        self._edge = edge
        self._traffic = _traffic_reporter(settings, client)
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._startup_gate = StartupGate(self._started)
        # Shared by the agent, which reads it, and the monitors, which add and remove endpoints.
        published: list[Endpoint] = []
        self._prober = Prober(client)
        self._agent = HeartbeatAgent(client, published, self._prober.ask)
        self._monitors = Monitors(published, self._agent.changed)
        self._tasks = asyncio.TaskGroup()
        # Work that runs beside the heartbeats, by its name. Written by beside().
        self._beside: dict[str, Work] = {}
        # Held while a plan is made and applied: two plans must not be made from the same state.
        self._planning = asyncio.Lock()
        # The tasks of _spawn that have not ended.
        self._running: set[asyncio.Task[None]] = set()
        # The drain that the admin API started; None until then.
        self._draining: asyncio.Task[None] | None = None
        # The drain's state as the status document has it: serving, draining, drained or refused.
        self._drain_state = "serving"
        # Loop time by which the stop has to be over; None until a stop begins.
        self._deadline: float | None = None
        for endpoint in endpoints:
            self._monitors.add(endpoint)

    async def run(self, app: App | None = None) -> int:
        """Run until the stop and return the exit status: the app's, 0, or 70 after an internal error.

        Args:
            app: the app of ``registrar exec``; it and this process end together.
        """
        try:
            return await self._run(app)
        except ExceptionGroup as errors:
            log.critical("internal_error", exc_info=errors, status=os.EX_SOFTWARE)
            if app is not None:
                await self._stop_unsupervised(app)
            return os.EX_SOFTWARE

    async def _run(self, app: App | None) -> int:
        async with self._tasks:
            self._spawn(self._heartbeats(), "heartbeats")
            if self._credentials is not None and self._credentials.login is not None:
                self._spawn(self._credentials.login.run(self._client), "login")
            if self._credentials is not None and self._credentials.envoy is not None:
                self._spawn(self._credentials.envoy.run(), "envoy token")
            if self._edge is not None:
                self._spawn(self._edge.run(), "edge")
            if self._traffic is not None:
                self._spawn(self._traffic.run(), "traffic")
            for name, work in {"probes": self._prober.run, **self._beside}.items():
                self._spawn(_begun_again(work, name), name)
            self._spawn(self._reload(), "reload")
            self._spawn(OrphanReaper().run(), "orphans")
            self._spawn(_keep_flushing(), "log")
            follower = PortFollower(self._reloader.sources, self._monitors.active_endpoints, self._move)
            if follower.needed:
                self._spawn(follower.run(), "port follower")
            interval = watchdog_interval()
            if interval is not None:
                self._spawn(notify_systemd(self._watchdogs, interval), "watchdog")
            self._monitors.start(self._tasks)
            status = await (self._until_stopped() if app is None else self._until_ended(app))
            self._monitors.stop()
            for task in self._running:
                task.cancel()
        return status

    def beside(self, work: Work, name: str) -> None:
        """Let something run beside the heartbeats, from the start until the stop, and again when it fails."""
        self._beside[name] = work

    def active_endpoints(self) -> list[Endpoint]:
        """Return the endpoints of this process that are neither draining nor replaced."""
        return self._monitors.active_endpoints()

    def status(self) -> RegistrarStatus:
        """Return the status document of this moment."""
        now = self._loop.time()
        endpoints = [endpoint_status(monitor, now) for monitor in self._monitors]
        return RegistrarStatus(
            instance_id=instance_id_of(self._monitors.endpoints),
            seconds_up=round(now - self._started, 3),
            healthy=self._startup_gate.healthy(
                now,
                self._agent.registered,
                self._drain_wait(),
                envoy_ready=self._envoy_ready(),
                app_ready=all(ready(endpoint.state) for endpoint in endpoints),
                refused=self._refused(),
            ),
            ready=bool(endpoints) and all(map(in_service, endpoints)),
            drain=self._drain_state,
            registry=registry_status(self._agent, now),
            reloads=self._reloader.reloads,
            endpoints=endpoints,
            credential=credential_status(self._credentials, now),
            traffic=None if self._traffic is None else self._traffic.status,
            edge=None if self._edge is None else edge_status(self._edge, now),
        )

    def _refused(self) -> bool:
        """Tell whether a registry answers and refuses; one that asks for patience does not refuse."""
        problems = (endpoint.lease.problem for endpoint in self._monitors.endpoints)
        return self._agent.refused or any(problem and not overloaded(problem.status) for problem in problems)

    def start_drain(self) -> None:
        """Start the drain of every endpoint; the process goes on without them."""
        if self._draining is None:
            self._monitors.stop()
            self._draining = self._spawn(self._drain(math.inf), "drain")

    async def drained(self) -> None:
        """Wait until the drain is over."""
        if self._draining is not None:
            await asyncio.wait({self._draining})

    def push(self, service: str, name: str, state: Outcome, detail: str) -> int:
        """Pass a pushed state to its push checks and return their number.

        Raises:
            ValueError: the state is not one that apps may push.
        """
        return self._monitors.inbox.receive(service, state, detail, name)

    async def _heartbeats(self) -> None:
        if self._credentials is not None and self._credentials.login is not None:
            # A first heartbeat without the session would count as one that access control has to refuse.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LOGIN_TIMEOUT):
                    await self._credentials.login.attempted.wait()
        await self._agent.run()

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
            await self._deregister(self._loop.time() + _APP_ENDED_TIMEOUT)
            return status
        deadline = self._stopping()
        if self._settings.on_sigterm is OnSigterm.KEEP:
            return await app.stop(deadline)
        share = self._loop.time() + (deadline - self._loop.time()) * _DRAIN_SHARE
        await _first(self._drain(share), self._signals.stop_now.wait(), app.ended())
        status = await app.stop(deadline)
        await self._deregister(deadline + _LAST_DEREGISTER_TIMEOUT)
        return status

    def _stopping(self) -> float:
        """Stop the checks and return the loop time by which the stop has to be over."""
        notify("STOPPING=1")
        self._monitors.stop()
        log.info("shutdown_started", on_sigterm=self._settings.on_sigterm)
        self._deadline = self._loop.time() + self._settings.stop_timeout - STOP_RESERVE
        return self._deadline

    async def _stop_unsupervised(self, app: App) -> None:
        """Stop the app after an internal error of the registrar, with the grace of any other stop."""
        deadline = self._deadline or self._stopping()
        try:
            await self._deregister(min(deadline, self._loop.time() + _APP_ENDED_TIMEOUT))
        finally:
            await app.stop(deadline)

    async def _drain(self, deadline: float) -> None:
        if self._draining is not None and self._draining is not asyncio.current_task():
            # The admin API has started the drain already.
            await asyncio.wait({self._draining}, timeout=deadline - self._loop.time())
            return
        self._drain_state = "draining"
        drain = Drain(self._agent, self._client, self._settings.drain_wait, deadline)
        await drain.run(self._monitors.endpoints)
        self._monitors.count_transitions()
        self._drain_state = "refused" if drain.refused else "drained"

    async def _deregister(self, deadline: float) -> None:
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
            # Looking up addresses takes time: endpoints that began to drain meanwhile must not come back.
            if plan is not None and self._serving:
                self._apply(plan)

    def _apply(self, plan: ReloadPlan) -> None:
        self._settings = plan.settings
        configure_logs(plan.settings.log_level)
        if self._credentials is not None:
            self._credentials.reload(plan.settings)
        removed = plan.apply(self._monitors)
        if removed:
            self._spawn(self._remove(removed), "removal")
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
        """Return the seconds after which every Envoy has received a change: configured, or else granted."""
        grants = [endpoint.lease.grant for endpoint in self._monitors.endpoints]
        return self._settings.drain_wait or max((grant.drain_wait for grant in grants if grant), default=0.0)

    def _envoy_ready(self) -> bool:
        envoy = self._credentials.envoy if self._credentials is not None else None
        return envoy is None or envoy.written is not None

    def _watchdogs(self) -> Mapping[str, Watchdog]:
        return {"heartbeats": self._agent.watchdog, **self._monitors.watchdogs}

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _traffic_reporter(settings: Settings, client: RegistryClient) -> TrafficReporter | None:
    """Return what sends digests of Envoy's statistics; None where the settings ask for none."""
    if settings.envoy_admin is None or not settings.traffic_interval:
        return None
    return TrafficReporter(client, Envoy(EnvoyAdminClient(settings.envoy_admin)), settings.traffic_interval)


async def _begun_again(work: Work, name: str) -> None:
    """Run work that heartbeats do not need, and begin it again after a defect."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("work_failed", work=name, meanwhile=f"it begins again in {RESTART_PAUSE:.0f} s")
        await asyncio.sleep(RESTART_PAUSE)


async def _keep_flushing() -> Never:
    """Write the lines that wait for the reader of the log: the next event may come in an hour."""
    while True:
        await asyncio.sleep(_FLUSH_INTERVAL)
        flush_log()


async def _first(*work: Coroutine[Any, Any, object]) -> None:
    """Return when the first of several coroutines ends, and cancel the others."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        # The cancelled tasks have to end before the loop is closed.
        await asyncio.gather(*tasks, return_exceptions=True)
