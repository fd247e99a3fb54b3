"""One registry process: its parts, how they start and how they stop."""

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import structlog

from registry import metrics
from registry.auth.access_table import AccessTable
from registry.auth.aws_login import LoginRules
from registry.auth.credential import Limits as IdentityLimits
from registry.auth.other_parties import oidc_provider_of, signed_headers_of, sts_of
from registry.auth.policy import Policy
from registry.auth.verbs import Verb
from registry.background import access_feed, audit_writer, mesh_pruner, rejection_events
from registry.background.access_feed import AccessFeed
from registry.background.audit_writer import AuditWriter
from registry.background.change_feed import ChangeFeed
from registry.background.disk_copies import WRITE_INTERVAL, DiskCopies, PacedWrite
from registry.background.ecs_tasks import REQUEST_INTERVAL, EcsTaskPoller
from registry.background.errand_delivery import ErrandDelivery
from registry.background.evidence import EvidenceReader
from registry.background.mesh_feed import MeshFeed
from registry.background.mesh_gateways import GATEWAY_INTERVAL, GatewayCompiler
from registry.background.mesh_pruner import MeshPruner
from registry.background.probe_planner import PLAN_INTERVAL, ProbePlanner
from registry.background.prober import LOOK_INTERVAL, PROBE_INTERVAL, SCAN_INTERVAL, Prober
from registry.background.process_reports import ProcessReports
from registry.background.publish_target import target_of
from registry.background.publisher import PUBLISH_INTERVAL as PUBLISH_ROUND
from registry.background.publisher import Publisher
from registry.background.rejection_events import RejectionEvents
from registry.background.server_tls import RELOAD_INTERVAL, ServerTls
from registry.background.shifts import LOOK_INTERVAL as SHIFT_INTERVAL
from registry.background.shifts import EndpointTotals, Shifts
from registry.background.subscriber_sync import SubscriberSync
from registry.background.sweeper import Sweeper
from registry.background.traffic_exchange import EXCHANGE_INTERVAL, TrafficExchange
from registry.background.traffic_metrics import TRAFFIC
from registry.cache.heartbeat_cache import HeartbeatCache
from registry.cache.mesh_cache import MeshCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.compiler.compiler import Compiler
from registry.cooperative import cooperatively
from registry.core.abilities import Abilities
from registry.core.admission import Admission, Limits
from registry.core.audit import AuditQueue
from registry.core.peer_limit import PeerSlots, ReachedLimits
from registry.core.quotas import Quotas, QuotaSettings
from registry.core.shift_statistics import Counts
from registry.core.subscriber_status import PUBLISH_INTERVAL, SubscriberFilter
from registry.core.traffic_table import TrafficTable
from registry.database_url import DatabaseUrl
from registry.descriptors import cap_held_errands, descriptor_limit
from registry.errors import UnavailableError
from registry.garbage_collection import settle, unsettle
from registry.periodic import Periodic
from registry.process_gauges import GAUGE_INTERVAL, ProcessGauges
from registry.program import VERSION
from registry.rollout.registered_services import RegisteredServices
from registry.rollout.rollouts import LOOK_INTERVAL as ROLLOUT_INTERVAL
from registry.rollout.rollouts import Rollouts
from registry.rollout.sightings import TELL_INTERVAL, Sightings, StreamSightings
from registry.settings import Settings
from registry.store import errands as errand_store
from registry.store.database import ERRANDS_CHANNEL, MESH_CHANNEL, Database
from registry.store.migration import migrate
from registry.usecases.access_review import AccessReview
from registry.usecases.audit import Audit, AuditTrail
from registry.usecases.authentication import Authentication
from registry.usecases.bulk import BulkChanges
from registry.usecases.catalog import Catalog
from registry.usecases.credentials import Credentials
from registry.usecases.drop_in import DropInHosts
from registry.usecases.errands import Errands
from registry.usecases.expiry import ExpiryControl
from registry.usecases.explain import Explanations
from registry.usecases.heartbeat import Heartbeats
from registry.usecases.history import History, PeerStreams
from registry.usecases.login import Logins, login_limit
from registry.usecases.mesh import MeshConfiguration
from registry.usecases.mesh_revisions import MeshRevisions
from registry.usecases.mesh_rollout import MeshRollouts
from registry.usecases.mesh_services import MeshServices
from registry.usecases.mesh_status import MeshStatus
from registry.usecases.oidc_sign_in import OidcSignIns
from registry.usecases.operator_deregistration import OperatorDeregistration
from registry.usecases.overrides import OverrideListing
from registry.usecases.presence import ServiceStrength
from registry.usecases.probe_reports import ProbeReports
from registry.usecases.process_health import ProcessHealth
from registry.usecases.registration import Registrations
from registry.usecases.shares import TrafficShares
from registry.usecases.shifts import TrafficShifts
from registry.usecases.sign_in import SignIns
from registry.usecases.silence import Silences
from registry.usecases.status import Status
from registry.usecases.stream_access import StreamAccess
from registry.usecases.subscribers import SubscriberListing
from registry.usecases.traffic import Traffic
from registry.usecases.traffic_failures import TrafficFailures
from registry.usecases.verdict import Verdicts
from registry.usecases.whoami import Whoami
from registry.xds.discovery import Discovery
from registry.xds.edge_discovery import EdgeDiscovery
from registry.xds.eds import AssignmentCache
from registry.xds.grpc.observer import Rejection
from registry.xds.grpc.streams import StreamEntry, Streams
from registry.xds.mesh import MeshResources
from registry.xds.peer_polls import PeerPolls
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS, MESH_TYPES, ResourceType
from registry.xds.sds_v1 import HostsV1
from wire.orphans import REAP_INTERVAL, OrphanReaper

log = structlog.get_logger()

_PRUNE_INTERVAL = 30.0
_FORGET_ERRANDS_INTERVAL = 60.0
_COUNT_INTERVAL = 5.0
"""Seconds between two counts of what instances and identities have registered."""
_REPORT_INTERVAL = 1.0
_MAX_READS = 2
"""Connections to PostgreSQL that people and consoles share, so that heartbeats always have theirs."""


class RegistryProcess:
    """The parts of one process, built from its settings; several processes share one database and nothing else.

    Args:
        settings: of this process.
        database_url: of the database that the processes share.
        served: resource types that discovery serves beside EDS.
        tls: the TLS of each listener that has it, whose files are followed.
    """

    def __init__(
        self,
        settings: Settings,
        database_url: DatabaseUrl,
        served: Iterable[ServedType] = (),
        *,
        tls: Sequence[ServerTls] = (),
    ) -> None:
        self.settings = settings
        self.tls = tls
        self.database = Database(
            database_url, connections=settings.database_connections, timeout=settings.database_timeout
        )
        self._database_url = database_url
        self.limits = Limits.of(settings)
        """The limits for new endpoints."""
        self.cache = SnapshotCache()
        self._make_access()
        self._make_writes()
        self._make_expiry()
        self._make_discovery(served)
        self._make_use_cases()
        self._make_mesh()
        self.parts = {type(part): part for part in self._parts_of_routes()}
        """The parts that routes ask for, by their class; written here alone."""
        self._jobs = Periodic()
        self._orphans = OrphanReaper()
        self._following: asyncio.Task[None] | None = None
        """Follows the database, from the start to the stop."""
        self._delivering: asyncio.Task[None] | None = None
        """Hands errands to registrars, from the start to the stop."""
        self._following_mesh: asyncio.Task[None] | None = None
        """Follows the mesh configuration, from the start to the stop."""
        self._fallback: asyncio.Task[None] | None = None
        """Serves the copies on disk when PostgreSQL is not read soon."""

    def _make_access(self) -> None:
        """Make what proves who sends a request, decides what it may, and notes what it did."""
        settings = self.settings
        audit_queue = AuditQueue()
        self.audit = Audit(audit_queue, self.cache.clock)
        self.audit_writer = AuditWriter(self.database, audit_queue, settings, lambda: self.sweeper.leads)
        verbs = [Verb(verb) for verb in settings.auth_audit_verbs]
        self.policy = Policy(settings.auth, verbs, self.audit.note_refusal)
        self.access = AccessTable()
        self.access_feed = AccessFeed(self.database, self.access, self.cache.clock)
        self.signed_headers = signed_headers_of(settings)
        """Tells whom the load balancer has signed in; None where none does."""
        self.authentication = Authentication(
            self.access, self.access_feed, self.cache.clock, self.signed_headers, settings.trusted_proxies
        )
        self.sts = sts_of(settings)
        """AWS STS; None where AWS login is off."""
        self.logins = Logins(
            self.database,
            self.access,
            self.cache.clock,
            LoginRules(frozenset(settings.aws_regions), frozenset(settings.aws_audience)),
            self.sts,
            self.audit,
            login_limit(settings.unlimited_networks) if settings.auth == "on" else None,
        )
        # The sign-in provider of people; None without one.
        self.oidc = oidc_provider_of(settings)

    def _make_writes(self) -> None:
        """Make what follows the database, and what changes it for registrars and operators."""
        settings = self.settings
        self.mesh = MeshCache()
        self.mesh_feed = MeshFeed(self.database, self.mesh)
        if settings.xds_listen is not None:
            from registry.xds.grpc.mesh import encode_ahead  # noqa: PLC0415  # only here is protobuf needed

            self.mesh_feed.on_body = encode_ahead
        self.compiler = Compiler()
        held = cap_held_errands(settings.max_held_polls, descriptor_limit())
        self.errand_delivery = ErrandDelivery(self.database, held, listens=settings.listen_notify)
        self.change_feed = ChangeFeed(
            self.database,
            self.cache,
            settings,
            self._prepare,
            settle,
            {MESH_CHANNEL: self._on_mesh_notification, ERRANDS_CHANNEL: self.errand_delivery.nudge},
        )
        self.abilities = Abilities(settings.lease_ttl)
        self.reports = ProcessReports(self.database, self.abilities, settings.lease_ttl)
        admission = Admission(self.limits, self.cache.service_count, self.cache.endpoint_count)
        self.reached_limits = ReachedLimits()
        self.quotas = self._quotas() if settings.auth == "on" else None
        """The quotas of instances and identities; None while access is not closed."""
        self.registrations = Registrations(
            self.policy,
            self.database,
            self.cache,
            self.change_feed,
            self.abilities,
            admission,
            self.audit,
            self.quotas,
            self.reached_limits,
        )

    def _make_expiry(self) -> None:
        """Make what finds lost endpoints, and what tells the dead from the silent."""
        settings = self.settings
        # Asks ECS for the tasks of suspects; None where that is off.
        self.ecs_tasks = EcsTaskPoller(self.cache, lambda: self.sweeper.leads) if settings.ecs_tasks == "on" else None
        self.evidence = EvidenceReader(
            self.database, self.cache, None if self.ecs_tasks is None else self.ecs_tasks.word
        )
        self.sweeper = Sweeper(
            self.database, self.cache, self.change_feed, settings, self.reports.credit_reason, self.evidence.of
        )
        self.traffic = TrafficExchange(self.database, TrafficTable(settings.traffic_pairs), self.reports.process_id)
        """The traffic that Envoys tell of, of all processes."""
        TRAFFIC.set_source(self.traffic.table.totals)
        self.shifts = Shifts(
            self.database, self.cache, self.change_feed, lambda: self.sweeper.leads, self._endpoint_figures
        )
        # Publishes endpoints for times when every registry is away; None where that is off.
        place = settings.publish_to
        self.publisher = Publisher(target_of(place), self.cache, lambda: self.sweeper.leads) if place else None
        # Connects to endpoints, to tell the dead from the silent; None where that is off.
        self.prober = self._prober() if settings.probes_on else None

    def _make_discovery(self, served: Iterable[ServedType]) -> None:
        """Make what answers polls and streams, and what is known of those that send them."""
        settings = self.settings
        endpoints = ServedType(ENDPOINTS, AssignmentCache(self.cache))
        mesh_types = (ServedType(each, MeshResources(each, self.mesh)) for each in MESH_TYPES)
        served_types = (endpoints, *mesh_types, *served)
        self.rejections = RejectionEvents(self.database, self.cache.clock)
        self.streams = Streams(served_types, self.cache.clock, self._note_rejection)
        """The gRPC streams of this process, as lists of subscribers see them."""
        self.discovery = Discovery(
            served_types,
            self.policy,
            settings.max_held_polls,
            settings.max_sightings,
            self._peer_polls(),
        )
        self.edge_discovery = EdgeDiscovery(self.discovery, self.policy, settings.max_sightings)
        self.subscribers = self.discovery.subscribers[ENDPOINTS.name]
        """The subscribers of EDS, which alone are listed, published to the other processes, and counted."""
        self.subscriber_sync = SubscriberSync(
            self.database, self.cache, self.subscribers, self.streams, self.reports.process_id
        )
        self.stream_access = StreamAccess(self.policy, self.authentication, self.streams)
        """Admits streams: what opens them asks its admit(), by way of an AdmittedService."""
        self.sightings = Sightings(
            self.database,
            self.cache.clock,
            self.discovery.subscribers,
            self.reports,
            lambda service: self.subscriber_sync.own_reports(SubscriberFilter(service=service)),
            StreamSightings(
                self.streams,
                {each.name: MeshResources(each, self.mesh) for each in MESH_TYPES},
                self.subscriber_sync.streams.of_clusters,
            ),
        )
        self.rollouts = Rollouts(
            self.database,
            self.sightings,
            lambda: self.sweeper.leads,
            lambda: self.mesh_feed.change,
            self.mesh_feed.nudge,
        )

    def _make_use_cases(self) -> None:
        """Make what stands beside the routes, which `_parts_of_routes` completes."""
        settings = self.settings
        self.disk_copies = DiskCopies(settings.data_dir, self.cache, self.access, self.mesh)
        self.probe_planner = ProbePlanner(self.cache, self.limits.networks)
        self.heartbeats = Heartbeats(
            self.policy,
            self.registrations,
            self.cache,
            HeartbeatCache(self.cache),
            HeartbeatCache(self.cache),
            settings,
            self.probe_planner.requests,
        )
        v1_hosts = HostsV1(self.cache, settings.environment)
        self.hosts = DropInHosts(self.policy, self.cache, v1_hosts, self.subscribers, self.registrations)
        self.silences = Silences(self.cache, settings.last_endpoint_hold)
        self._gauges = ProcessGauges(
            self.cache, self.silences, self.subscriber_sync, self.subscribers, self.edge_discovery
        )
        self.catalog = Catalog(self.policy, self.cache, self.silences)
        self.health = ProcessHealth(self.policy, self.cache, settings, self.change_feed, self.sweeper, self.abilities)
        """Tells whether this process can answer."""

    def _make_mesh(self) -> None:
        """Make what compiles mesh configuration, and deletes what is old of it."""
        settings = self.settings
        self.registered_services = RegisteredServices(self.database, self.cache)
        self.mesh_configuration = self._mesh_configuration()
        self.gateways = GatewayCompiler(
            self.database,
            self.cache,
            self.mesh,
            self.mesh_feed,
            self.compiler,
            self.registered_services,
            lambda: self.sweeper.lead,
            envoy_binary=settings.envoy_binary or "",
        )
        self.mesh_pruner = MeshPruner(self.database, settings, lambda: self.sweeper.leads)

    def _mesh_configuration(self) -> MeshConfiguration:
        return MeshConfiguration(
            self.policy,
            database=self.database,
            cache=self.mesh,
            services=self.registered_services,
            feed=self.mesh_feed,
            audit=self.audit,
            compiler=self.compiler,
            sightings=self.sightings,
            envoy_binary=self.settings.envoy_binary,
        )

    def _quotas(self) -> Quotas:
        settings, identities = self.settings, self.access.identities

        def limits_of(owner: str) -> IdentityLimits:
            identity = identities().get(owner.removeprefix("identity:")) if owner.startswith("identity:") else None
            return IdentityLimits() if identity is None else identity.limits

        limits = QuotaSettings(
            settings.max_instance_endpoints, settings.max_instance_changes, settings.max_identity_services
        )
        return Quotas(limits, limits_of)

    def _prober(self) -> Prober:
        return Prober(self.reports.process_id, self.database, self.cache, self.limits.networks)

    def _peer_polls(self) -> PeerPolls | None:
        """Return the count of the held polls of each peer; None while access is not closed."""
        settings = self.settings
        if settings.auth != "on":
            return None
        return PeerPolls(PeerSlots(settings.unlimited_networks), settings.max_peer_polls, self.reached_limits)

    def _peer_streams(self) -> PeerStreams | None:
        """Return the count of the event streams of each peer; None while access is not closed."""
        settings = self.settings
        if settings.auth != "on":
            return None
        return PeerStreams(PeerSlots(settings.unlimited_networks), settings.max_peer_streams, self.reached_limits)

    def _parts_of_routes(self) -> Iterable[object]:
        policy, database, cache, settings = self.policy, self.database, self.cache, self.settings
        reads = asyncio.Semaphore(_MAX_READS)
        deregistration = OperatorDeregistration(policy, database, cache, self.change_feed, self.audit)
        sign_ins = SignIns(
            policy, database, self.access, self.access_feed, cache.clock, self.audit, settings.unlimited_networks
        )
        rollouts = MeshRollouts(policy, database, self.mesh_feed, self.audit)
        status = Status(
            policy,
            database=database,
            reads=reads,
            cache=cache,
            disk_snapshot=self.disk_copies.snapshot,
            change_feed=self.change_feed,
            sweeper=self.sweeper,
            reports=self.reports,
            reached_limits=self.reached_limits,
            audit=self.audit_writer,
            settings=settings,
            tls=self.tls,
            ecs_tasks=self.ecs_tasks,
            prober=self.prober,
            evidence=self.evidence,
            limits=self.limits,
            access=AccessReview(policy, settings, database=database, reads=reads, table=self.access, clock=cache.clock),
            health=self.health,
        )
        return (
            settings,
            cache.clock,
            self.authentication,
            self.discovery,
            self.edge_discovery,
            self.registrations,
            self.heartbeats,
            Credentials(policy, database, self.access, self.access_feed, self.audit),
            self.logins,
            sign_ins,
            OidcSignIns(self.oidc, sign_ins, cache.clock),
            Whoami(policy, self.access, cache),
            AuditTrail(policy, database, reads),
            self.catalog,
            self.silences,
            self.hosts,
            Errands(policy, self.registrations, database, cache, self.errand_delivery, self.audit),
            ExpiryControl(policy, database, cache, reads, self.audit, self.silences),
            Explanations(policy, database, cache, settings, reads, self.silences, self.evidence, self.subscriber_sync),
            History(policy, database, cache, reads, self._peer_streams()),
            rollouts,
            self.mesh_configuration,
            MeshRevisions(policy, database, self.mesh, self.registered_services, self.compiler),
            MeshServices(policy, database, cache, self.registered_services, self.mesh_feed, self.audit),
            MeshStatus(policy, database, self.mesh, self.sightings, self.compiler),
            OverrideListing(policy, cache),
            ProbeReports(policy, self.registrations, cache, database),
            ServiceStrength(policy, database, cache, self.change_feed, self.audit),
            TrafficShares(policy, database, cache, self.change_feed, self.subscriber_sync, self.audit),
            TrafficShifts(policy, database, cache, self.change_feed, self.audit),
            deregistration,
            BulkChanges(policy, self.registrations, deregistration),
            self.health,
            status,
            SubscriberListing(policy, self.subscriber_sync),
            Traffic(policy, cache, self.traffic),
            Verdicts(
                policy,
                status,
                database,
                cache,
                self.subscriber_sync,
                self.silences,
                rollouts,
                TrafficFailures(self.traffic),
            ),
        )

    async def start(self) -> None:
        """Begin to follow the database and to sweep; return at once, also when the database is unavailable."""
        metrics.BUILD.labels(VERSION, platform.python_version()).set(1)
        settle()
        self._following = asyncio.create_task(self.change_feed.run())
        self._following_mesh = asyncio.create_task(self.mesh_feed.run())
        self._delivering = asyncio.create_task(self.errand_delivery.run())
        self._jobs.every(self.settings.sweep_interval, "sweep", self.sweeper.sweep)
        self._jobs.every(_PRUNE_INTERVAL, "prune", self.sweeper.prune)
        self._jobs.every(_PRUNE_INTERVAL, "prune_logins", self.logins.prune)
        self._jobs.every(GAUGE_INTERVAL, "count", self._gauges.set)
        for name, write in self.disk_copies.writes().items():
            self._jobs.every(WRITE_INTERVAL, name, PacedWrite(write))
        self._jobs.every(_REPORT_INTERVAL, "report", self._report)
        self._jobs.every(access_feed.INTERVAL, "access", self.access_feed.follow)
        self._jobs.every(access_feed.INTERVAL, "expire_credentials", self._expire_credentials)
        self._jobs.every(rejection_events.WRITE_INTERVAL, "rejections", self.rejections.write)
        self._jobs.every(access_feed.INTERVAL, "stream_access", self.stream_access.review)
        self._jobs.every(audit_writer.INTERVAL, "audit", self.audit_writer.write)
        self._jobs.every(audit_writer.PRUNE_INTERVAL, "prune_audit", self.audit_writer.prune)
        if self.quotas is not None:
            self._jobs.every(_COUNT_INTERVAL, "quotas", partial(self._count_holdings, self.quotas))
        self._jobs.every(PUBLISH_INTERVAL, "subscribers", self._keep_subscribers)
        self._jobs.every(EXCHANGE_INTERVAL, "traffic", self.traffic.exchange)
        self._jobs.every(TELL_INTERVAL, "mesh_subscribers", self._tell_mesh_subscribers)
        self._jobs.every(ROLLOUT_INTERVAL, "rollouts", self.rollouts.advance)
        self._jobs.every(SHIFT_INTERVAL, "shifts", self.shifts.advance)
        self._jobs.every(mesh_pruner.PRUNE_INTERVAL, "prune_mesh", self.mesh_pruner.prune)
        self._jobs.every(_FORGET_ERRANDS_INTERVAL, "forget_errands", self._forget_errands)
        self._jobs.every(GATEWAY_INTERVAL, "mesh_gateways", self.gateways.compile)
        if self.prober is not None:
            self._jobs.every(PROBE_INTERVAL, "probe", self.prober.step)
            self._jobs.every(SCAN_INTERVAL, "probe_scan", self.prober.scan)
            self._jobs.every(LOOK_INTERVAL, "probe_statements", self.prober.publish)
            self._jobs.every(PLAN_INTERVAL, "probe_requests", self.probe_planner.plan)
        if self.publisher is not None:
            self._jobs.every(PUBLISH_ROUND, "publish", self.publisher.publish)
        if self.ecs_tasks is not None:
            self._jobs.every(REQUEST_INTERVAL, "ecs_tasks", self.ecs_tasks.poll)
        for tls in self.tls:
            self._jobs.every(RELOAD_INTERVAL, "tls", tls.follow)
        if os.getpid() == 1:  # of a container: it inherits the orphans of other processes
            self._jobs.every(REAP_INTERVAL, "orphans", self._reap_orphans)
        self._fallback = asyncio.create_task(self.disk_copies.restore())

    def release(self) -> None:
        """Answer every held poll now, so that stopping does not wait for them."""
        self.discovery.held_polls.release()
        self.cache.release()
        self.errand_delivery.release()

    async def stop(self) -> None:
        """Stop all loops, give the lead back, close all connections; an error in one step does not stop the others."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "loops": self._stop_loops,
            "audit": self.audit_writer.finish,
            **self.disk_copies.writes(),
            "searches": self.access_feed.stop,
            "streams": self._withdraw_streams,
            "lead": self.sweeper.resign,
            "report": self.reports.leave,
            "renewals": self.registrations.close,
            "database": self.database.close,
        }
        if self.prober is not None:
            parts["probes"] = self.prober.stop
        if self.sts is not None:
            parts["sts"] = self.sts.close
        if self.signed_headers is not None:
            parts["signed_headers"] = self.signed_headers.close
        if self.oidc is not None:
            parts["oidc"] = self.oidc.close
        async with AsyncExitStack() as stack:
            # The last one that is pushed is stopped first. The stack stops all of them also after a cancellation.
            for name, stop in reversed(parts.items()):
                stack.push_async_callback(_stop_part, name, stop)
        unsettle()
        log.info("stopped")

    def _note_rejection(self, entry: StreamEntry, resource_type: ResourceType, rejection: Rejection) -> None:
        self.rejections.note(entry, resource_type, rejection, self.cache.database_id)

    def _on_mesh_notification(self, _payload: str) -> None:
        self.mesh_feed.nudge()

    async def _forget_errands(self) -> None:
        if self.sweeper.leads:
            await errand_store.forget(self.database)

    async def _withdraw_streams(self) -> None:
        with suppress(UnavailableError):
            await self.subscriber_sync.streams.withdraw()

    async def _stop_loops(self) -> None:
        await self._jobs.stop()
        for task in (self._following, self._following_mesh, self._delivering, self._fallback):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _prepare(self) -> None:
        """Bring the schema up, and read the credentials: nothing is answered before they are known."""
        if self.settings.migrate:
            await migrate(self._database_url, self.settings.database_timeout)
        await self.access_feed.load()
        await self.mesh_feed.load()

    async def _reap_orphans(self) -> None:
        self._orphans.reap()

    async def _expire_credentials(self) -> None:
        self.access_feed.expire()

    async def _count_holdings(self, quotas: Quotas) -> None:
        snapshots = self.cache.services().values()
        await quotas.count(
            cooperatively(endpoint for snapshot in snapshots for endpoint in snapshot.endpoints.values())
        )

    async def _report(self) -> None:
        await self.registrations.probe()
        await self.reports.exchange()

    async def _keep_subscribers(self) -> None:
        self.edge_discovery.forget_old()
        await self.discovery.forget_silent_subscribers()
        await self.subscriber_sync.publish()

    async def _tell_mesh_subscribers(self) -> None:
        # Before, no poll is answered, and the schema may not be there.
        if self.mesh.ready and self.mesh_feed.read_at is not None:
            await self.sightings.tell(self.mesh.database_id)

    async def _endpoint_figures(self, service: str, within: float) -> EndpointTotals:
        """Return what Envoys counted for the endpoints of a service under a shift, as shifts take it."""
        counted = await self.traffic.endpoint_counts(service, within)
        totals = {name: Counts(each.attempts, each.errors) for name, each in counted.endpoints.items()}
        return EndpointTotals(totals, counted.reporting.expected, counted.reporting.reported)


async def _stop_part(name: str, stop: Callable[[], Awaitable[None]]) -> None:
    try:
        await stop()
    except Exception:
        log.exception("part_not_stopped", part=name)
