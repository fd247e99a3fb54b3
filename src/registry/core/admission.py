"""The limits for new endpoints: the networks they may be in, and how many services and endpoints there may be.

Only new endpoints are checked. A listed endpoint is renewed and may change whatever the limits are, since a limit that
is lowered must not expire endpoints.
"""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.endpoint_networks import EndpointNetworks
from registry.errors import InadmissibleError, LimitError
from registry.settings import Settings
from wire.model import Registration, same_json
from wire.reserved_metadata import without_reserved_keys


class Limits(Struct, frozen=True):
    """The limits that operators set.

    Attributes:
        networks: the networks in which endpoints may be.
        services: the maximum number of services.
        endpoints: the maximum number of listed endpoints, in all services.
        metadata: the maximum size of an endpoint's metadata, in bytes of JSON.
    """

    networks: EndpointNetworks
    services: int
    endpoints: int
    metadata: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the limits of a process, by its settings."""
        return cls(
            networks=EndpointNetworks(settings.endpoint_networks, loopback=settings.on_loopback),
            services=settings.max_services,
            endpoints=settings.max_endpoints,
            metadata=settings.max_metadata,
        )


class Admission:
    """The check of registrations against the limits.

    Services and endpoints are counted in this process's memory, so several processes may together exceed a limit by
    the number of endpoints that they store at the same moment.

    Args:
        limits: the limits that operators set.
        service_count: returns the number of services.
        endpoint_count: returns the number of listed endpoints.
    """

    def __init__(self, limits: Limits, service_count: Callable[[], int], endpoint_count: Callable[[], int]) -> None:
        self.limits = limits
        self._service_count = service_count
        self._endpoint_count = endpoint_count

    def check(self, address: str, registration: Registration, current: Endpoint | None, entering: int) -> None:
        """Check a registration against the limits.

        Args:
            address: the endpoint's address.
            registration: the state that the endpoint is to have.
            current: the same instance's endpoint, if it is listed and has not left.
            entering: how many endpoints the transaction lists anew, this one included; 0 if it replaces another one.

        Raises:
            InadmissibleError: a limit of the endpoint itself is exceeded.
            LimitError: there are too many endpoints.
        """
        self._check_metadata(registration, current)
        if current is not None:
            return
        if not self.limits.networks.allows(address):
            raise InadmissibleError(
                f"the address {address} is not allowed for endpoints; allowed is {self.limits.networks}. Register an "
                "address that Envoys on other machines can reach, or name its network in REGISTRY_ENDPOINT_NETWORKS",
                "path:endpoint",
                "network",
            )
        if entering and self._endpoint_count() + entering > self.limits.endpoints:
            raise LimitError(
                f"{self._endpoint_count():,} endpoints are listed, and REGISTRY_MAX_ENDPOINTS allows "
                f"{self.limits.endpoints:,}. Listed endpoints are renewed. Deregister some of them, or raise the limit",
                "endpoints",
            )

    def services_allowed(self) -> int:
        """Return how many services may still be created."""
        return max(0, self.limits.services - self._service_count())

    def service_limit_error(self, name: str) -> LimitError:
        """Return the error for a service that may not be created."""
        return LimitError(
            f"{name} would be a new service: there are {self._service_count():,}, and REGISTRY_MAX_SERVICES allows "
            f"{self.limits.services:,}. A service counts until it has had no endpoint for REGISTRY_EVENT_RETENTION. "
            "Register for a service that there is, or raise the limit",
            "services",
        )

    def _check_metadata(self, registration: Registration, current: Endpoint | None) -> None:
        if not registration.metadata or (
            current is not None and same_json(registration.metadata, current.registration.metadata)
        ):
            return
        # The reserved keys are not sent to Envoy, and a registrar that adds them must not be refused for it.
        size = len(msgspec.json.encode(without_reserved_keys(registration.metadata)))
        if size > self.limits.metadata:
            raise InadmissibleError(
                f"the metadata has {size:,} bytes as JSON, and REGISTRY_MAX_METADATA allows {self.limits.metadata:,}: "
                "every Envoy that asks for the service gets it with each answer. Shorten it, or raise the limit",
                "$.metadata",
                "metadata",
            )
