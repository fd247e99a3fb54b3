"""The JSON documents of a process and of the whole registry."""

from msgspec import Struct

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
from registry.core.verdict.document import Verdict
from registry.core.verdict.finding import about_endpoint
from registry.http.openapi import show_examples
from wire.finding import Finding, FindingStatus


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
        unavailable=0,
        outdated=0,
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


show_examples(_STATE, _VERDICT)
