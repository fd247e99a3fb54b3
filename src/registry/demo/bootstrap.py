"""The configuration that the demo's Envoy starts with."""

from dataclasses import dataclass
from string import Template

from registry.demo.bounds import POLL_BUDGET, REFRESH_DELAY, REGION, ROUTE_TIMEOUT

ENDPOINT_HEADER = "x-endpoint"
FLAGS_HEADER = "x-flags"

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

# No retries and no outlier detection for the service: they would hide lost requests from the demo's count.
_TEXT = Template("""\
node: {id: demo, cluster: demo, locality: {region: $region, zone: ${region}a}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $admin}}}
static_resources:
  listeners:
  - name: shop
    address: {socket_address: {address: 127.0.0.1, port_value: $listener}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/$manager
          stat_prefix: shop
          route_config:
            # Both also on the answers that Envoy gives by itself: a lost request tells where it was lost.
            response_headers_to_add:
            - {header: {key: $endpoint_header, value: '%UPSTREAM_HOST%'}}
            - {header: {key: $flags_header, value: '%RESPONSE_FLAGS%'}}
            virtual_hosts:
            - name: shop
              domains: ['*']
              routes:
              - {match: {prefix: /}, route: {cluster: shop, timeout: $route_timeout}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: registry
    type: STATIC
    connect_timeout: 0.5s
    load_assignment:
      cluster_name: registry
      endpoints:
      - lb_endpoints:
        - {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $registry}}}}
  - name: shop
    type: EDS
    connect_timeout: 0.25s
    ignore_health_on_host_removal: true
    eds_cluster_config:
      eds_config:
        resource_api_version: V3
        initial_fetch_timeout: 5s
        api_config_source:
          api_type: REST
          transport_api_version: V3
          cluster_names: [registry]
          refresh_delay: $refresh_delay
          request_timeout: $poll_budget
""")


@dataclass(frozen=True)
class Ports:
    """Where Envoy listens, where its admin listens, and where it finds the registry."""

    listener: int
    admin: int
    registry: int


def render(ports: Ports) -> str:
    """Return the bootstrap: one listener, one EDS cluster that polls the registry by REST v3."""
    return _TEXT.substitute(
        manager=_MANAGER,
        region=REGION,
        admin=ports.admin,
        listener=ports.listener,
        registry=ports.registry,
        endpoint_header=ENDPOINT_HEADER,
        flags_header=FLAGS_HEADER,
        route_timeout=f"{ROUTE_TIMEOUT:g}s",
        refresh_delay=f"{REFRESH_DELAY:g}s",
        poll_budget=f"{POLL_BUDGET:g}s",
    )
