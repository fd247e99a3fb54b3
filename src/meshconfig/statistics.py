"""The ways of an Envoy's statistics to Prometheus and to an agent of DogStatsD.

Prometheus gets a listener that reaches two paths of the admin interface and no other. The admin interface itself,
by which anybody can stop Envoy, stays on loopback.
"""

from collections.abc import Mapping
from typing import Any

from meshconfig.address import address_of, datagram_address_of
from meshconfig.proto_json import Document, extension
from meshconfig.yaml_text import Path, yaml_text

ADMIN_CLUSTER = "envoy-admin"
"""The cluster of Envoy's own admin interface, to which the metrics listener leads."""
METRICS_PATHS = ("/stats/prometheus", "/ready")
"""The only paths of the admin interface that the metrics listener leads to: others can stop Envoy."""

_DOG_STATSD = "envoy.config.metrics.v3.DogStatsdSink"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"


def metrics_listener(listen: str) -> Document:
    """Return the listener at an address host:port."""
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    routes = [{"match": {"path": path, "headers": get}, "route": {"cluster": ADMIN_CLUSTER}} for path in METRICS_PATHS]
    manager = {
        "stat_prefix": "metrics",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "route_config": {
            "name": "metrics",
            "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [extension("envoy.filters.http.router", _ROUTER)],
    }
    filters = [extension("envoy.filters.network.http_connection_manager", _MANAGER, manager)]
    return {"name": "metrics", "address": address_of(listen), "filter_chains": [{"filters": filters}]}


def admin_cluster(admin: str) -> Document:
    """Return the cluster of the admin interface at an address host:port."""
    endpoint = {"endpoint": {"address": address_of(admin)}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def prometheus(admin: str, listen: str) -> Document:
    """Return the part of a bootstrap that lets Prometheus read statistics at ``listen``, in a document of its own."""
    return {"static_resources": {"listeners": [metrics_listener(listen)], "clusters": [admin_cluster(admin)]}}


def dog_statsd(agent: str, tags: Mapping[str, str]) -> Document:
    """Return the part of a bootstrap that sends statistics to an agent at ip:port, each with these tags."""
    fixed: list[dict[str, Any]] = [{"tag_name": name, "fixed_value": value} for name, value in tags.items()]
    sink = {"address": datagram_address_of(agent)}
    return {
        "stats_config": {"stats_tags": fixed},
        "stats_sinks": [extension("envoy.stat_sinks.dog_statsd", _DOG_STATSD, sink)],
    }


def prometheus_text(admin: str, listen: str) -> str:
    """Return the part for Prometheus as YAML with comments."""
    comments: Mapping[Path, str] = {
        ("routes", 0): "These two and no other: more of the admin interface could stop Envoy.",
        ("clusters", 0): "The admin interface, which stays on loopback.",
    }
    return yaml_text(prometheus(admin, listen), comments)


def dog_statsd_text(agent: str, tags: Mapping[str, str]) -> str:
    """Return the part for an agent of DogStatsD as YAML."""
    return yaml_text(dog_statsd(agent, tags), {})
