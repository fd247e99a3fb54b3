"""The state of the registry in one document: how one process stands, and what PostgreSQL tells of the whole."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from registry.core.abilities import AbilityName

ABILITY_WORDS: dict[AbilityName, str] = {
    "accept": "accept connections",
    "renew": "renew leases",
    "change": "store changes",
}
"""The ability that a process lacks, in words after "cannot"."""

Epoch = Annotated[float, Meta(description="Seconds since 1970, on the clock of the machine that answers.")]
Ago = Annotated[float | None, Meta(description="Seconds; null: never, or not known now.")]


class Part(Struct, frozen=True):
    """Whether a part of the registry does its work."""

    name: str
    ok: bool
    detail: str


class ProcessState(Struct, frozen=True):
    """The process that answers."""

    name: Annotated[str, Meta(description="Its host and process id.")]
    version: str
    pid: int
    started_at: Epoch
    closing: Annotated[bool, Meta(description="It was asked to stop, and is not ready any more.")]


class SnapshotState(Struct, frozen=True):
    """The snapshot that this process answers discovery from."""

    ready: bool
    stale: Annotated[bool, Meta(description="It is from disk: PostgreSQL was not read since the start.")]
    read_ago: Annotated[Ago, Meta(description="Seconds since everything was last compared with PostgreSQL.")]
    read_every: Annotated[float, Meta(description="Seconds between two comparisons.")]
    services: int
    endpoints: int
    quarantined: Annotated[int, Meta(description="Rows kept out of every answer.")]
    unavailable: Annotated[
        int, Meta(description="Services that exist and that this process cannot read; asked for them it answers 503.")
    ]
    outdated: Annotated[
        int, Meta(description="Services that are served as they were, because what PostgreSQL has cannot be read.")
    ]
    suspects: Annotated[int, Meta(description="Endpoints with an expired lease that are still served.")]
    archive_ago: Annotated[Ago, Meta(description="Seconds since the snapshot on disk was written.")]
    archive_current: Annotated[bool, Meta(description="The snapshot on disk is the one that is served.")]


class DatabaseState(Struct, frozen=True):
    """PostgreSQL, asked just now."""

    answers: bool
    detail: str
    writable: bool = False
    server: Annotated[str | None, Meta(description="PostgreSQL's own version.")] = None
    schema: Annotated[str | None, Meta(description="The schema that it has.")] = None
    schema_expected: Annotated[str, Meta(description="The schema that this program expects.")] = ""
    clock_ahead: Annotated[
        float | None, Meta(description="Seconds that its clock is ahead of this machine's; off by half of `took`.")
    ] = None
    took: Annotated[float | None, Meta(description="Seconds that it took to ask.")] = None


class PeerState(Struct, frozen=True):
    """A registry process, as PostgreSQL sees its connection."""

    address: Annotated[str | None, Meta(description="Null: it comes by a Unix socket, or is hidden too.")]
    since: Annotated[float | None, Meta(description="Seconds since 1970; null: PostgreSQL hides it from this role.")]


class SweepRefusalState(Struct, frozen=True):
    """A change of one service that a sweep could not make, and that is tried again."""

    service: Annotated[str, Meta(description="`*`: the services to change could not be read.")]
    action: Annotated[
        Literal["expiry", "removal", "override_end", "missing_lease"],
        Meta(
            description="To expire leases, to leave out endpoints that have left, to end an override, or to give an "
            "endpoint a lease that has none."
        ),
    ]
    endpoint: Annotated[str, Meta(description="The one that it is about; empty: all that are due in the service.")]
    reason: str
    seconds: Annotated[float, Meta(description="Since it was first refused.")]


class SweeperState(Struct, frozen=True):
    """The process that looks for expired leases, and the time of the last sweep."""

    leads: Annotated[bool, Meta(description="The process that answers sweeps for all.")]
    every: Annotated[float, Meta(description="Seconds between two sweeps.")]
    swept_ago: Annotated[Ago, Meta(description="Seconds since any process swept.")] = None
    overdue: Annotated[
        bool | None,
        Meta(
            description="The last sweep is longer ago than five sweep intervals and a resync interval, and than 6 s: "
            "expired leases stay served. Null while PostgreSQL is away."
        ),
    ] = None
    leader: Annotated[PeerState | None, Meta(description="Null: nobody leads, or PostgreSQL is away.")] = None
    refused: Annotated[
        list[SweepRefusalState] | None,
        Meta(
            description="Changes that sweeps could not make; null in a process that does not sweep and does not know."
        ),
    ] = None
    leases_replaced: Annotated[
        int, Meta(description="Endpoints without a lease that this process has given one since it started.")
    ] = 0
    history_cut_ago: Annotated[
        Ago,
        Meta(
            description="Seconds since this process deleted events before their retention was over, because there "
            "were more than REGISTRY_MAX_EVENTS; null: it did not."
        ),
    ] = None


class FailureState(Struct, frozen=True):
    """Something that a registry process cannot do now."""

    ability: Annotated[
        AbilityName,
        Meta(description="To accept connections, to renew leases, or to store what is new of an endpoint."),
    ]
    seconds: Annotated[float, Meta(description="For how long in all since it last worked calmly.")]
    total: Annotated[bool, Meta(description="Nothing of the kind works; otherwise some attempts do.")]
    overdue: Annotated[
        bool, Meta(description="For longer than two lease times: unless all processes fail, it credits no leases.")
    ]
    reason: str


class ProcessReportState(Struct, frozen=True):
    """A registry process as it reports of itself."""

    name: Annotated[str, Meta(description="Its host and process id.")]
    started_at: Epoch
    failures: Annotated[
        list[FailureState], Meta(description="The abilities that it lacks now; empty when all is well.")
    ]


class SilentProcessState(Struct, frozen=True):
    """A registry process whose reports have stopped, and that has not said that it stops."""

    name: Annotated[str, Meta(description="Its host and process id.")]
    started_at: Epoch
    seconds: Annotated[float, Meta(description="Since its last report.")]


class TallyState(Struct, frozen=True):
    """The leases of one service."""

    service: str
    leases: int
    late: int
    expired: int


class LeasesState(Struct, frozen=True):
    """How punctual registrars are."""

    held: int
    late: Annotated[int, Meta(description="More than half is over, though registrars renew at a quarter.")]
    expired: Annotated[int, Meta(description="Over, not yet lapsed: the guard or a pause holds them, or nobody swept.")]
    services: Annotated[
        list[TallyState], Meta(description="Services with late leases, those with the most first, 20 at most.")
    ]
    missing: Annotated[
        int, Meta(description="Endpoints that are served and have no lease; the sweeper gives each one within seconds.")
    ] = 0


class ReachedLimitState(Struct, frozen=True):
    """A limit at which the process that answers has refused something since its start."""

    limit: Annotated[str, Meta(description="Its name, as the metrics have it.")]
    count: int
    ago: Annotated[float, Meta(description="Seconds since the last time.")]


class AuditState(Struct, frozen=True):
    """The audit, as the process that answers writes it."""

    waiting: Annotated[int, Meta(description="Entries that are not stored yet.")]
    max_waiting: int
    lost: Annotated[int, Meta(description="Entries that were lost since its start.")]
    lost_ago: Annotated[Ago, Meta(description="Seconds since an entry was lost; null: none was.")]


class ProbesState(Struct, frozen=True):
    """The TCP probes of the process that answers, which tell dead endpoints from silent ones."""

    reached: Annotated[
        int,
        Meta(description="Endpoints that it has connected to within 15 minutes; about others its probes have no say."),
    ]
    tried: Annotated[int, Meta(description="Endpoints that it has tried within 15 minutes.")]
    suspects: Annotated[int, Meta(description="Endpoints with an expired lease that it tries.")]
    muted_seconds: Annotated[
        float,
        Meta(
            description="Seconds until its probes have a say again, because it could not connect to an endpoint that "
            "renews; 0: they have one."
        ),
    ]
    failure: Annotated[
        str, Meta(description="Why its results could not be stored, or those of all not be read; empty: they could.")
    ]


class EcsClusterFailureState(Struct, frozen=True):
    """An ECS cluster or service that could not be asked for."""

    cluster: Annotated[str, Meta(description="A service of it that could not be asked for is `cluster/service`.")]
    region: str
    reason: str
    ago: Annotated[float, Meta(description="Seconds since the first failure in a row.")]


class EcsTasksState(Struct, frozen=True):
    """The questions to ECS: for the tasks of suspects, by the process that sweeps; for services, by each."""

    requests: Annotated[int, Meta(description="Requests of this process since its start.")]
    answered_ago: Annotated[Ago, Meta(description="Seconds since the last answer; null: there was none.")]
    watched: Annotated[int, Meta(description="Tasks of suspects that are asked for.")]
    stopped: Annotated[int, Meta(description="Those of them that have stopped.")]
    failing_count: Annotated[int, Meta(description="Clusters of suspects that could not be asked; that says nothing.")]
    failing: Annotated[
        list[EcsClusterFailureState],
        Meta(description="Those clusters, 20 at most, for those who may observe all services."),
    ]
    services: Annotated[int, Meta(description="ECS services whose desired count is asked for.")] = 0
    services_answered: Annotated[
        int, Meta(description="Those whose desired count is known, and is the number of tasks to expect.")
    ] = 0
    services_failing_count: Annotated[
        int, Meta(description="Those that could not be asked for; that says nothing.")
    ] = 0
    services_failing: Annotated[
        list[EcsClusterFailureState],
        Meta(description="Those, 20 at most, for those who may observe all services."),
    ] = []  # msgspec copies it


class LimitsState(Struct, frozen=True):
    """How much there is of what is limited, as this process knows it."""

    services: int
    max_services: int
    endpoints: int
    max_endpoints: int
    misplaced: Annotated[
        list[str],
        Meta(
            description="Endpoints that REGISTRY_ENDPOINT_NETWORKS would not let in now, 20 at most, each as service "
            "and ip:port. They were registered before, and are served and renewed."
        ),
    ]
    misplaced_count: int
    reached: Annotated[
        list[ReachedLimitState], Meta(description="Limits at which something was refused, the last one first.")
    ] = []  # msgspec copies it


class TlsState(Struct, frozen=True):
    """The certificate that this process serves."""

    file: str
    not_after: Annotated[
        float, Meta(description="The end of its and its intermediates' validity, in seconds since 1970.")
    ]
    problem: Annotated[
        str | None,
        Meta(description="Why the files as they are now cannot be used; null where they are the ones in use."),
    ]


class WouldRefuseState(Struct, frozen=True):
    """Requests of the last day that were allowed, and that would be refused if access were on."""

    principal: Annotated[str, Meta(description="As far as it is proven; `anonymous` without a credential.")]
    verb: str
    count: int
    peers: Annotated[int, Meta(description="The number of addresses that they came from.")]
    peer: Annotated[str, Meta(description="One of them.")]
    last_ago: Annotated[float, Meta(description="Seconds since the last minute with one of them began.")]


class TokenState(Struct, frozen=True):
    """A static token that is worth a look."""

    id: str
    name: str
    kind: str
    created_at: Annotated[float, Meta(description="Seconds since 1970, by PostgreSQL's clock.")]
    expires_at: Annotated[float, Meta(description="Seconds since 1970, by PostgreSQL's clock.")]
    used_at: Annotated[float | None, Meta(description="To the hour; null: never.")]


class AccessState(Struct, frozen=True):
    """Whether access is closed, and what keeps it from being closed."""

    mode: Annotated[Literal["off", "audit", "on"], Meta(description="REGISTRY_AUTH.")]
    noted_verbs: Annotated[
        list[str], Meta(description="Verbs whose refusals are only noted; none while access is off.")
    ]
    open_listeners: Annotated[list[str], Meta(description="Listen addresses that other machines may reach.")]
    plain_listeners: Annotated[list[str], Meta(description="Those of them that serve plain HTTP.")]
    named: Annotated[
        bool,
        Meta(
            description="Whether the lists below name credentials and their senders, as they do to those who may "
            "observe all services; they are empty otherwise."
        ),
    ]
    would_refuse_count: Annotated[int | None, Meta(description="The sum of the counts of `would_refuse`.")]
    would_refuse: Annotated[
        list[WouldRefuseState] | None,
        Meta(
            description="Requests for those verbs of the last day, those with the most first, 20 at most; null: "
            "PostgreSQL is away, or too slow."
        ),
    ]
    ending: Annotated[
        list[TokenState],
        Meta(
            description="Tokens without a successor that end within a week, or within a quarter of their time, and "
            "those in use that ended within a day; 20 at most."
        ),
    ]
    long_lived: Annotated[
        list[TokenState],
        Meta(description="Tokens with the verb `admin` that are good for more than 30 days; 20 at most."),
    ]
    open_to_networks: Annotated[
        list[str], Meta(description="Identities that give the verb `admin` to a whole network; 20 at most.")
    ]
    unreadable_count: Annotated[
        int, Meta(description="Tokens and identities that allow nothing, because their rows cannot be read.")
    ] = 0
    unreadable: Annotated[list[str], Meta(description="Those of them, with the reasons; 20 at most.")] = []  # copied


class StateView(Struct, frozen=True):
    """The registry's own state, seen from one process."""

    at: Epoch
    database_id: Annotated[str, Meta(description="Equal in all processes of one registry.")]
    process: ProcessState
    parts: Annotated[list[Part], Meta(description="What each part of this process does, as /readyz?verbose has it.")]
    snapshot: SnapshotState
    database: DatabaseState
    sweeper: SweeperState
    replicas: Annotated[
        list[PeerState] | None,
        Meta(description="Every process that follows changes; null while PostgreSQL is away or nobody listens."),
    ]
    processes: Annotated[
        list[ProcessReportState],
        Meta(description="The processes that live and what each cannot do, the one that answers first."),
    ]
    silent_processes: Annotated[
        list[SilentProcessState] | None,
        Meta(
            description="The processes that went silent in the last 15 minutes and that nothing has replaced on their "
            "host, the newest first; null while PostgreSQL, which has the reports, is away."
        ),
    ]
    hanging: Annotated[
        int,
        Meta(
            description="How many more processes follow changes by a connection to PostgreSQL than report: silent ones "
            "that hang, and have not ended."
        ),
    ]
    leases: Annotated[LeasesState | None, Meta(description="Null while PostgreSQL is away.")]
    limits: LimitsState
    audit: AuditState
    access: AccessState
    tls: Annotated[TlsState | None, Meta(description="Null where no TLS is served.")] = None
    probes: Annotated[ProbesState | None, Meta(description="Null where REGISTRY_PROBES is off.")] = None
    ecs_tasks: Annotated[EcsTasksState | None, Meta(description="Null where REGISTRY_ECS_TASKS is off.")] = None
