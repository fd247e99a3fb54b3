"""The text of the Envoy bootstrap that this project recommends; every page and file that shows it is generated here.

One bootstrap serves open and closed registries: its polls bring the token of a file while there is one.

The values of retries, circuit breakers and outlier detection were measured together on a real Envoy, with applications
that were killed, hung, reset connections or answered 503. To change one alone can lose requests again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import indent

from wire.envoy_token import SDS_FILE, SECRET_NAME, TOKEN_DIRECTORY, TOKEN_FILE

_TYPE = "type.googleapis.com/envoy.extensions"
_MANAGER = f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_GRPC_STATS = f"{_TYPE}.filters.http.grpc_stats.v3.FilterConfig"
_PREVIOUS_HOSTS = f"{_TYPE}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_PROTOCOL = f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions"
_INJECTOR = f"{_TYPE}.filters.http.credential_injector.v3.CredentialInjector"
_GENERIC_CREDENTIAL = f"{_TYPE}.http.injected_credentials.generic.v3.Generic"
_UPSTREAM_CODEC = f"{_TYPE}.filters.http.upstream_codec.v3.UpstreamCodec"
_UPSTREAM_TLS = f"{_TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"


@dataclass(frozen=True)
class Node:
    """Envoy's ``node``: its id, the service that it stands beside, and where it runs; the zone may be unknown."""

    id: str
    cluster: str
    region: str
    zone: str = ""


@dataclass(frozen=True)
class Address:
    """An address and a port, to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return Envoy's ``socket_address``."""
        return f"{{socket_address: {{address: {self.host}, port_value: {self.port}}}}}"


@dataclass(frozen=True)
class Service:
    """An upstream service, and the listener through which applications beside this Envoy reach it.

    Attributes:
        name: its name in the registry.
        listen: address of the listener.
        cluster: name of Envoy's cluster, where it is not the service's.
        resilient: whether Envoy retries failed requests and ejects failing endpoints.
        base_ejection_time: seconds for which an endpoint is ejected the first time.
        response_headers: headers to add to each response, with Envoy's substitutions.
    """

    name: str
    listen: Address
    cluster: str = ""
    resilient: bool = True
    base_ejection_time: float = 30.0
    response_headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Registries:
    """The registries that Envoy polls, and how it reaches them.

    Attributes:
        addresses: where they listen.
        by_name: whether their hosts are DNS names.
        token_directory: the directory with Envoy's token and the SDS document that leads to it.
        tls: how to connect by TLS; None for plain HTTP.
        max_connection_duration: seconds after which a connection is replaced between two polls; 0 for never. A rotated
            client certificate comes into use by a new connection only.
    """

    addresses: Sequence[Address]
    by_name: bool = False
    token_directory: str = TOKEN_DIRECTORY
    tls: "RegistryTls | None" = None
    max_connection_duration: int = 0


@dataclass(frozen=True)
class RegistryTls:
    """TLS from Envoy to the registries.

    Attributes:
        server_name: the DNS name in the registries' certificates; it is also sent as SNI.
        ca_file: certificates of the authorities that the registries' certificates have to come from.
        certificate_sds: the SDS document of Envoy's own certificate, called ``registry-certificate``; empty for none.
    """

    server_name: str
    ca_file: str
    certificate_sds: str = ""


def bootstrap(node: Node, admin: Address, registries: Registries, services: Iterable[Service]) -> str:
    """Return the configuration of an Envoy, as YAML."""
    services = list(services)
    return "\n".join(
        [
            f"node: {{id: {node.id}, cluster: {node.cluster}, locality: {{{_locality(node)}}}}}",
            f"admin: {{address: {admin}}}",
            "static_resources:",
            "  listeners:",
            *(indent(_listener(service), "  ").rstrip() for service in services),
            "  clusters:",
            indent(registry_cluster(registries), "  ").rstrip(),
            *(indent(_service_cluster(service), "  ").rstrip() for service in services),
            "",
        ]
    )


def _locality(node: Node) -> str:
    return f"region: {node.region}, zone: {node.zone}" if node.zone else f"region: {node.region}"


def _listener(service: Service) -> str:
    cluster = service.cluster or service.name
    routes = _resilient_routes(cluster) if service.resilient else _plain_route(cluster)
    return f"""\
- name: {cluster}
  address: {service.listen}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': {_MANAGER}
        stat_prefix: {cluster}
        route_config:
{indent(_response_headers(service.response_headers), " " * 10)}\
          virtual_hosts:
          - name: {cluster}
            domains: ['*']
            routes:
{indent(routes, " " * 12)}\
        http_filters:
        - name: grpc_stats
          typed_config: {{'@type': {_GRPC_STATS}, stats_for_all_methods: false}}
        - {{name: router, typed_config: {{'@type': {_TYPE}.filters.http.router.v3.Router}}}}
"""


def _response_headers(headers: Sequence[tuple[str, str]]) -> str:
    if not headers:
        return ""
    lines = [f"- {{header: {{key: {name}, value: '{value}'}}}}" for name, value in headers]
    return "\n".join(["response_headers_to_add:", *lines, ""])


def _resilient_routes(cluster: str) -> str:
    return f"""\
# These may be sent twice: whatever fails is repeated, at another endpoint.
- match: {{prefix: /, headers: [{{name: ':method', string_match: {{safe_regex: {{regex: GET|HEAD|OPTIONS}}}}}}]}}
  route:
    cluster: {cluster}
    timeout: 5s
    retry_policy:
      retry_on: connect-failure,refused-stream,reset,retriable-status-codes
      retriable_status_codes: [502, 503, 504]
      per_try_timeout: 1s
{indent(_RETRIES, " " * 6)}\
# The rest is repeated only when no app can have begun it.
- match: {{prefix: /}}
  route:
    cluster: {cluster}
    timeout: 5s
    retry_policy:
      retry_on: connect-failure,refused-stream,reset-before-request
{indent(_RETRIES, " " * 6)}"""


_RETRIES = f"""\
num_retries: 2
retry_back_off: {{base_interval: 0.025s, max_interval: 0.25s}}
host_selection_retry_max_attempts: 5
retry_host_predicate: [{{name: previous_hosts, typed_config: {{'@type': {_PREVIOUS_HOSTS}}}}}]
"""


def _plain_route(cluster: str) -> str:
    return f"- {{match: {{prefix: /}}, route: {{cluster: {cluster}, timeout: 5s}}}}\n"


def registry_cluster(registries: Registries) -> str:
    """Return the cluster of the registries alone, as YAML."""
    endpoints = "\n".join(f"    - endpoint: {{address: {address}}}" for address in registries.addresses)
    return f"""\
- name: registry
  type: {"STRICT_DNS" if registries.by_name else "STATIC"}
  connect_timeout: 1s
  load_assignment:
    cluster_name: registry
    endpoints:
    - lb_endpoints:
{indent(endpoints, "  ")}
{_NAMED_REGISTRIES if registries.by_name else ""}\
{indent(_registry_protocol(registries), "  ")}\
{"" if registries.tls is None else indent(_transport_socket(registries.tls), "  ")}"""


def _registry_protocol(registries: Registries) -> str:
    directory, seconds = registries.token_directory, registries.max_connection_duration
    common = f"    common_http_protocol_options: {{max_connection_duration: {seconds}s}}\n" if seconds else ""
    return f"""\
# Polls bring the token of {directory}/{TOKEN_FILE}. While there is none they go without, which an open registry takes.
# A token that is moved there is read at once. When Envoy starts, the directory and {SDS_FILE} in it have to exist.
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': {_PROTOCOL}
{common}\
    explicit_http_config: {{http_protocol_options: {{}}}}
    http_filters:
    - name: credential_injector
      typed_config:
        '@type': {_INJECTOR}
        allow_request_without_credential: true
        overwrite: true
        credential:
          name: generic
          typed_config:
            '@type': {_GENERIC_CREDENTIAL}
            header: authorization
            header_value_prefix: 'Bearer '
            credential:
              name: {SECRET_NAME}
              sds_config:
                resource_api_version: V3
                path_config_source: {{path: {directory}/{SDS_FILE}, watched_directory: {{path: {directory}}}}}
    - {{name: upstream_codec, typed_config: {{'@type': {_UPSTREAM_CODEC}}}}}
"""


def _transport_socket(tls: RegistryTls) -> str:
    sds = f"{{resource_api_version: V3, path_config_source: {{path: {tls.certificate_sds}}}}}"
    own = f"tls_certificate_sds_secret_configs: [{{name: registry-certificate, sds_config: {sds}}}]"
    certificate = f"      {own}\n" if tls.certificate_sds else ""
    return f"""\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    '@type': {_UPSTREAM_TLS}
    sni: {tls.server_name}
    common_tls_context:
      # Envoy's own default for upstreams ends at TLS 1.2.
      tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}}
{certificate}\
      validation_context:
        trusted_ca: {{filename: {tls.ca_file}}}
        match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {tls.server_name}}}}}]
"""


_NAMED_REGISTRIES = """\
  # Without it every second poll fails when one of two registries is away.
  health_checks:
  - timeout: 1s
    interval: 2s
    no_traffic_interval: 2s
    unhealthy_threshold: 2
    healthy_threshold: 1
    http_health_check: {path: /livez}
  # A held poll takes a connection; the clusters beyond Envoy's default of 1024 would wait.
  circuit_breakers:
    thresholds: [{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}]
"""


def _service_cluster(service: Service) -> str:
    cluster = service.cluster or service.name
    named = "" if cluster == service.name else f"    service_name: {service.name}\n"
    return f"""\
- name: {cluster}
  type: EDS
  connect_timeout: 1s
  # Else an endpoint that was removed and still passes Envoy's own health check keeps its traffic.
  ignore_health_on_host_removal: true
{_resilience(service) if service.resilient else ""}\
  eds_cluster_config:
{named}\
    eds_config:
      resource_api_version: V3
      initial_fetch_timeout: 5s
      # The registry holds a poll until something changes: a long timeout and a short delay make that a push.
      api_config_source:
        api_type: REST
        transport_api_version: V3
        cluster_names: [registry]
        refresh_delay: 0.2s
        request_timeout: 30s
"""


def _resilience(service: Service) -> str:
    return f"""\
  common_lb_config: {{update_merge_window: 0s, healthy_panic_threshold: {{value: 30}}}}
  # Keep the connections of an endpoint below its requests a second: a queue beyond them only makes an overload last.
  circuit_breakers:
    thresholds:
    - {{max_pending_requests: 100, retry_budget: {{budget_percent: {{value: 20}}, min_retry_concurrency: 10}}}}
    per_host_thresholds: [{{max_connections: 30}}]
  outlier_detection:
    consecutive_gateway_failure: 10
    enforcing_consecutive_gateway_failure: 100
    enforcing_consecutive_5xx: 0
    enforcing_success_rate: 0
    interval: 1s
    base_ejection_time: {service.base_ejection_time:g}s
    max_ejection_time: 60s
    max_ejection_percent: 34
  # Below the time after which the app closes an idle connection: uvicorn and Node 5 s, gunicorn 2 s.
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      '@type': {_PROTOCOL}
      common_http_protocol_options: {{idle_timeout: 4s}}
      explicit_http_config: {{http_protocol_options: {{}}}}
"""
