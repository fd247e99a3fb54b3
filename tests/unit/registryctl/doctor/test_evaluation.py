"""Rules of `registryctl check` that need a client, and the report that they make with the registry's own findings."""

from copy import deepcopy
from typing import Any

import pytest
from msgspec.structs import replace

from registry.core.verdict.catalogue import CATEGORIES
from registryctl.doctor.catalogue import CHECKS
from registryctl.doctor.evaluation import evaluate
from registryctl.doctor.evidence import ClusterEvidence, EnvoyEvidence, Evidence, RegistryEvidence, ServedVerdict
from wire.finding import Finding, FindingStatus, Line

NOW = 1_763_600_000.0
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
REFUSED = ("Not allowed: no grant of token:x allows the verb observe", "`registryctl whoami` shows what you may do")


def served(check: str, status: str = "ok", *lines: str, scope: Any = "whole", category: str = "services") -> Finding:
    """Return a finding of a registry."""
    return Finding(
        check, category, scope, FindingStatus(status), f"{check} is {status}", f"{check} is ok", [*map(Line, lines)]
    )


SHOP: dict[str, Any] = {"name": "shop", "version": 7}
VERDICT = ServedVerdict(
    at=NOW,
    database_id="db",
    version="1.0",
    findings=[
        served("registry-ready", scope="process", category="registry"),
        served("check-allowed", category="access"),
        served("tokens-encrypted", scope="process", category="access"),
        served("services-routable", "ok", "services: 1"),
    ],
)
REGISTRY = RegistryEvidence(url="http://one:8080", verdict=VERDICT, asked_at=NOW, took=0.01, services=[SHOP])
OTHER = replace(REGISTRY, url="http://two:8080")
ENVOY = EnvoyEvidence(
    url="http://envoy:9901",
    live="LIVE",
    version="1.40.0",
    clusters=[ClusterEvidence("shop", "shop", CLUSTER, COUNTED, COUNTED)],
)
WELL = Evidence(version="1.0", registries=[REGISTRY, OTHER], envoys=[ENVOY])


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a document with one value changed, named like ``database.answers``."""
    copy = deepcopy(document)
    *folders, name = path.split(".")
    place = copy
    for folder in folders:
        place = place[folder]
    place[name] = value
    return copy


def with_verdict(*findings: Finding, **fields: Any) -> RegistryEvidence:
    """Return evidence of an address whose verdict is otherwise."""
    return replace(REGISTRY, verdict=replace(VERDICT, **({"findings": [*findings]} if findings else {}), **fields))


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


def behind_edge(healthy: int, **counted: int) -> Evidence:
    """Return evidence of an Envoy that polls an aggregate of an edge and the registries."""
    polling = with_cluster({**CLUSTER, **with_management("registry")}, then={"update_failure": len(counted)})
    (envoy,) = polling.envoys
    members = {"registry": ["registry/edge", "registry/direct"]}
    then = {"registry/edge": {"membership_healthy": healthy}, "registry/direct": counted}
    return replace(polling, envoys=[replace(envoy, members=members, then=then)])


def with_source(**fields: str) -> Evidence:
    """Return evidence of an Envoy whose cluster polls otherwise."""
    source = CLUSTER["eds_cluster_config"]["eds_config"]["api_config_source"] | fields
    return with_cluster(changed(CLUSTER, "eds_cluster_config.eds_config.api_config_source", source))


def under_share(config: dict[str, Any]) -> Evidence:
    """Return evidence of an Envoy whose cluster is otherwise, of a service with shares of traffic."""
    shared = [replace(each, services=[SHOP | {"shared_groups": 1}]) for each in WELL.registries]
    return replace(with_cluster(CLUSTER | config), registries=shared)


BARE = {name: value for name, value in CLUSTER.items() if name != "ignore_health_on_host_removal"}
BEHIND = replace(OTHER, services=[SHOP | {"version": 6}])
OUTDATED = replace(REGISTRY, verdict=None, ready=True, outdated="0.9", services=None)
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
        replace(WELL, registries=[replace(OUTDATED, ready=False)]),
        "http://one:8080: not ready",
    ),
    ("registry-version", FindingStatus.WARNING, replace(WELL, version="1.1"), "runs 1.0, registryctl is 1.1"),
    (
        "registry-version",
        FindingStatus.FAILURE,
        replace(WELL, registries=[OUTDATED, OTHER]),
        "http://one:8080 runs 0.9, which serves no /v1/verdict: update it",
    ),
    (
        "check-allowed",
        FindingStatus.FAILURE,
        replace(WELL, registries=[replace(REGISTRY, refused=[REFUSED, REFUSED])]),
        "no grant of token:x allows the verb observe",
    ),
    (
        "tokens-encrypted",
        FindingStatus.WARNING,
        replace(WELL, exposed=["http://one:8080"]),
        "http://one:8080: this command sends its token",
    ),
    (
        "replicas-one-database",
        FindingStatus.FAILURE,
        replace(WELL, registries=[REGISTRY, replace(with_verdict(database_id="else"), url="http://two:8080")]),
        "http://two:8080: database else",
    ),
    (
        "replicas-agree",
        FindingStatus.FAILURE,
        replace(WELL, registries=[REGISTRY, BEHIND]),
        "http://two:8080 serves shop at version 6",
    ),
    (
        "clock-registry",
        FindingStatus.WARNING,
        replace(WELL, registries=[replace(REGISTRY, asked_at=NOW - 9)]),
        "9.0 s ahead of this machine",
    ),
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
    ("envoy-edge", FindingStatus.WARNING, behind_edge(healthy=0), "registry/edge: no healthy endpoint"),
    ("envoy-shares", FindingStatus.WARNING, under_share({"lb_policy": "RANDOM"}), "RANDOM ignores weights"),
    ("envoy-shares", FindingStatus.WARNING, under_share({"lb_policy": "LEAST_REQUEST"}), "active_request_bias 0"),
    (
        "envoy-shares",
        FindingStatus.WARNING,
        under_share({"round_robin_lb_config": {"slow_start_config": {}}}),
        "slow_start_config holds",
    ),
    (
        "envoy-shares",
        FindingStatus.WARNING,
        under_share({"common_lb_config": {"zone_aware_lb_config": {}}}),
        "keeps requests in their zone",
    ),
]


HEADLINES = {
    "registry-reachable": ["1 of 2 addresses gave no answer"],
    "registry-ready": ["1 process is not ready for discovery"],
    "registry-version": [
        "registry and registryctl are of different versions",
        "1 address is of a version that this command cannot check",
    ],
    "check-allowed": ["not everything could be checked: this command may not read it"],
    "tokens-encrypted": ["tokens are sent over plain HTTP"],
    "replicas-one-database": ["the addresses do not name the same database"],
    "replicas-agree": ["1 service is served at different versions"],
    "clock-registry": ["the registry's clock differs from this machine's"],
    "envoy-reachable": ["no Envoy answers at this address of an admin interface"],
    "envoy-live": ["Envoy is not live"],
    "envoy-polls": ["Envoy has no EDS cluster that polls by REST or streams by gRPC"],
    "envoy-rejects-nothing": ["Envoy rejects answers", "Envoy rejected answers, and takes them now"],
    "envoy-polls-succeed": ["Envoy's subscriptions of 1 cluster fail"],
    "envoy-current": ["Envoy does not hold the newest version of 1 cluster"],
    "envoy-host-removal": [
        "active health checks would keep removed endpoints in 1 cluster",
        "1 cluster of Envoy keeps removed endpoints",
    ],
    "envoy-refresh": ["Envoy polls in a loop, or crashes", "Envoy polls too seldom, or lets no poll be held"],
    "envoy-no-panic": ["1 cluster of Envoy is in panic mode"],
    "envoy-edge": ["Envoy polls the registries itself, because no edge answers it"],
    "envoy-shares": ["Envoy does not keep to the shares of traffic in 1 cluster"],
}
"""Headlines of every check for the troubles above."""


def findings_of(evidence: Evidence) -> dict[str, Finding]:
    """Return the findings by check."""
    return {finding.id: finding for finding in evaluate(evidence)}


def text_of(finding: Finding) -> str:
    """Return the lines of a finding."""
    return "\n".join(line.text for line in finding.lines)


def test_a_system_that_is_well_passes_every_check() -> None:
    """Every check of a client and of the registry is made, once, and none complains."""
    findings = evaluate(WELL)
    assert {finding.id for finding in findings} == {*CHECKS, *(finding.id for finding in VERDICT.findings)}
    assert len({finding.id for finding in findings}) == len(findings)
    assert {finding.id: finding.status for finding in findings if finding.status is not FindingStatus.OK} == {}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"lb_policy": "MAGLEV"},
        {"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"active_request_bias": {"default_value": 0}}},
    ],
)
def test_balancing_by_weights_keeps_to_shares(config: dict[str, Any]) -> None:
    """And without a share any policy is well."""
    assert findings_of(under_share(config))["envoy-shares"].status is FindingStatus.OK
    assert findings_of(with_cluster(CLUSTER | {"lb_policy": "RANDOM"}))["envoy-shares"].status is FindingStatus.OK


@pytest.mark.parametrize("source", [{"ads": {}}, {"api_config_source": {"api_type": "DELTA_GRPC"}}])
def test_an_envoy_that_streams_is_a_subscriber(source: dict[str, Any]) -> None:
    """Its rejections are told; the version that it holds is known by its acknowledgements alone."""
    config = CLUSTER | {"eds_cluster_config": {"eds_config": source}}
    findings = findings_of(with_cluster(config, then={"version_text": "", "update_rejected": 1}))
    assert findings["envoy-polls"].status is FindingStatus.OK
    assert findings["envoy-rejects-nothing"].status is FindingStatus.FAILURE
    assert findings["envoy-current"].status is FindingStatus.SKIPPED
    failing = findings_of(with_cluster(config, then={"update_failure": 2}))
    assert "2 attempts to stream failed" in text_of(failing["envoy-polls-succeed"])


def test_findings_are_grouped_as_an_operator_looks() -> None:
    """The registry's addresses come first, then the registry's own categories, and each Envoy at the end."""
    categories = list(dict.fromkeys(finding.category for finding in evaluate(WELL)))
    assert categories == ["registry", "access", "services", "replicas", "clocks", "envoy http://envoy:9901"]


def test_checks_of_both_are_worded_alike() -> None:
    """A check that the registry and a client make is one check, with one sentence that holds."""
    rules = {rule.id: (category, rule.holds) for category, rules in CATEGORIES.items() for rule in rules}
    both = {name: (check.category, check.holds) for name, check in CHECKS.items() if name in rules}
    assert both == {name: rules[name] for name in both}
    assert set(both) == {"registry-ready", "check-allowed", "tokens-encrypted"}


@pytest.mark.parametrize(
    ("check", "status", "evidence", "line"), TROUBLES, ids=[f"{check}-{line[:20]}" for check, _, _, line in TROUBLES]
)
def test_each_trouble_is_named(check: str, status: FindingStatus, evidence: Evidence, line: str) -> None:
    """The check whose subject is broken says so, how bad it is, and the evidence."""
    finding = findings_of(evidence)[check]
    assert finding.status is status
    assert line in text_of(finding)


def test_headlines_state_the_finding() -> None:
    """A headline is true as it stands: it says what is wrong, and never what should be."""
    headlines: dict[str, list[str]] = {}
    for check, _, evidence, _ in TROUBLES:
        headlines.setdefault(check, [])
        headline = findings_of(evidence)[check].headline
        if headline not in headlines[check]:
            headlines[check].append(headline)
    assert headlines == HEADLINES


def test_every_check_can_fail() -> None:
    """No check passes in every state of the system."""
    assert {check for check, *_ in TROUBLES} == set(CHECKS)


@pytest.mark.parametrize(
    "evidence",
    [
        replace(WELL, registries=[RegistryEvidence("http://x", "refused")], envoys=[]),
        replace(WELL, registries=[replace(OUTDATED, ready=False)]),
    ],
    ids=["nobody answers", "an earlier registry that is not ready"],
)
def test_checks_without_evidence_are_not_made(evidence: Evidence) -> None:
    """A check without its evidence neither passes nor fails, and the reason is given."""
    skipped = [finding for finding in evaluate(evidence) if finding.status is FindingStatus.SKIPPED]
    assert {finding.id for finding in skipped} >= {"replicas-one-database", "replicas-agree", "clock-registry"}
    assert {finding.headline for finding in skipped} == {"not checked"}
    assert all(finding.lines for finding in skipped)


def test_of_the_whole_the_worst_word_counts_once() -> None:
    """One process that is behind may not know of a trouble; the trouble is no less for it, and is not said twice."""
    worse = with_verdict(served("services-routable", "failure", "shop: no endpoint may have traffic"))
    unable = with_verdict(served("services-routable", "skipped", "not read yet"))
    for registries in ([REGISTRY, worse, worse, unable], [worse, REGISTRY]):
        finding = findings_of(replace(WELL, registries=registries))["services-routable"]
        assert (finding.status, text_of(finding)) == (FindingStatus.FAILURE, "shop: no endpoint may have traffic")
    able = findings_of(replace(WELL, registries=[unable, REGISTRY]))["services-routable"]
    assert (able.status, text_of(able)) == (FindingStatus.OK, "services: 1")


def test_of_a_process_each_address_is_named() -> None:
    """Two processes may be wrong in different ways; those that are well are not named."""
    away = with_verdict(served("postgresql-answers", "failure", "PostgreSQL is away", scope="process"))
    slow = with_verdict(served("postgresql-answers", "warning", "it is slow", scope="process"))
    well = with_verdict(served("postgresql-answers", "ok", "18.1 in 2 ms", scope="process"))
    three = [away, replace(slow, url="http://two:8080"), replace(well, url="http://three:8080")]
    finding = findings_of(replace(WELL, registries=three))["postgresql-answers"]
    assert finding.status is FindingStatus.FAILURE
    assert text_of(finding) == "http://one:8080: PostgreSQL is away\nhttp://two:8080: it is slow"
    single = findings_of(replace(WELL, registries=[away]))["postgresql-answers"]
    assert text_of(single) == "PostgreSQL is away"
    alike = findings_of(replace(WELL, registries=[well, replace(well, url="http://two:8080")]))["postgresql-answers"]
    assert text_of(alike) == "18.1 in 2 ms"


def test_the_registry_and_the_client_complain_together() -> None:
    """Both the listener that takes tokens over plain HTTP and the command that sends one there are named."""
    plain = with_verdict(
        served("tokens-encrypted", "warning", "0.0.0.0:8080 takes tokens", scope="process", category="access")
    )
    finding = findings_of(replace(WELL, registries=[plain], exposed=["http://one:8080"]))["tokens-encrypted"]
    assert text_of(finding).splitlines() == [
        "0.0.0.0:8080 takes tokens",
        "http://one:8080: this command sends its token there over plain HTTP",
    ]


def test_addresses_that_agree_a_while_later_agree() -> None:
    """A change takes its time from one process to the next."""
    caught_up = replace(BEHIND, later={"shop": 7})
    findings = findings_of(replace(WELL, registries=[REGISTRY, caught_up]))
    assert findings["replicas-agree"].status is FindingStatus.OK


def test_what_may_not_be_read_is_not_checked() -> None:
    """A refusal is a failure, said once with what to do, and nothing is claimed of what was not shown."""
    blind = replace(REGISTRY, verdict=None, ready=True, services=None, refused=[REFUSED, REFUSED])
    evidence = replace(WELL, registries=[blind], envoys=[])
    assert text_of(findings_of(evidence)["check-allowed"]).splitlines() == list(REFUSED)
    passed = {finding.id for finding in evaluate(evidence) if finding.status is FindingStatus.OK}
    assert passed == {"registry-reachable", "registry-ready"}


def test_drained_endpoints_make_no_panic() -> None:
    """Envoy leaves them out of the calculation, and so does the check."""
    drained = with_cluster(then={"membership_total": 5, "membership_excluded": 3})
    assert findings_of(drained)["envoy-no-panic"].status is FindingStatus.OK


def test_an_edge_that_answers_is_named_and_refusals_of_its_members_are_seen() -> None:
    """The statistics of polls are those of the aggregate and of its members."""
    well = findings_of(behind_edge(healthy=1))["envoy-edge"]
    assert (well.status, text_of(well)) == (FindingStatus.OK, "registry/edge")
    without = findings_of(with_cluster())["envoy-edge"]
    assert (without.status, "none in its bootstrap" in text_of(without)) == (FindingStatus.OK, True)
    refused = findings_of(behind_edge(healthy=1, upstream_rq_403=3))["envoy-polls-succeed"]
    assert "the registry refuses them (403)" in text_of(refused)
