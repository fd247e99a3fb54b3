"""The registry's metrics; docs/reference/metrics.md is generated from them."""

import os
from collections.abc import Iterator, Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from registry.allocated_values import allocate_workers_values
from registry.worker_metrics import ENDED_WORKERS, ENDED_WORKERS_HELP, VARIABLE

# Seconds: from a held poll's milliseconds, over Envoy's default refresh delay, to an Envoy that polls once a minute.
_PROPAGATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

if VARIABLE in os.environ:
    # Before the first metric, which makes a file.
    allocate_workers_values()

MAX_SERVICE_SERIES = 50
"""Services that a gauge of services names, since the number of services has no bound."""


class ServiceGauge(Collector):
    """A gauge with one series for each service that has a value now, which ends when the value does.

    A labelled ``Gauge`` would keep the series of every service that it ever named. Each process knows all services, so
    the process that is scraped exposes its own values, whatever the number of workers.

    Args:
        name: the name of the metric.
        documentation: the meaning of a value.
    """

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._values: Mapping[str, float] = {}
        """By service, at most ``MAX_SERVICE_SERIES``. Written by set()."""
        REGISTRY.register(self)

    def set(self, values: Mapping[str, float]) -> None:
        """Replace all values; of too many services those with the largest values stay."""
        largest = sorted(values, key=lambda service: (-values[service], service))[:MAX_SERVICE_SERIES]
        self._values = {service: values[service] for service in largest}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the series of this moment."""
        family = GaugeMetricFamily(self._name, self._documentation, labels=["service"])
        for service, value in self._values.items():
            family.add_metric([service], value)
        yield family


POLLS = Counter("registry_polls_total", "Answers to discovery polls, by API version and status.", ["api", "code"])
EDGE_QUESTIONS = Counter("registry_edge_questions_total", "Answers to the edges of registrars, by status.", ["code"])
PUBLISHED = Counter(
    "registry_published_total",
    "Services that were published for times when every registry is away, by outcome: stored or failed.",
    ["outcome"],
)
PUBLISH_FAILURES = Gauge(
    "registry_publish_failures",
    "Services that could not be published at the last attempt, in the process that sweeps.",
    multiprocess_mode="livemax",
)
PUBLISH_LAG = Gauge(
    "registry_publish_lag_seconds",
    "Seconds since the oldest change of a service that is not published yet, in the process that sweeps.",
    multiprocess_mode="livemax",
)
EDGES = Gauge(
    "registry_edges", "Edges of registrars whose question this process remembers.", multiprocess_mode="livesum"
)
EDGE_SUBSCRIBERS = Gauge(
    "registry_edge_subscribers",
    "Pairs of an Envoy and a name that these edges answer, as this process knows them.",
    multiprocess_mode="livesum",
)
POLLS_HELD = Gauge("registry_polls_held", "Polls that are held until a change.", multiprocess_mode="livesum")
ERRANDS_ASKED = Counter(
    "registry_errands_total", "Errands to Envoys that operators asked, one for each registrar, by verb.", ["verb"]
)
ERRANDS_ANSWERED = Counter(
    "registry_errands_answered_total",
    "Results of errands, by verb and outcome: done, refused by the registrar, or failed.",
    ["verb", "outcome"],
)
ERRANDS_HELD = Gauge(
    "registry_errands_held",
    "Requests of registrars that are held until there is an errand; they are no polls.",
    multiprocess_mode="livesum",
)
HEARTBEATS = Counter(
    "registry_heartbeats_total",
    "Heartbeats by outcome: renewed, changed, refused (4xx) or failed.",
    ["outcome"],
)
EVENTS_CUT = Counter(
    "registry_events_cut_total",
    "Events deleted before the end of their retention, because there were more than REGISTRY_MAX_EVENTS.",
)
ACCESS_REFUSALS = Counter(
    "registry_access_refusals_total",
    "Requests that access control refused, or would refuse if REGISTRY_AUTH were on, by verb and decision.",
    ["verb", "decision"],
)
ACCESS_ROWS_UNREADABLE = Gauge(
    "registry_access_rows_unreadable",
    "Tokens and identities that allow nothing because their rows cannot be read; the log names each.",
    multiprocess_mode="livemax",
)
ACCESS_READ_FAILURES = Counter(
    "registry_access_read_failures_total",
    "Times that tokens and identities could not be read for a reason other than an outage; the log has the reason.",
)
AUDIT_NOTED = Counter(
    "registry_audit_noted_total",
    "Actions and refusals that were noted for the audit, repetitions included, by decision: allowed, refused, "
    "would_refuse or failed.",
    ["decision"],
)
AUDIT_LOST = Counter(
    "registry_audit_lost_total",
    "Entries of the audit that were lost: too many waited while PostgreSQL was away, or PostgreSQL does not take them.",
)
NOT_ADMITTED = Counter(
    "registry_registrations_not_admitted_total",
    "Registrations that the limits refused, by limit: network, incarnation, metadata, endpoints, services, "
    "instance_endpoints, instance_changes or identity_services.",
    ["limit"],
)
PEER_LIMITS_REACHED = Counter(
    "registry_peer_limits_reached_total",
    "Polls that were not held, and event streams and connections that were refused, because one peer holds as many as "
    "it may, by limit: held_polls, event_streams, connections, or connections_noted for those taken while access is in "
    "audit.",
    ["limit"],
)
COMMIT_SIZE = Histogram(
    "registry_commit_items",
    "Items stored by one group commit, by kind of write.",
    ["kind"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
COMMIT_SECONDS = Histogram(
    "registry_commit_seconds", "Duration of one group commit, by kind of write.", ["kind"], buckets=_FAST
)
FEED_STEPS = Counter("registry_feed_steps_total", "Services whose changes were read from PostgreSQL.")
FEED_LOST = Counter("registry_feed_lost_total", "Times that the change feed lost its connection to PostgreSQL.")
RESYNC_SECONDS = Histogram(
    "registry_resync_seconds",
    "Duration of one comparison of all services with PostgreSQL, including the reads that followed.",
    buckets=_FAST,
)
LEASE_READ_SECONDS = Histogram(
    "registry_lease_read_seconds",
    "Duration of one reading of all leases, including the changes that were read between its statements.",
    buckets=_FAST,
)
MESH_REVISION = Gauge(
    "registry_mesh_revision",
    "The newest revision of the mesh configuration that was read; 0: none was ever applied.",
    multiprocess_mode="livemin",
)
MESH_ROLLOUTS = Gauge(
    "registry_mesh_rollouts",
    "Roll-outs of the mesh configuration that are under way, by state; counted by the process that sweeps.",
    ["state"],
    multiprocess_mode="livemax",
)
MESH_PAUSED_SECONDS = Gauge(
    "registry_mesh_paused_seconds",
    "Age of the oldest pause of a roll-out that is paused now; 0: none is. Of the process that sweeps.",
    multiprocess_mode="livemax",
)
MESH_STEPS = Counter(
    "registry_mesh_steps_total",
    "Steps of roll-outs that this process has made, by what is served from then on.",
    ["step"],
)
MESH_LEFT_BEHIND = Counter(
    "registry_mesh_left_behind_total", "Envoys that had not followed a step of a roll-out when it ended."
)
MESH_ROLLOUT_FAILURES = Gauge(
    "registry_mesh_rollout_failures",
    "Roll-outs that could not be advanced at the last look of this process.",
    multiprocess_mode="livemax",
)
SHIFTS_RUNNING = Gauge(
    "registry_shifts_running",
    "Shifts of traffic that are running; counted by the process that sweeps.",
    multiprocess_mode="livemax",
)
SHIFT_STEPS = Counter(
    "registry_shift_events_total",
    "Steps, aborts and ends of shifts that this process has made by their rule, by kind of event.",
    ["kind"],
)
SHIFT_FAILURES = Gauge(
    "registry_shift_failures",
    "Shifts that could not be looked at by this process the last time; they hold.",
    multiprocess_mode="livemax",
)
SHARES_SECONDS = Gauge(
    "registry_shares_seconds",
    "Age of the oldest shares of a service that are in force and that no shift changes; 0: there are none.",
    multiprocess_mode="mostrecent",
)
MESH_GATEWAYS_REFUSED = Gauge(
    "registry_mesh_gateways_refused",
    "Gateways, and services of them, that do not follow the services that are registered; of the process that sweeps.",
    multiprocess_mode="livemax",
)
MESH_GATEWAYS_UNPROVEN = Gauge(
    "registry_mesh_gateways_unproven",
    "Gateways that were compiled again and that no Envoy has accepted; counted by the process that sweeps.",
    multiprocess_mode="livemax",
)
MESH_UNREADABLE = Gauge(
    "registry_mesh_unreadable",
    "Services, gateways and edges whose mesh configuration cannot be read; their Envoys keep what they have.",
    multiprocess_mode="livemax",
)
ENDPOINTS = Gauge(
    "registry_endpoints",
    "Listed endpoints by status; SILENT ones have an expired lease and are published as before.",
    ["status"],
    multiprocess_mode="mostrecent",
)
SERVICES = Gauge(
    "registry_services",
    "Services that have endpoints, or had endpoints within the event retention.",
    multiprocess_mode="mostrecent",
)
LOST = Gauge(
    "registry_endpoints_lost",
    "Endpoints that lapsed, and whose place nothing has filled, within a day.",
    multiprocess_mode="mostrecent",
)
BELOW_STRENGTH = Gauge(
    "registry_services_below_strength",
    "Services with fewer endpoints than are expected.",
    multiprocess_mode="mostrecent",
)
SWEEPS = Counter("registry_sweeps_total", "Sweeps for expired leases that this process made as the leader.")
SWEEP_REFUSALS = Counter(
    "registry_sweep_refusals_total",
    "Changes that PostgreSQL refused to sweeps, by service; after 20 services of a process as `other`.",
    ["service"],
)
SERVICES_NOT_SWEPT = Gauge(
    "registry_services_not_swept",
    "Services that sweeps skip because PostgreSQL refused a change that is still due.",
    multiprocess_mode="livemax",
)
SWEEP_SECONDS = Histogram(
    "registry_sweep_seconds", "Duration of one sweep, including the changes that it made.", buckets=_FAST
)
LAPSED = Counter("registry_leases_lapsed_total", "Endpoints published as TIMEOUT because their lease expired.")
LAPSED_BY_EVIDENCE = Counter(
    "registry_leases_lapsed_by_evidence_total",
    "The same, by the evidence that the endpoint was dead when it lapsed: certain, strong, weak, contrary or none.",
    ["evidence"],
)
PROBES = Counter(
    "registry_probes_total",
    "TCP probes of endpoints, by purpose (base_line, control or suspect) and outcome: connected, refused, timed_out or "
    "nothing.",
    ["purpose", "outcome"],
)
PROBED_ENDPOINTS = Gauge(
    "registry_probed_endpoints",
    "Endpoints that this process has connected to within 15 minutes, about which its probes have a say.",
    multiprocess_mode="livemax",
)
SUSPECTS = Gauge(
    "registry_suspects",
    "Endpoints with an expired lease that the mass-expiry guard keeps served.",
    multiprocess_mode="mostrecent",
)
SILENT_ENDPOINTS = ServiceGauge(
    "registry_silent_endpoints",
    "Endpoints with an expired lease that the mass-expiry guard keeps served, by service.",
)
SILENT_SECONDS = ServiceGauge(
    "registry_silent_seconds",
    "Seconds for which the mass-expiry guard has kept the longest kept endpoint of a service.",
)
CREDITED = Counter(
    "registry_credited_seconds_total", "Seconds by which leases were extended for outages of the registry."
)
LEASES_REPLACED = Counter(
    "registry_leases_replaced_total",
    "Served endpoints without a lease to which the sweeper granted one; rows of leases were lost.",
)
ECS_REQUESTS = Counter(
    "registry_ecs_requests_total",
    "Requests to ECS for the tasks of suspects and for services, by result: answered or failed.",
    ["result"],
)
LEADER = Gauge("registry_sweep_leader", "1 in the process that leads and sweeps.", multiprocess_mode="livemax")
LOGINS = Counter(
    "registry_logins_total",
    "Logins by source and outcome: accepted, renewed, refused, limited (429) or unavailable (STS or PostgreSQL).",
    ["source", "outcome"],
)
REFUSED = Counter(
    "registry_requests_refused_total", "Requests answered with a problem document and a 4xx, by status.", ["code"]
)
FAILING = Gauge(
    "registry_failing_seconds",
    "Seconds for which this process has lacked an ability (accept, renew or change), 0 if it has it.",
    ["ability"],
    multiprocess_mode="livemax",
)
CUT_OFF = Gauge(
    "registry_processes_cut_off",
    "Registry processes that have lacked an ability for more than two lease times.",
    multiprocess_mode="livemax",
)
DATABASE_REFUSALS = Counter(
    "registry_database_refusals_total",
    "Statements that PostgreSQL refused for a reason other than an outage, by SQLSTATE.",
    ["sqlstate"],
)
ROWS_LEFT_OUT = Counter(
    "registry_rows_left_out_total",
    "Rows that PostgreSQL did not take, of many that were stored together, by kind: subscribers, streams, "
    "mesh_subscribers, mesh_envoys, rejections, rollouts, errands, probe_statements or audit_counts.",
    ["kind"],
)
STALE = Gauge(
    "registry_snapshot_stale",
    "1 while a process serves the snapshot on disk, because it has not read PostgreSQL since its start.",
    multiprocess_mode="livemax",
)
SERVICES_UNAVAILABLE = Gauge(
    "registry_services_unavailable",
    "Services that exist and that a process cannot read, from its disk or from PostgreSQL; it answers 503 for them.",
    multiprocess_mode="livemax",
)
SERVICES_OUTDATED = Gauge(
    "registry_services_outdated",
    "Services that a process serves as they were, because what PostgreSQL has of them now cannot be read.",
    multiprocess_mode="livemax",
)
QUARANTINED = Gauge(
    "registry_quarantined",
    "Rows that are left out of every answer, because Envoy would reject the whole answer for them.",
    multiprocess_mode="mostrecent",
)
SUBSCRIBERS = Gauge(
    "registry_subscribers",
    "Subscriptions by state, as seen by the process that was polled.",
    ["state"],
    multiprocess_mode="livesum",
)
SIGHTINGS = Gauge(
    "registry_sightings",
    "Pairs of a node and a name that it polls for, as remembered by the process that was polled.",
    multiprocess_mode="livesum",
)
SIGHTINGS_REFUSED = Counter(
    "registry_sightings_refused_total",
    "Pairs of a node and a name that a process could not remember, counted at each poll: REGISTRY_MAX_SIGHTINGS was"
    " reached, or one poll had more than 16 names.",
)
PROPAGATION = Histogram(
    "registry_propagation_seconds",
    "Seconds from the change of an endpoint, by the database's clock, to the first answer with it to each Envoy (way "
    "poll), to the answer to the edge of its registrar (way edge), or to the acknowledgement of it over a stream (way "
    "stream).",
    ["way"],
    buckets=_PROPAGATION,
)
XDS_STREAMS = Gauge(
    "registry_xds_streams",
    "Open gRPC streams by method, and by client: envoy, grpc or other.",
    ["method", "client"],
    multiprocess_mode="livesum",
)
XDS_ANSWERS = Counter(
    "registry_xds_answers_total",
    "Answers that were sent over gRPC streams, by resource type and variant of the protocol: sotw or delta.",
    ["type", "variant"],
)
XDS_NACKS = Counter(
    "registry_xds_nacks_total",
    "Answers that clients have rejected over gRPC streams, by resource type; the log and lists of subscribers say why.",
    ["type"],
)
XDS_UNACKNOWLEDGED = Counter(
    "registry_xds_unacknowledged_total",
    "Answers that clients neither acknowledged nor rejected within 10 seconds, after which the next one was sent.",
)
XDS_COALESCED = Counter(
    "registry_xds_coalesced_total",
    "Changes that were not sent by themselves, because a newer one came while the client was at an earlier answer.",
)
XDS_OVERSIZED = Counter(
    "registry_xds_oversized_total",
    "Resources that were not sent to a gRPC client, because one message may have 4 MiB at most, by resource type.",
    ["type"],
)
XDS_REFUSED = Counter(
    "registry_xds_streams_refused_total",
    "Streams that access control refused or ended, by status: UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE.",
    ["status"],
)
CLOCK_ERROR = Gauge(
    "registry_clock_error_seconds",
    "Half of the duration of the last read of the database's clock: the maximum error of the propagation.",
    multiprocess_mode="livemax",
)
ACCEPTS_REFUSED = Counter(
    "registry_accepts_refused_total",
    "Times that the kernel refused a new connection, mostly for lack of descriptors; retried every 0.1 s.",
)
CONNECTIONS_FAILED = Counter(
    "registry_connections_failed_total",
    "Accepted connections that failed before they were open: TLS handshakes that failed or timed out.",
)
TLS_DAYS_LEFT = Gauge(
    "registry_tls_days_until_expiry",
    "Days until the certificate in use, or an intermediate of it, expires; absent without TLS.",
    ["certificate"],
    multiprocess_mode="livemin",
)
TLS_FILES_REFUSED = Gauge(
    "registry_tls_files_refused",
    "1 while the files of the certificate cannot be used, and those before them stay in use; absent without TLS.",
    ["certificate"],
    multiprocess_mode="livemax",
)
STREAM_CONNECTIONS = Gauge(
    "registry_xds_connections", "Open connections of the gRPC listener.", multiprocess_mode="livesum"
)
STREAM_CONNECTS = Counter("registry_xds_connects_total", "Connections that the gRPC listener has accepted.")
STREAM_CONNECTIONS_ENDED = Counter(
    "registry_xds_ended_total",
    "Connections of the gRPC listener that ended, by reason: client (closed it), max_age, shutdown, idle, no_room (too "
    "many streams, or descriptors are scarce), keepalive (no answer to a PING), stalled (takes nothing, or a message "
    "that is never complete), oversized, flood, protocol_error or failed (the log has the reason).",
    ["why"],
)
TRAFFIC_DIGESTS = Counter(
    "registry_traffic_digests_total",
    "Digests of Envoys' statistics, by outcome: taken, repeated or refused.",
    ["outcome"],
)
TRAFFIC_PAIRS = Gauge(
    "registry_traffic_pairs",
    "Pairs of a caller, in one zone, and a callee that a process remembers traffic of.",
    multiprocess_mode="livemax",
)
TRAFFIC_DROPPED = Counter(
    "registry_traffic_dropped_total",
    "Pairs, routes and Envoys that were forgotten because there were more than fit.",
)
REQUESTS = Counter(
    "registry_http_requests_total",
    "Requests but for polls of discovery and heartbeats that only renew, by route and status.",
    ["method", "route", "code"],
)
REQUEST_SECONDS = Histogram(
    "registry_http_request_seconds",
    "Duration of requests but for streams and those that are answered in front of the application, by route.",
    ["method", "route"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0),
)
BUILD = Gauge(
    "registry_build_info", "1, with what runs here as labels.", ["version", "python"], multiprocess_mode="livemax"
)
WORKERS_ENDED = Counter(f"{ENDED_WORKERS}_total", ENDED_WORKERS_HELP, ["reason"])
"""No worker counts any: the sums of ended workers have the numbers, which the parent of workers writes."""
for _reason in ("died", "hung"):
    # So that an alert sees the first one: a series that begins at 1 has not increased.
    WORKERS_ENDED.labels(_reason)
