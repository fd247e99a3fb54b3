"""One registry process of the world: the real parts of one, over the PostgreSQL in memory."""

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import msgspec
from faults.simulation.link import Database, Session
from faults.simulation.network import SimulatedProber
from faults.simulation.rules import EXCUSED, settings

from registrar.registry_client.http_client import ConnectError
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.background.change_feed import ChangeFeed
from registry.background.evidence import EvidenceReader
from registry.background.prober import LOOK_INTERVAL
from registry.background.process_reports import ProcessReports
from registry.background.sweeper import Sweeper
from registry.cache.heartbeat_cache import HeartbeatCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.abilities import Abilities
from registry.core.admission import Admission, Limits
from registry.core.audit import AuditQueue
from registry.core.endpoint import Key
from registry.core.probe_requests import ProbeRequests
from registry.core.snapshot import Snapshot
from registry.errors import RegistryError, UnavailableError
from registry.http.problems import problem_for
from registry.http.v1.heartbeats import heartbeat_result
from registry.periodic import next_pass
from registry.usecases.audit import Audit
from registry.usecases.heartbeat import Heartbeats
from registry.usecases.operator_deregistration import OperatorDeregistration
from registry.usecases.registration import Registrations
from registry.xds.discovery import Discovery
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.eds import AssignmentCache
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS
from wire.address import parse_endpoint
from wire.http1 import Response
from wire.model import Heartbeat, HeartbeatResult, HeartbeatResults
from wire.problem import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from faults.simulation.world import World

_PATIENCE = 2.0
_REGISTRAR = Principal("registrar")
_PROBE_EVERY = 0.1
"""Seconds between two probes: a fraction of the real rate, for a fleet that is a fraction of a real one."""
_KEEP_EVERY = 5.0
_PRUNE_EVERY = 30.0
_ROUNDING = 1e-6
"""Seconds that two ways to add up the same times may differ by."""


def response(status: int, body: bytes, content_type: str = "application/json") -> Response:
    """Return a response to a registrar."""
    return Response(status, "", {"content-type": content_type}, body)


class Replica:
    """A process that can be killed, frozen, cut off from PostgreSQL, and started again from its disk.

    ``life`` counts its starts: what an earlier one had scheduled does not happen. ``thaws_at`` is when a stop ends.
    ``lag`` is by how much its notifications are late, None if they are lost. ``stall_for`` is how long the process is
    to be stopped in a sweep, after the answer to the statement ``stall_after``, and ``step_by`` by how many seconds the
    database's clock is to be set there. ``deaf_since`` is the moment since which it accepts no connection,
    ``barred_since`` the one since which PostgreSQL refuses its heartbeats; None when that is not so.
    ``wall_ahead`` is by how many seconds its wall clock was set.
    """

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.settings = settings()
        self.up = False
        self.thaws_at = 0.0
        self.life = 0
        self.cut = False
        self.lag: float | None = 0.05
        self.stall_after, self.stall_for, self.step_by = "", 0.0, 0.0
        self.deaf_since: float | None = None
        self.barred_since: float | None = None
        self.wall_ahead = 0.0
        self._kept: dict[str, Snapshot] = {}
        self.start()

    def start(self) -> None:
        """Build every part anew and begin their loops."""
        self.up, self.thaws_at = True, 0.0
        self.life += 1
        self.database = Database(self.world.postgres, self._stall, self.world.run)
        self.database.cut = self.cut
        # The real parts ask for the real types; what they call of them is there.
        database = cast("Any", self.database)
        self.cache = _Directory(self)
        self.change_feed = ChangeFeed(database, self.cache, self.settings)
        self.abilities = Abilities(self.settings.lease_ttl)
        self.reports = ProcessReports(database, self.abilities, self.settings.lease_ttl)
        admission = Admission(Limits.of(self.settings), self.cache.service_count, self.cache.endpoint_count)
        audit = Audit(AuditQueue(), self.cache.clock)
        self.registrations = Registrations(
            Policy(), database, self.cache, self.change_feed, self.abilities, admission, audit
        )
        self._heartbeats = Heartbeats(
            Policy(),
            self.registrations,
            self.cache,
            HeartbeatCache(self.cache),
            HeartbeatCache(self.cache),
            self.settings,
            ProbeRequests(),
        )
        self.operator_deregistration = OperatorDeregistration(Policy(), database, self.cache, self.change_feed, audit)
        network = self.world.network
        evidence = None if network is None else EvidenceReader(database, self.cache, self.world.platform).of
        self.sweeper = Sweeper(
            database, self.cache, self.change_feed, self.settings, self.reports.credit_reason, evidence
        )
        self.discovery = Discovery(
            [ServedType(ENDPOINTS, AssignmentCache(self.cache))], Policy(), 0, self.settings.max_sightings
        )
        self._session: Session | None = None
        self._resync_due = 0.0
        for every, act in ((1.0, self.sweeper.sweep), (_KEEP_EVERY, self._keep), (_PRUNE_EVERY, self.sweeper.prune)):
            self._repeat(self.world.random.uniform(0, every), every, act)
        self._repeat(0.0, 1.0, self.follow)
        self._repeat(self.world.random.uniform(0, 1), 1.0, self._report)
        self._soon(_PATIENCE, self._fall_back)
        if network is not None:
            prober = SimulatedProber(self, database, network)
            for every, act in ((_PROBE_EVERY, prober.step), (1.0, prober.scan), (LOOK_INTERVAL, prober.publish)):
                self._repeat(every, every, act)

    def kill(self) -> None:
        """Lose everything that is not on disk."""
        self.up = False
        self.life += 1
        self.database.closed = True
        if self._leads:
            self.world.postgres.lead = None

    @property
    def address(self) -> str:
        """The address that it connects from."""
        return f"10.9.0.{self.name.removeprefix('replica-')}"

    @property
    def frozen(self) -> bool:
        """Whether it is stopped."""
        return self.world.clock.now < self.thaws_at

    def freeze(self, seconds: float) -> None:
        """Stop it for so long."""
        self.thaws_at = max(self.thaws_at, self.world.clock.now + seconds)

    @property
    def working(self) -> bool:
        """Whether it can store what it is told."""
        return self.up and not self.frozen and not self.cut

    @property
    def shut_since(self) -> float | None:
        """The moment since which no heartbeat can be stored here although the process runs and reaches PostgreSQL."""
        return min((since for since in (self.deaf_since, self.barred_since) if since is not None), default=None)

    @property
    def stores(self) -> bool:
        """Whether a heartbeat is stored here."""
        return self.working and self.shut_since is None

    @property
    def answers(self) -> bool:
        """Whether a heartbeat is stored here, or what is not stored is credited."""
        if self.shut_since is None or self.world.clock.now < self.shut_since + EXCUSED:
            return self.working
        if self.world.dns.addresses != self.world.addresses:
            # Nobody may ask the others, and then nobody knows that they fail as well.
            return False
        living = [one for one in self.world.replicas if one.working]
        return self.working and all(one.shut_since is not None for one in living)

    def excuses(self, key: Key) -> bool:
        """Tell whether a heartbeat for a place that failed here failed by no fault of its registrar."""
        refused = self.world.postgres.refused_services
        concerned = {row.service for row in self.world.postgres.tables.listed() if row.key[1:] == key[1:]} | {key[0]}
        return self.shut_since is not None or any(name in refused for name in concerned)

    def cut_off(self, cut: bool) -> None:
        """Take or give it its way to PostgreSQL."""
        self.cut = self.database.cut = cut
        if cut and self._leads:
            self.world.postgres.lead = None
        if cut:
            self._session = None

    @property
    def _leads(self) -> bool:
        lead = self.world.postgres.lead
        return isinstance(lead, Session) and lead.database is self.database

    def notified(self, told: str) -> None:
        """PostgreSQL says that a service changed, and to which change; the news may be late, or lost."""
        if self.up and self.lag is not None and self._session is not None:
            life = self.life

            async def hear() -> None:
                if self.life == life:
                    self.change_feed._on_notification(told)
                    await self.follow()

            self._soon(self.lag, hear)

    async def follow(self) -> None:
        """Do what the feed does between two waits."""
        try:
            if self._session is None or self.world.clock.now >= self._resync_due:
                await self.resynchronise()
            else:
                await self.change_feed._catch_up(cast("Any", self._session))
        except (UnavailableError, asyncpg.PostgresError) as error:
            self._session = None
            self.change_feed._note_loss(UnavailableError(str(error)))

    async def reconnect(self) -> None:
        """Notice that the connection is dead, and make another one."""
        self._session = None
        await self.follow()

    async def resynchronise(self) -> None:
        """Compare all versions, over a new connection if there is none."""
        if self._session is None:
            session = Session(self.database)
            await self.change_feed._check_database()
            await self.change_feed._resynchronise(cast("Any", session))
            self._session = session
            self.change_feed._note_following()
        else:
            await self.change_feed._resynchronise(cast("Any", self._session))
        self._resync_due = self.world.clock.now + self.settings.resync_interval

    async def request(self, method: str, url: str, beats: Sequence[Heartbeat] | None) -> Response:
        """Answer a registrar: its heartbeats, or without any the drain or deregistration that the URL names."""
        self._connect(anew=True)
        try:
            if beats is None:
                return response(200, await self._leave(method, url))
            return response(200, msgspec.json.encode(HeartbeatResults(await self.heartbeats(beats))))
        except RegistryError as error:
            return _refusal(problem_for(error))
        except asyncpg.PostgresError as error:
            return _refusal(Problem("Defect", 500, str(error)))

    async def heartbeats(self, beats: Sequence[Heartbeat]) -> list[HeartbeatResult]:
        """Answer a batch, as the API does."""
        self._check_ready()
        answers = [heartbeat_result(beat, await self._heartbeats.register_one(_REGISTRAR, beat)) for beat in beats]
        for beat, answer in zip(beats, answers, strict=True):
            self.world.answered(beat, answer)
        return answers

    async def poll(self, body: bytes) -> DiscoveryResponse:
        """Answer an Envoy, which is not held."""
        self._connect()
        self._check_ready()
        path = self.discovery.paths["/v3/discovery:endpoints"]
        request = self.discovery.read(path, Principal("envoy"), body)
        return self.discovery.now(path, request, "envoy") or DiscoveryResponse(304)

    async def _leave(self, method: str, url: str) -> bytes:
        self._check_ready()
        key, instance_id, incarnation = _claim(url)
        if method == "DELETE":
            await self.registrations.deregister(_REGISTRAR, key, instance_id, incarnation)
            return b""
        found = (await self.registrations.drain(_REGISTRAR, key, instance_id, incarnation)).endpoint
        told = found.registration
        listed = {"status": found.status, "health": told.health, "detail": told.detail, "leaving_at": found.leaving_at}
        return msgspec.json.encode(listed)

    def _connect(self, *, anew: bool = False) -> None:
        if self.up and anew and self.deaf_since is not None:
            self.abilities.accept.failed("no descriptor is left", self.world.clock.now)
            raise ConnectError("no connection in time")
        if not self.up:
            raise ConnectError("connection refused")
        if anew:
            self.abilities.accept.worked(self.world.clock.now)
        if self.frozen:
            raise TimeoutError

    def _check_ready(self) -> None:
        if not self.cache.ready:
            raise UnavailableError("the registry is not ready")

    async def _report(self) -> None:
        await self.registrations.probe()
        await self.reports.exchange()

    async def _keep(self) -> None:
        if self.cache.ready and not self.cache.stale:
            self._kept = dict(self.cache.services())

    async def _fall_back(self) -> None:
        if not self.cache.ready and self._kept:
            fresh = {name: Snapshot(name, one.version, one.change, one.endpoints) for name, one in self._kept.items()}
            self.cache.restore("world", fresh)

    async def _stall(self, statement: str) -> None:
        """Let what is planned to happen in the middle of a sweep happen here, if this is the place."""
        if statement != self.stall_after or not self._leads or self.world.stopped:
            return
        self.stall_after = ""
        if self.step_by:
            self.world.troubles.step(self)
        if self.stall_for:
            seconds, self.stall_for = self.stall_for, 0.0
            await self.world.stop(self, seconds)

    def job_time(self) -> float:
        """Return the time of the clock that periodic jobs wait by."""
        return self.world.clock.now

    def _repeat(self, delay: float, every: float, act: Any) -> None:
        due = self.job_time() + delay

        async def turn() -> None:
            nonlocal due
            early = due - self.job_time()
            if early > _ROUNDING:
                # The clock was set while the job waited; it is asked again soon, because it may be set once more.
                self._soon(min(early, 1.0), turn)
                return
            # A job that fails is logged, and runs again when it is due.
            with suppress(asyncpg.PostgresError):
                await act()
            due = next_pass(due, every, self.job_time())
            self._soon(due - self.job_time(), turn)

        self._soon(delay, turn)

    def _soon(self, delay: float, act: Any) -> None:
        life = self.life

        async def unless_gone() -> None:
            if self.life != life:
                return
            if self.frozen:
                self.world.soon(min(0.5, self.thaws_at - self.world.clock.now), unless_gone)
                return
            await act()

        self.world.soon(delay, unless_gone)


def _claim(url: str) -> tuple[Key, str, int]:
    """Read the URL that ``registrar.registry_client.endpoint_ref`` wrote."""
    parts = urlsplit(url)
    _, _, _, service, _, endpoint, *_ = parts.path.split("/")
    told = parse_qs(parts.query)
    return (unquote(service), *parse_endpoint(unquote(endpoint))), told["instance_id"][0], int(told["incarnation"][0])


def _refusal(problem: Problem) -> Response:
    headers = {"content-type": CONTENT_TYPE}
    if problem.retry_after is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after))
    return Response(problem.status, "", headers, msgspec.json.encode(problem))


class _Directory(SnapshotCache):
    """The real one, in virtual time; an answer does not wait for the feed longer than the feed takes at once."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica

    def mark_ready(self, now: float, unread: Collection[str] = ()) -> None:
        """Take note of a reading at the virtual time: the event loop's clock is a real one."""
        super().mark_ready(self._replica.world.clock.now, unread)

    async def wait_for_change(self, service: str, change: int, seconds: float) -> bool:
        """Let the feed read what its own process nudged, if it can."""
        if self.get(service).change < change and self._replica.lag is not None:
            await self._replica.follow()
        return self.get(service).change >= change
