"""Clusters: where the requests of a dependency go, and the policies that hold for all of its routes."""

from collections.abc import Collection, Iterable
from ipaddress import ip_address

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.tls import Tls
from meshconfig.field_types import Protocol
from meshconfig.policy_filters import has_session
from meshconfig.proto_json import Document, duration, extension, percent, socket_address, typed
from meshconfig.resource import Resource, make_resource

REGISTRY_CLUSTER = "registry"
"""The cluster of the registries, which stands in the bootstrap."""

DEFAULT_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""The authorities that Debian, Ubuntu and Alpine trust; Envoy has none of its own."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_EVENT_SINK = "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
# Envoy's own values, which are not written: an Envoy has twenty clusters, and each is compared, sent and parsed.
_BUDGET_PERCENT = 20.0
"""Percent of the requests under way that may be retries (``CircuitBreakers.Thresholds.RetryBudget``)."""
_BASE_EJECTION_TIME = 30.0
"""Seconds of the first ejection (``OutlierDetection``)."""
_CONSECUTIVE_FAILURES = 5
"""Failures in a row for which an endpoint is ejected, of either kind (``OutlierDetection``)."""

_NO_LIMIT = 2**32 - 1
"""The largest limit that Envoy takes; without one, it takes 1,024 connections and requests (``CircuitBreakers``)."""

_MIN_RETRIES = 10
"""Retries at once that are allowed also where an endpoint may have fewer requests under way."""
_UNLIMITED_ENDPOINT = 30
"""Requests that an endpoint is taken to have under way where ``connections_per_endpoint`` is null."""

_DNS_SETTLE = 5.0
"""Seconds that a first answer of DNS may take: the resolver's timeout."""
_OVERRIDABLE = ["UNKNOWN", "HEALTHY", "DEGRADED", "DRAINING"]
"""The states of endpoints that a strict session stays at; a draining one keeps its sessions."""


def name_of(dependency: Dependency) -> str:
    """Return the name of a dependency's cluster."""
    return dependency.cluster or dependency.name or dependency.service or ""


def cluster_names(dependencies: Iterable[Dependency]) -> dict[str, str]:
    """Return the cluster of each service; the first dependency on a service is meant where there are several."""
    names: dict[str, str] = {}
    for dependency in dependencies:
        if dependency.service is not None:
            names.setdefault(dependency.service, name_of(dependency))
    return names


def versions_name(cluster: str) -> str:
    """Return the name of the cluster that picks endpoints by version; no name in a file has a slash."""
    return f"{cluster}/version"


def config_source(mesh: Mesh, initial_fetch_timeout: float = 0.0) -> Document:
    """Return the source of resources that the registries serve over REST.

    Without an ``initial_fetch_timeout`` Envoy waits until they answer. With one, a changed cluster whose endpoints
    come late is swapped in empty.
    """
    return {
        "resource_api_version": "V3",
        "initial_fetch_timeout": duration(initial_fetch_timeout),
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": [REGISTRY_CLUSTER],
            "refresh_delay": duration(mesh.registry.refresh_delay),
            "request_timeout": duration(mesh.registry.request_timeout),
        },
    }


def cluster(
    dependency: Dependency,
    mesh: Mesh,
    *,
    versions: Collection[tuple[str, ...]] = (),
    zone_aware: bool = False,
    buffer_limit: int | None = None,
    initial_fetch_timeout: float = 0.0,
) -> Resource:
    """Return the cluster of a dependency; ``buffer_limit`` is in bytes a connection.

    An Envoy is ``zone_aware`` when its bootstrap names a local cluster, which one dependency with ``zones`` is enough
    for. The others have to be told then not to prefer their zone, which is Envoy's default from six endpoints on.

    With ``versions``, the sets of metadata keys that its routes select by, it is the second cluster, which picks the
    endpoints of a version. There no panic spreads requests over unhealthy endpoints: a version that has no others gets
    nothing, so that the route's next choice is taken.
    """
    name = versions_name(name_of(dependency)) if versions else name_of(dependency)
    document: Document = {
        "name": name,
        "connect_timeout": duration(dependency.connect_timeout),
        "circuit_breakers": _circuit_breakers(dependency.limit, websockets=serves_websockets(dependency)),
        "common_lb_config": _common_balancing(dependency, zone_aware=zone_aware, versioned=bool(versions)),
        "typed_extension_protocol_options": {_HTTP_OPTIONS: typed(_HTTP_OPTIONS, _http_options(dependency))},
        **_discovery(dependency, name, mesh, initial_fetch_timeout),
        **_balancing(dependency),
    }
    if dependency.outlier_detection is not None:
        document["outlier_detection"] = _outlier_detection(dependency.outlier_detection)
    if dependency.health_check is not None:
        document["health_checks"] = [_health_check(dependency.health_check, dependency)]
    if dependency.tls is not None:
        document["transport_socket"] = _transport_socket(dependency.tls, dependency)
    if versions:
        document["lb_subset_config"] = _subsets(versions)
    if buffer_limit is not None:
        document["per_connection_buffer_limit_bytes"] = buffer_limit
    return make_resource("clusters", document, eds_service=dependency.service or "", settle=settle_seconds(dependency))


def settle_seconds(dependency: Dependency) -> float:
    """Return the seconds until a new cluster surely serves, where nothing that Envoy sends tells."""
    seconds = _DNS_SETTLE if dependency.service is None and not _is_ip(host_port(dependency)[0]) else 0.0
    check = dependency.health_check
    # The first check begins at once, and its first success is enough.
    return seconds + (0.0 if check is None else check.timeout + check.interval)


def host_port(dependency: Dependency) -> tuple[str, int]:
    """Return the host and the port of a dependency's address."""
    host, _, port = (dependency.address or "").rpartition(":")
    return host.strip("[]"), int(port or 0)


def _discovery(dependency: Dependency, name: str, mesh: Mesh, initial_fetch_timeout: float) -> Document:
    if dependency.service is None:
        return _addressed(dependency, name, mesh)
    service = {} if dependency.service == name else {"service_name": dependency.service}
    source = config_source(mesh, initial_fetch_timeout)
    # Envoy 1.36 to 1.40 ask for v3 without it, too: there is no other version any more.
    del source["resource_api_version"]
    return {
        "type": "EDS",
        "eds_cluster_config": {"eds_config": source, **service},
        # Else an endpoint that was removed and still passes Envoy's own health check keeps its traffic.
        "ignore_health_on_host_removal": True,
    }


def _addressed(dependency: Dependency, name: str, mesh: Mesh) -> Document:
    host, port = host_port(dependency)
    endpoint: Document = {"address": socket_address(host, port)}
    literal = _is_ip(host)
    if literal:
        # Without a name there is nothing that auto_host_rewrite could send.
        endpoint["hostname"] = host
    return {
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        **({"type": "STATIC"} if literal else {"type": "STRICT_DNS", "dns_lookup_family": mesh.dns_family.upper()}),
    }


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def serves_websockets(dependency: Dependency) -> bool:
    """Tell whether connections to a dependency may become websockets, each of which is a request without an end."""
    allowed = bool(dependency.upgrade) or any(route.upgrade for route in dependency.routes)
    return allowed and not speaks_http2(dependency.protocol)


def _circuit_breakers(limit: Limit, *, websockets: bool) -> Document:
    threshold: Document = {"max_connections": _NO_LIMIT, "max_requests": _NO_LIMIT} if websockets else {}
    if limit.connections is not None:
        threshold["max_connections"] = limit.connections
    if limit.pending_requests is not None:
        threshold["max_pending_requests"] = limit.pending_requests
    if limit.requests is not None:
        threshold["max_requests"] = limit.requests
    if limit.retries is not None:
        threshold["max_retries"] = limit.retries
    elif limit.retry_budget is not None:
        budget = {} if limit.retry_budget == _BUDGET_PERCENT else {"budget_percent": percent(limit.retry_budget)}
        threshold["retry_budget"] = {**budget, "min_retry_concurrency": _retries_always_allowed(limit)}
    breakers: Document = {"thresholds": [threshold]}
    if limit.connections_per_endpoint is not None:
        breakers["per_host_thresholds"] = [{"max_connections": limit.connections_per_endpoint}]
    return breakers


def _retries_always_allowed(limit: Limit) -> int:
    """Return how many requests may be retried at once, whatever part they are of those under way.

    A killed endpoint fails all that it had under way in one moment, which is a third of all where there are three: more
    than the budget. Of 20 GETs that a killed endpoint had under way, 9 and 10 were lost when 10 retries were allowed.
    """
    return max(_MIN_RETRIES, limit.connections_per_endpoint or _UNLIMITED_ENDPOINT)


def _common_balancing(dependency: Dependency, *, zone_aware: bool, versioned: bool) -> Document:
    balancing: Document = {
        # A merged change of endpoints delays an ejection by a second.
        "update_merge_window": "0s",
        "healthy_panic_threshold": percent(0 if versioned else dependency.panic_threshold),
    }
    if dependency.zones:
        # Envoy's default of 6 is silently without effect in small services.
        balancing["zone_aware_lb_config"] = {"min_cluster_size": 1}
    elif zone_aware:
        balancing["zone_aware_lb_config"] = {"routing_enabled": {"value": 0}}
    if has_session(dependency.sticky):
        balancing["override_host_status"] = {"statuses": _OVERRIDABLE}
    return balancing


def _balancing(dependency: Dependency) -> Document:
    # Round robin is exact under weights, which shares within a service need; MAGLEV moves the fewest clients.
    if dependency.sticky is not None and not has_session(dependency.sticky):
        return {"lb_policy": "MAGLEV"}
    if dependency.slow_start is not None:
        window = {"slow_start_window": duration(dependency.slow_start)}
        return {"round_robin_lb_config": {"slow_start_config": window}}
    return {}


def _outlier_detection(rules: OutlierDetection) -> Document:
    document: Document = {
        "enforcing_success_rate": 0,
        "interval": duration(rules.interval),
        "max_ejection_time": duration(rules.max),
        "max_ejection_percent": rules.max_percent,
    }
    if rules.base != _BASE_EJECTION_TIME:
        document["base_ejection_time"] = duration(rules.base)
    if rules.consecutive_5xx is None:
        document["enforcing_consecutive_5xx"] = 0
    elif rules.consecutive_5xx != _CONSECUTIVE_FAILURES:
        document["consecutive_5xx"] = rules.consecutive_5xx
    if rules.consecutive_gateway_failure is not None:
        # Envoy counts these, and does not eject for them unless it is said to.
        document["enforcing_consecutive_gateway_failure"] = 100
        if rules.consecutive_gateway_failure != _CONSECUTIVE_FAILURES:
            document["consecutive_gateway_failure"] = rules.consecutive_gateway_failure
    return document


def _health_check(check: HealthCheck, dependency: Dependency) -> Document:
    document: Document = {
        "timeout": duration(check.timeout),
        "interval": duration(check.interval),
        # Else a cluster without requests is checked once a minute.
        "no_traffic_interval": duration(check.interval),
        "unhealthy_threshold": check.unhealthy,
        "healthy_threshold": check.healthy,
    }
    if check.event_log is not None:
        sink = extension("envoy.health_check.event_sinks.file", _EVENT_SINK, {"event_log_path": check.event_log})
        document["event_logger"] = [sink]
    if check.grpc is not None:
        document["grpc_health_check"] = {"service_name": check.grpc} if check.grpc else {}
    elif check.http is not None:
        codec = {"codec_client_type": "HTTP2"} if speaks_http2(dependency.protocol) else {}
        host = dependency.host_header or host_port(dependency)[0] or dependency.service
        document["http_health_check"] = {"path": check.http, "host": host, **codec}
    else:
        document["tcp_health_check"] = {}
    return document


def speaks_http2(protocol: Protocol) -> bool:
    """Tell whether requests go out by HTTP/2 whatever they came by."""
    return protocol in ("http2", "grpc")


def _http_options(dependency: Dependency) -> Document:
    options: Document = {}
    if dependency.keep_alive is not None:
        options["common_http_protocol_options"] = {"idle_timeout": duration(dependency.keep_alive)}
    if dependency.protocol == "same":
        options["use_downstream_protocol_config"] = {"http_protocol_options": {}, "http2_protocol_options": {}}
    elif speaks_http2(dependency.protocol):
        options["explicit_http_config"] = {"http2_protocol_options": {}}
    else:
        options["explicit_http_config"] = {"http_protocol_options": {}}
    return options


def _transport_socket(tls: Tls, dependency: Dependency) -> Document:
    name = tls.server_name or host_port(dependency)[0] or dependency.service or ""
    common: Document = {
        # Envoy's own default for upstreams ends at TLS 1.2.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    }
    if tls.verify:
        kind = "IP_ADDRESS" if _is_ip(name) else "DNS"
        common["validation_context"] = {
            "trusted_ca": {"filename": tls.ca_file or DEFAULT_CA_FILE},
            # Server name indication alone verifies nothing.
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": name}}],
        }
    context: Document = {"common_tls_context": common}
    if not _is_ip(name):
        context["sni"] = name
    return extension("envoy.transport_sockets.tls", _TLS_CONTEXT, context)


def _subsets(versions: Collection[tuple[str, ...]]) -> Document:
    return {
        "fallback_policy": "ANY_ENDPOINT",
        "metadata_fallback_policy": "FALLBACK_LIST",
        "subset_selectors": [{"keys": list(keys)} for keys in sorted(set(versions))],
    }
