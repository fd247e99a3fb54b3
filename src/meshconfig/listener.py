"""Listeners: where Envoy takes requests, and the filters that each request passes."""

from collections.abc import Iterable, Mapping
from typing import Any

from meshconfig.authentication import Guards
from meshconfig.definition.mesh import Mesh
from meshconfig.field_types import Protocol
from meshconfig.policy_filters import fault_filter, rate_limit_filter, session_filter
from meshconfig.proto_json import Document, duration, extension, socket_address
from meshconfig.route import ROUTES, served_routes
from meshconfig.tracing import tracing

EGRESS = "egress"
"""The listener that the app beside an Envoy sends its requests to."""

_HTTP = "envoy.extensions.filters.http"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_STDOUT = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
_CODECS: Mapping[Protocol, str] = {"http1": "HTTP1", "http2": "HTTP2", "grpc": "HTTP2", "same": "AUTO"}
_LOG_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    # Without the query, which can hold what nobody should log.
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "milliseconds": "%DURATION%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "endpoint": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def egress(mesh: Mesh, service: str, routes: Mapping[str, Any] | None = None) -> Document:
    """Return the listener of a caller, which stands in its bootstrap and chooses the dependency by Host.

    Args:
        mesh: the settings that all share.
        service: the caller.
        routes: the ``rds`` or ``route_config`` field, as a document with that key; without it the registries'.
    """
    manager = connection_manager(
        mesh,
        service,
        stat_prefix=EGRESS,
        protocol=mesh.egress.protocol,
        routes=routes or {"rds": served_routes(mesh, ROUTES)},
        filters=(),
        fields={
            **internal_addresses(mesh),
            # The app beside this Envoy is neither a client to note nor a proxy to distrust.
            "skip_xff_append": True,
            "preserve_external_request_id": True,
        },
    )
    return {
        "name": EGRESS,
        "address": socket_address(mesh.egress.address, mesh.egress.port),
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [manager]}],
    }


def front_manager(
    mesh: Mesh,
    name: str,
    *,
    protocol: Protocol,
    routes: Mapping[str, Any],
    guards: Guards,
    fields: Mapping[str, Any],
) -> Document:
    """Return the network filter of a gateway or an edge: it authenticates and limits what comes from others.

    Rates are limited behind the authentication, by headers that it sets.
    """
    return connection_manager(
        mesh,
        name,
        stat_prefix=name,
        protocol=protocol,
        routes=routes,
        filters=(*guards.filters(), rate_limit_filter(name)),
        fields=fields,
    )


def connection_manager(
    mesh: Mesh,
    service: str,
    *,
    stat_prefix: str,
    protocol: Protocol,
    routes: Mapping[str, Any],
    filters: Iterable[Document],
    fields: Mapping[str, Any],
) -> Document:
    """Return the network filter that speaks HTTP.

    Args:
        mesh: the settings that all share.
        service: the name that spans carry.
        stat_prefix: the name in statistics, by which also the idle tap filter is addressed.
        protocol: the protocol of clients.
        routes: the ``rds`` or ``route_config`` field.
        filters: filters between the tap and those that every chain has.
        fields: what this listener has besides or instead.
    """
    return extension(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        {
            "stat_prefix": stat_prefix,
            "codec_type": _CODECS[protocol],
            **routes,
            "http_filters": [
                # Idle until an operator asks by the admin interface.
                extension(
                    "envoy.filters.http.tap",
                    f"{_HTTP}.tap.v3.Tap",
                    {"common_config": {"admin_config": {"config_id": stat_prefix}}},
                ),
                *filters,
                extension(
                    "envoy.filters.http.grpc_stats",
                    f"{_HTTP}.grpc_stats.v3.FilterConfig",
                    {"stats_for_all_methods": False},
                ),
                fault_filter(),
                session_filter(),
                extension(
                    "envoy.filters.http.router",
                    f"{_HTTP}.router.v3.Router",
                    {"respect_expected_rq_timeout": True},
                ),
            ],
            "use_remote_address": True,
            # A path that an app reads differently from Envoy passes by rules of paths.
            "normalize_path": True,
            "merge_slashes": True,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "always_set_request_id_in_response": True,
            "stream_idle_timeout": duration(300),
            "access_log": [access_log()],
            **tracing(mesh, service),
            **fields,
        },
    )


def access_log() -> Document:
    """Return the access log on standard output, a JSON object a line."""
    return extension("envoy.access_loggers.stdout", _STDOUT, {"log_format": {"json_format": _LOG_FIELDS}})


def internal_addresses(mesh: Mesh) -> Document:
    """Return the field with the clients that may set timeouts and retries by headers, as the mesh lists them.

    Without the field nobody may. With it and an empty list, private and loopback addresses may, in Envoy 1.36 to 1.40.
    The deadline that such a client passes on replaces the timeout of the route, also where it is longer.
    """
    ranges = []
    for text in mesh.internal_ranges:
        address, _, length = text.partition("/")
        ranges.append({"address_prefix": address, "prefix_len": int(length or (128 if ":" in address else 32))})
    return {"internal_address_config": {"cidr_ranges": ranges}} if ranges else {}
