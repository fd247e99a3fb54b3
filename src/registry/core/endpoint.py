"""An endpoint as the registry knows it, and what it publishes for it."""

from typing import Any

import msgspec
from msgspec import Struct

from registry.errors import InvalidError
from wire.address import format_endpoint, parse_endpoint, parse_ip
from wire.model import MAX_WEIGHT, Health, Registration, Report, check_metadata

Key = tuple[str, str, int]
"""Service, address, port: unique among the endpoints that are listed."""

# Looked up: to make one of the other by its value takes as long as all else that a status is made of.
_REPORTED = {report: Health(report.value) for report in Report}


class Override(Struct, frozen=True, gc=False):
    """What an operator set for an instance's endpoint; it survives heartbeats and re-registration.

    It does not pass on to another instance that is given the same address.
    """

    weight: int | None
    drain: bool
    actor: str
    reason: str
    set_at: float
    expires_at: float | None
    instance_id: str = ""
    canary: bool | None = None

    @property
    def sets_something(self) -> bool:
        """Whether any part of it is set."""
        return self.weight is not None or self.canary is not None or self.drain

    def ended(self, now: float) -> bool:
        """Tell whether its time is over; the sweeper clears it a moment later."""
        return self.expires_at is not None and self.expires_at <= now


class Quarantined(Struct, frozen=True, gc=False):
    """A row that would make Envoy reject the whole answer, or cannot be read, and is therefore kept out alone."""

    id: int
    service: str
    address: str
    port: int
    reason: str


class Endpoint(Struct, frozen=True, gc=False, omit_defaults=True):
    """One ip:port serving a service.

    Times are seconds of the database's clock. ``change`` is the service's change that last touched it.
    """

    id: int
    service: str
    address: str
    port: int
    registration: Registration
    registered_at: float
    changed_at: float
    lapsed_at: float | None = None
    leaving_at: float | None = None
    unroutable_at: float | None = None
    removed_at: float | None = None
    suspect_since: float | None = None
    suspect_reason: str = ""
    change: int = 0
    override: Override | None = None

    @property
    def key(self) -> Key:
        """Service, address and port."""
        return (self.service, self.address, self.port)

    @property
    def name(self) -> str:
        """``ip:port``."""
        return format_endpoint(self.address, self.port)

    @property
    def status(self) -> Health:
        """What is published; the first that holds wins.

        A drain of an unhealthy endpoint stays UNHEALTHY: Envoy does not re-evaluate UNHEALTHY to DRAINING, and
        only DRAINING that follows HEALTHY leaves the panic calculation.
        """
        if self.draining:
            unhealthy = self.registration.health is Report.UNHEALTHY
            return Health.UNHEALTHY if unhealthy else Health.DRAINING
        if self.lapsed_at is not None:
            return Health.TIMEOUT
        return _REPORTED[self.registration.health]

    @property
    def draining(self) -> bool:
        """Whether its instance, an operator or its deregistration takes it out of rotation."""
        return (
            self.registration.draining
            or self.leaving_at is not None
            or (self.override is not None and self.override.drain)
        )

    @property
    def routable(self) -> bool:
        """Whether Envoy may send traffic to it."""
        return self.status in (Health.HEALTHY, Health.DEGRADED)

    @property
    def weight(self) -> int | None:
        """The operator's weight, else the registration's."""
        if self.override is not None and self.override.weight is not None:
            return self.override.weight
        return self.registration.weight

    @property
    def canary(self) -> bool:
        """The operator's word on whether it is a canary, else the registration's."""
        if self.override is not None and self.override.canary is not None:
            return self.override.canary
        return self.registration.canary

    @property
    def visible(self) -> tuple[Any, ...]:
        """All that Envoy can see of it: equal means that no answer to an Envoy changes."""
        told = self.registration
        return (
            self.status,
            self.weight,
            told.region,
            told.zone,
            self.canary,
            told.revision,
            told.instance_id,
            # As text, because True equals 1 in Python and not in Envoy.
            msgspec.json.encode(told.metadata, order="sorted"),
        )


def endpoint_key(service: str, endpoint: str, pointer: str = "path:endpoint") -> Key:
    """Return the key of an endpoint that a request names.

    Args:
        service: the service's name.
        endpoint: the endpoint, as ``address:port``.
        pointer: where the request names it, for the error.

    Raises:
        InvalidError: it is no ip:port that traffic could be sent to.
    """
    try:
        return (service, *parse_endpoint(endpoint))
    except ValueError as error:
        raise InvalidError(str(error), pointer) from None


def check_publishable(endpoint: Endpoint) -> None:
    """Refuse what no registration could have brought and Envoy would reject: it was written past the API.

    Raises:
        ValueError: says what is wrong.
    """
    if parse_ip(endpoint.address) != endpoint.address:
        raise ValueError(f"the address {endpoint.address} is not in its canonical form")
    if not 1 <= endpoint.port <= 65535:
        raise ValueError(f"port {endpoint.port} is out of range")
    if endpoint.weight is not None and not 1 <= endpoint.weight <= MAX_WEIGHT:
        raise ValueError(f"weight {endpoint.weight} is not from 1 to {MAX_WEIGHT}")
    metadata = endpoint.registration.metadata
    if not isinstance(metadata, dict):
        raise ValueError("the metadata is no JSON object")  # noqa: TRY004  # one error for all that is wrong
    check_metadata(metadata)
