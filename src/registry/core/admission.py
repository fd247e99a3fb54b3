"""What may come into the registry: where an endpoint may be, and how much of everything there may be.

Only what is new is judged. An endpoint that is listed already is renewed and may change, whatever the limits are: a
limit that is lowered must not expire anybody.
"""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.endpoint_networks import EndpointNetworks
from registry.errors import InadmissibleError, LimitError
from registry.settings import Settings, listens_on_loopback
from wire.model import Registration, same_json


class Limits(Struct, frozen=True):
    """What operators set.

    Attributes:
        networks: where endpoints may be.
        services: how many services there may be.
        endpoints: how many endpoints may be listed, in all services.
        metadata: bytes of JSON that an endpoint's metadata may have.
    """

    networks: EndpointNetworks
    services: int
    endpoints: int
    metadata: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the limits of a process."""
        return cls(
            networks=EndpointNetworks(settings.endpoint_networks, loopback=listens_on_loopback(settings.listen)),
            services=settings.max_services,
            endpoints=settings.max_endpoints,
            metadata=settings.max_metadata,
        )


class Admission:
    """Judges registrations against the limits.

    Services and endpoints are counted as this process knows them, so several processes may together exceed a limit by
    what they store in the same moment.

    Args:
        limits: what operators set.
        services: tells how many services there are.
        endpoints: tells how many endpoints are listed.
    """

    def __init__(self, limits: Limits, services: Callable[[], int], endpoints: Callable[[], int]) -> None:
        self.limits = limits
        self._services = services
        self._endpoints = endpoints

    def check(self, address: str, told: Registration, known: Endpoint | None, entering: int) -> None:
        """Judge what an instance says of its endpoint.

        Args:
            address: of the endpoint.
            told: the full state that it is to have.
            known: the same instance's endpoint, if it is listed and has not left.
            entering: endpoints that the transaction lists anew, this one among them; 0 if it takes another's place.

        Raises:
            InadmissibleError: it may never come in as it is.
            LimitError: there are too many endpoints.
        """
        self._check_metadata(told, known)
        if known is not None:
            return
        if not self.limits.networks.allows(address):
            raise InadmissibleError(
                f"endpoints may not be at {address}; allowed is {self.limits.networks}. Register an address that "
                "Envoys on other machines can reach, or name its network in REGISTRY_ENDPOINT_NETWORKS",
                "path:endpoint",
                "network",
            )
        if entering and self._endpoints() + entering > self.limits.endpoints:
            raise LimitError(
                f"{self._endpoints():,} endpoints are listed, and REGISTRY_MAX_ENDPOINTS allows "
                f"{self.limits.endpoints:,}; those that are listed are renewed. Deregister some, or raise the limit",
                "endpoints",
            )

    def services_allowed(self) -> int:
        """Return how many services may still come into being."""
        return max(0, self.limits.services - self._services())

    def service_limit_error(self, name: str) -> LimitError:
        """Return the error for a service that may not come into being."""
        return LimitError(
            f"{name} would be a new service: there are {self._services():,}, and REGISTRY_MAX_SERVICES allows "
            f"{self.limits.services:,}. A service counts until it has had no endpoint for REGISTRY_EVENT_RETENTION. "
            "Register for a service that there is, or raise the limit",
            "services",
        )

    def _check_metadata(self, told: Registration, known: Endpoint | None) -> None:
        if not told.metadata or (known is not None and same_json(told.metadata, known.registration.metadata)):
            return
        size = len(msgspec.json.encode(told.metadata))
        if size > self.limits.metadata:
            raise InadmissibleError(
                f"the metadata has {size:,} bytes as JSON, and REGISTRY_MAX_METADATA allows {self.limits.metadata:,}: "
                "every Envoy that asks for the service gets it with each answer. Shorten it, or raise the limit",
                "$.metadata",
                "metadata",
            )
