"""An endpoint as the registry stores it, and the status, weight and metadata that it publishes."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from registry.auth.decision import Held
from registry.errors import InvalidError
from wire.address import format_endpoint, parse_endpoint, parse_ip
from wire.model import MAX_WEIGHT, Health, Registration, Report, check_metadata

Key = tuple[str, str, int]
"""Service, address, port: unique among the endpoints that are listed."""

ROUTABLE = (Health.HEALTHY, Health.DEGRADED)
"""The statuses of an endpoint to which Envoy may send traffic."""
OPEN_ENDED_AGE = 3600.0
"""Seconds after which an override without an end is shown as one that may have been forgotten."""

# A table, because ``Health(report.value)`` takes as long as the rest of ``status``.
_REPORTED = {report: Health(report.value) for report in Report}


class Override(Struct, frozen=True, gc=False):
    """An operator's override of an endpoint; it survives heartbeats and registrations of the same instance.

    It does not pass on to another instance that gets the same address.
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
        """Whether the override changes anything."""
        return self.weight is not None or self.canary is not None or self.drain

    @property
    def parts(self) -> list[str]:
        """Its parts that are set, in words."""
        parts = [] if self.weight is None else [f"weight {self.weight}"]
        if self.canary is not None:
            parts.append("canary" if self.canary else "no canary")
        return [*parts, "drain"] if self.drain else parts

    def ended(self, now: float) -> bool:
        """Return whether its time is over; the sweeper clears it at its next sweep."""
        return self.expires_at is not None and self.expires_at <= now

    def open_ended(self, now: float) -> bool:
        """Return whether it has no end and is older than an hour, so that it may have been forgotten."""
        return self.expires_at is None and now - self.set_at > OPEN_ENDED_AGE


def metadata_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as people read and search them: a text as it is, any other value as JSON."""
    return {
        key: value if isinstance(value, str) else msgspec.json.encode(value).decode() for key, value in metadata.items()
    }


def has_metadata(metadata: Mapping[str, Any], wanted: str) -> bool:
    """Tell whether metadata have a key, or ``key=value`` with the value as ``metadata_texts`` has it."""
    # Compared as a whole, since keys may have an equals sign too.
    return wanted in metadata or any(f"{key}={text}" == wanted for key, text in metadata_texts(metadata).items())


class Quarantined(Struct, frozen=True, gc=False):
    """A row that is left out of the answers, because Envoy would reject it or it cannot be read."""

    id: int
    service: str
    address: str
    port: int
    reason: str


class Endpoint(Struct, frozen=True, gc=False, omit_defaults=True):
    """An address and port that serve a service.

    Times are seconds of the database's clock. ``change`` is the number of the service's change that last modified it.
    ``owner`` is the identity that registered it, and empty where none was proven.

    ``lost_at`` is when it was lost, with its reason, until its place is filled (``registry.core.presence``);
    ``spare_since`` is when it came, while it has filled no place. ``drained_by`` is who drained its incarnation, when.

    ``share_weight`` is the weight that a share of traffic gives it, 0 where its group gets nothing, and None without
    shares. Written by ``registry.core.shares`` when a snapshot is made; rows of the database have none.
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
    owner: str = ""
    lost_at: float | None = None
    lost_reason: str = ""
    spare_since: float | None = None
    drained_by: str = ""
    share_weight: int | None = None

    @property
    def key(self) -> Key:
        """The service, address and port, which are unique among listed endpoints."""
        return (self.service, self.address, self.port)

    @property
    def name(self) -> str:
        """The address and port as text, ``ip:port``."""
        return format_endpoint(self.address, self.port)

    @property
    def status(self) -> Health:
        """The published status; the first rule that applies wins.

        A draining endpoint that is unhealthy stays UNHEALTHY. Envoy does not change a host from UNHEALTHY to DRAINING,
        and only a host that was healthy before leaves Envoy's panic calculation by DRAINING. A group whose share is 0
        is published as draining as well: Envoy rejects a weight of 0.
        """
        return self._status(draining=self.draining or self.share_weight == 0)

    def _status(self, *, draining: bool) -> Health:
        if draining:
            unhealthy = self.registration.health is Report.UNHEALTHY
            return Health.UNHEALTHY if unhealthy else Health.DRAINING
        if self.lapsed_at is not None:
            return Health.TIMEOUT
        return _REPORTED[self.registration.health]

    @property
    def draining(self) -> bool:
        """Whether its instance, an operator or its deregistration has taken it out of rotation."""
        return (
            self.registration.draining
            or self.leaving_at is not None
            or (self.override is not None and self.override.drain)
        )

    @property
    def routable(self) -> bool:
        """Whether Envoy may send traffic to the endpoint."""
        return self.status in ROUTABLE

    @property
    def routable_by_itself(self) -> bool:
        """Whether Envoy might send traffic to the endpoint if its group had a share."""
        if self.share_weight != 0:
            return self.status in ROUTABLE
        return self._status(draining=self.draining) in ROUTABLE

    @property
    def alive(self) -> bool:
        """Whether its lease is good and it is not leaving, so that its owner alone may change it.

        The lease of a suspect expired; the guard or a pause keeps it served for Envoy, and not for its owner.
        """
        return self.lapsed_at is None and self.suspect_since is None and self.leaving_at is None

    @property
    def held(self) -> Held:
        """The endpoint as the rules about owners take it."""
        registration = self.registration
        return Held(self.service, self.name, self.address, registration.instance_id, self.owner, self.alive)

    @property
    def weight(self) -> int | None:
        """The published weight: of its group's share, or else its own one."""
        return self.share_weight or self.own_weight

    @property
    def own_weight(self) -> int | None:
        """The weight of the operator's override, or else of the registration."""
        if self.override is not None and self.override.weight is not None:
            return self.override.weight
        return self.registration.weight

    @property
    def canary(self) -> bool:
        """Whether it is a canary, by the operator's override or else by the registration."""
        if self.override is not None and self.override.canary is not None:
            return self.override.canary
        return self.registration.canary

    @property
    def visible(self) -> tuple[Any, ...]:
        """All values that Envoy sees; if they stay equal, no answer to Envoy changes."""
        registration = self.registration
        return (
            self.status,
            self.weight,
            registration.region,
            registration.zone,
            self.canary,
            registration.revision,
            registration.instance_id,
            # As text, because True equals 1 in Python and not in Envoy.
            msgspec.json.encode(registration.metadata, order="sorted"),
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
    """Refuse an endpoint that Envoy would reject; it was written without the API, which accepts none of these.

    Raises:
        ValueError: names the value that is wrong.
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
