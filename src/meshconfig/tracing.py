"""Tracing of a listener: the provider that gets its spans, in the terms of a connection manager."""

from meshconfig.definition.mesh import Mesh
from meshconfig.definition.tracing import Tracing
from meshconfig.proto_json import Document, extension, percent

TRACING_CLUSTER = "tracing"
"""The cluster of the receiver of spans, which stands in the bootstrap."""

_CONFIG = "envoy.config.trace.v3"
_XRAY_PORT = 2000
"""The port of the X-Ray daemon."""


def tracing(mesh: Mesh, service: str) -> Document:
    """Return the ``tracing`` of a connection manager beside a service; nothing where the mesh has none."""
    if mesh.tracing is None:
        return {}
    return {
        "tracing": {
            "provider": _provider(mesh.tracing, service),
            "random_sampling": percent(mesh.tracing.sample),
            "spawn_upstream_span": True,
            "custom_tags": [
                {
                    "tag": "revision",
                    "metadata": {
                        "kind": {"host": {}},
                        "metadata_key": {"key": "envoy.lb", "path": [{"key": "revision"}]},
                    },
                }
            ],
        }
    }


def _provider(tracing: Tracing, service: str) -> Document:
    host, _, port = tracing.address.rpartition(":")
    receiver = {"grpc_service": {"envoy_grpc": {"cluster_name": TRACING_CLUSTER}}}
    providers: dict[str, tuple[str, Document]] = {
        "zipkin": (
            "ZipkinConfig",
            {
                "collector_cluster": TRACING_CLUSTER,
                "collector_endpoint": "/api/v2/spans",
                "collector_endpoint_version": "HTTP_JSON",
                "trace_context_option": "USE_B3_WITH_W3C_PROPAGATION",
            },
        ),
        "xray": (
            "XRayConfig",
            {
                "daemon_endpoint": {
                    "protocol": "UDP",
                    "address": host.strip("[]"),
                    "port_value": int(port or _XRAY_PORT),
                },
                "segment_name": service,
            },
        ),
        "datadog": ("DatadogConfig", {"collector_cluster": TRACING_CLUSTER, "service_name": service}),
        "opentelemetry": ("OpenTelemetryConfig", {**receiver, "service_name": service}),
        "skywalking": ("SkyWalkingConfig", {**receiver, "client_config": {"service_name": service}}),
    }
    message, fields = providers[tracing.provider]
    return extension(f"envoy.tracers.{tracing.provider}", f"{_CONFIG}.{message}", fields)
