"""The clusters of the registries in every Envoy's bootstrap: fail-over, liveness checks, limits, credentials, TLS.

Where a registrar has an edge, polls go to an aggregate of the edge and the registries: to the edge while it lives, else
to the registries. Neither can keep an Envoy from its endpoints.
"""

from collections.abc import Sequence

from meshconfig.address import address_of, discovery_of, is_ip, local_address_of, parse
from meshconfig.cluster import DEFAULT_CA_FILE, REGISTRY_CLUSTER
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.tls import Tls
from meshconfig.proto_json import Document, duration, extension, typed
from wire.envoy_token import SDS_FILE, SECRET_NAME

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_INJECTOR = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector"
_GENERIC_CREDENTIAL = "envoy.extensions.http.injected_credentials.generic.v3.Generic"
_UPSTREAM_CODEC = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
_AGGREGATE = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"

CERTIFICATE_NAME = "registry-certificate"
"""The name of Envoy's own certificate in its SDS document."""
MAX_HELD_POLLS = 4096
"""Held polls of one Envoy. Each takes a connection; with Envoy's own limit of 1024 others would wait."""


EDGE_CLUSTER = f"{REGISTRY_CLUSTER}/edge"
"""The name of the edge's cluster; no name in a file of definitions has a slash."""
DIRECT_CLUSTER = f"{REGISTRY_CLUSTER}/direct"
"""The name of the registries' cluster where polls go to an edge first."""


def registry_clusters(client: RegistryClient, *, dns_family: str = "v4_only") -> list[Document]:
    """Return the cluster that polls name, and those that it is made of where there is an edge."""
    if client.edge is None:
        return [_registries(client, dns_family, REGISTRY_CLUSTER, _http_options(client))]
    # Envoy runs the filters of the aggregate and none of its members, so the token is brought there; an edge drops it.
    direct = _registries(client, dns_family, DIRECT_CLUSTER, _connection_options(client))
    return [_aggregate(client), _edge(client.edge), direct]


def _registries(client: RegistryClient, dns_family: str, name: str, options: Document) -> Document:
    """Return the cluster of the registries: the first address is used, the others when it does not answer."""
    document: Document = {
        "name": name,
        **discovery_of(client.addresses, dns_family),
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": _priorities(client.addresses)},
        "health_checks": [_liveness_check("2s", "1s", 2)],
        "circuit_breakers": _room_for_polls(),
        "typed_extension_protocol_options": {_HTTP_OPTIONS: typed(_HTTP_OPTIONS, options)},
    }
    if client.tls is not None:
        document["transport_socket"] = _transport_socket(client.tls, client)
    return document


def _aggregate(client: RegistryClient) -> Document:
    members = {"clusters": [EDGE_CLUSTER, DIRECT_CLUSTER]}
    return {
        "name": REGISTRY_CLUSTER,
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": extension("envoy.clusters.aggregate", _AGGREGATE, members),
        "typed_extension_protocol_options": {_HTTP_OPTIONS: typed(_HTTP_OPTIONS, _http_options(client))},
    }


def _edge(address: str) -> Document:
    endpoint = {"endpoint": {"address": local_address_of(address)}}
    options: Document = {"explicit_http_config": {"http_protocol_options": {}}}
    return {
        "name": EDGE_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        # Else polls go to an edge that is away, rather than to the registries.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {"cluster_name": EDGE_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "health_checks": [_liveness_check("1s", "0.5s", 1)],
        "circuit_breakers": _room_for_polls(),
        "typed_extension_protocol_options": {_HTTP_OPTIONS: typed(_HTTP_OPTIONS, options)},
    }


def _room_for_polls() -> Document:
    limits = ("max_connections", "max_pending_requests", "max_requests")
    return {"thresholds": [dict.fromkeys(limits, MAX_HELD_POLLS)]}


def _priorities(addresses: Sequence[str]) -> list[Document]:
    # Any other way of fail-over lets polls of one Envoy alternate between registries that differ for a moment.
    return [
        {"priority": priority, "lb_endpoints": [{"endpoint": {"address": address_of(text)}} for text in texts]}
        for priority, texts in enumerate((addresses[:1], addresses[1:]))
        if texts
    ]


def _liveness_check(interval: str, timeout: str, failures: int) -> Document:
    return {
        "timeout": timeout,
        "interval": interval,
        "no_traffic_interval": interval,
        "unhealthy_threshold": failures,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/livez"},
    }


def _http_options(client: RegistryClient) -> Document:
    options = _connection_options(client)
    if client.token_directory is not None:
        options["http_filters"] = _token_filters(client.token_directory.rstrip("/"))
    return options


def _connection_options(client: RegistryClient) -> Document:
    age = client.max_connection_duration
    options: Document = {} if age is None else {"common_http_protocol_options": _replaced_after(age)}
    options["explicit_http_config"] = {"http_protocol_options": {}}
    return options


def _token_filters(directory: str) -> list[Document]:
    # While there is no token, polls go without, which an open registry takes. One that is moved there is read at once.
    # When Envoy starts, the directory and the SDS document in it have to exist.
    source = {"path": f"{directory}/{SDS_FILE}", "watched_directory": {"path": directory}}
    credential = {
        "header": "authorization",
        "header_value_prefix": "Bearer ",
        "credential": {
            "name": SECRET_NAME,
            "sds_config": {"resource_api_version": "V3", "path_config_source": source},
        },
    }
    injector = {
        "allow_request_without_credential": True,
        "overwrite": True,
        "credential": extension("generic", _GENERIC_CREDENTIAL, credential),
    }
    return [
        extension("credential_injector", _INJECTOR, injector),
        extension("upstream_codec", _UPSTREAM_CODEC),
    ]


def _replaced_after(seconds: float) -> Document:
    return {"max_connection_duration": duration(seconds)}


def _transport_socket(tls: Tls, client: RegistryClient) -> Document:
    name = tls.server_name or parse(client.addresses[0])[0]
    # Envoy's own default for upstreams ends at TLS 1.2.
    versions = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    common: Document = {"tls_params": versions}
    if client.certificate_sds is not None:
        sds = {"resource_api_version": "V3", "path_config_source": {"path": client.certificate_sds}}
        common["tls_certificate_sds_secret_configs"] = [{"name": CERTIFICATE_NAME, "sds_config": sds}]
    if tls.verify:
        kind = "IP_ADDRESS" if is_ip(name) else "DNS"
        common["validation_context"] = {
            "trusted_ca": {"filename": tls.ca_file or DEFAULT_CA_FILE},
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": name}}],
        }
    # RFC 6066, section 3: an address is no server name.
    sni = {} if is_ip(name) else {"sni": name}
    return extension("envoy.transport_sockets.tls", _TLS_CONTEXT, {**sni, "common_tls_context": common})
