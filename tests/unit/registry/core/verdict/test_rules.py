"""Rules of the verdict: from facts to findings, without I/O."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshconfig.phases import Laggard, Phase, Rollout
from registry.core.endpoint import Endpoint, Override
from registry.core.expiry_guard import Pause
from registry.core.mesh_gateways import GatewayRefusal, GatewayStatus, RecompiledGateway
from registry.core.presence import Presence
from registry.core.rollout import NodeRollout, RolloutState
from registry.core.rollout import Pause as RolloutPause
from registry.core.silence import Silence
from registry.core.status import (
    AccessState,
    AuditState,
    DatabaseState,
    EcsClusterFailureState,
    EcsTasksState,
    FailureState,
    LeasesState,
    LimitsState,
    Part,
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
    TokenState,
    WouldRefuseState,
)
from registry.core.subscriber_status import (
    ClusterSubscribers,
    Evaluation,
    ServiceVersion,
    State,
    SubscriberReport,
    SubscriberStatus,
)
from registry.core.traffic import Reasons
from registry.core.traffic_failures import FailingPair
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
from registry.core.verdict.finding import MAX_LINES, Conclusion, Rule
from wire.finding import Finding, FindingStatus
from wire.model import Registration, Report

NOW = 1_763_600_000.0
DAY = 86_400.0
STATE = StateView(
    at=NOW,
    database_id="db",
    process=ProcessState("a:1", "1.0", 1, NOW - 3600, closing=False),
    parts=[Part("snapshot", ok=True, detail="read 0.4 s ago, 1 services")],
    snapshot=SnapshotState(
        ready=True,
        stale=False,
        read_ago=0.5,
        read_every=3.0,
        services=1,
        endpoints=2,
        quarantined=0,
        unavailable=0,
        outdated=0,
        suspects=0,
        archive_ago=100.0,
        archive_current=True,
    ),
    database=DatabaseState(
        answers=True,
        detail="answers",
        writable=True,
        server="18.1",
        schema="0002",
        schema_expected="0002",
        clock_ahead=0.1,
        took=0.01,
    ),
    sweeper=SweeperState(
        leads=True, every=1.0, swept_ago=0.4, overdue=False, leader=PeerState("10.0.0.9", NOW - 60), refused=[]
    ),
    replicas=[PeerState("10.0.0.9", NOW - 60)],
    processes=[ProcessReportState("a:1", NOW - 60, [])],
    silent_processes=[],
    hanging=0,
    leases=LeasesState(2, 0, 0, []),
    limits=LimitsState(1, 20, 2, 200, [], 0),
    audit=AuditState(0, 10_000, 0, None),
    access=AccessState(
        mode="on",
        noted_verbs=["read"],
        open_listeners=["0.0.0.0:8080"],
        plain_listeners=[],
        named=True,
        would_refuse_count=0,
        would_refuse=[],
        ending=[],
        long_lived=[],
        open_to_networks=[],
    ),
    tls=TlsState("/tls/cert.pem", NOW + 30 * DAY, None),
)


def subscriber(service: str = "shop", state: State = "current", reason: str = "") -> SubscriberStatus:
    """Return an Envoy that polls a service."""
    report = SubscriberReport(
        process="a:1",
        node_id="web-1",
        cluster="web",
        zone="",
        envoy="1.40.0",
        address="10.0.0.7",
        service=service,
        api="v3",
        version_info="db:7",
        version=7,
        offered=7,
        status=200,
        answered_at=NOW,
        polled_at=NOW,
        first_seen=NOW,
        held=True,
        pause=0.2,
        refusals=0,
        refused_since=None,
    )
    return SubscriberStatus(report, ServiceVersion(7, NOW), Evaluation(state, reason))


def polled(*statuses: SubscriberStatus, others: bool = True, refused_ago: float | None = None) -> ClusterSubscribers:
    """Return the Envoys that poll."""
    return ClusterSubscribers(list(statuses), others, refused_ago)


WELL = Facts(
    now=NOW,
    state=STATE,
    services=1,
    endpoints=2,
    sizes={"shop": 2},
    subscribers=polled(subscriber()),
    traffic=TrafficFacts(),
    troubled_shifts=[],
    pauses=[],
    mesh=MeshFacts(),
)


def changed(document: Any, path: str, value: object) -> Any:
    """Return a document with one value changed, named like ``database.answers``."""
    name, _, rest = path.partition(".")
    return replace(document, **{name: changed(getattr(document, name), rest, value) if rest else value})


def with_state(*changes: tuple[str, object]) -> Facts:
    """Return facts with values of the state changed."""
    state = STATE
    for path, value in changes:
        state = changed(state, path, value)
    return replace(WELL, state=state)


AWAY = with_state(
    ("database", DatabaseState(answers=False, detail="PostgreSQL is away")),
    ("sweeper", SweeperState(leads=False, every=1.0)),
    ("replicas", None),
    ("silent_processes", None),
    ("leases", None),
    ("access.would_refuse", None),
)
TOKEN = TokenState("s33426zjxtxv6ttz", "ci", "machine", NOW - 88 * DAY, NOW + 3 * DAY, NOW - 7200)
FAILING = ProcessReportState(
    "a:1", NOW - 60, [FailureState("accept", 12.4, total=True, overdue=False, reason="no descriptors are left")]
)
CUT_OFF = ProcessReportState(
    "b:1", NOW - 60, [FailureState("renew", 99.0, total=False, overdue=True, reason="permission denied")]
)
ECS = EcsTasksState(requests=3, answered_ago=None, watched=2, stopped=0, failing_count=1, failing=[])
SILENCE = Silence(NOW - 12, NOW - 104, Report.HEALTHY, NOW + 800, "2 of 9 lapsed")
SUSPECT = SilentEndpoint("shop", "10.0.0.5:80", SILENCE)
OVERRIDE = OverrideFacts("shop", "10.0.0.5:80", Override(None, True, "ann", "deploy", NOW - 7200, None))
PAUSE = Pause("*", "ann", "switch", NOW, NOW + 600)
_GONE = Endpoint(1, "shop", "10.0.0.5", 80, Registration("i-5", 1), NOW, NOW, lost_reason="its registrar went silent")
WEAK = StrengthFacts(
    "shop",
    Presence(2, 5, "observed", [replace(_GONE, lost_at=NOW - 720), replace(_GONE, id=2, lost_at=NOW - 7200)]),
    silent=1,
)
LAPSE = Lapse("shop", "10.0.0.5:80", "i-1", 90.0, listed=False)
WARNING, FAILURE = FindingStatus.WARNING, FindingStatus.FAILURE


PROVEN_GATEWAY = RecompiledGateway("proven", 1.0, ["1.40.0"])


def rolling(**fields: Any) -> MeshFacts:
    """Return a roll-out of revision 7 that is under way."""
    state = RolloutState(Rollout(Phase.ADD), 1, reason="because")
    return MeshFacts(7, proven_by=["1.40.0"], rollouts=[NodeRollout("web", 0.0, 7, 1.0, replace(state, **fields))])


TROUBLES: list[tuple[str, FindingStatus, Facts, str, str]] = [
    (
        "registry-ready",
        FAILURE,
        with_state(("snapshot.ready", False), ("parts", [Part("snapshot", ok=False, detail="never read")])),
        "a process is not ready for discovery",
        "not ready; snapshot: never read",
    ),
    (
        "registry-ready",
        FAILURE,
        with_state(("process.closing", True)),
        "a process is not ready for discovery",
        "it was asked to stop",
    ),
    (
        "tls-certificate",
        WARNING,
        with_state(("tls.not_after", NOW + 3 * DAY)),
        "the certificate that is served expires soon",
        "/tls/cert.pem expires in 3d, at 2025-11-23 00:53:20 UTC",
    ),
    (
        "tls-certificate",
        FAILURE,
        with_state(("tls.not_after", NOW - 7200)),
        "the certificate that is served has expired",
        "/tls/cert.pem expired 2h ago, at 2025-11-19 22:53:20 UTC",
    ),
    (
        "tls-certificate",
        WARNING,
        with_state(("tls.problem", "REGISTRY_TLS_KEY_FILE=/tls/key.pem: it cannot be read: Permission denied")),
        "the new files of the certificate cannot be used",
        "/tls/key.pem: it cannot be read: Permission denied; the files before are in use",
    ),
    (
        "check-allowed",
        WARNING,
        replace(WELL, everything=False, readable=["shop-*", "web"]),
        "only some services could be checked",
        "this principal may read shop-*, web, and no other service",
    ),
    (
        "access-closed",
        WARNING,
        with_state(("access.mode", "off"), ("access.noted_verbs", [])),
        "access is off, and other machines are served",
        "0.0.0.0:8080 is open: everybody who reaches it",
    ),
    (
        "access-refuses-nobody",
        WARNING,
        with_state(("access.would_refuse", [WouldRefuseState("anonymous", "read", 1440, 3, "10.0.0.7", 30.0)])),
        "requests of the last day would be refused if access were on",
        "anonymous from 10.0.0.7 and 2 others: read 1,440 times, last 30s ago",
    ),
    (
        "tokens-lasting",
        WARNING,
        with_state(("access.ending", [TOKEN])),
        "1 token ends soon, or has ended in use",
        "ci (s33426zjxtxv6ttz) ends in 3d, last used 2h ago: registryctl token rotate s33426zjxtxv6ttz",
    ),
    (
        "tokens-lasting",
        WARNING,
        with_state(("access.ending", [replace(TOKEN, expires_at=NOW - 7200, used_at=None)])),
        "1 token ends soon, or has ended in use",
        "ended 2h ago, never used",
    ),
    (
        "admin-narrow",
        WARNING,
        with_state(("access.long_lived", [TOKEN])),
        "the verb admin is given to a network, or for more than 30 days",
        "token ci (s33426zjxtxv6ttz) was made for 91d",
    ),
    (
        "admin-narrow",
        WARNING,
        with_state(("access.open_to_networks", ["all (10.0.0.0/8)"])),
        "the verb admin is given to a network, or for more than 30 days",
        "identity all (10.0.0.0/8) gives admin",
    ),
    (
        "access-readable",
        WARNING,
        with_state(("access.unreadable_count", 1), ("access.unreadable", ["identity shop: the kind 'robot' is none"])),
        "1 token or identity cannot be read",
        "identity shop: the kind 'robot' is none",
    ),
    (
        "access-readable",
        WARNING,
        with_state(("access.unreadable_count", 3)),
        "3 tokens and identities cannot be read",
        "they are not named here",
    ),
    (
        "tokens-encrypted",
        WARNING,
        with_state(("access.plain_listeners", ["0.0.0.0:8080"])),
        "tokens are sent over plain HTTP",
        "0.0.0.0:8080 takes tokens over plain HTTP",
    ),
    (
        "audit-complete",
        WARNING,
        with_state(("audit", AuditState(0, 10_000, 3, 60.0))),
        "entries of the audit were lost, or are about to be",
        "3 lost since the start, the last one 60s ago",
    ),
    (
        "audit-complete",
        WARNING,
        with_state(("audit.waiting", 6_000)),
        "entries of the audit were lost, or are about to be",
        "6,000 wait to be stored",
    ),
    (
        "postgresql-answers",
        FAILURE,
        AWAY,
        "PostgreSQL does not answer the registry",
        "PostgreSQL is away; reads go on from memory",
    ),
    (
        "postgresql-writable",
        FAILURE,
        with_state(("database.writable", False)),
        "PostgreSQL refuses writes",
        "answers",
    ),
    (
        "postgresql-schema",
        FAILURE,
        with_state(("database.schema", "0001")),
        "PostgreSQL's schema is older than the registry expects",
        "is 0001, the registry expects 0002",
    ),
    (
        "postgresql-schema",
        WARNING,
        with_state(("database.schema", "0003")),
        "PostgreSQL's schema is newer than the registry expects",
        "is 0003, the registry expects 0002",
    ),
    (
        "history-kept",
        WARNING,
        with_state(("sweeper.history_cut_ago", 90.0)),
        "events were deleted before their retention was over",
        "90s ago, because there were more than REGISTRY_MAX_EVENTS",
    ),
    (
        "snapshot-fresh",
        FAILURE,
        with_state(("snapshot.stale", True)),
        "discovery is not answered from what PostgreSQL says now",
        "served from disk, 100s old",
    ),
    (
        "snapshot-fresh",
        FAILURE,
        with_state(("snapshot.read_ago", 60.0)),
        "discovery is not answered from what PostgreSQL says now",
        "last compared with PostgreSQL 60s ago",
    ),
    (
        "snapshot-fresh",
        FAILURE,
        with_state(("snapshot.ready", False)),
        "discovery is not answered from what PostgreSQL says now",
        "nothing was read yet",
    ),
    (
        "services-readable",
        FAILURE,
        replace(WELL, unavailable=["shop"], outdated=["cart"]),
        "2 services cannot be read",
        "shop: this process answers 503 for it; the registry's log says why",
    ),
    (
        "snapshot-on-disk",
        WARNING,
        with_state(("snapshot.archive_current", False)),
        "the last state is not on disk: a start without PostgreSQL would serve an older one, or none",
        "the state on disk is 100s old",
    ),
    (
        "replicas-working",
        WARNING,
        with_state(("processes", [FAILING])),
        "1 process cannot do all of its work",
        "a:1 cannot accept connections, for 12 s: no descriptors are left; leases are credited",
    ),
    (
        "replicas-working",
        FAILURE,
        with_state(("processes", [FAILING, CUT_OFF])),
        "2 processes cannot do all of their work",
        "b:1 cannot renew leases each time, for 99 s: permission denied; what it cuts off",
    ),
    (
        "replicas-heard",
        WARNING,
        with_state(("silent_processes", [SilentProcessState("b:1", NOW - 60, 41.0)])),
        "1 registry process is silent",
        "b:1 has not reported for 41s, and did not say that it stops",
    ),
    (
        "replicas-heard",
        FAILURE,
        with_state(("silent_processes", [SilentProcessState("b:1", NOW - 60, 41.0)] * 2), ("hanging", 1)),
        "2 registry processes are silent",
        "1 of them is connected to PostgreSQL and hangs",
    ),
    (
        "clock-postgresql",
        WARNING,
        with_state(("database.clock_ahead", -5.0)),
        "PostgreSQL's clock differs from the registry's",
        "5.0 s behind the registry",
    ),
    (
        "sweeper-leads",
        FAILURE,
        with_state(("sweeper.leader", None)),
        "no process sweeps for expired leases",
        "no process holds the lead",
    ),
    (
        "sweeps-happen",
        FAILURE,
        with_state(("sweeper.swept_ago", 40.0), ("sweeper.overdue", True)),
        "sweeps are overdue",
        "the last sweep was 40s ago",
    ),
    (
        "sweeps-happen",
        FAILURE,
        with_state(("sweeper.swept_ago", None), ("sweeper.overdue", True)),
        "sweeps are overdue",
        "no process has swept yet",
    ),
    (
        "sweeps-complete",
        FAILURE,
        with_state(("sweeper.refused", [SweepRefusalState("shop", "expiry", "", "a CHECK", 70.0)])),
        "1 service is passed over by sweeps",
        "shop is passed over for 70s, its silent endpoints stay served: a CHECK",
    ),
    (
        "leases-present",
        WARNING,
        with_state(("leases.missing", 3)),
        "3 endpoints are served without a lease",
        "3 endpoints are served and have no lease",
    ),
    (
        "leases-present",
        WARNING,
        with_state(("sweeper.leases_replaced", 2)),
        "2 endpoints had lost their leases",
        "2 endpoints had no lease and got one",
    ),
    (
        "ecs-answers",
        WARNING,
        with_state(("ecs_tasks", replace(ECS, failing=[EcsClusterFailureState("prod", "eu-1", "AccessDenied", 90.0)]))),
        "1 ECS cluster of silent endpoints cannot be asked",
        "cluster prod in eu-1 could not be asked for 90s: AccessDenied",
    ),
    (
        "ecs-answers",
        WARNING,
        with_state(("ecs_tasks", replace(ECS, failing_count=2))),
        "2 ECS clusters of silent endpoints cannot be asked",
        "they are not named here",
    ),
    (
        "expiry-not-paused",
        WARNING,
        replace(WELL, pauses=[PAUSE]),
        "expiry is paused",
        "paused everywhere for another 10m, by ann: switch",
    ),
    (
        "probes-work",
        WARNING,
        with_state(("probes", ProbesState(9, 10, 0, 0.0, "the disk is full"))),
        "probes cannot tell dead endpoints from silent ones",
        "are no evidence: the disk is full",
    ),
    (
        "probes-work",
        WARNING,
        with_state(("probes", ProbesState(9, 10, 3, 12.0, ""))),
        "probes cannot tell dead endpoints from silent ones",
        "its probes say nothing for 12s",
    ),
    (
        "probes-work",
        WARNING,
        with_state(("probes", ProbesState(4, 10, 0, 0.0, ""))),
        "probes cannot tell dead endpoints from silent ones",
        "it could connect to 4 of 10 endpoints",
    ),
    (
        "heartbeats-punctual",
        WARNING,
        with_state(("leases", LeasesState(9, 1, 0, [TallyState("shop", 9, 1, 0)]))),
        "1 of 9 leases is renewed late",
        "shop: 1 of 9 late",
    ),
    (
        "heartbeats-punctual",
        FAILURE,
        with_state(("leases", LeasesState(9, 8, 0, [TallyState("shop", 9, 8, 0)]))),
        "8 of 9 leases are renewed late",
        "most registrars are late",
    ),
    (
        "endpoints-not-silent",
        WARNING,
        replace(WELL, suspects=[SUSPECT]),
        "1 endpoint of shop is silent and still gets traffic",
        "shop 10.0.0.5:80: SILENT, last reported HEALTHY 1m44s ago, kept by the guard until 01:06 UTC at the latest",
    ),
    (
        "endpoints-not-silent",
        FAILURE,
        replace(WELL, suspects=[SUSPECT, replace(SUSPECT, service="cart", silence=replace(SILENCE, since=NOW - 31))]),
        "2 endpoints of 2 services are silent and still get traffic",
        "cart 10.0.0.5:80: SILENT",
    ),
    (
        "registrars-heard",
        WARNING,
        replace(WELL, lapses=[LAPSE]),
        "1 registrar is silent",
        "lapsed 90s ago and it was removed",
    ),
    (
        "endpoints-not-lost",
        WARNING,
        replace(WELL, weak=[WEAK]),
        "1 endpoint was lost in the last hour",
        "shop 10.0.0.5:80: gone 12m ago, was HEALTHY, its registrar went silent",
    ),
    (
        "services-at-strength",
        WARNING,
        replace(WELL, weak=[WEAK]),
        "1 service has fewer endpoints than are expected",
        "shop: 2 of 5 endpoints are present (1 silent, 2 lost within a day)",
    ),
    (
        "services-at-strength",
        WARNING,
        replace(WELL, weak=[replace(WEAK, presence=Presence(4, 5, "operator", []), silent=0, expected_by="ann")]),
        "1 service has fewer endpoints than are expected",
        "shop: 4 of 5 endpoints are present (expected by ann)",
    ),
    (
        "services-at-strength",
        WARNING,
        replace(WELL, weak=[replace(WEAK, presence=Presence(4, 6, "ecs", []), silent=0)]),
        "1 service has fewer endpoints than are expected",
        "shop: 4 of 6 endpoints are present (expected by ECS)",
    ),
    (
        "services-routable",
        FAILURE,
        replace(WELL, troubled=[ServiceFacts("shop", {"TIMEOUT": 2, "HEALTHY": 0}, 0)]),
        "1 service has no routable endpoint",
        "shop: no endpoint may have traffic (2 TIMEOUT)",
    ),
    (
        "endpoints-healthy",
        WARNING,
        replace(WELL, ailing=[AilingEndpoint("shop", "10.0.0.5:80", "UNHEALTHY", "Connection refused", 12.0)]),
        "1 endpoint fails its check",
        "shop 10.0.0.5:80: UNHEALTHY for 12s: Connection refused",
    ),
    (
        "endpoints-healthy",
        WARNING,
        replace(WELL, ailing=[AilingEndpoint("shop", "10.0.0.5:80", "DEGRADED", "", None)]),
        "1 endpoint fails its check",
        "shop 10.0.0.5:80: DEGRADED, and its check says no more",
    ),
    (
        "services-not-empty",
        WARNING,
        replace(WELL, sizes={"shop": 0}),
        "1 service that an Envoy asks for has no endpoint",
        "no endpoint any more, and is asked for by web-1",
    ),
    (
        "services-not-empty",
        WARNING,
        replace(WELL, subscribers=polled(subscriber("shopp"))),
        "1 service that an Envoy asks for has no endpoint",
        "shopp was never registered",
    ),
    (
        "services-within-limits",
        WARNING,
        with_state(("limits.services", 16)),
        "a limit on services or endpoints is near",
        "16 services of 20",
    ),
    (
        "services-within-limits",
        FAILURE,
        with_state(("limits.endpoints", 201)),
        "a limit on services or endpoints is reached",
        "new ones are refused",
    ),
    (
        "endpoints-allowed",
        WARNING,
        with_state(("limits.misplaced", ["shop 127.0.0.1:80"]), ("limits.misplaced_count", 3)),
        "3 endpoints are outside of the allowed networks",
        "shop 127.0.0.1:80",
    ),
    (
        "limits-not-reached",
        WARNING,
        with_state(("limits.reached", [ReachedLimitState("event_streams", 2, 60.0)])),
        "limits have refused something",
        "event_streams: 2 times since the start, last 60s ago",
    ),
    (
        "nothing-quarantined",
        WARNING,
        replace(WELL, troubled=[ServiceFacts("shop", {"SILENT": 2}, 2, [("10.0.0.5:0", "port 0")])]),
        "1 row is quarantined",
        "shop 10.0.0.5:0: port 0",
    ),
    (
        "overrides-absent",
        WARNING,
        replace(WELL, overrides=[OVERRIDE]),
        "1 override is in force",
        "shop 10.0.0.5:80: drain, set 2h ago by ann, without an end: deploy",
    ),
    (
        "shares-recent",
        WARNING,
        replace(WELL, old_shares=[OldSharesFacts("shop", 900_000.0, "ann", "")]),
        "1 service has shares of traffic that were set more than a week ago",
        "shop: set 10d ago by ann: no reason given",
    ),
    (
        "shares-kept",
        WARNING,
        replace(WELL, misleading_shares=[SharesFacts("shop", ("revision=b has no routable endpoint",), "ann")]),
        "1 service's shares of traffic do not do what they say",
        "shop: revision=b has no routable endpoint; set by ann",
    ),
    (
        "shifts-advance",
        WARNING,
        replace(WELL, troubled_shifts=[ShiftFacts("shop", "the shift to revision=b has held at 5 % for 10m: x")]),
        "1 shift of traffic holds, is paused or was taken back",
        "shop: the shift to revision=b has held at 5 % for 10m: x",
    ),
    (
        "requests-succeed",
        WARNING,
        replace(
            WELL, traffic=TrafficFacts([FailingPair("web", "shop", 240, 82, Reasons(overflows=18))], reported=True)
        ),
        "1 pair of caller and callee fails",
        "web to shop: 34.2 % of 240 requests failed in the last minute: 64 answered with an error, 18 turned away",
    ),
    (
        "subscribers-remembered",
        WARNING,
        replace(WELL, subscribers=polled(subscriber(), refused_ago=60.0)),
        "Envoys that poll are not remembered",
        "was not remembered, last 60s ago",
    ),
    (
        "subscribers-not-rejecting",
        FAILURE,
        replace(
            WELL,
            subscribers=polled(subscriber(state="rejected", reason="refuses version 7 of shop: malformed address")),
        ),
        "1 version is refused by its subscriber",
        "web-1 at 10.0.0.7 refuses version 7 of shop: malformed address",
    ),
    (
        "subscribers-not-stuck",
        FAILURE,
        replace(WELL, subscribers=polled(subscriber(state="stuck", reason="brings 6"))),
        "1 subscription of an Envoy is stuck",
        "web-1 at 10.0.0.7, shop: brings 6",
    ),
    (
        "subscribers-not-behind",
        WARNING,
        replace(WELL, subscribers=polled(subscriber(state="behind", reason="has 6"))),
        "1 subscription of an Envoy is behind",
        "has 6",
    ),
    (
        "subscribers-not-silent",
        WARNING,
        replace(WELL, subscribers=polled(subscriber(state="silent", reason="quiet"))),
        "1 subscription of an Envoy is silent",
        "quiet",
    ),
    (
        "mesh-readable",
        FAILURE,
        replace(WELL, mesh=MeshFacts(7, rollouts=[NodeRollout("web", 0.0, 7, 1.0, None)])),
        "1 roll-out cannot be read",
        "web",
    ),
    (
        "mesh-taken",
        FAILURE,
        replace(WELL, mesh=rolling(laggards=(Laggard("e1", "10.0.0.7", "clusters", "", "refuses", refuses=True),))),
        "1 roll-out stops: an Envoy refuses it",
        "web, revision 7, step 1: because",
    ),
    (
        "mesh-followed",
        WARNING,
        replace(WELL, mesh=rolling(rollout=Rollout(Phase.SWITCH, waited=61.0))),
        "1 trouble with roll-outs",
        "web, revision 7, 61 s in step 2: because",
    ),
    (
        "mesh-followed",
        WARNING,
        replace(WELL, mesh=rolling(paused=RolloutPause("ann", "lunch", WELL.now - 3 * 86_400))),
        "1 trouble with roll-outs",
        "paused 3d ago by ann: lunch",
    ),
    (
        "mesh-followed",
        WARNING,
        replace(WELL, mesh=rolling(left_behind=(Laggard("e1", "10.0.0.7", "clusters", "", "is late"),))),
        "1 trouble with roll-outs",
        "e1 at 10.0.0.7 did not follow an earlier step: is late",
    ),
    (
        "mesh-proven",
        WARNING,
        replace(WELL, mesh=MeshFacts(7, unproven=True)),
        "no Envoy has proven what is served",
        "revision 7 was applied unproven",
    ),
    (
        "mesh-proven",
        WARNING,
        replace(WELL, mesh=MeshFacts(7, gateways=GatewayStatus([RecompiledGateway("a", 1.0), PROVEN_GATEWAY]))),
        "no Envoy has proven what is served",
        "gateway a, revision 7: it was compiled again",
    ),
    (
        "mesh-gateways",
        FAILURE,
        replace(
            WELL,
            mesh=MeshFacts(
                7, gateways=GatewayStatus(refusals=[GatewayRefusal("Envoy says no.", "a", "shop", since=WELL.now - 90)])
            ),
        ),
        "gateways do not follow the services that are registered",
        "gateway a, service shop, for 90s: Envoy says no.",
    ),
    (
        "mesh-envoys-proven",
        WARNING,
        replace(WELL, mesh=MeshFacts(7, proven_by=["1.40.0"], envoys={"1.40.2": ["web"], "1.36.2": ["api", "web"]})),
        "1 version of Envoy is covered by no proof",
        "Envoy 1.36.2, of api, web; revision 7 is proven by 1.40.0",
    ),
]
"""Each rule with facts of which it complains: how bad that is, its headline, and a part of its lines."""


def findings_of(facts: Facts) -> dict[str, Finding]:
    """Return the findings by rule."""
    return {finding.id: finding for finding in evaluate(CATEGORIES, facts)}


def text_of(finding: Finding) -> str:
    """Return the lines of a finding."""
    return "\n".join(line.text for line in finding.lines)


def test_a_registry_that_is_well_has_no_trouble() -> None:
    """Every rule is evaluated, once, and its headline is the sentence that then holds."""
    findings = evaluate(CATEGORIES, WELL)
    assert {finding.id: finding.status for finding in findings if finding.status is not FindingStatus.OK} == {}
    assert [finding.headline for finding in findings] == [finding.holds for finding in findings]
    assert len({finding.id for finding in findings}) == len(findings)


@pytest.mark.parametrize(
    ("rule", "status", "facts", "headline", "line"), TROUBLES, ids=[f"{each[0]}-{each[4][:20]}" for each in TROUBLES]
)
def test_each_trouble_is_named(rule: str, status: FindingStatus, facts: Facts, headline: str, line: str) -> None:
    """The rule whose subject is broken says so, how bad it is, and each trouble; the headline states the finding."""
    finding = findings_of(facts)[rule]
    assert (finding.status, finding.headline) == (status, headline)
    assert line in text_of(finding)


def test_every_rule_can_complain() -> None:
    """No rule is well in every state of the registry."""
    assert {rule for rule, *_ in TROUBLES} == {rule.id for rules in CATEGORIES.values() for rule in rules}


def test_a_headline_counts_its_troubles() -> None:
    """One is said in the singular, several are in the plural, and of several services the number is named."""
    several = findings_of(replace(WELL, suspects=[SUSPECT] * 3))["endpoints-not-silent"]
    assert several.headline == "3 endpoints of shop are silent and still get traffic"
    assert findings_of(replace(WELL, lapses=[LAPSE] * 3))["registrars-heard"].headline == "3 registrars are silent"


def test_of_many_troubles_the_first_are_named() -> None:
    """A thousand silent registrars do not scroll the cause away; the number of the others is given."""
    finding = findings_of(replace(WELL, lapses=[LAPSE] * 1000))["registrars-heard"]
    assert (len(finding.lines), finding.more) == (MAX_LINES, 1000 - MAX_LINES)
    misplaced = with_state(("limits.misplaced", ["shop 127.0.0.1:80"]), ("limits.misplaced_count", 3))
    assert findings_of(misplaced)["endpoints-allowed"].more == 2


@given(st.integers(0, 5), st.integers(0, 5), st.floats(0, 1e6))
def test_suspects_are_allowed_up_to_a_number(suspects: int, allowed: int, seconds: float) -> None:
    """Beyond it any is a warning, and a failure when one is held for longer than 30 seconds."""
    facts = replace(
        WELL,
        suspects=[replace(SUSPECT, silence=replace(SILENCE, since=NOW - seconds))] * suspects,
        allowed_suspects=allowed,
    )
    status = findings_of(facts)["endpoints-not-silent"].status
    expected = FAILURE if NOW - (NOW - seconds) > 30 else WARNING
    assert status is (FindingStatus.OK if suspects <= allowed else expected)


def test_a_line_leads_to_its_page() -> None:
    """Names are written into the link as a browser needs them."""
    strange = findings_of(replace(WELL, suspects=[replace(SUSPECT, service="a/b c", endpoint="[::1]:80")]))
    (line,) = strange["endpoints-not-silent"].lines
    assert (line.service, line.endpoint) == ("a/b c", "[::1]:80")
    assert line.link == "/ui/services/a%2Fb%20c/endpoints/%5B%3A%3A1%5D%3A80"


def test_without_postgresql_the_rest_is_evaluated() -> None:
    """That it is away is one failure; what it alone knows is skipped, and what memory knows is found."""
    findings = findings_of(replace(AWAY, pauses=None, suspects=[SUSPECT]))
    failing = {name for name, finding in findings.items() if finding.status is FAILURE}
    assert failing == {"postgresql-answers"}
    skipped = {name for name, finding in findings.items() if finding.status is FindingStatus.SKIPPED}
    assert skipped == {
        "access-refuses-nobody",
        "postgresql-writable",
        "postgresql-schema",
        "history-kept",
        "replicas-heard",
        "clock-postgresql",
        "sweeper-leads",
        "sweeps-happen",
        "sweeps-complete",
        "leases-present",
        "expiry-not-paused",
        "heartbeats-punctual",
    }
    assert findings["endpoints-not-silent"].status is WARNING


def test_nothing_is_said_of_services_before_they_were_read() -> None:
    """A process that knows no service does not say that all of them are well."""
    findings = findings_of(with_state(("snapshot.ready", False)))
    for rule in ("services-routable", "services-not-empty", "nothing-quarantined", "endpoints-not-silent"):
        assert findings[rule].status is FindingStatus.SKIPPED


def test_numbers_of_the_whole_are_kept_from_those_who_may_read_a_part() -> None:
    """Neither the services that they may not read nor the number of their endpoints shows."""
    limits = LimitsState(19, 20, 150, 200, ["shop 127.0.0.1:80"], 7)
    state = replace(STATE, limits=limits, leases=LeasesState(150, 9, 3, [TallyState("shop", 2, 1, 0)], missing=4))
    findings = findings_of(replace(WELL, state=state, everything=False, readable=["shop"], pauses=[]))
    assert findings["services-within-limits"].status is FindingStatus.SKIPPED
    assert findings["leases-present"].status is FindingStatus.SKIPPED
    assert findings["heartbeats-punctual"].headline == "1 of 2 leases is renewed late"
    assert (findings["endpoints-allowed"].headline, findings["endpoints-allowed"].more) == (
        "1 endpoint is outside of the allowed networks",
        0,
    )


def test_nothing_is_concluded_from_no_subscriber_while_some_are_not_remembered() -> None:
    """Then no service counts as not asked for, and a subscriber of an empty service is still named."""
    lacking = replace(WELL, subscribers=polled(subscriber(), refused_ago=60.0))
    finding = findings_of(lacking)["services-not-empty"]
    assert (finding.status, text_of(finding)) == (
        FindingStatus.SKIPPED,
        "not all subscribers are known: some are not remembered, the last one 60s ago",
    )
    asked = replace(lacking, subscribers=polled(subscriber("shopp"), refused_ago=60.0))
    assert findings_of(asked)["services-not-empty"].status is WARNING
    assert "some are not remembered" in text_of(findings_of(lacking)["subscribers-not-stuck"])
    unknown = findings_of(replace(WELL, subscribers=None))
    assert {finding.status for finding in unknown.values() if finding.category == "subscribers"} == {
        FindingStatus.SKIPPED
    }


def test_nothing_is_said_of_the_endpoints_of_a_service_that_cannot_be_read() -> None:
    """It was not "never registered": that it cannot be read is said alone."""
    asked = replace(WELL, subscribers=polled(subscriber("shopp")), unavailable=["shopp"])
    assert findings_of(asked)["services-not-empty"].status is FindingStatus.OK
    assert "shopp" in text_of(findings_of(asked)["services-readable"])


def test_access_is_judged_by_what_is_decided() -> None:
    """Off on loopback alone is well; nothing is said of refusals that are not decided, or could not be counted."""
    local = with_state(("access.mode", "off"), ("access.noted_verbs", []), ("access.open_listeners", []))
    assert findings_of(local)["access-closed"].status is FindingStatus.OK
    assert findings_of(local)["access-refuses-nobody"].status is FindingStatus.SKIPPED
    plain = with_state(("access.mode", "off"), ("access.plain_listeners", ["0.0.0.0:8080"]))
    assert findings_of(plain)["tokens-encrypted"].status is FindingStatus.OK
    uncounted = with_state(("access.would_refuse", None))
    assert findings_of(uncounted)["access-refuses-nobody"].status is FindingStatus.SKIPPED
    closed = with_state(("access.noted_verbs", []))
    assert text_of(findings_of(closed)["access-refuses-nobody"]) == "access is on"
    assert text_of(findings_of(closed)["access-closed"]) == "access is on"
    assert text_of(findings_of(with_state())["access-closed"]) == "access is on; only noted: read"
    unnamed = findings_of(with_state(("access.named", False)))
    for rule in ("access-refuses-nobody", "tokens-lasting", "admin-narrow"):
        assert unnamed[rule].status is FindingStatus.SKIPPED


def test_a_registry_that_has_just_started_may_have_swept_not_yet() -> None:
    """Its sweeps are not overdue before the registry says so."""
    finding = findings_of(with_state(("sweeper.swept_ago", None)))["sweeps-happen"]
    assert (finding.status, text_of(finding)) == (FindingStatus.OK, "none yet since the start")


def test_a_rule_that_raises_is_a_failure_of_its_own() -> None:
    """The others are evaluated all the same, and the log gets to know which one it was."""

    def broken(facts: Facts) -> Conclusion:
        raise ZeroDivisionError(facts)

    failed: list[str] = []
    rules = [Rule("broken", "it works", broken), *CATEGORIES["clocks"]]
    first, second = evaluate({"clocks": rules}, WELL, failed.append)
    assert (first.id, first.status, first.headline) == ("broken", FAILURE, "broken could not be evaluated")
    assert "ZeroDivisionError" in text_of(first)
    assert (second.status, failed) == (FindingStatus.OK, ["broken"])


def verdict_of(facts: Facts) -> Verdict:
    """Return the verdict on facts."""
    return Verdict.of(evaluate(CATEGORIES, facts), at=NOW, database_id="db", process="a:1", version="1.0")


def test_a_verdict_says_in_words_how_bad_it_is() -> None:
    """Failures come first, warnings do not make it fail, and only without both all is well."""
    assert (verdict_of(WELL).ok, verdict_of(WELL).words) == (True, "All well")
    warned = replace(WELL, pauses=[PAUSE])
    assert (verdict_of(warned).ok, verdict_of(warned).words) == (True, "1 warning")
    both = verdict_of(
        replace(AWAY, suspects=[replace(SUSPECT, silence=replace(SILENCE, since=NOW - 60))], overrides=[OVERRIDE])
    )
    assert (both.ok, both.words) == (False, "2 failures, 1 warning")
    document = msgspec.json.decode(msgspec.json.encode(both))
    assert document["counts"]["failure"] == len(both.of_status("failure")) == 2
