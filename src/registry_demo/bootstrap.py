"""Bootstrap of the demo's Envoy: the recommended one, and beside it a cluster without resilience."""

from dataclasses import dataclass
from pathlib import Path

from meshconfig.recommended_bootstrap import ListenedService, Node, recommended_text, registries
from registry_demo.bounds import BASE_EJECTION_TIME, REGION

ENDPOINT_HEADER = "x-endpoint"
FLAGS_HEADER = "x-flags"
APP_HEADER = "x-app"
"""The header by which the sample app says its name."""
CALLER = "front"
"""The service that Envoy stands beside, whose users are the demo's requests."""
BARE_CLUSTER = "shop-bare"
"""The service without retries and ejection, which would hide lost requests from the demo's count."""

# Both headers are also on answers that Envoy gives by itself, so that a lost request says where it was lost.
_HEADERS = ((ENDPOINT_HEADER, "%UPSTREAM_HOST%"), (FLAGS_HEADER, "%RESPONSE_FLAGS%"))


@dataclass(frozen=True)
class Ports:
    """Ports of Envoy's two listeners, of its admin interface, and of the registry for HTTP and for gRPC."""

    listener: int
    bare_listener: int
    admin: int
    registry: int
    streams: int


def render(ports: Ports, token_directory: Path) -> str:
    """Return the bootstrap: the service as it is recommended, and once more without retries and ejection."""
    return recommended_text(
        Node("demo", CALLER, REGION, f"{REGION}a"),
        _here(ports.admin),
        registries(_here(ports.registry), token_directory=str(token_directory)),
        [
            ListenedService(
                "shop",
                _here(ports.listener),
                base_ejection_time=BASE_EJECTION_TIME,
                response_headers=_HEADERS,
            ),
            ListenedService(
                "shop", _here(ports.bare_listener), BARE_CLUSTER, resilient=False, response_headers=_HEADERS
            ),
        ],
    )


def _here(port: int) -> str:
    return f"127.0.0.1:{port}"
