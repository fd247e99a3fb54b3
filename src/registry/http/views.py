"""The JSON documents of the native API, and how OpenAPI learns of them."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Response
from msgspec import UNSET, Meta, Struct, UnsetType

from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.history import RecordedEvent
from registry.core.lease import Lease
from registry.core.override_change import ExpiresIn
from registry.core.presence import MAX_SHOWN, Presence
from registry.core.silence import Silence
from registry.core.snapshot import Snapshot
from registry.core.status import (
    AccessState,
    AuditState,
    DatabaseState,
    FailureState,
    LeasesState,
    LimitsState,
    Part,
    PeerState,
    ProcessReportState,
    ProcessState,
    ReachedLimitState,
    SnapshotState,
    StateView,
    SweeperState,
    TallyState,
    TlsState,
    TokenState,
    WouldRefuseState,
)
from registry.core.subscriber import SubscriberStatus
from registry.core.verdict.document import Verdict
from registry.core.verdict.finding import about_endpoint
from registry.usecases.bulk import MAX_BULK, BulkAction
from registry.usecases.expiry import Suspect
from registry.usecases.explain import ExplainedEndpoint
from registry.usecases.overrides import OverrideInForce
from wire.address import format_endpoint
from wire.finding import Finding, FindingStatus
from wire.model import MAX_EXPECTED, Name, ServiceName, Text, Weight
from wire.problem import CONTENT_TYPE, Problem

Epoch = Annotated[float, Meta(description="Seconds since 1970 on the database's clock.")]


class OverrideRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """An override as an operator asks for it, over whatever the endpoint's registrar says."""

    weight: Annotated[Weight | None, Meta(description="Null leaves the registration's weight.")] = None
    canary: Annotated[bool | None, Meta(description="Null leaves the registration's word.")] = None
    drain: bool = False
    reason: Text = ""
    expires_in: Annotated[ExpiresIn | None, Meta(description="Seconds until the override ends by itself.")] = None


class OverrideView(Struct, frozen=True):
    """An override in force."""

    weight: int | None
    canary: bool | None
    drain: bool
    reason: str
    actor: str
    set_at: Epoch
    expires_at: Epoch | None


class SilenceView(Struct, frozen=True):
    """The silence of an endpoint: its lease expired, and the guard or a pause keeps it in the answers."""

    since: Annotated[Epoch, Meta(description="When the guard or a pause began to keep it.")]
    last_heard: Annotated[Epoch | None, Meta(description="When its last heartbeat came; null: that is not known.")]
    last_reported: Annotated[str, Meta(description="The health that its registrar reported last.")]
    held_until: Annotated[
        Epoch,
        Meta(
            description="When the guard lets it lapse whatever happens, or a pause in force ends, if that is later. "
            "It may lapse earlier."
        ),
    ]
    reason: str


class ListedOverrideView(Struct, frozen=True):
    """An override in force, with its endpoint."""

    service: str
    endpoint: str
    instance_id: Annotated[str, Meta(description="It applies to this instance alone.")]
    status: Annotated[str | None, Meta(description="What Envoys are told; null while the endpoint is not listed.")]
    weight: int | None
    canary: bool | None
    drain: bool
    reason: str
    actor: str
    set_at: Epoch
    expires_at: Epoch | None
    open_ended: Annotated[bool, Meta(description="It has no end, and is older than an hour: is it still wanted?")]


class OverrideList(Struct, frozen=True):
    """A page of overrides; ``next`` is the cursor of the next page."""

    overrides: list[ListedOverrideView]
    next: str | None


class EndpointView(Struct, frozen=True):
    """An endpoint, what is published for it and what it was made of."""

    service: str
    endpoint: str
    address: str
    port: int
    status: Annotated[str, Meta(description="The health status that Envoys receive.")]
    weight: int | None
    instance_id: str
    incarnation: int
    health: Annotated[str, Meta(description="The health that the registrar reports.")]
    detail: str
    draining: bool
    revision: str
    region: str
    zone: str
    canary: bool
    repository: str | None
    metadata: dict[str, Any]
    registered_at: Epoch
    changed_at: Epoch
    lapsed_at: Epoch | None
    leaving_at: Epoch | None
    suspect_since: Annotated[Epoch | None, Meta(description="Its lease expired, and the guard keeps it served.")]
    suspect_reason: str
    lease_ttl: float | None
    lease_renewed_at: Annotated[Epoch | None, Meta(description="As of the last reading, some seconds old.")]
    lease_expires_at: Epoch | None
    override: OverrideView | None
    silence: Annotated[
        SilenceView | None,
        Meta(description="Not null: people see its status as SILENT, and Envoys receive `status` all the same."),
    ] = None


class EndpointList(Struct, frozen=True):
    """A page of endpoints; ``next`` is the cursor of the next page."""

    service: str
    version: int
    endpoints: list[EndpointView]
    next: str | None


class ServiceView(Struct, frozen=True):
    """A service in numbers."""

    name: str
    version: int
    endpoints: int
    statuses: Annotated[
        dict[str, int],
        Meta(description="As people see them: endpoints whose lease expired and that are still served are SILENT."),
    ]
    routable: Annotated[int, Meta(description="Endpoints to which Envoys may send traffic, silent ones included.")] = 0
    silent: Annotated[
        int, Meta(description="Endpoints whose lease expired, kept in the answers by the guard or a pause.")
    ] = 0
    quarantined: Annotated[
        dict[str, str], Meta(description="Endpoints kept out of the answers, and why; written past the API.")
    ] = {}
    present: Annotated[
        int, Meta(description="Endpoints whose lease is good and that are not on their way out, healthy or not.")
    ] = 0
    expected: Annotated[int, Meta(description="How many there should be.")] = 0
    expected_source: Annotated[
        str,
        Meta(
            description="Where `expected` comes from: operator, registration (the newest that names a number), "
            "ecs (the desired count of its ECS services), or observed: what is listed, and what was lost in "
            "the last day and not replaced."
        ),
    ] = "observed"
    expected_by: Annotated[str, Meta(description="The operator; empty where no operator has set a number.")] = ""
    missing: int = 0
    lost_count: int = 0


class LostView(Struct, frozen=True):
    """A lost endpoint: its lease lapsed, nothing had taken it out on purpose, and nothing has filled its place."""

    endpoint: str
    instance_id: str
    lost_at: Epoch
    health: Annotated[str, Meta(description="The health that its registrar reported last.")]
    reason: str
    revision: str
    region: str
    zone: str


class ServiceDetailView(ServiceView, frozen=True):
    """A service in numbers, with its lost endpoints."""

    lost: Annotated[
        list[LostView],
        Meta(
            description=f"The newest first, up to {MAX_SHOWN}; Envoys are told of none. Each is listed until its place "
            "is filled, the loss is acknowledged, or a day has passed."
        ),
    ] = []


class ExpectedRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """How many endpoints an operator expects a service to have."""

    expected: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_EXPECTED)] | None, Meta(description="Null takes the operator's number back.")
    ]
    reason: Text = ""


class BulkRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A change of several endpoints of a service."""

    action: BulkAction
    endpoints: Annotated[
        list[Annotated[str, Meta(max_length=64)]],
        Meta(min_length=1, max_length=MAX_BULK, description="Each as ip:port; IPv6 in brackets."),
    ]
    reason: Annotated[Name, Meta(description="Why, for the history of each.")]
    weight: Annotated[Weight | None, Meta(description="With `weight`; null takes the operators' weights back.")] = None
    expires_in: Annotated[
        ExpiresIn | UnsetType | None,
        Meta(description="Seconds until the overrides end; null: never. Left out: an end that is set stays."),
    ] = UNSET
    force: Annotated[
        bool, Meta(description="Deregister even if the guard's limit is exceeded (otherwise refused).")
    ] = False


class BulkResultView(Struct, frozen=True):
    """The result of one endpoint of a change of several."""

    endpoint: str
    done: bool
    status: Annotated[str, Meta(description="What Envoys are told then; empty where it was deregistered or refused.")]
    problem: Annotated[Problem | None, Meta(description="Why it was refused.")]


class BulkView(Struct, frozen=True):
    """The results of a change of several endpoints, in their order."""

    service: str
    results: list[BulkResultView]


class AcknowledgedView(Struct, frozen=True):
    """The lost endpoints whose loss was acknowledged."""

    service: str
    endpoints: list[str]


class ExpelledView(Struct, frozen=True):
    """The endpoints that an operator has deregistered; they stay listed as not routable for the removal delay."""

    service: str
    version: int
    endpoints: list[str]


class ServiceList(Struct, frozen=True):
    """A page of services; ``next`` is the cursor of the next page."""

    services: list[ServiceView]
    next: str | None


class EventView(Struct, frozen=True):
    """An event of an endpoint, with its reason and its actor."""

    id: Annotated[str, Meta(description="Its place in the history; pages and streams go on from it.")]
    at: Epoch
    service: Annotated[str, Meta(description="* where it is of all services.")]
    endpoint: Annotated[str | None, Meta(description="Null where it is of a whole service, or of all.")]
    instance_id: str
    kind: str
    reason: str
    actor: str
    status: str
    version: int


class EventList(Struct, frozen=True):
    """A page of the history; ``next`` is the cursor of the next page."""

    events: list[EventView]
    next: str | None


class ExplanationView(Struct, frozen=True):
    """Why an endpoint is, or is not, getting traffic."""

    service: str
    endpoint: str
    listed: Annotated[bool, Meta(description="Whether Envoys are told of it at all.")]
    served: Annotated[bool, Meta(description="Whether they may send it traffic.")]
    status: str | None
    because: Annotated[list[str], Meta(description="The deciding reason first.")]
    would_change: list[str]
    now: EndpointView | None
    events: Annotated[list[EventView], Meta(description="Its last events, the oldest first.")]
    from_memory: Annotated[
        bool, Meta(description="PostgreSQL is away: this is what the process knows, and `missing` is left out.")
    ] = False
    missing: Annotated[list[str], Meta(description="In words what an explanation from memory lacks.")] = []
    away: Annotated[str, Meta(description="Why PostgreSQL could not be asked; empty: it was asked.")] = ""


class StandingView(Struct, frozen=True):
    """An endpoint as it was at a past time."""

    endpoint: str
    instance_id: str
    status: str
    since: Epoch
    reason: str


class StandingList(Struct, frozen=True):
    """The endpoints that were listed at a past time."""

    service: str
    at: Epoch
    endpoints: list[StandingView]


class PauseRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """An operator's wish that no lease lapses for a while."""

    reason: Name
    expires_in: Annotated[float, Meta(gt=0, le=86_400, description="Seconds; a pause without an end hides the dead.")]
    service: Annotated[ServiceName | None, Meta(description="Null: all services.")] = None


class PauseView(Struct, frozen=True):
    """A pause in force."""

    service: Annotated[str | None, Meta(description="Null: all services.")]
    actor: str
    reason: str
    since: Epoch
    until: Epoch


class SuspectView(Struct, frozen=True):
    """An endpoint that is served although its lease expired."""

    service: str
    endpoint: str
    since: Epoch
    until: Annotated[
        Epoch, Meta(description="When it lapses at the latest, unless it is heard of or expiry is paused for longer.")
    ]
    reason: str
    last_heard: Annotated[Epoch | None, Meta(description="When its last heartbeat came; null: that is not known.")]
    last_reported: Annotated[str, Meta(description="The health that its registrar reported last.")]


class ExpiryView(Struct, frozen=True):
    """The causes that keep leases from lapsing: the guard's suspects, and operators' pauses."""

    pauses: list[PauseView]
    suspects: list[SuspectView]


class Readiness(Struct, frozen=True):
    """Whether this process can answer, and its parts."""

    ready: bool
    parts: list[Part]


class Version(Struct, frozen=True):
    """The versions of program, Python and schema."""

    name: str
    version: str
    python: str
    schema: str


class AnswerView(Struct, frozen=True):
    """The response to a subscriber's last poll."""

    status: int
    version: Annotated[int | None, Meta(description="Of a 200; null with a 304, and in v1.")]
    at: Epoch


class SubscriberView(Struct, frozen=True):
    """An Envoy that polls a service, what it holds, and how it keeps up."""

    node_id: Annotated[str, Meta(description="Empty in v1, and where the request names none.")]
    cluster: str
    zone: str
    address: Annotated[str, Meta(description="As Envoy tells it in X-Forwarded-For, else the peer's.")]
    envoy: Annotated[str, Meta(description="Its version.")]
    service: str
    api: Annotated[str, Meta(description="v1, v2 or v3.")]
    version: Annotated[int | None, Meta(description="The version that it sent last; null: none, or none of ours.")]
    version_info: str
    current_version: int
    state: Annotated[str, Meta(description="current, behind, stuck or silent.")]
    reason: str
    held: Annotated[bool, Meta(description="Its poll waits for a change right now.")]
    last_seen: Epoch
    first_seen: Epoch
    last_answer: AnswerView | None
    process: Annotated[str, Meta(description="The registry process that saw it last.")]


class SubscriberList(Struct, frozen=True):
    """A page of subscribers; ``next`` is the cursor of the next page."""

    subscribers: list[SubscriberView]
    states: Annotated[dict[str, int], Meta(description="How many are in each state, on all pages, in any state.")]
    complete: Annotated[
        bool,
        Meta(
            description="A subscriber that is not listed does not poll. False: PostgreSQL is unavailable, and these "
            "are the subscribers of this process alone, or a process did not remember one (`refused_ago`)."
        ),
    ]
    refused_ago: Annotated[
        float | None,
        Meta(
            description="Seconds since a process did not remember a subscriber, because REGISTRY_MAX_SIGHTINGS were "
            "reached or one poll had more than 16 names; null: none did within 15 minutes."
        ),
    ]
    next: str | None


class TargetGroup(Struct, frozen=True):
    """Targets for Prometheus, with their labels."""

    targets: list[str]
    labels: dict[str, str]


_documents: set[type[Struct]] = set()
"""Every document that a route refers to; `reference` adds it."""


_ENDPOINT = EndpointView(
    service="shop",
    endpoint="10.0.0.5:8080",
    address="10.0.0.5",
    port=8080,
    status="HEALTHY",
    weight=10,
    instance_id="i-0abc",
    incarnation=1_763_600_000_000,
    health="HEALTHY",
    detail="GET /healthz: 200",
    draining=False,
    revision="1.8.2",
    region="ap-northeast-1",
    zone="ap-northeast-1a",
    canary=False,
    repository=None,
    metadata={"stage": "blue"},
    registered_at=1_763_600_000.0,
    changed_at=1_763_600_000.0,
    lapsed_at=None,
    leaving_at=None,
    suspect_since=None,
    suspect_reason="",
    lease_ttl=20.0,
    lease_renewed_at=1_763_600_100.0,
    lease_expires_at=1_763_600_120.0,
    override=None,
    silence=None,
)

_SERVICE = ServiceDetailView(
    name="shop",
    version=7,
    endpoints=3,
    statuses={"HEALTHY": 2, "DRAINING": 1},
    routable=2,
    present=2,
    expected=3,
    missing=1,
    lost_count=1,
    lost=[
        LostView(
            endpoint="10.0.0.9:8080",
            instance_id="i-0def",
            lost_at=1_763_600_000.0,
            health="HEALTHY",
            reason="its registrar went silent, and its lease expired",
            revision="1.8.2",
            region="ap-northeast-1",
            zone="ap-northeast-1a",
        )
    ],
)

_EXPLANATION = ExplanationView(
    service="shop",
    endpoint="10.0.0.5:8080",
    listed=True,
    served=True,
    status="HEALTHY",
    because=["its registrar reports HEALTHY (GET /healthz: 200)", "its lease has 17.2s left; last heard of 2.8s ago"],
    would_change=["a failing check, a drain, a deregistration, or silence for the length of its lease"],
    now=_ENDPOINT,
    events=[],
)

_STATE = StateView(
    at=1_763_600_000.0,
    database_id="5f0c2b7e",
    process=ProcessState("registry-a:4711", "0.1.0", 4711, 1_763_500_000.0, closing=False),
    parts=[Part("snapshot", ok=True, detail="read 0.4 s ago, 12 services")],
    snapshot=SnapshotState(
        ready=True,
        stale=False,
        read_ago=0.4,
        read_every=3.0,
        services=12,
        endpoints=340,
        quarantined=0,
        suspects=0,
        archive_ago=4.2,
        archive_current=True,
    ),
    database=DatabaseState(
        answers=True,
        detail="answers",
        writable=True,
        server="18.1",
        schema="0002",
        schema_expected="0002",
        clock_ahead=0.003,
        took=0.012,
    ),
    sweeper=SweeperState(
        leads=True, every=1.0, swept_ago=0.6, overdue=False, leader=PeerState("10.0.0.9", 1_763_500_000.0), refused=[]
    ),
    replicas=[PeerState("10.0.0.9", 1_763_500_000.0), PeerState("10.0.1.9", 1_763_510_000.0)],
    processes=[
        ProcessReportState("registry-a:4711", 1_763_500_000.0, []),
        ProcessReportState(
            "registry-b:4711",
            1_763_510_000.0,
            [FailureState("accept", 12.5, total=True, overdue=False, reason="no file descriptors are left")],
        ),
    ],
    silent_processes=[],
    hanging=0,
    leases=LeasesState(340, 1, 0, [TallyState("shop", 40, 1, 0)]),
    limits=LimitsState(
        12, 20_000, 340, 200_000, ["shop 169.254.3.4:8080"], 1, [ReachedLimitState("instance_endpoints", 3, 41.0)]
    ),
    audit=AuditState(0, 10_000, 0, None),
    access=AccessState(
        mode="audit",
        noted_verbs=["configure", "debug", "discover", "inspect", "observe", "operate", "read", "register"],
        open_listeners=["0.0.0.0:8443"],
        plain_listeners=[],
        named=True,
        would_refuse_count=1_440,
        would_refuse=[WouldRefuseState("anonymous", "discover", 1_440, 3, "10.0.0.7", 41.0)],
        ending=[
            TokenState("s33426zjxtxv6ttz", "ci-deploy", "machine", 1_756_500_000.0, 1_764_000_000.0, 1_763_596_800.0)
        ],
        long_lived=[],
        open_to_networks=[],
        unreadable_count=1,
        unreadable=["identity shop: Invalid enum value 'fly' - at `$[0].verbs[0]`"],
    ),
    tls=TlsState("/etc/registry/tls.pem", 1_763_812_800.0, None),
)

_VERDICT = Verdict.of(
    [
        Finding(
            id="endpoints-not-silent",
            category="registrars",
            scope="whole",
            status=FindingStatus.WARNING,
            headline="1 endpoint of shop is silent and still gets traffic",
            holds="no endpoint that gets traffic is silent",
            lines=[
                about_endpoint(
                    "shop",
                    "10.0.0.5:8080",
                    "shop 10.0.0.5:8080: SILENT, last reported HEALTHY 44s ago, kept by the guard until 12:31 UTC "
                    "at the latest (2 of 10 of the service lapsed within 60 s)",
                )
            ],
            more=0,
            link="/ui/registry",
        )
    ],
    at=1_763_600_000.0,
    database_id="5f0c2b7e",
    process="registry-a:4711",
    version="0.1.0",
)

_EXAMPLES: list[Struct] = [
    _ENDPOINT,
    _SERVICE,
    EndpointList("shop", 7, [_ENDPOINT], None),
    _EXPLANATION,
    _STATE,
    _VERDICT,
]
"""Shown with their schemas: FastAPI leaves null out of the examples beside answers, and these need theirs."""


def show_examples(*examples: Struct) -> None:
    """Show these documents with their schemas, which is needed where they have nulls."""
    _EXAMPLES.extend(examples)


def components() -> dict[str, Any]:
    """Return the JSON Schema of every document that a route refers to, for OpenAPI's components."""
    documents = sorted(_documents, key=lambda document: document.__name__)
    _, schemas = msgspec.json.schema_components(documents, ref_template="#/components/schemas/{name}")
    for example in _EXAMPLES:
        schemas[type(example).__name__]["examples"] = [msgspec.to_builtins(example)]
    # Defaults are tuples, and JSON has lists.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schemas))
    return plain


def reference(document: type[Struct]) -> dict[str, str]:
    """Return the reference to a document's schema, which is among the components from then on."""
    _documents.add(document)
    return {"$ref": f"#/components/schemas/{document.__name__}"}


class ProbesCounted(Struct, frozen=True):
    """The number of results of probes that say something."""

    counted: Annotated[
        int,
        Meta(description="Those about a suspect of the service and its incarnation, on another host than the prober."),
    ]


def body(document: type[Struct], example: object) -> dict[str, Any]:
    """Return the OpenAPI of a request body, with an example."""
    content = {"application/json": {"schema": reference(document), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def answers(document: type[Struct], description: str, example: object, status: int = 200) -> dict[int | str, Any]:
    """Return the OpenAPI of a successful response; without an example, the document's schema has one."""
    content = {"application/json": {"schema": reference(document), "example": example}}
    return {status: {"description": description, "content": content}}


def problems(*statuses: int, free: bool = False) -> dict[int | str, Any]:
    """Return the OpenAPI of the problems that a route may answer.

    Every route may answer 421, and each that asks the policy 401 and 403, so these need not be named.

    Args:
        statuses: of the problems.
        free: whether the route asks nobody.
    """
    described: Mapping[int, str] = {
        400: "The request cannot be read.",
        401: "No credential was sent, or the one that was is not accepted.",
        403: "Not allowed: the principal may not do this; or sent from elsewhere: a page of another site wrote.",
        404: "There is no such thing.",
        409: "Another instance, or a newer incarnation, owns the endpoint.",
        413: "The body is too large.",
        421: "A browser asks under a name that REGISTRY_HOSTS does not have.",
        422: "The request says something impossible, or something that the limits do not allow.",
        429: "There is as much as there may be; Retry-After says when to ask again.",
        503: "PostgreSQL is away, or this process has not read its state yet; Retry-After says when to ask again.",
    }
    content = {CONTENT_TYPE: {"schema": reference(Problem)}}
    asked = {421} if free else {401, 403, 421}
    return {status: {"description": described[status], "content": content} for status in sorted(asked | {*statuses})}


def json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as a response."""
    return Response(msgspec.json.encode(document), status, headers, "application/json")


def endpoint_view(endpoint: Endpoint, lease: Lease | None, silence: Silence | None) -> EndpointView:
    """Return the document of an endpoint with its lease and its silence."""
    registration, override = endpoint.registration, endpoint.override
    return EndpointView(
        service=endpoint.service,
        endpoint=endpoint.name,
        address=endpoint.address,
        port=endpoint.port,
        status=endpoint.status.value,
        weight=endpoint.weight,
        instance_id=registration.instance_id,
        incarnation=registration.incarnation,
        health=registration.health.value,
        detail=registration.detail,
        draining=endpoint.draining,
        revision=registration.revision,
        region=registration.region,
        zone=registration.zone,
        canary=endpoint.canary,
        repository=registration.repository,
        metadata=registration.metadata,
        registered_at=endpoint.registered_at,
        changed_at=endpoint.changed_at,
        lapsed_at=endpoint.lapsed_at,
        leaving_at=endpoint.leaving_at,
        suspect_since=endpoint.suspect_since,
        suspect_reason=endpoint.suspect_reason,
        lease_ttl=registration.ttl,
        lease_renewed_at=lease.renewed_at if lease else None,
        lease_expires_at=lease.expires_at if lease else None,
        override=None
        if override is None
        else OverrideView(
            weight=override.weight,
            canary=override.canary,
            drain=override.drain,
            reason=override.reason,
            actor=override.actor,
            set_at=override.set_at,
            expires_at=override.expires_at,
        ),
        silence=None if silence is None else silence_view(silence),
    )


def silence_view(silence: Silence) -> SilenceView:
    """Return the document of a silence."""
    return SilenceView(
        silence.since, silence.last_heard, silence.last_reported.value, silence.held_until, silence.reason
    )


def service_view(snapshot: Snapshot, presence: Presence) -> ServiceView:
    """Return the document of a service."""
    return ServiceView(**_service_fields(snapshot, presence))


def service_detail_view(snapshot: Snapshot, presence: Presence) -> ServiceDetailView:
    """Return the document of a service with its lost endpoints."""
    lost = [lost_view(endpoint) for endpoint in presence.lost[:MAX_SHOWN]]
    return ServiceDetailView(**_service_fields(snapshot, presence), lost=lost)


def _service_fields(snapshot: Snapshot, presence: Presence) -> dict[str, Any]:
    quarantined = {
        format_endpoint(*address_port): quarantined_row.reason
        for address_port, quarantined_row in snapshot.quarantined.items()
    }
    return {
        "name": snapshot.service,
        "version": snapshot.version,
        "endpoints": len(snapshot.endpoints),
        "statuses": dict(snapshot.counts_for_people),
        "routable": snapshot.routable,
        "silent": len(snapshot.silent),
        "quarantined": quarantined,
        "present": presence.present,
        "expected": presence.expected,
        "expected_source": presence.source,
        "expected_by": snapshot.expected_by,
        "missing": presence.missing,
        "lost_count": len(presence.lost),
    }


def lost_view(endpoint: Endpoint) -> LostView:
    """Return the document of a lost endpoint."""
    registration = endpoint.registration
    return LostView(
        endpoint=endpoint.name,
        instance_id=registration.instance_id,
        lost_at=endpoint.lost_at or 0.0,
        health=registration.health.value,
        reason=endpoint.lost_reason,
        revision=registration.revision,
        region=registration.region,
        zone=registration.zone,
    )


def listed_override_view(item: OverrideInForce, now: float) -> ListedOverrideView:
    """Return the document of an override in force; ``now`` is the database's time."""
    override = item.override
    return ListedOverrideView(
        service=item.service,
        endpoint=item.name,
        instance_id=override.instance_id,
        status=None if item.endpoint is None else item.endpoint.status.value,
        weight=override.weight,
        canary=override.canary,
        drain=override.drain,
        reason=override.reason,
        actor=override.actor,
        set_at=override.set_at,
        expires_at=override.expires_at,
        open_ended=override.open_ended(now),
    )


def event_view(event: RecordedEvent) -> EventView:
    """Return the document of an event."""
    return EventView(
        id=f"{event.transaction}-{event.id}",
        at=event.at,
        service=event.service,
        endpoint=format_endpoint(event.address, event.port)
        if event.address is not None and event.port is not None
        else None,
        instance_id=event.instance_id,
        kind=event.kind,
        reason=event.reason,
        actor=event.actor,
        status=event.status,
        version=event.version,
    )


def pause_view(pause: Pause) -> PauseView:
    """Return the document of a pause."""
    service = None if pause.scope == EVERYWHERE else pause.scope
    return PauseView(service, pause.actor, pause.reason, pause.since, pause.until)


def suspect_view(suspect: Suspect) -> SuspectView:
    """Return the document of an endpoint that is served although its lease expired."""
    endpoint, silence = suspect.endpoint, suspect.silence
    return SuspectView(
        endpoint.service,
        endpoint.name,
        silence.since,
        silence.held_until,
        silence.reason,
        silence.last_heard,
        silence.last_reported.value,
    )


def explanation_view(explained: ExplainedEndpoint) -> ExplanationView:
    """Return the document of an explanation."""
    endpoint, explanation = explained.endpoint, explained.explanation
    return ExplanationView(
        service=explained.key[0],
        endpoint=format_endpoint(*explained.key[1:]),
        listed=endpoint is not None,
        served=explanation.served,
        status=None if endpoint is None else endpoint.status.value,
        because=explanation.because,
        would_change=explanation.would_change,
        now=None if endpoint is None else endpoint_view(endpoint, explained.lease, explained.silence),
        events=[event_view(event) for event in explained.events],
        from_memory=explained.away is not None,
        missing=explained.away.missing if explained.away else [],
        away=explained.away.reason if explained.away else "",
    )


def subscriber_view(subscriber: SubscriberStatus) -> SubscriberView:
    """Return the document of a subscriber."""
    seen = subscriber.report
    answer = None
    if seen.status is not None and seen.answered_at is not None:
        answer = AnswerView(seen.status, seen.offered, seen.answered_at)
    return SubscriberView(
        node_id=seen.node_id,
        cluster=seen.cluster,
        zone=seen.zone,
        address=seen.address,
        envoy=seen.envoy,
        service=seen.service,
        api=seen.api,
        version=seen.version,
        version_info=seen.version_info,
        current_version=subscriber.service_version.version,
        state=subscriber.evaluation.state,
        reason=subscriber.evaluation.reason,
        held=seen.held,
        last_seen=seen.seen_at,
        first_seen=seen.first_seen,
        last_answer=answer,
        process=seen.process,
    )
