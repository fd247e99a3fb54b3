"""Rules of `registryctl check`: from evidence to findings, without I/O."""

from copy import deepcopy
from typing import Any

import pytest
from msgspec.structs import replace

from registryctl.doctor.catalogue import CHECKS
from registryctl.doctor.evaluation import evaluate
from registryctl.doctor.evidence import ClusterEvidence, EnvoyEvidence, Evidence, RegistryEvidence
from registryctl.doctor.finding import Finding, FindingStatus

NOW = 1_763_600_000.0
DAY = 86_400.0
STATE: dict[str, Any] = {
    "at": NOW,
    "database_id": "db",
    "process": {"version": "1.0", "pid": 1, "started_at": NOW - 3600, "closing": False},
    "snapshot": {
        "ready": True,
        "stale": False,
        "read_ago": 0.5,
        "read_every": 3.0,
        "services": 1,
        "endpoints": 2,
        "quarantined": 0,
        "suspects": 0,
        "archive_ago": 100.0,
        "archive_current": True,
    },
    "database": {
        "answers": True,
        "detail": "answers",
        "writable": True,
        "server": "18.1",
        "schema": "0002",
        "schema_expected": "0002",
        "clock_ahead": 0.1,
        "took": 0.01,
    },
    "sweeper": {
        "leads": True,
        "every": 1.0,
        "swept_ago": 0.4,
        "overdue": False,
        "leader": {"address": "10.0.0.9", "since": NOW - 60},
        "refused": [],
        "history_cut_ago": None,
    },
    "replicas": [{"address": "10.0.0.9", "since": NOW - 60}],
    "processes": [{"name": "one:1", "started_at": NOW - 60, "failures": []}],
    "leases": {"held": 2, "late": 0, "expired": 0, "services": []},
    "limits": {
        "services": 1,
        "max_services": 20,
        "endpoints": 2,
        "max_endpoints": 200,
        "misplaced": [],
        "misplaced_count": 0,
        "reached": [],
    },
    "audit": {"waiting": 0, "max_waiting": 10_000, "lost": 0, "lost_ago": None},
    "access": {
        "mode": "on",
        "noted_verbs": ["read"],
        "open_listeners": ["0.0.0.0:8080"],
        "plain_listeners": [],
        "would_refuse": [],
        "ending": [],
        "long_lived": [],
        "open_to_networks": [],
    },
    "tls": {"file": "/tls/cert.pem", "not_after": NOW + 30 * DAY, "problem": None},
}
SHOP: dict[str, Any] = {"name": "shop", "version": 7, "endpoints": 2, "statuses": {"HEALTHY": 2}, "quarantined": {}}
WEB: dict[str, Any] = {
    "node_id": "web-1",
    "address": "10.0.0.7",
    "service": "shop",
    "state": "current",
    "reason": "",
}
CLUSTER: dict[str, Any] = {
    "name": "shop",
    "ignore_health_on_host_removal": True,
    "eds_cluster_config": {
        "eds_config": {
            "api_config_source": {"api_type": "REST", "refresh_delay": "0.200s", "request_timeout": "30s"},
        }
    },
}
COUNTED: dict[str, Any] = {
    "version_text": "db:7",
    "update_rejected": 0,
    "update_failure": 0,
    "membership_total": 2,
    "membership_healthy": 2,
}
FAILING: dict[str, Any] = {
    "name": "one:1",
    "started_at": NOW - 60,
    "failures": [
        {"ability": "accept", "seconds": 12.4, "total": True, "overdue": False, "reason": "no descriptors are left"}
    ],
}
CUT_OFF: dict[str, Any] = {
    "name": "two:1",
    "started_at": NOW - 60,
    "failures": [{"ability": "renew", "seconds": 99.0, "total": False, "overdue": True, "reason": "permission denied"}],
}
REFUSED = ("Not allowed: no grant of token:x allows the verb observe", "`registryctl whoami` shows what you may do")
NOTED = {"principal": "anonymous", "verb": "read", "count": 1440, "peers": 3, "peer": "10.0.0.7", "last_ago": 30.0}
TOKEN = {
    "id": "s33426zjxtxv6ttz",
    "name": "ci",
    "kind": "machine",
    "created_at": NOW - 88 * DAY,
    "expires_at": NOW + 3 * DAY,
    "used_at": NOW - 7200,
}
READY = {"ready": True, "parts": []}
REGISTRY = RegistryEvidence(
    url="http://one:8080",
    ready=READY,
    version={"version": "1.0"},
    state=STATE,
    asked_at=NOW,
    took=0.01,
    services=[SHOP],
)
OTHER = replace(REGISTRY, url="http://two:8080")
ENVOY = EnvoyEvidence(
    url="http://envoy:9901",
    live="LIVE",
    version="1.40.0",
    clusters=[ClusterEvidence("shop", "shop", CLUSTER, COUNTED, COUNTED)],
)
WELL = Evidence(
    version="1.0",
    registries=[REGISTRY, OTHER],
    expiry={"pauses": [], "suspects": []},
    subscribers=[WEB],
    envoys=[ENVOY],
)


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a document with one value changed, named like ``database.answers``."""
    copy = deepcopy(document)
    *folders, name = path.split(".")
    place = copy
    for folder in folders:
        place = place[folder]
    place[name] = value
    return copy


def with_state(path: str, value: object) -> Evidence:
    """Return evidence of one address whose state has one value changed."""
    return replace(WELL, registries=[replace(REGISTRY, state=changed(STATE, path, value))])


def with_access(**fields: object) -> Evidence:
    """Return evidence of one address whose access is otherwise."""
    return with_state("access", STATE["access"] | fields)


def with_sweeper(**fields: object) -> Evidence:
    """Return evidence of one address whose sweeper is otherwise."""
    return with_state("sweeper", STATE["sweeper"] | fields)


def with_service(**fields: object) -> Evidence:
    """Return evidence in which the service is otherwise."""
    return replace(WELL, registries=[replace(REGISTRY, services=[SHOP | fields])])


def with_subscriber(**fields: object) -> Evidence:
    """Return evidence in which the subscriber is otherwise."""
    return replace(WELL, subscribers=[WEB | fields])


def with_cluster(
    config: dict[str, Any] | None = None, then: dict[str, Any] | None = None, first: dict[str, Any] | None = None
) -> Evidence:
    """Return evidence of an Envoy whose cluster is otherwise."""
    cluster = ClusterEvidence("shop", "shop", config or CLUSTER, COUNTED | (first or {}), COUNTED | (then or {}))
    return replace(WELL, envoys=[replace(ENVOY, clusters=[cluster])])


def with_refusals(status: int) -> Evidence:
    """Return evidence of an Envoy whose polls are refused."""
    failing = with_cluster({**CLUSTER, **with_management("registry")}, then={"update_failure": 1})
    counted = {"registry": {f"upstream_rq_{status}": 5}}
    (envoy,) = failing.envoys
    return replace(failing, envoys=[replace(envoy, first={"registry": {}}, then=counted)])


def with_management(name: str) -> dict[str, Any]:
    """Return the part of a cluster that names the cluster of registries."""
    source = CLUSTER["eds_cluster_config"]["eds_config"]["api_config_source"] | {"cluster_names": [name]}
    return {"eds_cluster_config": {"eds_config": {"api_config_source": source}}}


def with_source(**fields: str) -> Evidence:
    """Return evidence of an Envoy whose cluster polls otherwise."""
    source = CLUSTER["eds_cluster_config"]["eds_config"]["api_config_source"] | fields
    return with_cluster(changed(CLUSTER, "eds_cluster_config.eds_config.api_config_source", source))


PAUSE = {"service": None, "actor": "ann", "reason": "switch", "since": NOW, "until": NOW + 600}
SUSPECT = {"service": "shop", "endpoint": "10.0.0.5:80", "since": NOW, "until": NOW, "reason": "2 of 9 lapsed"}
SILENT = {"service": "shop", "endpoint": "10.0.0.5:80", "instance_id": "i-1", "at": NOW - 90, "listed": False}
TALLY = {"service": "shop", "leases": 9, "late": 1, "expired": 0}
LEASES = {"held": 9, "late": 1, "expired": 0, "services": [TALLY]}
MOST_LATE = {"held": 9, "late": 8, "expired": 0, "services": [TALLY | {"late": 8}]}
BARE = {name: value for name, value in CLUSTER.items() if name != "ignore_health_on_host_removal"}
BEHIND = replace(OTHER, services=[SHOP | {"version": 6}])
UNREADY = {"ready": False, "parts": [{"name": "snapshot", "ok": False, "detail": "never read"}]}

TROUBLES: list[tuple[str, FindingStatus, Evidence, str]] = [
    (
        "registry-reachable",
        FindingStatus.FAILURE,
        replace(WELL, registries=[REGISTRY, RegistryEvidence("http://x", "refused")]),
        "http://x: refused",
    ),
    (
        "registry-ready",
        FindingStatus.FAILURE,
        replace(WELL, registries=[replace(REGISTRY, ready=UNREADY, services=None)]),
        "snapshot: never read",
    ),
    ("registry-version", FindingStatus.WARNING, replace(WELL, version="1.1"), "runs 1.0, registryctl is 1.1"),
    (
        "tls-certificate",
        FindingStatus.WARNING,
        with_state("tls.not_after", NOW + 3 * DAY),
        "/tls/cert.pem expires in 3d, at 2025-11-23 00:53:20 UTC",
    ),
    (
        "tls-certificate",
        FindingStatus.FAILURE,
        with_state("tls.not_after", NOW - 7200),
        "/tls/cert.pem expired 2h ago, at 2025-11-19 22:53:20 UTC",
    ),
    (
        "tls-certificate",
        FindingStatus.WARNING,
        with_state("tls.problem", "REGISTRY_TLS_KEY_FILE=/tls/key.pem: it cannot be read: Permission denied"),
        "/tls/key.pem: it cannot be read: Permission denied; the files before are in use",
    ),
    (
        "check-allowed",
        FindingStatus.FAILURE,
        replace(WELL, registries=[replace(REGISTRY, refused=[REFUSED, REFUSED])]),
        "no grant of token:x allows the verb observe",
    ),
    (
        "check-allowed",
        FindingStatus.WARNING,
        replace(WELL, readable=["shop-*", "web"]),
        "this command may read shop-*, web, and no other service",
    ),
    (
        "access-closed",
        FindingStatus.WARNING,
        with_access(mode="off", noted_verbs=[]),
        "0.0.0.0:8080 is open: everybody who reaches it",
    ),
    (
        "access-refuses-nobody",
        FindingStatus.WARNING,
        with_access(would_refuse=[NOTED]),
        "anonymous from 10.0.0.7 and 2 others: read 1,440 times, last 30s ago",
    ),
    (
        "tokens-lasting",
        FindingStatus.WARNING,
        with_access(ending=[TOKEN]),
        "ci (s33426zjxtxv6ttz) ends in 3d, last used 2h ago: registryctl token rotate s33426zjxtxv6ttz",
    ),
    (
        "tokens-lasting",
        FindingStatus.WARNING,
        with_access(ending=[TOKEN | {"expires_at": NOW - 7200, "used_at": None}]),
        "ended 2h ago, never used",
    ),
    (
        "admin-narrow",
        FindingStatus.WARNING,
        with_access(long_lived=[TOKEN]),
        "token ci (s33426zjxtxv6ttz) was made for 91d",
    ),
    (
        "admin-narrow",
        FindingStatus.WARNING,
        with_access(open_to_networks=["all (10.0.0.0/8)"]),
        "identity all (10.0.0.0/8) gives admin",
    ),
    (
        "access-readable",
        FindingStatus.WARNING,
        with_access(unreadable_count=1, unreadable=["identity shop: the kind 'robot' is none of registrar"]),
        "identity shop: the kind 'robot' is none of registrar",
    ),
    (
        "access-readable",
        FindingStatus.WARNING,
        with_access(named=False, unreadable_count=3),
        "3 that are not named here",
    ),
    (
        "tokens-encrypted",
        FindingStatus.WARNING,
        with_access(plain_listeners=["0.0.0.0:8080"]),
        "0.0.0.0:8080 takes tokens over plain HTTP",
    ),
    (
        "tokens-encrypted",
        FindingStatus.WARNING,
        replace(WELL, exposed=["http://one:8080"]),
        "http://one:8080: this command sends its token",
    ),
    (
        "postgresql-answers",
        FindingStatus.FAILURE,
        with_state("database", {"answers": False, "detail": "PostgreSQL is away"}),
        "PostgreSQL is away; reads go on from memory",
    ),
    ("postgresql-writable", FindingStatus.FAILURE, with_state("database.writable", value=False), "answers"),
    (
        "postgresql-schema",
        FindingStatus.FAILURE,
        with_state("database.schema", "0001"),
        "is 0001, the registry expects 0002",
    ),
    (
        "postgresql-schema",
        FindingStatus.WARNING,
        with_state("database.schema", "0003"),
        "is 0003, the registry expects 0002",
    ),
    ("snapshot-fresh", FindingStatus.FAILURE, with_state("snapshot.stale", value=True), "served from disk, 100s old"),
    (
        "snapshot-fresh",
        FindingStatus.FAILURE,
        with_state("snapshot.read_ago", 60.0),
        "last compared with PostgreSQL 60s ago",
    ),
    ("snapshot-fresh", FindingStatus.FAILURE, with_state("snapshot.ready", value=False), "nothing was read yet"),
    (
        "snapshot-on-disk",
        FindingStatus.WARNING,
        with_state("snapshot.archive_current", value=False),
        "the state on disk is 100s old",
    ),
    (
        "replicas-one-database",
        FindingStatus.FAILURE,
        replace(WELL, registries=[REGISTRY, replace(OTHER, state=changed(STATE, "database_id", "else"))]),
        "http://two:8080: database else",
    ),
    (
        "replicas-agree",
        FindingStatus.FAILURE,
        replace(WELL, registries=[REGISTRY, BEHIND]),
        "http://two:8080 serves shop at version 6",
    ),
    (
        "history-kept",
        FindingStatus.WARNING,
        with_state("sweeper.history_cut_ago", 90.0),
        "90s ago, because there were more than REGISTRY_MAX_EVENTS",
    ),
    (
        "replicas-working",
        FindingStatus.WARNING,
        with_state("processes", [FAILING]),
        "one:1 cannot accept connections, for 12 s: no descriptors are left; leases are credited",
    ),
    (
        "replicas-working",
        FindingStatus.FAILURE,
        with_state("processes", [CUT_OFF]),
        "two:1 cannot renew leases each time, for 99 s: permission denied; what it cuts off",
    ),
    (
        "clock-registry",
        FindingStatus.WARNING,
        replace(WELL, registries=[replace(REGISTRY, asked_at=NOW - 9)]),
        "9.0 s ahead of this machine",
    ),
    ("clock-postgresql", FindingStatus.WARNING, with_state("database.clock_ahead", -5.0), "5.0 s behind the registry"),
    ("sweeper-leads", FindingStatus.FAILURE, with_state("sweeper.leader", None), "no process holds the lead"),
    ("sweeps-happen", FindingStatus.FAILURE, with_sweeper(swept_ago=40.0, overdue=True), "the last sweep was 40s ago"),
    ("sweeps-happen", FindingStatus.FAILURE, with_sweeper(swept_ago=None, overdue=True), "no process has swept yet"),
    (
        "sweeps-complete",
        FindingStatus.FAILURE,
        with_state(
            "sweeper.refused",
            [{"service": "shop", "action": "expiry", "endpoint": "", "reason": "a CHECK", "seconds": 70.0}],
        ),
        "shop is passed over for 70s, its silent endpoints stay served: a CHECK",
    ),
    (
        "leases-present",
        FindingStatus.WARNING,
        with_state("leases.missing", 3),
        "3 endpoints are served and have no lease",
    ),
    (
        "leases-present",
        FindingStatus.WARNING,
        with_state("sweeper.leases_replaced", 2),
        "2 endpoints had no lease and got one",
    ),
    (
        "expiry-not-paused",
        FindingStatus.WARNING,
        replace(WELL, expiry={"pauses": [PAUSE], "suspects": []}),
        "paused everywhere for another 10m, by ann: switch",
    ),
    (
        "guard-inactive",
        FindingStatus.WARNING,
        replace(WELL, expiry={"pauses": [], "suspects": [SUSPECT]}),
        "2 of 9 lapsed",
    ),
    ("heartbeats-punctual", FindingStatus.WARNING, with_state("leases", LEASES), "shop: 1 of 9 late"),
    ("heartbeats-punctual", FindingStatus.FAILURE, with_state("leases", MOST_LATE), "most registrars are late"),
    ("registrars-heard", FindingStatus.WARNING, replace(WELL, silent=[SILENT]), "lapsed 90s ago and it was removed"),
    (
        "services-routable",
        FindingStatus.FAILURE,
        with_service(statuses={"TIMEOUT": 2}),
        "shop: no endpoint may have traffic (2 TIMEOUT)",
    ),
    (
        "services-not-empty",
        FindingStatus.WARNING,
        with_service(endpoints=0, statuses={}),
        "no endpoint any more, and is asked for by web-1",
    ),
    ("services-not-empty", FindingStatus.WARNING, with_subscriber(service="shopp"), "shopp was never registered"),
    (
        "nothing-quarantined",
        FindingStatus.WARNING,
        with_service(quarantined={"10.0.0.5:0": "port 0"}),
        "shop 10.0.0.5:0: port 0",
    ),
    ("services-within-limits", FindingStatus.WARNING, with_state("limits.services", 16), "16 services of 20"),
    ("services-within-limits", FindingStatus.FAILURE, with_state("limits.endpoints", 201), "new ones are refused"),
    (
        "endpoints-allowed",
        FindingStatus.WARNING,
        with_state("limits", STATE["limits"] | {"misplaced": ["shop 127.0.0.1:80"], "misplaced_count": 3}),
        "and 2 more",
    ),
    (
        "limits-not-reached",
        FindingStatus.WARNING,
        with_state("limits.reached", [{"limit": "event_streams", "count": 2, "ago": 60.0}]),
        "event_streams: 2 times since the start, last 60s ago",
    ),
    (
        "audit-complete",
        FindingStatus.WARNING,
        with_state("audit", STATE["audit"] | {"lost": 3, "lost_ago": 60.0}),
        "3 lost since the start, the last one 60s ago",
    ),
    ("audit-complete", FindingStatus.WARNING, with_state("audit.waiting", 6_000), "6,000 wait to be stored"),
    (
        "subscribers-remembered",
        FindingStatus.WARNING,
        replace(WELL, complete=False, refused_ago=60.0),
        "was not remembered, last 60s ago",
    ),
    (
        "subscribers-not-stuck",
        FindingStatus.FAILURE,
        with_subscriber(state="stuck", reason="brings 6"),
        "web-1 at 10.0.0.7, shop: brings 6",
    ),
    ("subscribers-not-behind", FindingStatus.WARNING, with_subscriber(state="behind", reason="has 6"), "has 6"),
    ("subscribers-not-silent", FindingStatus.WARNING, with_subscriber(state="silent", reason="quiet"), "quiet"),
    (
        "envoy-reachable",
        FindingStatus.FAILURE,
        replace(WELL, envoys=[EnvoyEvidence("http://envoy:9901", "refused")]),
        "refused",
    ),
    (
        "envoy-live",
        FindingStatus.FAILURE,
        replace(WELL, envoys=[replace(ENVOY, live="PRE_INITIALIZING")]),
        "PRE_INITIALIZING",
    ),
    (
        "envoy-polls",
        FindingStatus.WARNING,
        replace(WELL, envoys=[replace(ENVOY, clusters=[])]),
        "none of its 0 EDS clusters",
    ),
    (
        "envoy-rejects-nothing",
        FindingStatus.FAILURE,
        with_cluster(then={"update_rejected": 3, "version_text": "db:6"}),
        "rejected 3",
    ),
    (
        "envoy-rejects-nothing",
        FindingStatus.FAILURE,
        with_cluster(first={"update_rejected": 2}, then={"update_rejected": 3}),
        "rejected 3",
    ),
    (
        "envoy-rejects-nothing",
        FindingStatus.WARNING,
        with_cluster(first={"update_rejected": 3}, then={"update_rejected": 3}),
        "takes them now",
    ),
    ("envoy-polls-succeed", FindingStatus.FAILURE, with_cluster(then={"update_failure": 1}), "1 polls failed"),
    ("envoy-polls-succeed", FindingStatus.FAILURE, with_refusals(401), "refuses them (401): they bring no token"),
    ("envoy-polls-succeed", FindingStatus.FAILURE, with_refusals(403), "refuses them (403): the grants of its token"),
    (
        "envoy-current",
        FindingStatus.FAILURE,
        with_cluster(then={"version_text": "db:6"}),
        "it holds version 6, the registry serves 7",
    ),
    (
        "envoy-current",
        FindingStatus.FAILURE,
        with_cluster(then={"version_text": "old:7"}),
        "none of this registry's versions",
    ),
    ("envoy-current", FindingStatus.FAILURE, with_cluster(then={"version_text": ""}), "it has taken no answer yet"),
    ("envoy-host-removal", FindingStatus.WARNING, with_cluster(BARE), "ignore_health_on_host_removal is not set"),
    (
        "envoy-host-removal",
        FindingStatus.FAILURE,
        with_cluster(BARE | {"health_checks": [{}]}),
        "keep removed endpoints in use",
    ),
    ("envoy-refresh", FindingStatus.FAILURE, with_source(refresh_delay="0.001s"), "refresh_delay of 1 ms"),
    ("envoy-refresh", FindingStatus.WARNING, with_source(refresh_delay="10s"), "changes take up to 20 s"),
    ("envoy-refresh", FindingStatus.WARNING, with_source(request_timeout="1s"), "request_timeout of 1 s is too short"),
    ("envoy-no-panic", FindingStatus.FAILURE, with_cluster(then={"membership_total": 5}), "2 of 5 endpoints are well"),
]


HEADLINES = {
    "registry-reachable": ["1 of 2 addresses gave no answer"],
    "registry-ready": ["1 process is not ready for discovery"],
    "registry-version": ["registry and registryctl are of different versions"],
    "tls-certificate": [
        "the certificate that is served expires soon",
        "the certificate that is served has expired",
        "the new files of the certificate cannot be used",
    ],
    "check-allowed": [
        "not everything could be checked: this command may not read it",
        "only some services could be checked",
    ],
    "access-closed": ["access is off, and other machines are served"],
    "access-refuses-nobody": ["requests of the last day would be refused if access were on"],
    "tokens-lasting": ["1 token ends soon, or has ended in use"],
    "admin-narrow": ["the verb admin is given to a network, or for more than 30 days"],
    "access-readable": ["1 token or identity cannot be read", "3 tokens and identities cannot be read"],
    "tokens-encrypted": ["tokens are sent over plain HTTP"],
    "audit-complete": ["entries of the audit were lost, or are about to be"],
    "postgresql-answers": ["PostgreSQL does not answer the registry"],
    "postgresql-writable": ["PostgreSQL refuses writes"],
    "postgresql-schema": [
        "PostgreSQL's schema is older than the registry expects",
        "PostgreSQL's schema is newer than the registry expects",
    ],
    "snapshot-fresh": ["discovery is not answered from what PostgreSQL says now"],
    "snapshot-on-disk": ["the last state is not on disk: a start without PostgreSQL would serve an older one, or none"],
    "replicas-one-database": ["the addresses do not name the same database"],
    "replicas-agree": ["1 service is served at different versions"],
    "history-kept": ["events were deleted before their retention was over"],
    "replicas-working": ["1 process cannot do all of its work"],
    "clock-registry": ["the registry's clock differs from this machine's"],
    "clock-postgresql": ["PostgreSQL's clock differs from the registry's"],
    "sweeper-leads": ["no process sweeps for expired leases"],
    "sweeps-happen": ["sweeps are overdue"],
    "sweeps-complete": ["1 service is passed over by sweeps"],
    "leases-present": ["3 endpoints are served without a lease", "2 endpoints had lost their leases"],
    "expiry-not-paused": ["expiry is paused"],
    "guard-inactive": ["the mass-expiry guard holds 1 endpoint"],
    "heartbeats-punctual": ["1 of 9 leases is renewed late", "8 of 9 leases are renewed late"],
    "registrars-heard": ["1 registrar is silent"],
    "services-routable": ["1 service has no routable endpoint"],
    "services-not-empty": ["1 service that an Envoy asks for has no endpoint"],
    "nothing-quarantined": ["1 row is quarantined"],
    "services-within-limits": [
        "a limit on services or endpoints is near",
        "a limit on services or endpoints is reached",
    ],
    "endpoints-allowed": ["3 endpoints are outside of the allowed networks"],
    "limits-not-reached": ["limits have refused something"],
    "subscribers-remembered": ["Envoys that poll are not remembered"],
    "subscribers-not-stuck": ["1 subscription of an Envoy is stuck"],
    "subscribers-not-behind": ["1 subscription of an Envoy is behind"],
    "subscribers-not-silent": ["1 subscription of an Envoy is silent"],
    "envoy-reachable": ["no Envoy answers at this address of an admin interface"],
    "envoy-live": ["Envoy is not live"],
    "envoy-polls": ["Envoy has no EDS cluster that polls by REST"],
    "envoy-rejects-nothing": ["Envoy rejects answers", "Envoy rejected answers, and takes them now"],
    "envoy-polls-succeed": ["Envoy's polls of 1 cluster fail"],
    "envoy-current": ["Envoy does not hold the newest version of 1 cluster"],
    "envoy-host-removal": [
        "active health checks would keep removed endpoints in 1 cluster",
        "1 cluster of Envoy keeps removed endpoints",
    ],
    "envoy-refresh": ["Envoy polls in a loop, or crashes", "Envoy polls too seldom, or lets no poll be held"],
    "envoy-no-panic": ["1 cluster of Envoy is in panic mode"],
}
"""Headlines of every check for the troubles above."""


def findings_of(evidence: Evidence) -> dict[str, Finding]:
    """Return the findings by check."""
    return {finding.id: finding for finding in evaluate(evidence)}


def test_a_system_that_is_well_passes_every_check() -> None:
    """Every check is made, each once, in the order of the catalogue, and none complains."""
    findings = list(evaluate(WELL))
    assert [finding.id for finding in findings] == list(CHECKS)
    assert {finding.id: finding.status for finding in findings if finding.status is not FindingStatus.OK} == {}
    assert [finding.headline for finding in findings] == [check.holds for check in CHECKS.values()]


@pytest.mark.parametrize(
    ("check", "status", "evidence", "line"), TROUBLES, ids=[f"{check}-{line[:20]}" for check, _, _, line in TROUBLES]
)
def test_each_trouble_is_named(check: str, status: FindingStatus, evidence: Evidence, line: str) -> None:
    """The check whose subject is broken says so, how bad it is, and the evidence."""
    finding = findings_of(evidence)[check]
    assert finding.status is status
    assert line in "\n".join(finding.lines)


def test_headlines_state_the_finding() -> None:
    """A headline is true as it stands: it says what is wrong, and never what should be."""
    headlines: dict[str, list[str]] = {}
    for check, _, evidence, _ in TROUBLES:
        headlines.setdefault(check, [])
        headline = findings_of(evidence)[check].headline
        if headline not in headlines[check]:
            headlines[check].append(headline)
    assert headlines == HEADLINES


def test_a_headline_counts_its_troubles() -> None:
    """One is said in the singular, several are in the plural."""
    single = findings_of(replace(WELL, silent=[SILENT]))["registrars-heard"]
    several = findings_of(replace(WELL, silent=[SILENT] * 3))["registrars-heard"]
    assert (single.headline, several.headline) == ("1 registrar is silent", "3 registrars are silent")


def test_a_registry_that_has_just_started_may_have_swept_not_yet() -> None:
    """Its sweeps are not overdue before the registry says so."""
    finding = findings_of(with_sweeper(swept_ago=None))["sweeps-happen"]
    assert (finding.status, finding.lines) == (FindingStatus.OK, ("none yet since the start",))


def test_every_check_can_fail() -> None:
    """No check passes in every state of the system."""
    assert {check for check, *_ in TROUBLES} == set(CHECKS)


@pytest.mark.parametrize(
    "evidence",
    [
        replace(WELL, registries=[RegistryEvidence("http://x", "refused")], expiry=None, subscribers=None, envoys=[]),
        replace(WELL, registries=[replace(REGISTRY, state=None, services=None)], expiry=None, subscribers=None),
        replace(with_state("database", {"answers": False, "detail": "away"}), expiry=None),
        with_state("sweeper", {name: value for name, value in STATE["sweeper"].items() if name != "overdue"}),
    ],
    ids=[
        "nobody answers",
        "an older registry that is not ready",
        "PostgreSQL is away",
        "an older registry that does not say whether sweeps are overdue",
    ],
)
def test_checks_without_evidence_are_not_made(evidence: Evidence) -> None:
    """Every check has a finding, and a check without its evidence neither passes nor fails."""
    findings = findings_of(evidence)
    assert findings.keys() >= {name for name, check in CHECKS.items() if check.category != "envoy"}
    skipped = [finding for finding in findings.values() if finding.status is FindingStatus.SKIPPED]
    assert skipped
    assert {finding.headline for finding in skipped} == {"not checked"}


def test_nothing_is_concluded_from_no_subscriber_while_some_are_not_remembered() -> None:
    """Then no service counts as not asked for, and a subscriber of an empty service is still named."""
    lacking = replace(WELL, complete=False, refused_ago=60.0)
    finding = findings_of(lacking)["services-not-empty"]
    assert (finding.status, finding.lines) == (
        FindingStatus.SKIPPED,
        ("not all subscribers are known: some are not remembered, the last one 60s ago",),
    )
    asked = replace(lacking, subscribers=[WEB | {"service": "shopp"}])
    assert findings_of(asked)["services-not-empty"].status is FindingStatus.WARNING
    assert "some are not remembered" in findings_of(lacking)["subscribers-not-stuck"].lines[0]


def test_addresses_that_agree_a_while_later_agree() -> None:
    """A change takes its time from one process to the next."""
    caught_up = replace(BEHIND, later={"shop": 7})
    findings = findings_of(replace(WELL, registries=[REGISTRY, caught_up]))
    assert findings["replicas-agree"].status is FindingStatus.OK


def finding_of(check: str, evidence: Evidence) -> Finding:
    """Return the finding of one check."""
    return next(finding for finding in evaluate(evidence) if finding.id == check)


def test_access_is_judged_by_what_is_decided() -> None:
    """Off on loopback alone is well; nothing is said of refusals that are not decided, or could not be counted."""
    local = with_access(mode="off", noted_verbs=[], open_listeners=[], plain_listeners=[])
    assert finding_of("access-closed", local).status is FindingStatus.OK
    assert finding_of("access-refuses-nobody", local).status is FindingStatus.SKIPPED
    plain_and_off = with_access(mode="off", plain_listeners=["0.0.0.0:8080"])
    assert finding_of("tokens-encrypted", plain_and_off).status is FindingStatus.OK
    uncounted = with_access(would_refuse=None)
    assert finding_of("access-refuses-nobody", uncounted).status is FindingStatus.SKIPPED
    closed = with_access(noted_verbs=[], would_refuse=[])
    assert finding_of("access-refuses-nobody", closed).lines == ("access is on",)


def test_what_may_not_be_read_is_not_checked() -> None:
    """A refusal is a failure, said once with what to do, and the checks that need the answer are not made."""
    blind = replace(REGISTRY, version=None, state=None, services=None, refused=[REFUSED, REFUSED])
    evidence = replace(WELL, registries=[blind], expiry=None, subscribers=None, envoys=[])
    assert finding_of("check-allowed", evidence).lines == REFUSED
    passed = {finding.id for finding in evaluate(evidence) if finding.status is FindingStatus.OK}
    assert passed == {"registry-reachable", "registry-ready"}
    assert finding_of("services-routable", evidence).lines == ("this command may not read the services",)


def test_drained_endpoints_make_no_panic() -> None:
    """Envoy leaves them out of the calculation, and so does the check."""
    drained = with_cluster(then={"membership_total": 5, "membership_excluded": 3})
    assert findings_of(drained)["envoy-no-panic"].status is FindingStatus.OK


def test_of_many_troubles_the_first_are_named() -> None:
    """A thousand silent registrars do not scroll the cause away."""
    finding = findings_of(replace(WELL, silent=[SILENT] * 100))["registrars-heard"]
    assert len(finding.lines) == 9
    assert finding.lines[-1] == "and 92 more"
    assert finding.headline == "100 registrars are silent"
