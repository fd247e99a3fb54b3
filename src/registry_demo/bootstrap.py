"""The configuration that the demo's Envoy starts with: the recommended one, and beside it one without resilience."""

from dataclasses import dataclass

from registry_demo.bounds import BASE_EJECTION_TIME, REGION
from wire.envoy_bootstrap import Address, Node, Registries, Service, bootstrap

ENDPOINT_HEADER = "x-endpoint"
FLAGS_HEADER = "x-flags"
BARE_CLUSTER = "shop-bare"
"""The service without retries and ejection, which would hide lost requests from the demo's count."""

# Both also on the answers that Envoy gives by itself: a lost request tells where it was lost.
_HEADERS = ((ENDPOINT_HEADER, "%UPSTREAM_HOST%"), (FLAGS_HEADER, "%RESPONSE_FLAGS%"))


@dataclass(frozen=True)
class Ports:
    """Where Envoy listens, also without retries and ejection, where its admin listens, and where the registry does."""

    listener: int
    bare_listener: int
    admin: int
    registry: int


def render(ports: Ports) -> str:
    """Return the bootstrap: the service as it is recommended, and once more with nothing that saves a request."""
    return bootstrap(
        Node("demo", "demo", REGION, f"{REGION}a"),
        _here(ports.admin),
        Registries([_here(ports.registry)]),
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
