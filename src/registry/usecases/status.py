"""Status of the registry as a whole: its state in one document, and metrics."""

import asyncio
import os
import platform
import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.audit_writer import AuditWriter
from registry.background.change_feed import ChangeFeed
from registry.background.ecs_tasks import EcsTaskPoller
from registry.background.evidence import EvidenceReader
from registry.background.prober import Prober
from registry.background.process_reports import ProcessReports
from registry.background.server_tls import ServerTls
from registry.background.sweeper import Sweeper
from registry.background.traffic_metrics import TRAFFIC
from registry.cache.disk_snapshot import DiskSnapshot
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.abilities import Failure
from registry.core.admission import Limits
from registry.core.ecs_tasks import ClusterFailure
from registry.core.expiry_guard import EVERYWHERE
from registry.core.lease import sweep_overdue
from registry.core.peer_limit import ReachedLimits
from registry.core.processes import PROCESS_TIMEOUT, is_overdue
from registry.core.status import (
    AccessState,
    DatabaseState,
    EcsClusterFailureState,
    EcsTasksState,
    FailureState,
    LeasesState,
    LimitsState,
    PeerState,
    ProbesState,
    ProcessReportState,
    ProcessState,
    ReachedLimitState,
    SilentProcessState,
    SnapshotState,
    StateView,
    SweeperState,
    SweepRefusalState,
    TallyState,
    TlsState,
)
from registry.errors import UnavailableError
from registry.metrics_exposition import expose
from registry.program import VERSION
from registry.settings import Settings
from registry.store.cluster_status import ClusterStatus, RegistryBackend, read_cluster_status
from registry.store.database import Database
from registry.store.migration import newest_revision
from registry.store.would_refuse import WouldRefuse
from registry.usecases.access_review import AccessReview
from registry.usecases.process_health import ProcessHealth
from wire.address import format_endpoint

_MAX_NAMED = 20
"""Endpoints that are named where many may be in question."""
_DATABASE_TIMEOUT = 2.0
"""Seconds to wait for PostgreSQL: the caller asks because something is wrong, and must not wait for long."""


class Versions(Struct, frozen=True):
    """The versions of program, Python and schema."""

    program: str
    python: str
    schema: str


Covers = Callable[[str], bool]
"""Tells whether a service may be named."""


class StateReading(Struct, frozen=True):
    """The answers of PostgreSQL about the registry at one moment, with all services.

    Attributes:
        cluster: the status of the cluster; None: PostgreSQL does not answer.
        detail: why it does not.
        refusals: the requests of the last day that access would refuse; None: they could not be counted.
    """

    cluster: ClusterStatus | None
    detail: str
    refusals: Sequence[WouldRefuse] | None


def _worst_certificate(states: Sequence[TlsState]) -> TlsState | None:
    """Return a certificate whose files are refused, or else the one that expires first."""
    return min(states, key=lambda state: (state.problem is None, state.not_after), default=None)


class Status:
    """Tells how the registry stands.

    Args:
        policy: decides who may see it.
        database: asked for what concerns all processes.
        reads: held while it is asked, as in ``History``.
        cache: what this process answers discovery from.
        disk_snapshot: the same on disk.
        change_feed: notes when somebody swept.
        sweeper: tells whether this process sweeps, and what it could not change.
        reports: what each process reports of itself.
        reached_limits: the limits at which this process has refused something.
        audit: writes the audit.
        settings: intervals.
        tls: the certificates that are served; none without TLS.
        ecs_tasks: asks ECS for the tasks of suspects; None where that is off.
        prober: connects to endpoints; None where that is off.
        evidence: reads what the probers of all processes found.
        limits: those of new endpoints.
        access: reviews the access.
        health: tells whether each part of this process works.
    """

    def __init__(  # noqa: PLR0913  # it tells of nearly every part
        self,
        policy: Policy,
        *,
        database: Database,
        reads: asyncio.Semaphore,
        cache: SnapshotCache,
        disk_snapshot: DiskSnapshot,
        change_feed: ChangeFeed,
        sweeper: Sweeper,
        reports: ProcessReports,
        reached_limits: ReachedLimits,
        audit: AuditWriter,
        settings: Settings,
        tls: Sequence[ServerTls],
        ecs_tasks: EcsTaskPoller | None,
        prober: Prober | None,
        evidence: EvidenceReader,
        limits: Limits,
        access: AccessReview,
        health: ProcessHealth,
    ) -> None:
        self._policy = policy
        self._database = database
        self._reads = reads
        self._cache = cache
        self._disk_snapshot = disk_snapshot
        self._change_feed = change_feed
        self._sweeper = sweeper
        self._reports = reports
        self._reached_limits = reached_limits
        self._audit = audit
        self._settings = settings
        self._tls = tls
        self._ecs_tasks = ecs_tasks
        self._prober = prober
        self._evidence = evidence
        self._access = access
        self._health = health
        self._limits = limits
        self._started = time.monotonic()

    async def metrics(self, principal: Principal) -> list[bytes]:
        """Return the counters of all worker processes in Prometheus' text format, in parts of at most some 100 kB.

        Of the traffic they have the pairs whose caller or callee the principal may observe.
        """
        self._policy.allow(principal, Verb.OBSERVE)
        reach = self._policy.reach(principal, Verb.OBSERVE)
        try:
            counted = expose()
        except TimeoutError as error:
            raise UnavailableError("the counters of ended workers are being added up", cause=str(error)) from error
        except OSError as error:
            raise UnavailableError("the metrics of the workers cannot be read", cause=str(error)) from error
        return [counted, *await TRAFFIC.text(reach.covers)]

    def versions(self, principal: Principal) -> Versions:
        """Return the versions of program, Python and schema."""
        self._policy.allow(principal, Verb.OBSERVE)
        return Versions(VERSION, platform.python_version(), newest_revision())

    async def state(self, principal: Principal) -> StateView:
        """Return the registry's own state, within two seconds whatever PostgreSQL does.

        Services are named as far as the principal may observe them, and credentials if it may observe all services;
        they are counted all the same.
        """
        self._policy.allow(principal, Verb.OBSERVE)
        reach = self._policy.reach(principal, Verb.OBSERVE)
        named = reach.everything or self._policy.can(principal, Verb.ADMIN)
        return await self.view(await self.read(self._reads, _DATABASE_TIMEOUT), reach.covers, named=named)

    async def read(self, reads: asyncio.Semaphore, seconds: float) -> StateReading:
        """Return what PostgreSQL tells, for a use case that has asked the policy.

        Args:
            reads: held while PostgreSQL is asked.
            seconds: the time to wait for it.
        """
        (cluster, detail), refusals = await asyncio.gather(self._ask(reads, seconds), self._access.count(seconds))
        return StateReading(cluster, detail, None if cluster is None else refusals)

    async def view(self, reading: StateReading, covers: Covers, *, named: bool) -> StateView:
        """Return the registry's state by a reading and by what is in memory now.

        Args:
            reading: what PostgreSQL told.
            covers: tells which services may be named.
            named: whether credentials and their senders may be.
        """
        limits = await self._limits_now(covers)
        return self._state(reading, limits, self._access.state(reading.refusals, named=named), covers)

    async def _ask(self, reads: asyncio.Semaphore, seconds: float) -> tuple[ClusterStatus | None, str]:
        try:
            async with asyncio.timeout(seconds), reads:
                cluster = await read_cluster_status(self._database)
        except UnavailableError as error:
            return None, str(error)
        except TimeoutError:
            return None, f"PostgreSQL did not answer within {seconds:g} s"
        self._change_feed.swept.observe(cluster.swept, time.monotonic())
        return cluster, "answers"

    def _state(self, reading: StateReading, limits: LimitsState, access: AccessState, covers: Covers) -> StateView:
        cluster, reports = reading.cluster, self._reports.all()
        followers = None if cluster is None else [_peer(peer) for peer in cluster.followers]
        return StateView(
            at=time.time(),
            database_id=self._cache.database_id,
            process=ProcessState(reports[0].name, VERSION, os.getpid(), reports[0].started_at, self._cache.closing),
            parts=self._health.summary(),
            snapshot=self._snapshot(),
            database=_database(cluster, reading.detail),
            sweeper=self._sweeps(cluster, covers),
            replicas=followers or None,
            processes=[
                ProcessReportState(report.name, report.started_at, [self._failure(each) for each in report.failures])
                for report in reports
            ],
            silent_processes=None
            if cluster is None
            else [SilentProcessState(each.name, each.started_at, each.seconds) for each in self._reports.silent()],
            hanging=0 if cluster is None else _hanging(cluster, len(reports)),
            leases=None if cluster is None else _leases(cluster, covers),
            limits=limits,
            audit=self._audit.state(),
            access=access,
            tls=_worst_certificate([each.state for each in self._tls]),
            probes=None if self._prober is None else self._probes(self._prober.state),
            ecs_tasks=None if self._ecs_tasks is None else _ecs_tasks(self._ecs_tasks, named=access.named),
        )

    def _probes(self, state: ProbesState) -> ProbesState:
        return replace(state, failure=state.failure or self._evidence.failure)

    async def _limits_now(self, covers: Covers) -> LimitsState:
        misplaced = [
            (snapshot.service, address_port)
            async for snapshot in cooperatively(self._cache.services().values())
            for address_port in snapshot.misplaced(self._limits.networks.allows)
        ]
        named = [(service, address_port) for service, address_port in misplaced if covers(service)]
        return LimitsState(
            services=self._cache.service_count(),
            max_services=self._limits.services,
            endpoints=self._cache.endpoint_count(),
            max_endpoints=self._limits.endpoints,
            misplaced=[f"{service} {format_endpoint(*address_port)}" for service, address_port in named[:_MAX_NAMED]],
            misplaced_count=len(misplaced),
            reached=self._reached(),
        )

    def _reached(self) -> list[ReachedLimitState]:
        now = time.monotonic()
        states = [
            ReachedLimitState(name, limit.count, now - limit.at) for name, limit in self._reached_limits.reached.items()
        ]
        return sorted(states, key=lambda state: state.ago)

    def _snapshot(self) -> SnapshotState:
        cache, written_at = self._cache, self._disk_snapshot.written_at
        snapshots = cache.services().values()
        read = cache.ready and not cache.stale
        return SnapshotState(
            ready=cache.ready,
            stale=cache.stale,
            read_ago=asyncio.get_running_loop().time() - cache.synchronised_at if read else None,
            read_every=self._settings.resync_interval,
            services=len(snapshots),
            endpoints=sum(len(snapshot.endpoints) for snapshot in snapshots),
            quarantined=sum(len(snapshot.quarantined) for snapshot in snapshots),
            unavailable=len(cache.unsure),
            outdated=len(cache.outdated),
            suspects=sum(len(snapshot.silent) for snapshot in snapshots),
            archive_ago=None if written_at is None else time.monotonic() - written_at,
            archive_current=self._disk_snapshot.holds(cache),
        )

    def _sweeps(self, cluster: ClusterStatus | None, covers: Covers) -> SweeperState:
        leads = self._sweeper.leads
        from_memory = SweeperState(
            leads=leads,
            every=self._settings.sweep_interval,
            refused=self._sweep_refusals(covers) if leads else None,
            leases_replaced=self._sweeper.leases_replaced,
            history_cut_ago=self._sweeper.history_cut_ago(),
        )
        if cluster is None:
            return from_memory
        leader = None if cluster.leader is None else _peer(cluster.leader)
        settings, now = self._settings, time.monotonic()
        swept_ago = self._change_feed.swept.ago(now)
        overdue = sweep_overdue(swept_ago, now - self._started, settings.sweep_interval, settings.resync_interval)
        return replace(from_memory, swept_ago=swept_ago, overdue=overdue, leader=leader)

    def _sweep_refusals(self, covers: Covers) -> list[SweepRefusalState]:
        now = time.monotonic()
        refused = [(refusal.task, refusal.reason, now - refusal.since) for refusal in self._sweeper.refusals]
        return [
            SweepRefusalState(task.service, task.action, task.endpoint, reason, ago)
            for task, reason, ago in refused
            if task.service == EVERYWHERE or covers(task.service)
        ]

    def _failure(self, failure: Failure) -> FailureState:
        overdue = is_overdue(failure, self._settings.lease_ttl)
        return FailureState(failure.ability, failure.seconds, failure.total, overdue, failure.reason)


def _ecs_tasks(poller: EcsTaskPoller, *, named: bool) -> EcsTasksState:
    now = time.monotonic()
    failures, of_services = poller.failures, poller.services.failures

    def states(failing: Sequence[ClusterFailure]) -> list[EcsClusterFailureState]:
        return [
            EcsClusterFailureState(failure.cluster.name, failure.cluster.region, failure.reason, now - failure.since)
            for failure in (failing[:_MAX_NAMED] if named else ())
        ]

    return EcsTasksState(
        requests=poller.requests,
        answered_ago=None if poller.answered_at is None else now - poller.answered_at,
        watched=poller.watched,
        stopped=poller.stopped_count,
        failing_count=len(failures),
        failing=states(failures),
        services=poller.services.watched,
        services_answered=len(poller.services.desired(now)),
        services_failing_count=len(of_services),
        services_failing=states(of_services),
    )


def _database(cluster: ClusterStatus | None, detail: str) -> DatabaseState:
    if cluster is None:
        return DatabaseState(answers=False, detail=detail, schema_expected=newest_revision())
    return DatabaseState(
        answers=True,
        detail=detail if cluster.writable else "answers, and refuses writes: it is a standby, or set to read only",
        writable=cluster.writable,
        server=cluster.server,
        schema=cluster.schema,
        schema_expected=newest_revision(),
        clock_ahead=cluster.ahead,
        took=cluster.took,
    )


def _hanging(cluster: ClusterStatus, reporting: int) -> int:
    """Return how many more processes follow changes than report; one that has just begun may do so soon."""
    now = time.time() + cluster.ahead
    lasting = [peer for peer in cluster.followers if peer.since is None or now - peer.since > PROCESS_TIMEOUT]
    return max(0, len(lasting) - reporting)


def _peer(peer: RegistryBackend) -> PeerState:
    return PeerState(peer.address, peer.since)


def _leases(cluster: ClusterStatus, covers: Covers) -> LeasesState:
    latest = [
        TallyState(tally.service, tally.leases, tally.late, tally.expired)
        for tally in cluster.latest
        if covers(tally.service)
    ]
    return LeasesState(cluster.leases, cluster.late, cluster.expired, latest, cluster.missing)
