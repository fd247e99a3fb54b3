"""What the registry counts; the reference page lists these and a test compares."""

from prometheus_client import Counter, Gauge, Histogram

# From a few milliseconds over a default refresh delay to an Envoy that polls once a minute.
_PROPAGATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

POLLS = Counter("registry_polls_total", "Answers to discovery polls, by API version and status.", ["api", "code"])
POLLS_HELD = Gauge("registry_polls_held", "Polls that are held until a change.", multiprocess_mode="livesum")
HEARTBEATS = Counter(
    "registry_heartbeats_total", "Heartbeats by outcome: renewed, changed, refused or failed.", ["outcome"]
)
EVENTS_CUT = Counter(
    "registry_events_cut_total",
    "Events deleted before their retention was over, because there were more than REGISTRY_MAX_EVENTS.",
)
NOT_ADMITTED = Counter(
    "registry_registrations_not_admitted_total",
    "Registrations that the limits did not allow, by limit: network, incarnation, metadata, endpoints or services.",
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
FEED_LOST = Counter("registry_feed_lost_total", "Times the connection that follows changes was lost.")
RESYNC_SECONDS = Histogram(
    "registry_resync_seconds",
    "Duration of one comparison of all services with PostgreSQL, with what it had to read.",
    buckets=_FAST,
)
ENDPOINTS = Gauge(
    "registry_endpoints", "Listed endpoints by published status.", ["status"], multiprocess_mode="mostrecent"
)
SERVICES = Gauge(
    "registry_services",
    "Services that have endpoints, or had some within the event retention.",
    multiprocess_mode="mostrecent",
)
SWEEPS = Counter("registry_sweeps_total", "Sweeps for lapsed leases made by this process as the leader.")
SWEEP_REFUSALS = Counter(
    "registry_sweep_refusals_total",
    "Changes of a service that a sweep could not make, by service; from the 20th service of a process on as `other`.",
    ["service"],
)
SERVICES_NOT_SWEPT = Gauge(
    "registry_services_not_swept",
    "Services that were passed over because a change that was due in them was refused, and is not made yet.",
    multiprocess_mode="livemax",
)
SWEEP_SECONDS = Histogram("registry_sweep_seconds", "Duration of one sweep, with what it had to change.", buckets=_FAST)
LAPSED = Counter("registry_leases_lapsed_total", "Endpoints published as TIMEOUT because their lease expired.")
SUSPECTS = Gauge(
    "registry_suspects",
    "Endpoints with an expired lease that the mass-expiry guard keeps served.",
    multiprocess_mode="livemax",
)
CREDITED = Counter("registry_credited_seconds_total", "Seconds by which leases were moved for our own outages.")
LEASES_REPLACED = Counter(
    "registry_leases_replaced_total",
    "Endpoints that were served without a lease, and got a whole one from the sweeper. Rows of leases were lost.",
)
LEADER = Gauge("registry_sweep_leader", "1 in the process that sweeps.", multiprocess_mode="livemax")
REFUSED = Counter(
    "registry_requests_refused_total", "Requests answered with a problem document of a 4xx, by status.", ["code"]
)
FAILING = Gauge(
    "registry_failing_seconds",
    "For how long this process has not been able to accept connections, renew leases or store changes; 0: it is.",
    ["ability"],
    multiprocess_mode="livemax",
)
CUT_OFF = Gauge(
    "registry_processes_cut_off",
    "Registry processes that have failed at one of these for more than two lease times.",
    multiprocess_mode="livemax",
)
DATABASE_REFUSALS = Counter(
    "registry_database_refusals_total",
    "Statements that PostgreSQL refused for a reason that is no outage, by its SQLSTATE.",
    ["sqlstate"],
)
STALE = Gauge(
    "registry_snapshot_stale",
    "1 while a process serves the snapshot on disk because PostgreSQL was never read since its start.",
    multiprocess_mode="livemax",
)
QUARANTINED = Gauge(
    "registry_quarantined",
    "Rows kept out of every answer, alone, because Envoy would reject the whole answer for them.",
    multiprocess_mode="mostrecent",
)
SUBSCRIBERS = Gauge(
    "registry_subscribers",
    "Subscriptions by state, as the process sees them that was polled.",
    ["state"],
    multiprocess_mode="livesum",
)
SIGHTINGS = Gauge(
    "registry_sightings",
    "Pairs of a node and a name that it polls for, as the process remembers them that was polled.",
    multiprocess_mode="livesum",
)
SIGHTINGS_REFUSED = Counter(
    "registry_sightings_refused_total",
    "Pairs of a node and a name that a process did not remember, at each poll: REGISTRY_MAX_SIGHTINGS were reached, or"
    " one poll had more than 16 names.",
)
PROPAGATION = Histogram(
    "registry_propagation_seconds",
    "From the change of an endpoint, by the database's clock, to the answer with it for each Envoy that lacked it.",
    buckets=_PROPAGATION,
)
CLOCK_ERROR = Gauge(
    "registry_clock_error_seconds",
    "Half of what the last look at the database's clock took: propagation may be wrong by as much.",
    multiprocess_mode="livemax",
)
ACCEPTS_REFUSED = Counter(
    "registry_accepts_refused_total",
    "Times the kernel refused a new connection, mostly for want of descriptors; it is asked again each 0.1 s.",
)
CONNECTIONS_FAILED = Counter(
    "registry_connections_failed_total",
    "Accepted connections that failed before they were open: TLS handshakes that failed or took too long.",
)
REQUESTS = Counter(
    "registry_http_requests_total",
    "Requests but for those that the door answers itself, by route and status.",
    ["method", "route", "code"],
)
REQUEST_SECONDS = Histogram(
    "registry_http_request_seconds",
    "Duration of requests but for streams and those that the door answers itself, by route.",
    ["method", "route"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0),
)
BUILD = Gauge(
    "registry_build_info", "1, with what runs here as labels.", ["version", "python"], multiprocess_mode="livemax"
)
