"""The verdict on the registry: collected from memory and PostgreSQL, and evaluated as far as a principal may read."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import structlog
from msgspec import Struct
from msgspec.structs import replace

from registry.auth.grants import Reach
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.subscriber_sync import SubscriberSync
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.ecs_services import EcsService
from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.history import EventFilter, RecordedEvent
from registry.core.shares import Share, misleading_shares
from registry.core.shift import Shift
from registry.core.silence import is_silent
from registry.core.snapshot import Snapshot
from registry.core.subscriber_status import ClusterSubscribers, SubscriberFilter
from registry.core.verdict.catalogue import CATEGORIES
from registry.core.verdict.document import Verdict
from registry.core.verdict.evaluation import evaluate
from registry.core.verdict.facts import (
    AilingEndpoint,
    Facts,
    Lapse,
    MeshFacts,
    OldSharesFacts,
    OverrideFacts,
    ServiceFacts,
    SharesFacts,
    ShiftFacts,
    SilentEndpoint,
    StrengthFacts,
    TrafficFacts,
)
from registry.core.verdict.shares import MAX_AGE as MAX_SHARES_AGE
from registry.core.verdict.shifts import trouble_of
from registry.errors import UnavailableError
from registry.store.database import Database
from registry.store.history import find_events
from registry.store.pauses import in_force
from registry.store.shifts import read_not_done
from registry.usecases.mesh_rollout import MeshRollouts, RolloutOverview, readable
from registry.usecases.silence import Silences
from registry.usecases.status import StateReading, Status
from registry.usecases.traffic_failures import TrafficFailures
from wire.address import format_endpoint
from wire.model import Health

log = structlog.get_logger()

MAX_AGE = 0.25
"""Seconds for which what PostgreSQL told is used for a request that asks for the verdict."""
MIN_BADGE_AGE = 1.0
"""Seconds for which a verdict is shown on pages before the next one is made."""
MAX_BADGE_AGE = 5.0
"""Seconds after which a page waits for the next verdict rather than show the last one."""
_MAX_SHARE = 0.05
"""Share of the time in which verdicts are made for pages: beyond it they are made less often."""
_BADGE_TIMEOUT = 0.2
"""Seconds that a page waits for the next verdict while the last one may still be shown."""
_DATABASE_TIMEOUT = 1.5
"""Seconds to wait for PostgreSQL in all, so that a verdict takes two seconds at most."""
_MAX_LIST_AGE = 60.0
"""Seconds for which the last list of subscribers is used while a newer one takes too long."""
_LAPSES_WITHIN = 600.0
"""Seconds back for which a lapsed lease of a removed endpoint is still reported."""
_MAX_LAPSES = 100
"""Events of lapsed leases that are read, the newest first."""
_MAX_VERDICTS = 64
"""Verdicts that are kept of one collection, for principals that may read different services."""

_AILING = (Health.UNHEALTHY, Health.DEGRADED)
"""The statuses of an endpoint whose check fails."""


class _Asking(Struct, frozen=True):
    """The part of a verdict that a principal may see; principals with equal parts get the same verdict."""

    read: Reach
    observe: Reach
    manages: bool
    allowed_suspects: int

    @property
    def named(self) -> bool:
        """Whether credentials are named to it."""
        return self.observe.everything or self.manages

    def covers(self, service: str) -> bool:
        """Return whether the state of a service is part of the verdict."""
        return self.read.covers(service) and self.observe.covers(service)


class _Told(Struct, frozen=True):
    """The answers of PostgreSQL, as in `_Collection`."""

    reading: StateReading
    pauses: Sequence[Pause] | None
    lapsed: Sequence[RecordedEvent]
    mesh: RolloutOverview | None
    shifts: Sequence[ShiftFacts] | None


class _Collection(Struct):
    """The answers of PostgreSQL at one moment, and the verdicts that were made of them.

    Attributes:
        began: the monotonic time at which it began.
        ended: the monotonic time at which it ended.
        reading: of the registry's state.
        pauses: the pauses of expiry; None: they could not be read.
        lapsed: events of the endpoints that lapsed lately.
        subscribers: the Envoys that poll; None: they could not be collected in time.
        traffic: the pairs whose requests fail; None: they could not be collected in time.
        mesh: the roll-outs of the mesh configuration; None: they could not be read in time.
        shifts: the shifts that somebody has to look at; None: they could not be read in time.
        verdicts: those that were made of it, with the number of the change of memory that they are of.
    """

    began: float
    ended: float
    reading: StateReading
    pauses: Sequence[Pause] | None
    lapsed: Sequence[RecordedEvent]
    subscribers: ClusterSubscribers | None
    traffic: TrafficFacts | None
    mesh: RolloutOverview | None
    shifts: Sequence[ShiftFacts] | None
    verdicts: dict[_Asking, tuple[int, Verdict]]


class Verdicts:
    """Makes the verdict on the registry: what is wrong with it, in findings.

    PostgreSQL is asked for one collection at a time and process, whoever waits for it. Of each collection a verdict is
    made for what a principal may read.

    Args:
        policy: decides who may observe, and what they may read.
        status: the registry's own state.
        database: has the pauses and the history.
        cache: the services.
        subscribers: the Envoys that poll.
        silences: tells which endpoints are silent.
        rollouts: tells how far the roll-outs of the mesh configuration are.
        traffic_failures: knows the pairs whose requests fail.
    """

    def __init__(  # noqa: PLR0913  # one for each source of facts
        self,
        policy: Policy,
        status: Status,
        database: Database,
        cache: SnapshotCache,
        subscribers: SubscriberSync,
        silences: Silences,
        rollouts: MeshRollouts,
        traffic_failures: TrafficFailures,
    ) -> None:
        self._rollouts = rollouts
        self._traffic_failures = traffic_failures
        self._policy = policy
        self._status = status
        self._database = database
        self._cache = cache
        self._subscribers = subscribers
        self._silences = silences
        self._reads = asyncio.Semaphore(1)
        """The one connection that collections use, so that readers of the history never make them late."""
        self._collected: _Collection | None = None
        """The last collection; as old as the last request that needed a newer one."""
        self._collecting: asyncio.Task[_Collection] | None = None
        """The collection under way, or the last one."""
        self._listing: asyncio.Task[ClusterSubscribers] | None = None
        """The list of subscribers under way, or the last one."""
        self._listed: ClusterSubscribers | None = None
        """The subscribers as they were last listed in time."""
        self._listed_at = 0.0
        """When that was (monotonic)."""

    async def verdict(self, principal: Principal, allowed_suspects: int = 0) -> Verdict:
        """Return the verdict now, within two seconds whatever PostgreSQL does.

        Args:
            principal: the sender of the request; services that it may not read are neither named nor counted.
            allowed_suspects: the number of silent endpoints that it puts up with.
        """
        self._policy.allow(principal, Verb.OBSERVE)
        asking = self._asking(principal, allowed_suspects)
        collected = self._collected
        if collected is None or time.monotonic() - collected.began > MAX_AGE:
            collected = await self._collect()
        return await self._verdict(collected, asking, current=True)

    async def badge(self, principal: Principal) -> Verdict | None:
        """Return a verdict that is a few seconds old at most; None: the principal may not observe."""
        if not self._policy.can(principal, Verb.OBSERVE):
            return None
        asking, collected, now = self._asking(principal), self._collected, time.monotonic()
        if collected is None or now - collected.began > MAX_BADGE_AGE:
            collected = await self._collect()
        elif now - collected.ended > _badge_interval(collected.ended - collected.began):
            task = self._start()
            done, _ = await asyncio.wait({task}, timeout=_BADGE_TIMEOUT)
            collected = task.result() if done else collected
        return await self._verdict(collected, asking, current=False)

    def _asking(self, principal: Principal, allowed_suspects: int = 0) -> _Asking:
        policy = self._policy
        read, observe = policy.reach(principal, Verb.READ), policy.reach(principal, Verb.OBSERVE)
        return _Asking(read, observe, policy.can(principal, Verb.ADMIN), allowed_suspects)

    def _start(self) -> asyncio.Task[_Collection]:
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(self._gather())
        return self._collecting

    async def _collect(self) -> _Collection:
        # A caller that is cancelled leaves the collection to the others that wait for it.
        return await asyncio.shield(self._start())

    async def _gather(self) -> _Collection:
        began = time.monotonic()
        asked, subscribers, traffic = await asyncio.gather(self._ask(), self._list(), self._traffic_failures.facts())
        self._collected = _Collection(
            began,
            time.monotonic(),
            asked.reading,
            asked.pauses,
            asked.lapsed,
            subscribers,
            traffic,
            asked.mesh,
            asked.shifts,
            {},
        )
        return self._collected

    async def _ask(self) -> _Told:
        """Return what PostgreSQL tells; a part that it does not tell in time is missing."""
        deadline = asyncio.get_running_loop().time() + _DATABASE_TIMEOUT
        reading = await self._status.read(self._reads, _DATABASE_TIMEOUT)
        pauses: Sequence[Pause] | None = None
        lapsed: Sequence[RecordedEvent] = ()
        mesh: RolloutOverview | None = None
        shifts: Sequence[ShiftFacts] | None = None
        if reading.cluster is not None:
            with suppress(UnavailableError, TimeoutError):
                async with asyncio.timeout_at(deadline), self._reads, self._database.session() as connection:
                    pauses = list((await in_force(connection)).values())
            with suppress(UnavailableError, TimeoutError):
                wanted = EventFilter(kind="lapsed", since=self._cache.clock.now() - _LAPSES_WITHIN, limit=_MAX_LAPSES)
                async with asyncio.timeout_at(deadline), self._reads:
                    lapsed = await find_events(self._database, wanted)
            with suppress(UnavailableError, TimeoutError):
                async with asyncio.timeout_at(deadline), self._reads:
                    mesh = await self._rollouts.read()
            with suppress(UnavailableError, TimeoutError):
                async with asyncio.timeout_at(deadline), self._reads, self._database.session() as connection:
                    shifts = _troubled(await read_not_done(connection), self._cache.clock.now())
        return _Told(reading, pauses, lapsed, mesh, shifts)

    async def _list(self) -> ClusterSubscribers | None:
        """Return the Envoys that poll; those of last time where so many poll that this takes too long."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._subscribers.list_subscribers(SubscriberFilter()))
        done, _ = await asyncio.wait({self._listing}, timeout=_DATABASE_TIMEOUT)
        now = time.monotonic()
        if done:
            self._listed, self._listed_at = self._listing.result(), now
        return self._listed if now - self._listed_at <= _MAX_LIST_AGE else None

    async def _verdict(self, collected: _Collection, asking: _Asking, *, current: bool) -> Verdict:
        """Return the verdict for a principal; ``current``: also one that has seen the last change in memory."""
        change, made = collected.verdicts.get(asking, (-1, None))
        now = time.time()
        if made is None or (current and change != self._cache.advances):
            change = self._cache.advances
            made = await self._evaluate(collected, asking)
            if len(collected.verdicts) < _MAX_VERDICTS or asking in collected.verdicts:
                collected.verdicts[asking] = (change, made)
        return replace(made, at=now, age=max(0.0, time.monotonic() - collected.began))

    async def _evaluate(self, collected: _Collection, asking: _Asking) -> Verdict:
        facts = await self._facts(collected, asking)
        state = facts.state
        return Verdict.of(
            evaluate(CATEGORIES, facts, _log_failed),
            at=state.at,
            database_id=state.database_id,
            process=state.process.name,
            version=state.process.version,
        )

    async def _facts(self, collected: _Collection, asking: _Asking) -> Facts:
        now, reach = self._cache.clock.now(), asking.read
        state = await self._status.view(collected.reading, asking.covers, named=asking.named)
        memory = _Memory(now, self._silences, self._cache.desired_counts)
        async for snapshot in cooperatively(self._cache.services().values()):
            if reach.covers(snapshot.service):
                memory.add(snapshot)
        memory.lapses += self._removed(collected.lapsed, reach, now)
        for key, override in self._cache.unlisted_overrides.items():
            # The reading of these is some seconds old; an endpoint that was listed since has the override by itself.
            if reach.covers(key[0]) and self._cache.find(key) is None:
                memory.overrides.append(OverrideFacts(key[0], format_endpoint(*key[1:]), override, listed=False))
        subscribers = collected.subscribers
        if subscribers is not None and not reach.everything:
            statuses = [status for status in subscribers.statuses if reach.covers(status.report.service)]
            subscribers = replace(subscribers, statuses=statuses)
        pauses = collected.pauses
        if pauses is not None:
            pauses = [pause for pause in pauses if pause.scope == EVERYWHERE or reach.covers(pause.scope)]
        shifts = collected.shifts
        if shifts is not None:
            shifts = [shift for shift in shifts if reach.covers(shift.service)]
        traffic = collected.traffic
        if traffic is not None:
            failing = [
                pair
                async for pair in cooperatively(traffic.failing)
                if reach.covers(pair.caller) or reach.covers(pair.callee)
            ]
            traffic = replace(traffic, failing=failing)
        unsure = self._cache.unsure
        asked_for = {status.report.service for status in subscribers.statuses} if subscribers else set()
        return Facts(
            now=now,
            state=state,
            everything=reach.everything,
            readable=sorted([*reach.names, *(f"{prefix}*" for prefix in reach.prefixes)]),
            services=memory.services,
            endpoints=memory.endpoints,
            troubled=memory.troubled,
            unavailable=sorted(filter(reach.covers, unsure)),
            outdated=sorted(filter(reach.covers, self._cache.outdated)),
            sizes={
                name: len(self._cache.get(name).endpoints) for name in asked_for - unsure if self._cache.knows(name)
            },
            suspects=memory.suspects,
            ailing=memory.ailing,
            lapses=memory.lapses,
            weak=memory.weak,
            overrides=memory.overrides,
            misleading_shares=memory.misleading_shares,
            old_shares=memory.old_shares,
            troubled_shifts=shifts,
            traffic=traffic,
            subscribers=subscribers,
            pauses=pauses,
            allowed_suspects=asking.allowed_suspects,
            mesh=None if collected.mesh is None else _mesh_facts(readable(collected.mesh, reach)),
        )

    def _removed(self, lapsed: Iterable[RecordedEvent], reach: Reach, now: float) -> list[Lapse]:
        """Return the endpoints that lapsed and are not listed any more, each once."""
        lapses: dict[tuple[str, str], Lapse] = {}
        for event in lapsed:
            if event.address is None or event.port is None or not reach.covers(event.service):
                continue
            if self._cache.find((event.service, event.address, event.port)) is None:
                name = format_endpoint(event.address, event.port)
                lapse = Lapse(event.service, name, event.instance_id, max(0.0, now - event.at), listed=False)
                lapses.setdefault((event.service, name), lapse)
        return list(lapses.values())


class _Memory:
    """The facts of the services in memory, collected service by service."""

    def __init__(self, now: float, silences: Silences, desired_counts: Mapping[EcsService, int]) -> None:
        self._now = now
        self._silences = silences
        self._desired_counts = desired_counts
        self.services = 0
        self.endpoints = 0
        self.troubled: list[ServiceFacts] = []
        self.suspects: list[SilentEndpoint] = []
        self.ailing: list[AilingEndpoint] = []
        self.lapses: list[Lapse] = []
        self.weak: list[StrengthFacts] = []
        self.overrides: list[OverrideFacts] = []
        self.misleading_shares: list[SharesFacts] = []
        self.old_shares: list[OldSharesFacts] = []

    def add(self, snapshot: Snapshot) -> None:
        """Add the facts of a service; only the endpoints of those in trouble are looked at one by one."""
        self.services += 1
        self.endpoints += len(snapshot.endpoints)
        if snapshot.quarantined or not snapshot.routable:
            rows = [(format_endpoint(*place), row.reason) for place, row in snapshot.quarantined.items()]
            self.troubled.append(
                ServiceFacts(snapshot.service, dict(snapshot.counts_for_people), snapshot.routable, rows)
            )
        self.suspects += (
            SilentEndpoint(endpoint.service, endpoint.name, silence)
            for endpoint in snapshot.silent
            if (silence := self._silences.of(endpoint)) is not None
        )
        if any(snapshot.counts[status] for status in _AILING):
            self.ailing += (
                self._ailing(endpoint)
                for endpoint in snapshot.endpoints.values()
                if endpoint.status in _AILING and not endpoint.draining and not is_silent(endpoint)
            )
        presence = snapshot.presence(self._now, self._desired_counts)
        if presence.missing or presence.lost:
            silent = len(snapshot.silent)
            self.weak.append(StrengthFacts(snapshot.service, presence, silent, snapshot.expected_by))
        if snapshot.counts[Health.TIMEOUT]:
            self.lapses += (
                self._lapse(endpoint) for endpoint in snapshot.endpoints.values() if endpoint.status is Health.TIMEOUT
            )
        if snapshot.shares is not None and (misleading := misleading_shares(snapshot.groups)):
            self.misleading_shares.append(SharesFacts(snapshot.service, tuple(misleading), snapshot.shares.actor))
        if (shares := snapshot.shares) is not None and shares.shift is None:
            age = self._now - shares.set_at
            if age >= MAX_SHARES_AGE:
                self.old_shares.append(OldSharesFacts(snapshot.service, age, shares.actor, shares.reason))
        self.overrides += (
            OverrideFacts(endpoint.service, endpoint.name, endpoint.override)
            for endpoint in snapshot.overridden
            if endpoint.override is not None
        )

    def _ailing(self, endpoint: Endpoint) -> AilingEndpoint:
        seconds = None if endpoint.unroutable_at is None else max(0.0, self._now - endpoint.unroutable_at)
        status, detail = endpoint.status.value, endpoint.registration.detail
        return AilingEndpoint(endpoint.service, endpoint.name, status, detail, seconds)

    def _lapse(self, endpoint: Endpoint) -> Lapse:
        seconds = max(0.0, self._now - (endpoint.lapsed_at or self._now))
        return Lapse(endpoint.service, endpoint.name, endpoint.registration.instance_id, seconds, listed=True)


def _troubled(shifts: Iterable[tuple[str, Shift | None, tuple[Share, ...]]], now: float) -> list[ShiftFacts]:
    return [
        ShiftFacts(service, trouble)
        for service, shift, in_force in shifts
        if (trouble := trouble_of(shift, in_force, now))
    ]


def _mesh_facts(overview: RolloutOverview) -> MeshFacts:
    return MeshFacts(
        overview.revision,
        overview.unproven,
        overview.proven_by,
        overview.rollouts,
        overview.envoys,
        overview.gateways,
    )


def _badge_interval(took: float) -> float:
    """Return the seconds after which a page has the next verdict made; the last one took ``took`` seconds.

    It is early enough for the next one to be there before pages have to wait for it.
    """
    return min(max(MIN_BADGE_AGE, took / _MAX_SHARE), MAX_BADGE_AGE / 2)


def _log_failed(rule: str) -> None:
    log.exception("rule_failed", rule=rule)  # noqa: LOG004  # called while the exception is handled
