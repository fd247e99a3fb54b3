"""The rules of `registryctl check`: from what was seen to findings, without I/O."""

from copy import deepcopy
from typing import Any

import pytest
from msgspec.structs import replace

from registryctl.catalogue import CHECKS
from registryctl.doctor.checks.all import judge
from registryctl.doctor.evidence import ClusterLook, EnvoyLook, Look, RegistryLook
from registryctl.doctor.finding import Finding, Mark

NOW = 1_763_600_000.0
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
    },
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
READY = {"ready": True, "parts": []}
REGISTRY = RegistryLook(
    url="http://one:8080",
    ready=READY,
    version={"version": "1.0"},
    state=STATE,
    asked_at=NOW,
    took=0.01,
    services=[SHOP],
)
OTHER = replace(REGISTRY, url="http://two:8080")
ENVOY = EnvoyLook(
    url="http://envoy:9901",
    live="LIVE",
    version="1.40.0",
    clusters=[ClusterLook("shop", "shop", CLUSTER, COUNTED, COUNTED)],
)
WELL = Look(
    version="1.0",
    registries=[REGISTRY, OTHER],
    expiry={"pauses": [], "suspects": []},
    subscribers=[WEB],
    envoys=[ENVOY],
)


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a document with one value changed, named like ``database.answers``."""
    found = deepcopy(document)
    *folders, name = path.split(".")
    place = found
    for folder in folders:
        place = place[folder]
    place[name] = value
    return found


def with_state(path: str, value: object) -> Look:
    """Return a look at one address whose state has one value changed."""
    return replace(WELL, registries=[replace(REGISTRY, state=changed(STATE, path, value))])


def with_sweeper(**fields: object) -> Look:
    """Return a look at one address whose sweeper is otherwise."""
    return with_state("sweeper", STATE["sweeper"] | fields)


def with_service(**fields: object) -> Look:
    """Return a look in which the service is otherwise."""
    return replace(WELL, registries=[replace(REGISTRY, services=[SHOP | fields])])


def with_subscriber(**fields: object) -> Look:
    """Return a look in which the subscriber is otherwise."""
    return replace(WELL, subscribers=[WEB | fields])


def with_cluster(
    config: dict[str, Any] | None = None, then: dict[str, Any] | None = None, first: dict[str, Any] | None = None
) -> Look:
    """Return a look at an Envoy whose cluster is otherwise."""
    cluster = ClusterLook("shop", "shop", config or CLUSTER, COUNTED | (first or {}), COUNTED | (then or {}))
    return replace(WELL, envoys=[replace(ENVOY, clusters=[cluster])])


def with_source(**fields: str) -> Look:
    """Return a look at an Envoy whose cluster polls otherwise."""
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

TROUBLES: list[tuple[str, Mark, Look, str]] = [
    (
        "registry-reachable",
        Mark.FAILURE,
        replace(WELL, registries=[REGISTRY, RegistryLook("http://x", "refused")]),
        "http://x: refused",
    ),
    (
        "registry-ready",
        Mark.FAILURE,
        replace(WELL, registries=[replace(REGISTRY, ready=UNREADY, services=None)]),
        "snapshot: never read",
    ),
    ("registry-version", Mark.WARNING, replace(WELL, version="1.1"), "runs 1.0, registryctl is 1.1"),
    (
        "postgresql-answers",
        Mark.FAILURE,
        with_state("database", {"answers": False, "detail": "PostgreSQL is away"}),
        "PostgreSQL is away; reads go on from memory",
    ),
    ("postgresql-writable", Mark.FAILURE, with_state("database.writable", value=False), "answers"),
    ("postgresql-schema", Mark.FAILURE, with_state("database.schema", "0001"), "is 0001, the registry expects 0002"),
    ("postgresql-schema", Mark.WARNING, with_state("database.schema", "0003"), "is 0003, the registry expects 0002"),
    ("snapshot-fresh", Mark.FAILURE, with_state("snapshot.stale", value=True), "served from disk, 100s old"),
    ("snapshot-fresh", Mark.FAILURE, with_state("snapshot.read_ago", 60.0), "last compared with PostgreSQL 60s ago"),
    ("snapshot-fresh", Mark.FAILURE, with_state("snapshot.ready", value=False), "nothing was read yet"),
    (
        "snapshot-on-disk",
        Mark.WARNING,
        with_state("snapshot.archive_current", value=False),
        "what is there is 100s old",
    ),
    (
        "replicas-one-database",
        Mark.FAILURE,
        replace(WELL, registries=[REGISTRY, replace(OTHER, state=changed(STATE, "database_id", "else"))]),
        "http://two:8080: database else",
    ),
    (
        "replicas-agree",
        Mark.FAILURE,
        replace(WELL, registries=[REGISTRY, BEHIND]),
        "http://two:8080 serves shop at version 6",
    ),
    (
        "history-kept",
        Mark.WARNING,
        with_state("sweeper.history_cut_ago", 90.0),
        "90s ago, because there were more than REGISTRY_MAX_EVENTS",
    ),
    (
        "replicas-working",
        Mark.WARNING,
        with_state("processes", [FAILING]),
        "one:1 cannot accept connections, for 12 s: no descriptors are left; leases are credited",
    ),
    (
        "replicas-working",
        Mark.FAILURE,
        with_state("processes", [CUT_OFF]),
        "two:1 cannot renew leases each time, for 99 s: permission denied; what it cuts off",
    ),
    (
        "clock-registry",
        Mark.WARNING,
        replace(WELL, registries=[replace(REGISTRY, asked_at=NOW - 9)]),
        "9.0 s ahead of this machine",
    ),
    ("clock-postgresql", Mark.WARNING, with_state("database.clock_ahead", -5.0), "5.0 s behind the registry"),
    ("sweeper-leads", Mark.FAILURE, with_state("sweeper.leader", None), "nobody holds the lead"),
    ("sweeps-happen", Mark.FAILURE, with_sweeper(swept_ago=40.0, overdue=True), "the last sweep was 40s ago"),
    ("sweeps-happen", Mark.FAILURE, with_sweeper(swept_ago=None, overdue=True), "no process has swept yet"),
    (
        "sweeps-complete",
        Mark.FAILURE,
        with_state(
            "sweeper.refused",
            [{"service": "shop", "action": "expiry", "endpoint": "", "reason": "a CHECK", "seconds": 70.0}],
        ),
        "shop is passed over for 70s, its silent endpoints stay served: a CHECK",
    ),
    ("leases-present", Mark.WARNING, with_state("leases.missing", 3), "3 endpoints are served and have no lease"),
    ("leases-present", Mark.WARNING, with_state("sweeper.leases_replaced", 2), "2 endpoints had no lease and got one"),
    (
        "expiry-not-paused",
        Mark.WARNING,
        replace(WELL, expiry={"pauses": [PAUSE], "suspects": []}),
        "paused everywhere for another 10m, by ann: switch",
    ),
    ("guard-inactive", Mark.WARNING, replace(WELL, expiry={"pauses": [], "suspects": [SUSPECT]}), "2 of 9 lapsed"),
    ("heartbeats-punctual", Mark.WARNING, with_state("leases", LEASES), "shop: 1 of 9 late"),
    ("heartbeats-punctual", Mark.FAILURE, with_state("leases", MOST_LATE), "most registrars are late"),
    ("registrars-heard", Mark.WARNING, replace(WELL, silent=[SILENT]), "lapsed 90s ago and it was removed"),
    (
        "services-routable",
        Mark.FAILURE,
        with_service(statuses={"TIMEOUT": 2}),
        "shop: no endpoint may have traffic (2 TIMEOUT)",
    ),
    (
        "services-not-empty",
        Mark.WARNING,
        with_service(endpoints=0, statuses={}),
        "no endpoint any more, and is asked for by web-1",
    ),
    ("services-not-empty", Mark.WARNING, with_subscriber(service="shopp"), "shopp was never registered"),
    (
        "nothing-quarantined",
        Mark.WARNING,
        with_service(quarantined={"10.0.0.5:0": "port 0"}),
        "shop 10.0.0.5:0: port 0",
    ),
    ("services-within-limits", Mark.WARNING, with_state("limits.services", 16), "16 services of 20"),
    ("services-within-limits", Mark.FAILURE, with_state("limits.endpoints", 201), "new ones are refused"),
    (
        "endpoints-allowed",
        Mark.WARNING,
        with_state("limits", STATE["limits"] | {"misplaced": ["shop 127.0.0.1:80"], "misplaced_count": 3}),
        "and 2 more",
    ),
    (
        "subscribers-remembered",
        Mark.WARNING,
        replace(WELL, complete=False, refused_ago=60.0),
        "was not remembered, last 60s ago",
    ),
    (
        "subscribers-not-stuck",
        Mark.FAILURE,
        with_subscriber(state="stuck", reason="brings 6"),
        "web-1 at 10.0.0.7, shop: brings 6",
    ),
    ("subscribers-not-behind", Mark.WARNING, with_subscriber(state="behind", reason="has 6"), "has 6"),
    ("subscribers-not-silent", Mark.WARNING, with_subscriber(state="silent", reason="quiet"), "quiet"),
    ("envoy-reachable", Mark.FAILURE, replace(WELL, envoys=[EnvoyLook("http://envoy:9901", "refused")]), "refused"),
    ("envoy-live", Mark.FAILURE, replace(WELL, envoys=[replace(ENVOY, live="PRE_INITIALIZING")]), "PRE_INITIALIZING"),
    ("envoy-polls", Mark.WARNING, replace(WELL, envoys=[replace(ENVOY, clusters=[])]), "none of its 0 EDS clusters"),
    (
        "envoy-rejects-nothing",
        Mark.FAILURE,
        with_cluster(then={"update_rejected": 3, "version_text": "db:6"}),
        "rejected 3",
    ),
    (
        "envoy-rejects-nothing",
        Mark.FAILURE,
        with_cluster(first={"update_rejected": 2}, then={"update_rejected": 3}),
        "rejected 3",
    ),
    (
        "envoy-rejects-nothing",
        Mark.WARNING,
        with_cluster(first={"update_rejected": 3}, then={"update_rejected": 3}),
        "takes them now",
    ),
    ("envoy-polls-succeed", Mark.FAILURE, with_cluster(then={"update_failure": 1}), "1 polls failed"),
    (
        "envoy-current",
        Mark.FAILURE,
        with_cluster(then={"version_text": "db:6"}),
        "it holds version 6, the registry serves 7",
    ),
    ("envoy-current", Mark.FAILURE, with_cluster(then={"version_text": "old:7"}), "none of this registry's versions"),
    ("envoy-current", Mark.FAILURE, with_cluster(then={"version_text": ""}), "it has taken no answer yet"),
    ("envoy-host-removal", Mark.WARNING, with_cluster(BARE), "ignore_health_on_host_removal is not set"),
    ("envoy-host-removal", Mark.FAILURE, with_cluster(BARE | {"health_checks": [{}]}), "keep removed endpoints in use"),
    ("envoy-refresh", Mark.FAILURE, with_source(refresh_delay="0.001s"), "refresh_delay of 1 ms"),
    ("envoy-refresh", Mark.WARNING, with_source(refresh_delay="10s"), "changes take up to 20 s"),
    ("envoy-refresh", Mark.WARNING, with_source(request_timeout="1s"), "request_timeout of 1 s is too short"),
    ("envoy-no-panic", Mark.FAILURE, with_cluster(then={"membership_total": 5}), "2 of 5 endpoints are well"),
]


def found(look: Look) -> dict[str, Finding]:
    """Return the findings by check."""
    return {one.id: one for one in judge(look)}


def test_a_system_that_is_well_passes_every_check() -> None:
    """Every check is made, each once, in the order of the catalogue, and none complains."""
    findings = list(judge(WELL))
    assert [one.id for one in findings] == list(CHECKS)
    assert {one.id: one.mark for one in findings if one.mark is not Mark.OK} == {}


@pytest.mark.parametrize(
    ("check", "mark", "look", "said"), TROUBLES, ids=[f"{one[0]}-{one[3][:20]}" for one in TROUBLES]
)
def test_each_trouble_is_found_and_named(check: str, mark: Mark, look: Look, said: str) -> None:
    """The check whose subject is broken says so, how bad it is, and what it saw."""
    finding = found(look)[check]
    assert finding.mark is mark
    assert said in "\n".join(finding.said)


def test_a_registry_that_has_just_started_may_have_swept_not_yet() -> None:
    """Its sweeps are not overdue before the registry says so."""
    finding = found(with_sweeper(swept_ago=None))["sweeps-happen"]
    assert (finding.mark, finding.said) == (Mark.OK, ("none yet since the start",))


def test_every_check_can_fail() -> None:
    """No check passes whatever there is."""
    assert {check for check, *_ in TROUBLES} == set(CHECKS)


@pytest.mark.parametrize(
    "look",
    [
        replace(WELL, registries=[RegistryLook("http://x", "refused")], expiry=None, subscribers=None, envoys=[]),
        replace(WELL, registries=[replace(REGISTRY, state=None, services=None)], expiry=None, subscribers=None),
        replace(with_state("database", {"answers": False, "detail": "away"}), expiry=None),
    ],
    ids=["nobody answers", "an older registry that is not ready", "PostgreSQL is away"],
)
def test_what_cannot_be_seen_is_neither_well_nor_wrong(look: Look) -> None:
    """Whatever is missing, each check is told of, and those without their subject as not made."""
    findings = found(look)
    assert findings.keys() >= {name for name, check in CHECKS.items() if check.category != "envoy"}
    assert any(one.mark is Mark.SKIPPED for one in findings.values())


def test_nothing_is_concluded_from_no_subscriber_while_some_are_not_remembered() -> None:
    """That nobody asks for an empty service is not said; who is known to ask for one is named all the same."""
    lacking = replace(WELL, complete=False, refused_ago=60.0)
    finding = found(lacking)["services-not-empty"]
    assert (finding.mark, finding.said) == (
        Mark.SKIPPED,
        ("not all subscribers are known: some are not remembered, the last one 60s ago",),
    )
    asked = replace(lacking, subscribers=[WEB | {"service": "shopp"}])
    assert found(asked)["services-not-empty"].mark is Mark.WARNING
    assert "some are not remembered" in found(lacking)["subscribers-not-stuck"].said[0]


def test_addresses_that_agree_a_while_later_agree() -> None:
    """A change takes its time from one process to the next."""
    caught_up = replace(BEHIND, later={"shop": 7})
    assert found(replace(WELL, registries=[REGISTRY, caught_up]))["replicas-agree"].mark is Mark.OK


def test_drained_endpoints_make_no_panic() -> None:
    """Envoy leaves them out of the calculation, and so does the check."""
    drained = with_cluster(then={"membership_total": 5, "membership_excluded": 3})
    assert found(drained)["envoy-no-panic"].mark is Mark.OK


def test_of_many_troubles_the_first_are_told() -> None:
    """A thousand silent registrars do not scroll the cause away."""
    said = found(replace(WELL, silent=[SILENT] * 100))["registrars-heard"].said
    assert len(said) == 9
    assert said[-1] == "and 92 more"
