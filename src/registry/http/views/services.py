"""The JSON documents of services, of their expected numbers, and of what they have lost."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from registry.core.endpoint import Endpoint
from registry.core.presence import MAX_SHOWN, Presence
from registry.core.snapshot import Snapshot
from registry.http.openapi import show_examples
from registry.http.views.epoch import Epoch
from wire.address import format_endpoint
from wire.model import MAX_EXPECTED, Text


class ServiceView(Struct, frozen=True):
    """A service in numbers."""

    name: str
    version: int
    endpoints: int
    statuses: Annotated[
        dict[str, int],
        Meta(description="As people see them: endpoints whose lease expired and that are still served are SILENT."),
    ]
    routable: Annotated[int, Meta(description="Endpoints to which Envoys may send traffic, silent ones included.")] = 0
    silent: Annotated[
        int, Meta(description="Endpoints whose lease expired, kept in the answers by the guard or a pause.")
    ] = 0
    quarantined: Annotated[
        dict[str, str], Meta(description="Endpoints kept out of the answers, and why; written past the API.")
    ] = {}
    present: Annotated[
        int, Meta(description="Endpoints whose lease is good and that are not on their way out, healthy or not.")
    ] = 0
    expected: Annotated[int, Meta(description="How many there should be.")] = 0
    expected_source: Annotated[
        str,
        Meta(
            description="Where `expected` comes from: operator, registration (the newest that names a number), "
            "ecs (the desired count of its ECS services), or observed: what is listed, and what was lost in "
            "the last day and not replaced."
        ),
    ] = "observed"
    expected_by: Annotated[str, Meta(description="The operator; empty where no operator has set a number.")] = ""
    missing: int = 0
    lost_count: int = 0
    shared_groups: Annotated[int, Meta(description="Groups of its endpoints that have a share of its traffic.")] = 0


class LostView(Struct, frozen=True):
    """A lost endpoint: its lease lapsed, nothing had taken it out on purpose, and nothing has filled its place."""

    endpoint: str
    instance_id: str
    lost_at: Epoch
    health: Annotated[str, Meta(description="The health that its registrar reported last.")]
    reason: str
    revision: str
    region: str
    zone: str


class ServiceDetailView(ServiceView, frozen=True):
    """A service in numbers, with its lost endpoints."""

    lost: Annotated[
        list[LostView],
        Meta(
            description=f"The newest first, up to {MAX_SHOWN}; Envoys are told of none. Each is listed until its place "
            "is filled, the loss is acknowledged, or a day has passed."
        ),
    ] = []


class ExpectedRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """How many endpoints an operator expects a service to have."""

    expected: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_EXPECTED)] | None, Meta(description="Null takes the operator's number back.")
    ]
    reason: Text = ""


class AcknowledgedView(Struct, frozen=True):
    """The lost endpoints whose loss was acknowledged."""

    service: str
    endpoints: list[str]


class ExpelledView(Struct, frozen=True):
    """The endpoints that an operator has deregistered; they stay listed as not routable for the removal delay."""

    service: str
    version: int
    endpoints: list[str]


class ServiceList(Struct, frozen=True):
    """A page of services; ``next`` is the cursor of the next page."""

    services: list[ServiceView]
    next: str | None
    unavailable: Annotated[
        list[str],
        Meta(description="Services of this page that this process cannot read. They exist: do not take them for gone."),
    ] = []


_SERVICE = ServiceDetailView(
    name="shop",
    version=7,
    endpoints=3,
    statuses={"HEALTHY": 2, "DRAINING": 1},
    routable=2,
    present=2,
    expected=3,
    missing=1,
    lost_count=1,
    lost=[
        LostView(
            endpoint="10.0.0.9:8080",
            instance_id="i-0def",
            lost_at=1_763_600_000.0,
            health="HEALTHY",
            reason="its registrar went silent, and its lease expired",
            revision="1.8.2",
            region="ap-northeast-1",
            zone="ap-northeast-1a",
        )
    ],
)


def service_view(snapshot: Snapshot, presence: Presence) -> ServiceView:
    """Return the document of a service."""
    return ServiceView(**_service_fields(snapshot, presence))


def service_detail_view(snapshot: Snapshot, presence: Presence) -> ServiceDetailView:
    """Return the document of a service with its lost endpoints."""
    lost = [lost_view(endpoint) for endpoint in presence.lost[:MAX_SHOWN]]
    return ServiceDetailView(**_service_fields(snapshot, presence), lost=lost)


def _service_fields(snapshot: Snapshot, presence: Presence) -> dict[str, Any]:
    quarantined = {
        format_endpoint(*address_port): quarantined_row.reason
        for address_port, quarantined_row in snapshot.quarantined.items()
    }
    return {
        "name": snapshot.service,
        "version": snapshot.version,
        "endpoints": len(snapshot.endpoints),
        "statuses": dict(snapshot.counts_for_people),
        "routable": snapshot.routable,
        "silent": len(snapshot.silent),
        "quarantined": quarantined,
        "present": presence.present,
        "expected": presence.expected,
        "expected_source": presence.source,
        "expected_by": snapshot.expected_by,
        "missing": presence.missing,
        "lost_count": len(presence.lost),
        "shared_groups": 0 if snapshot.shares is None else len(snapshot.shares.groups),
    }


def lost_view(endpoint: Endpoint) -> LostView:
    """Return the document of a lost endpoint."""
    registration = endpoint.registration
    return LostView(
        endpoint=endpoint.name,
        instance_id=registration.instance_id,
        lost_at=endpoint.lost_at or 0.0,
        health=registration.health.value,
        reason=endpoint.lost_reason,
        revision=registration.revision,
        region=registration.region,
        zone=registration.zone,
    )


show_examples(_SERVICE)
