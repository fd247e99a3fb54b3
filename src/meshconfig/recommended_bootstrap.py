"""The bootstrap that this project recommends to an Envoy without mesh definitions; pages and files show it.

It has what the definitions' defaults compile to, for services that stand in the bootstrap itself: each has a listener,
routes and a cluster. It serves open and closed registries: polls bring the token of a file while there is one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from meshconfig.address import address_of
from meshconfig.ads import over_ads
from meshconfig.cluster import REGISTRY_CLUSTER, cluster
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.limit import Limit
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.proto_json import Document, extension
from meshconfig.registry_cluster import DIRECT_CLUSTER, EDGE_CLUSTER, registry_clusters
from meshconfig.route import Way, own_routes, route_list
from meshconfig.yaml_text import Path, list_text, yaml_text
from wire.envoy_token import SDS_FILE, TOKEN_DIRECTORY, TOKEN_FILE

_FETCH_TIMEOUT = 5.0
"""Seconds that a starting Envoy waits for the endpoints of a service."""
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_GRPC_STATS = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
_TAP = "envoy.extensions.filters.http.tap.v3.Tap"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"


class Node(Struct, frozen=True):
    """Envoy's ``node``: its id, the service that it stands beside, and where it runs; the zone may be unknown."""

    id: str
    cluster: str
    region: str
    zone: str = ""


class ListenedService(Struct, frozen=True):
    """An upstream service, and the listener through which applications beside this Envoy reach it.

    Attributes:
        name: its name in the registry.
        listen: address and port of the listener.
        cluster: name of Envoy's cluster, where it is not the service's.
        resilient: whether Envoy retries failed requests and ejects failing endpoints.
        base_ejection_time: seconds for which an endpoint is ejected the first time.
        response_headers: headers to add to each response, with Envoy's substitutions.
    """

    name: str
    listen: str
    cluster: str = ""
    resilient: bool = True
    base_ejection_time: float = 30.0
    response_headers: Sequence[tuple[str, str]] = ()


def registries(*addresses: str, **values: Any) -> RegistryClient:  # noqa: ANN401  # fields of RegistryClient
    """Return the way to registries, with a token from the directory where the registrar writes it; without an edge."""
    return RegistryClient(**{"addresses": addresses, "edge": None, "token_directory": TOKEN_DIRECTORY, **values})


def recommended_bootstrap(
    node: Node, admin: str, client: RegistryClient, services: Sequence[ListenedService], streams: Sequence[str] = ()
) -> Document:
    """Return the configuration of an Envoy whose admin interface listens at this address.

    With ``streams``, host:port of the registries' gRPC listeners, Envoy gets its endpoints over ADS, else by polls.
    """
    zone = {"zone": node.zone} if node.zone else {}
    document: Document = {
        "node": {"id": node.id, "cluster": node.cluster, "locality": {"region": node.region, **zone}},
        "admin": {"address": address_of(admin)},
        "static_resources": {
            "listeners": [_listener(service) for service in services],
            "clusters": [
                *registry_clusters(client, dns_family="auto"),
                *(_cluster(service, client) for service in services),
            ],
        },
    }
    return over_ads(document, streams) if streams else document


def recommended_text(
    node: Node, admin: str, client: RegistryClient, services: Sequence[ListenedService], streams: Sequence[str] = ()
) -> str:
    """Return it as YAML with comments."""
    return yaml_text(recommended_bootstrap(node, admin, client, services, streams), _comments(client))


def streams_text(node: Node, client: RegistryClient, service: ListenedService, streams: Sequence[str]) -> str:
    """Return the parts of a bootstrap for ADS that one for polls does not have, as YAML with comments."""
    document = recommended_bootstrap(node, service.listen, client, [service], streams)
    registry, *_, cluster = document["static_resources"]["clusters"]
    shown = {key: cluster[key] for key in ("name", "type", "eds_cluster_config")}
    parts = {
        "dynamic_resources": document["dynamic_resources"],
        "static_resources": {"clusters": [registry, shown]},
    }
    return yaml_text(parts, _comments(client))


def registry_cluster_text(client: RegistryClient) -> str:
    """Return the cluster of the registries alone, as YAML with comments."""
    return list_text(registry_clusters(client, dns_family="auto"), _comments(client))


def _dependency(service: ListenedService) -> Dependency:
    name = service.cluster or service.name
    if service.resilient:
        ejection = OutlierDetection(base=service.base_ejection_time)
        return Dependency(name=name, service=service.name, outlier_detection=ejection)
    no_limit = Limit(connections_per_endpoint=None, pending_requests=None, retry_budget=None)
    return Dependency(
        name=name, service=service.name, retry=None, outlier_detection=None, limit=no_limit, keep_alive=None
    )


def _cluster(service: ListenedService, client: RegistryClient) -> Document:
    resource = cluster(_dependency(service), Mesh(registry=client), initial_fetch_timeout=_FETCH_TIMEOUT)
    document: Document = msgspec.json.decode(resource.body)
    # Readers copy it to Envoys of other versions, too.
    discovery: Document = document["eds_cluster_config"]
    discovery["eds_config"] = {"resource_api_version": "V3", **discovery["eds_config"]}
    # In the order in which people read it; the bytes that are served are in the order of the alphabet.
    order = {field: number for number, field in enumerate(_ORDER)}
    fields = sorted(document.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
    return {field: value for field, value in fields if field != "@type"}


_ORDER = ("name", "type", "connect_timeout", "ignore_health_on_host_removal", "common_lb_config")


def _listener(service: ListenedService) -> Document:
    dependency = _dependency(service)
    name = dependency.name
    headers = [{"header": {"key": header, "value": value}} for header, value in service.response_headers]
    routes = route_list(own_routes(Way(dependency)))
    manager: Mapping[str, Any] = {
        "stat_prefix": name,
        "route_config": {
            **({"response_headers_to_add": headers} if headers else {}),
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            # Idle, it costs nothing that could be measured; without it no request can be looked at.
            extension("tap", _TAP, {"common_config": {"admin_config": {"config_id": name}}}),
            extension("grpc_stats", _GRPC_STATS, {"stats_for_all_methods": False}),
            extension("router", _ROUTER),
        ],
        # A person who reports a failed request has the id by which taps and access logs name it.
        "always_set_request_id_in_response": True,
    }
    filters = [extension("envoy.filters.network.http_connection_manager", _MANAGER, manager)]
    return {"name": name, "address": address_of(service.listen), "filter_chains": [{"filters": filters}]}


def _comments(client: RegistryClient) -> Mapping[Path, str]:
    directory = client.token_directory
    return {
        ("routes", 0): "These may be sent twice: whatever fails is repeated, at another endpoint.",
        ("routes", 1): "The rest is repeated only when no app can have begun it.",
        ("registry", "cluster_type"): (
            "The edge of the registrar beside this Envoy answers polls while it lives, from memory and disk, else the "
            "registries.\n"
            "Neither can keep Envoy from its endpoints: without an edge it starts a second later."
        ),
        (EDGE_CLUSTER, "common_lb_config"): "Else polls go to an edge that is away, rather than to the registries.",
        **{
            (name, field): comment
            for name in (REGISTRY_CLUSTER, DIRECT_CLUSTER)
            for field, comment in (
                ("health_checks", "Without it polls fail when a registry is away."),
                (
                    "circuit_breakers",
                    "A held poll takes a connection; the clusters beyond Envoy's default of 1024 would wait.",
                ),
            )
        },
        (EDGE_CLUSTER, "circuit_breakers"): "",
        (EDGE_CLUSTER, "typed_extension_protocol_options"): "",
        (DIRECT_CLUSTER, "typed_extension_protocol_options"): "",
        ("registry", "typed_extension_protocol_options"): (
            f"Requests bring the token of {directory}/{TOKEN_FILE}. While there is none they go without, which an open "
            "registry takes.\n"
            f"A token that is moved there is read at once. When Envoy starts, the directory and {SDS_FILE} in it have "
            "to exist."
        ),
        ("tls_params",): "Envoy's own default for upstreams ends at TLS 1.2.",
        ("ignore_health_on_host_removal",): (
            "Else an endpoint that was removed and still passes Envoy's own health check keeps its traffic."
        ),
        ("circuit_breakers",): (
            "Keep the connections of an endpoint below its requests a second: a queue beyond them only makes an "
            "overload last."
        ),
        ("typed_extension_protocol_options",): (
            "Below the time after which the app closes an idle connection: uvicorn and Node 5 s, gunicorn 2 s."
        ),
        ("ads_config",): (
            "One stream for everything. Delta tells the next registry which versions Envoy has, so that it sends "
            "only what changed."
        ),
        ("set_node_on_first_message_only",): "Else each acknowledgement has the list of Envoy's extensions: 61 kB.",
        ("connection_keepalive",): "By which Envoy notices a registry that went away without a word.",
        ("api_config_source",): (
            "The registry holds a poll until something changes: a long timeout and a short delay make that a push."
        ),
    }
