"""Bootstraps for ADS, by which Envoy gets all its resources over one gRPC stream instead of by polls.

It is made of a bootstrap for polls, so that everything else in it stays the same. The stream is of the delta kind: it
brings the versions that Envoy has to the next registry, which sends only what changed meanwhile.
"""

from collections.abc import Sequence
from typing import Any

from meshconfig.address import address_of, discovery_of
from meshconfig.cluster import REGISTRY_CLUSTER
from meshconfig.proto_json import Document, duration
from meshconfig.registry_cluster import DIRECT_CLUSTER, EDGE_CLUSTER

KEEPALIVE_INTERVAL = 20.0
"""Seconds between two PINGs of Envoy, by which it notices a registry that went away without a word."""
KEEPALIVE_TIMEOUT = 10.0
"""Seconds that a PING may take."""
_IDLE_BEFORE_PROBES = 30
"""Seconds after which the kernel probes an idle connection, and so keeps it in the tables of NAT and firewalls."""
_PROBE_INTERVAL = 5
"""Seconds between two probes of the kernel."""
_PROBES = 3
"""Probes without an answer, after which the kernel ends the connection."""
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def over_ads(bootstrap: Document, addresses: Sequence[str]) -> Document:
    """Return a bootstrap for polls as one for ADS.

    Args:
        bootstrap: the bootstrap; its cluster of registries keeps TLS and credentials.
        addresses: host:port of the registries' gRPC listeners.

    Raises:
        ValueError: there is no address, or one is invalid.
    """
    if not addresses:
        raise ValueError("ADS needs the host:port of at least one gRPC listener (REGISTRY_XDS_LISTEN of a registry)")
    document: Document = with_ads_sources(bootstrap)
    static = document["static_resources"]
    clusters = [
        _streamed(cluster, tuple(addresses)) if cluster["name"] == REGISTRY_CLUSTER else cluster
        for cluster in _without_edge(static["clusters"])
    ]
    return {
        **document,
        "dynamic_resources": {"ads_config": _ads_config(), **document.get("dynamic_resources", {})},
        "static_resources": {**static, "clusters": clusters},
    }


def with_ads_sources(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return a document whose resources come over ADS where they came from polls of the registries."""
    if isinstance(value, list):
        return [with_ads_sources(item) for item in value]
    if not isinstance(value, dict):
        return value
    document = {key: with_ads_sources(item) for key, item in value.items()}
    polled = document.get("api_config_source")
    if isinstance(polled, dict) and polled.get("cluster_names") == [REGISTRY_CLUSTER]:
        return {"ads": {}} | {key: item for key, item in document.items() if key != "api_config_source"}
    return document


def _without_edge(clusters: Sequence[Document]) -> list[Document]:
    """Return clusters with that of the registries in place of the aggregate: an edge answers no streams."""
    named = {cluster["name"]: cluster for cluster in clusters}
    direct = named.pop(DIRECT_CLUSTER, None)
    if direct is not None:
        named.pop(EDGE_CLUSTER, None)
        options = named[REGISTRY_CLUSTER]["typed_extension_protocol_options"]
        named[REGISTRY_CLUSTER] = direct | {"name": REGISTRY_CLUSTER, "typed_extension_protocol_options": options}
    return list(named.values())


def _ads_config() -> Document:
    return {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        # Else each acknowledgement has the list of Envoy's extensions: 61 kB.
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": REGISTRY_CLUSTER}}],
    }


def _streamed(polled: Document, addresses: tuple[str, ...]) -> Document:
    """Return the cluster of the registries for streams.

    No health checks: a stream shows by itself that its registry is away, and the next one is tried. All addresses have
    the same priority, since it makes no difference to delta which of them answers, and streams spread over them.
    """
    family = polled.get("dns_lookup_family", "auto")
    options = dict(polled["typed_extension_protocol_options"][_HTTP_OPTIONS])
    options["explicit_http_config"] = {"http2_protocol_options": {"connection_keepalive": _keepalive()}}
    endpoints = [{"endpoint": {"address": address_of(text)}} for text in addresses]
    streamed = {
        "name": REGISTRY_CLUSTER,
        **discovery_of(addresses, family),
        "connect_timeout": polled["connect_timeout"],
        "load_assignment": {"cluster_name": REGISTRY_CLUSTER, "endpoints": [{"lb_endpoints": endpoints}]},
        "upstream_connection_options": {"tcp_keepalive": _tcp_keepalive()},
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
    }
    return streamed | {key: item for key, item in polled.items() if key not in {*streamed, *_OF_POLLS}}


_OF_POLLS = {"dns_lookup_family", "health_checks", "circuit_breakers"}
"""Fields of the cluster that streams do not need, or that names need and addresses do not."""


def _keepalive() -> Document:
    return {"interval": duration(KEEPALIVE_INTERVAL), "timeout": duration(KEEPALIVE_TIMEOUT)}


def _tcp_keepalive() -> Document:
    return {
        "keepalive_time": _IDLE_BEFORE_PROBES,
        "keepalive_interval": _PROBE_INTERVAL,
        "keepalive_probes": _PROBES,
    }
