"""The bootstrap of each service: one for all of its tasks, with nothing in it that is there for nobody."""

from typing import Any

import pytest

from meshconfig.bootstrap import DIRECTORY_FETCH_TIMEOUT, LOCAL_CLUSTER, bootstrap
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.listen import GatewayListen, Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.statistics import Statistics
from meshconfig.definition.tls import Tls
from meshconfig.definition.tracing import Tracing
from meshconfig.effective import Caller, Configuration
from meshconfig.field_types import RESERVED_CLUSTERS
from meshconfig.proto_json import duration
from meshconfig.registry_cluster import DIRECT_CLUSTER, EDGE_CLUSTER
from meshconfig.statistics import ADMIN_CLUSTER

GATEWAY = Gateway(gateway="front", listen=GatewayListen(port=80), select=Select())


def bootstrap_of(name: str = "web", *dependencies: Dependency, directory: str = "", **mesh: Any) -> dict[str, Any]:
    """Return the bootstrap of a service with these dependencies, or of the gateway ``front``."""
    configuration = Configuration(Mesh(**mesh), {"web": Caller("web", dependencies)}, {"front": GATEWAY})
    return bootstrap(configuration, name, directory=directory)


def clusters_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the static clusters by name."""
    return {cluster["name"]: cluster for cluster in document["static_resources"]["clusters"]}


def test_a_service_asks_for_clusters_and_routes_and_a_gateway_for_listeners() -> None:
    """The egress listener stands in the bootstrap of a service; a gateway gets its listeners as they change."""
    service, gateway = bootstrap_of(), bootstrap_of("front")
    assert service["dynamic_resources"].keys() == {"cds_config"}
    (egress,) = service["static_resources"]["listeners"]
    assert egress["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["route_config_name"] == "default"
    assert gateway["dynamic_resources"].keys() == {"cds_config", "lds_config"}
    assert gateway["static_resources"]["listeners"] == []
    with pytest.raises(KeyError):
        bootstrap_of("nobody")


def test_an_envoy_waits_for_its_configuration() -> None:
    """Over REST without a timeout, else it would answer 404 on its port; from files, it waits for a while."""
    source = bootstrap_of()["dynamic_resources"]["cds_config"]
    assert source["initial_fetch_timeout"] == "0s"
    assert source["api_config_source"]["request_timeout"] == "30s"
    document = bootstrap_of("web", Dependency(name="shop", service="shop", zones=True), directory="/etc/mesh/")
    assert document["dynamic_resources"]["cds_config"]["path_config_source"] == {
        "path": "/etc/mesh/v3/discovery/clusters/web"
    }
    rds = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["rds"]
    assert rds["config_source"]["path_config_source"] == {"path": "/etc/mesh/v3/discovery/routes/web"}
    local = clusters_of(document)[LOCAL_CLUSTER]["eds_cluster_config"]["eds_config"]
    assert local["initial_fetch_timeout"] == duration(DIRECTORY_FETCH_TIMEOUT)


def test_the_first_registry_is_used_and_the_others_when_it_does_not_answer() -> None:
    """Two priorities, checks of /livez, and connections for all held polls."""
    client = RegistryClient(addresses=("10.0.0.1:8080", "[2001:db8::5]:8080", "10.0.0.3:8080"))
    registry = clusters_of(bootstrap_of(registry=client))["registry/direct"]
    assert registry["type"] == "STATIC"
    assert [
        (
            group["priority"],
            [each["endpoint"]["address"]["socket_address"]["address"] for each in group["lb_endpoints"]],
        )
        for group in registry["load_assignment"]["endpoints"]
    ] == [(0, ["10.0.0.1"]), (1, ["2001:db8::5", "10.0.0.3"])]
    assert registry["health_checks"][0]["http_health_check"] == {"path": "/livez"}
    assert set(registry["circuit_breakers"]["thresholds"][0].values()) == {4096}


def test_polls_go_to_the_edge_while_it_lives_and_else_to_the_registries() -> None:
    """The token is brought by the aggregate, whose filters alone Envoy runs; `edge: null` leaves one cluster."""
    client = RegistryClient(token_directory="/run/token", max_connection_duration=60.0, tls=Tls())
    clusters = clusters_of(bootstrap_of(registry=client))
    aggregate, edge, direct = (clusters[name] for name in ("registry", EDGE_CLUSTER, DIRECT_CLUSTER))
    members = aggregate["cluster_type"]["typed_config"]["clusters"]
    assert (members, aggregate["lb_policy"]) == ([EDGE_CLUSTER, DIRECT_CLUSTER], "CLUSTER_PROVIDED")
    assert ["sds.json" in str(cluster) for cluster in (aggregate, edge, direct)] == [True, False, False]
    assert ["max_connection_duration" in str(cluster) for cluster in (edge, direct)] == [False, True]
    assert ["transport_socket" in cluster for cluster in (edge, direct)] == [False, True]
    assert edge["health_checks"][0]["unhealthy_threshold"] == 1
    alone = clusters_of(bootstrap_of(registry=RegistryClient(edge=None, token_directory="/run/token", tls=Tls())))
    assert list(alone) == ["registry"]
    assert {"transport_socket", "health_checks"} <= alone["registry"].keys()
    assert "sds.json" in str(alone)
    socket = clusters_of(bootstrap_of(registry=RegistryClient(edge="unix:/run/edge.sock")))[EDGE_CLUSTER]
    assert "{'pipe': {'path': '/run/edge.sock'}}" in str(socket)


def _host(endpoint: dict[str, Any]) -> str:
    return str(endpoint["endpoint"]["address"]["socket_address"]["address"])


def test_names_are_resolved_and_tls_is_verified() -> None:
    """A name needs DNS; TLS verifies the name, by the system's authorities where no file is named."""
    client = RegistryClient(addresses=("registry.internal:8443",), tls=Tls())
    registry = clusters_of(bootstrap_of(registry=client, dns_family="v6_only"))["registry/direct"]
    assert (registry["type"], registry["dns_lookup_family"]) == ("STRICT_DNS", "V6_ONLY")
    context = registry["transport_socket"]["typed_config"]
    assert context["sni"] == "registry.internal"
    validation = context["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"]["filename"].startswith("/etc/ssl/")
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "registry.internal"}}
    ]
    by_address = RegistryClient(addresses=("10.0.0.1:8443",), tls=Tls(ca_file="/ca.pem"))
    context = clusters_of(bootstrap_of(registry=by_address))["registry/direct"]["transport_socket"]["typed_config"]
    assert "sni" not in context
    unverified = RegistryClient(addresses=("10.0.0.1:8443",), tls=Tls(verify=False))
    context = clusters_of(bootstrap_of(registry=unverified))["registry/direct"]["transport_socket"]["typed_config"]
    assert "validation_context" not in context["common_tls_context"]


def test_what_nobody_asked_for_is_not_there() -> None:
    """No token without a directory, no local cluster without zones, no metrics listener or sink without an address."""
    plain = bootstrap_of("web", Dependency(name="shop", service="shop"))
    assert clusters_of(plain).keys() == {"registry", EDGE_CLUSTER, DIRECT_CLUSTER}
    assert "cluster_manager" not in plain
    assert "stats_sinks" not in plain
    assert "http_filters" not in str(clusters_of(plain)["registry"])
    assert plain["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    rich = bootstrap_of(
        "web",
        Dependency(name="shop", service="shop", zones=True),
        registry=RegistryClient(token_directory="/run/token/"),
        statistics=Statistics(dog_statsd="127.0.0.1:8125", prometheus=Listen(address="0.0.0.0", port=9999)),
        tracing=Tracing(provider="opentelemetry", address="collector:4317"),
    )
    names = {name for name in clusters_of(rich) if "/" not in name}
    assert names == {"registry", "tracing", ADMIN_CLUSTER, LOCAL_CLUSTER} == RESERVED_CLUSTERS
    assert "/run/token/sds.json" in str(clusters_of(rich)["registry"])
    assert rich["cluster_manager"] == {"local_cluster_name": LOCAL_CLUSTER}
    assert [listener["name"] for listener in rich["static_resources"]["listeners"]] == ["egress", "metrics"]


@pytest.mark.parametrize(
    ("provider", "http2"),
    [("zipkin", False), ("datadog", False), ("opentelemetry", True), ("skywalking", True), ("xray", None)],
)
def test_spans_go_to_their_receiver(provider: Any, http2: bool | None) -> None:
    """Receivers of gRPC get HTTP/2; the daemon of X-Ray gets datagrams, for which there is no cluster."""
    document = bootstrap_of(tracing=Tracing(provider=provider, address="10.0.0.9:9411"))
    cluster = clusters_of(document).get("tracing")
    assert (None if cluster is None else "http2_protocol_options" in str(cluster)) == http2


def test_all_tasks_of_a_service_share_it() -> None:
    """It tags statistics with the service; a tag of the task comes from the overlay, which appends."""
    assert bootstrap_of()["stats_config"]["stats_tags"] == [{"tag_name": "service-cluster", "fixed_value": "web"}]
    assert bootstrap_of()["node"] == {"id": "web", "cluster": "web"}
