"""Bootstrap of the demo's Envoy: the recommended one, and beside it a cluster without resilience."""

from dataclasses import dataclass
from pathlib import Path

from registry_demo.bounds import BASE_EJECTION_TIME, REGION
from wire.envoy_bootstrap import Address, Node, Registries, Service, bootstrap

ENDPOINT_HEADER = "x-endpoint"
FLAGS_HEADER = "x-flags"
BARE_CLUSTER = "shop-bare"
"""The service without retries and ejection, which would hide lost requests from the demo's count."""

# Both headers are also on answers that Envoy gives by itself, so that a lost request says where it was lost.
_HEADERS = ((ENDPOINT_HEADER, "%UPSTREAM_HOST%"), (FLAGS_HEADER, "%RESPONSE_FLAGS%"))


@dataclass(frozen=True)
class Ports:
    """Ports of Envoy's two listeners, of its admin interface, and of the registry."""

    listener: int
    bare_listener: int
    admin: int
    registry: int


def render(ports: Ports, token_directory: Path) -> str:
    """Return the bootstrap: the service as it is recommended, and once more without retries and ejection."""
    return bootstrap(
        Node("demo", "demo", REGION, f"{REGION}a"),
        _here(ports.admin),
        Registries([_here(ports.registry)], token_directory=str(token_directory)),
        [
            Service(
                "shop",
                _here(ports.listener),
                base_ejection_time=BASE_EJECTION_TIME,
                response_headers=_HEADERS,
            ),
            Service("shop", _here(ports.bare_listener), BARE_CLUSTER, resilient=False, response_headers=_HEADERS),
        ],
    )


def _here(port: int) -> Address:
    return Address("127.0.0.1", port)
