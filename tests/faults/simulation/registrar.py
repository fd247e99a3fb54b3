"""A registrar process of the world: the real agent, client, endpoint and lease, over a line that can be cut."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

from faults.simulation.line import Line
from faults.simulation.rules import CONNECTION_AGE, DRAIN_WAIT, TTL

from registrar.checks.result import Outcome, Result
from registrar.checks.tcp import TcpOptions
from registrar.checks.threshold import State
from registrar.config.settings import Service
from registrar.endpoint.endpoint import Endpoint
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.heartbeat.schedule import HeartbeatSchedule
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from registrar.jitter import Backoff
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import Registries, RegistryUrls
from registry.core.endpoint import Key
from registry.core.lease import interval
from wire.model import Report

if TYPE_CHECKING:
    from faults.simulation.world import World

_CHECK = TcpOptions(healthy_threshold=1, unhealthy_threshold=1)
_OUTCOMES = {Report.HEALTHY: Outcome.PASSED, Report.UNHEALTHY: Outcome.FAILED, Report.DEGRADED: Outcome.DEGRADED}


App = Literal["up", "down", "host_gone"]

_URL = RegistryUrls("http://registry:8080")


class Registrar:
    """One start of an instance's sidecar, with one endpoint.

    ``app`` is what a connection to its endpoint finds: an app, a host without it, or no host. ``stranded`` says that no
    registry that it can know of answers, by no fault of theirs.
    """

    def __init__(self, world: "World", key: Key, instance_id: str, incarnation: int) -> None:
        self.world = world
        self.number = len(world.registrars)
        self.key = key
        self.instance_id = instance_id
        self.alive, self.frozen, self.cut, self.stranded = True, False, False, False
        self.app: App = "up"
        self.heard_at = self.well_since = world.clock.now
        self.overtaken_at = 0.0
        spec = EndpointSpec("literal", key[1], key[2])
        service = Service(service=key[0], endpoint=spec, checks=(_CHECK,))
        identity = Identity(instance_id, incarnation)
        self.endpoint = Endpoint(service, Location(key[1], key[2]), identity, world.clock.now)
        line = Line(self)
        self.client = RegistryClient(_URL, connection_age=CONNECTION_AGE)
        self.client._transport._http = cast("Any", line)
        self.client._transport._loop = cast("Any", world.clock)
        self.client._transport._registries = Registries(_URL, line.look_up)
        self.client._transport._registries._seed = world.random.random()
        self.agent = HeartbeatAgent(self.client, [self.endpoint])
        self.agent._loop = cast("Any", world.clock)
        self.agent._schedule = HeartbeatSchedule(world.clock.now)
        self._silent = 0.0
        self._since: float | None = None
        self._turn = 0
        self._backoff = Backoff()
        self._left_at: float | None = None
        self.report(Report.HEALTHY)

    @property
    def name(self) -> str:
        """What the log of a history calls it."""
        return f"{self.instance_id}/{self.endpoint.lease.incarnation}@{self.key[0]}:{self.key[1]}"

    @property
    def well(self) -> bool:
        """Whether it runs, has a registry that it can reach, and wants to be listed."""
        gone = self.endpoint.retired or self.endpoint.lease.fenced
        return self.alive and not (self.frozen or self.cut or self.stranded or gone)

    @property
    def leaves(self) -> bool:
        """Whether it drains, or has deregistered."""
        return self.endpoint.state is State.DRAINING or self.endpoint.retired

    @property
    def silence(self) -> float:
        """Seconds so far in which it was not well."""
        self.note()
        return self._silent + (0.0 if self._since is None else self.world.clock.now - self._since)

    @property
    def unwell_since(self) -> float | None:
        """The moment since which it is not well."""
        self.note()
        return self._since

    def note(self) -> None:
        """Keep the books on when it was well."""
        now = self.world.clock.now
        if self.well and self._since is not None:
            self._silent += now - self._since
            self._since = None
            self.well_since = now
        elif not self.well and self._since is None:
            self._since = now

    def unheard(self) -> None:
        """Count a heartbeat that its own network lost as the silence until the next one."""
        self._silent += interval(TTL)
        self.well_since = self.world.clock.now

    def change(self, **states: bool) -> None:
        """Kill, freeze, cut off, or take that back."""
        self.mark(**states)
        self.poke()

    def mark(self, **states: bool) -> None:
        """Take note of what keeps it from being heard."""
        self.note()
        for name, value in states.items():
            setattr(self, name, value)
        self.note()

    def report(self, health: Report) -> None:
        """Let its check find so much evidence that it says ``health``; damping may want more than once."""
        for _ in range(16):
            if self.endpoint.report is health:
                break
            self.endpoint.observe(0, Result(_OUTCOMES[health], "by chance"), self.world.clock.now)
            self.well_since = self.world.clock.now
        self.agent.changed()
        self.poke()

    def drain(self) -> None:
        """Begin to leave, as SIGTERM asks."""
        if self.leaves:
            return
        self.endpoint.drain()
        self.agent.changed()
        self.poke()
        self.world.soon(0.5, self._leave)

    def poke(self) -> None:
        """Look at the agent's pace again."""
        self._turn += 1
        turn = self._turn
        delay = self.agent._schedule.delay(self.world.clock.now)

        async def due() -> None:
            if self._turn == turn and self.alive and not self.endpoint.retired:
                await self._send()

        self.world.soon(max(0.02, delay), due)

    async def _send(self) -> None:
        if self.frozen:
            return
        if self.agent._schedule.delay(self.world.clock.now) <= 0.0:
            await self.agent._send()
            self.note()
        self.poke()

    async def _leave(self) -> None:
        """Do what ``registrar.lifecycle.drain`` does between its sleeps: wait for the answer, serve on, deregister."""
        lease = self.endpoint.lease
        if not self.alive or lease.fenced:
            return
        pause = 0.5
        if not self.frozen and not lease.may_be_registered:
            try:
                await self._drain_listed()
            except RegistryUnavailable:
                pause = self._backoff.failed(self.agent.ttl)
            if self.endpoint.retired:
                return
        if not self.frozen and lease.drained_at is not None and self.world.clock.now >= lease.drained_at + DRAIN_WAIT:
            self.endpoint.retire()
            self.note()
            try:
                await self._deregister()
            except RegistryUnavailable:
                pause = self._backoff.failed(self.agent.ttl)
            else:
                return
        self.world.soon(max(pause, 0.05), self._leave)

    async def _drain_listed(self) -> None:
        """Drain what an earlier start may have published; where that is nothing, there is nothing left to do."""
        try:
            listed = await self.client.drain(self.endpoint.ref)
        except RegistryRefused:
            # By something that is no registry: what is listed is left to the end of its lease.
            listed = None
        if listed is None:
            self.endpoint.retire()
            self.note()
            return
        self.endpoint.lease.perhaps_stored = True
        self.endpoint.adopt(listed.health, listed.detail)
        self.agent.changed()
        self.poke()
        self.world.say(f"{self.name} drained what was listed")

    async def _deregister(self) -> None:
        with suppress(RegistryRefused):
            if await self.client.deregister(self.endpoint.ref):
                self.world.say(f"{self.name} deregistered")
