"""What Envoy says of itself, its clusters and their endpoints."""

import pytest

from registrar.traffic.topology import (
    Cluster,
    ClustersReader,
    EndpointsReader,
    EnvoyNode,
    endpoints_target,
    read_management_clusters,
    read_node,
)

CLUSTERS = b"""payments::observability_name::payments
payments::default_priority::max_connections::1024
payments::127.0.0.1:80::rq_total::5
outbound|80|pay::x::observability_name::outbound|80|pay::x
outbound|80|pay::x::eds_service_name::payments
outbound|80|pay::x::127.0.0.1:80::rq_success::3
outbound|80|pay::x::127.0.0.1:80::rq_error::2
outbound|80|pay::x::127.0.0.1:80::rq_total::4
outbound|80|pay::x::[2001:db8:0::1]:80::rq_error::9
outbound|80|pay::x::[2001:db8:0::1]:80::rq_total::0
outbound|80|pay::x::/run/app.sock::rq_total::7
registry::observability_name::registry
xds::observability_name::xds
"""


def test_clusters_are_known_by_the_service_that_they_ask_for() -> None:
    """Statistics have no colon of a name; clusters of the management server are no callees."""
    reader = ClustersReader()
    reader.read(CLUSTERS.splitlines())
    assert reader.result({"registry", "xds"}) == [
        Cluster("payments", "payments", "payments"),
        Cluster("outbound|80|pay::x", "outbound|80|pay__x", "payments"),
    ]


def test_attempts_at_endpoints_are_added_up_over_clusters() -> None:
    """A connection that was refused is an error and no attempt of Envoy's total; names have colons, and so has IPv6."""
    clusters = [Cluster("payments", "payments", "payments"), Cluster("outbound|80|pay::x", "", "payments")]
    reader = EndpointsReader(clusters)
    reader.read(CLUSTERS.splitlines())
    attempts = {key: (tries.attempts, tries.errors) for key, tries in reader.result().items()}
    assert attempts == {("payments", "127.0.0.1:80"): (9, 2), ("payments", "[2001:db8::1]:80"): (9, 9)}
    assert endpoints_target(clusters) == "/clusters?filter=%5E%28payments%7Coutbound%5C%7C80%5C%7Cpay%3A%3Ax%29%24"


def test_a_name_that_no_service_has_is_not_valid() -> None:
    """Such a cluster has no callee."""
    assert not Cluster("a|b", "a|b", "a|b").valid
    assert Cluster("a|b", "a|b", "a.b").valid


def test_a_node_is_read_and_has_to_be_whole() -> None:
    """An Envoy without a name cannot be told from others."""
    node = b'{"node": {"id": "i-1", "cluster": "shop", "locality": {"region": "r", "zone": "z"}, "extensions": []}}'
    assert read_node(node) == EnvoyNode("i-1", "shop", "r", "z")
    for lacking in (b'{"node": {"id": "i-1"}}', b"{}", b'{"node": {"cluster": "shop"}}'):
        with pytest.raises(ValueError, match=r"no node\.id or no node\.cluster"):
            read_node(lacking)
    with pytest.raises(ValueError, match="no name of a service"):
        read_node(b'{"node": {"id": "i-1", "cluster": "my shop"}}')
    with pytest.raises(ValueError, match="malformed"):
        read_node(b"<html>")


def test_management_clusters_are_found_wherever_they_are_named() -> None:
    """By gRPC and by REST, beside those that bootstraps of this project have."""
    body = b"""{"configs": [{"bootstrap": {"dynamic_resources": {
        "ads_config": {"grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
        "cds_config": {"api_config_source": {"cluster_names": ["rest-xds"]}}}}}]}"""
    assert read_management_clusters(body) >= {"xds", "rest-xds", "registry"}
    assert read_management_clusters(b'{"configs": []}') == {"registry", "envoy-admin"}
