"""The bootstrap of each service, gateway and edge: what an Envoy has to know before it asks the registry.

It is the same for all tasks of a service. Node id, locality and the tag ``service-node`` differ between tasks; they
come from an overlay that Envoy merges (``--config-yaml``), which ``registrar bootstrap`` writes.
"""

from meshconfig.address import address_of, discovery_of
from meshconfig.cluster import config_source
from meshconfig.definition.admin import Admin
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.tracing import Tracing
from meshconfig.effective import Caller, Configuration
from meshconfig.layout import resource_key
from meshconfig.listener import egress
from meshconfig.proto_json import Document, duration, extension, socket_address, typed
from meshconfig.registry_cluster import registry_clusters
from meshconfig.resource import Kind
from meshconfig.route import ROUTES
from meshconfig.statistics import admin_cluster, dog_statsd, metrics_listener
from meshconfig.tracing import TRACING_CLUSTER
from wire.address import format_endpoint

LOCAL_CLUSTER = "local-service"
"""The cluster of the service's own endpoints, by whose zones Envoy knows how much traffic to keep in its zone."""

MAX_DOWNSTREAM_CONNECTIONS = 50_000
"""Connections that an Envoy accepts, as Envoy's guide for edges has it. Envoy warns where there is no limit."""
DIRECTORY_FETCH_TIMEOUT = 15.0
"""Seconds that a starting Envoy waits for endpoints where configuration comes from files: there, nobody promises that
a registry answers, and its ports stay closed while it waits."""

_CONNECTION_LIMIT = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_GRPC_RECEIVERS = {"opentelemetry", "skywalking"}
"""Providers of tracing that get spans by gRPC."""
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def bootstrap(configuration: Configuration, name: str, *, directory: str = "") -> Document:
    """Return the bootstrap of a service, a gateway or an edge of a configuration.

    ``directory`` is the one on Envoy's machine that holds published files; without it, the registry is asked.

    Raises:
        KeyError: the configuration has none of this name.
    """
    mesh = configuration.mesh
    caller = configuration.callers.get(name)
    if caller is None and name not in configuration.gateways and name not in configuration.edges:
        raise KeyError(name)
    zones = caller is not None and _asks_for_zones(caller)
    document: Document = {
        # Envoy does not start without an id. The overlay replaces it by the task's own.
        "node": {"id": name, "cluster": name},
        "admin": {"address": socket_address(mesh.admin.address, mesh.admin.port)},
        "static_resources": {"listeners": _listeners(mesh, caller, directory), "clusters": _clusters(mesh)},
        "dynamic_resources": {"cds_config": _source(mesh, "clusters", name, directory)},
        "overload_manager": {"resource_monitors": [_connection_limit()]},
        "stats_config": {"stats_tags": [{"tag_name": "service-cluster", "fixed_value": name}]},
    }
    if caller is None:
        document["dynamic_resources"]["lds_config"] = _source(mesh, "listeners", name, directory)
    if zones:
        document["static_resources"]["clusters"].append(_local_cluster(mesh, name, directory))
        document["cluster_manager"] = {"local_cluster_name": LOCAL_CLUSTER}
    if mesh.statistics.dog_statsd is not None:
        document |= dog_statsd(mesh.statistics.dog_statsd, {"service-cluster": name})
    return document


def _source(mesh: Mesh, kind: Kind, name: str, directory: str) -> Document:
    if not directory:
        # Without a timeout: an Envoy that knows no route opens no port, rather than to answer 404 on it.
        return config_source(mesh)
    return {
        "resource_api_version": "V3",
        "initial_fetch_timeout": duration(DIRECTORY_FETCH_TIMEOUT),
        "path_config_source": {"path": f"{directory.rstrip('/')}/{resource_key(kind, name)}"},
    }


def _asks_for_zones(caller: Caller) -> bool:
    return any(dependency.zones for dependency in (*caller.dependencies, *caller.targets))


def _listeners(mesh: Mesh, caller: Caller | None, directory: str) -> list[Document]:
    listeners: list[Document] = []
    if caller is not None:
        source = _source(mesh, "routes", caller.service, directory)
        rds = {"route_config_name": ROUTES, "config_source": source}
        listeners.append(egress(mesh, caller.service, {"rds": rds}))
    if mesh.statistics.prometheus is not None:
        listeners.append(metrics_listener(_text(mesh.statistics.prometheus)))
    return listeners


def _clusters(mesh: Mesh) -> list[Document]:
    clusters = registry_clusters(mesh.registry, dns_family=mesh.dns_family)
    # The daemon of X-Ray gets datagrams, for which Envoy needs no cluster.
    if mesh.tracing is not None and mesh.tracing.provider != "xray":
        clusters.append(_tracing_cluster(mesh.tracing, mesh.dns_family))
    if mesh.statistics.prometheus is not None:
        clusters.append(admin_cluster(_text(mesh.admin)))
    return clusters


def _text(listen: Listen | Admin) -> str:
    return format_endpoint(listen.address, listen.port)


def _tracing_cluster(tracing: Tracing, dns_family: str) -> Document:
    endpoint = {"endpoint": {"address": address_of(tracing.address)}}
    document: Document = {
        "name": TRACING_CLUSTER,
        **discovery_of((tracing.address,), dns_family),
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": TRACING_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if tracing.provider in _GRPC_RECEIVERS:
        options: Document = {"explicit_http_config": {"http2_protocol_options": {}}}
        document["typed_extension_protocol_options"] = {_HTTP_OPTIONS: typed(_HTTP_OPTIONS, options)}
    return document


def _local_cluster(mesh: Mesh, service: str, directory: str) -> Document:
    source = config_source(mesh, DIRECTORY_FETCH_TIMEOUT if directory else 0.0)
    return {
        "name": LOCAL_CLUSTER,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"service_name": service, "eds_config": source},
    }


def _connection_limit() -> Document:
    return extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        _CONNECTION_LIMIT,
        {"max_active_downstream_connections": MAX_DOWNSTREAM_CONNECTIONS},
    )
