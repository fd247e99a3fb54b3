"""The JSON documents of endpoints."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from registry.core.endpoint import Endpoint
from registry.core.lease import Lease
from registry.core.silence import Silence
from registry.http.openapi import show_examples
from registry.http.views.epoch import Epoch


class OverrideView(Struct, frozen=True):
    """An override in force."""

    weight: int | None
    canary: bool | None
    drain: bool
    reason: str
    actor: str
    set_at: Epoch
    expires_at: Epoch | None


class SilenceView(Struct, frozen=True):
    """The silence of an endpoint: its lease expired, and the guard or a pause keeps it in the answers."""

    since: Annotated[Epoch, Meta(description="When the guard or a pause began to keep it.")]
    last_heard: Annotated[Epoch | None, Meta(description="When its last heartbeat came; null: that is not known.")]
    last_reported: Annotated[str, Meta(description="The health that its registrar reported last.")]
    held_until: Annotated[
        Epoch,
        Meta(
            description="When the guard lets it lapse whatever happens, or a pause in force ends, if that is later. "
            "It may lapse earlier."
        ),
    ]
    reason: str


class EndpointView(Struct, frozen=True):
    """An endpoint, what is published for it and what it was made of."""

    service: str
    endpoint: str
    address: str
    port: int
    status: Annotated[str, Meta(description="The health status that Envoys receive.")]
    weight: int | None
    instance_id: str
    incarnation: int
    health: Annotated[str, Meta(description="The health that the registrar reports.")]
    detail: str
    draining: bool
    revision: str
    region: str
    zone: str
    canary: bool
    repository: str | None
    metadata: dict[str, Any]
    registered_at: Epoch
    changed_at: Epoch
    lapsed_at: Epoch | None
    leaving_at: Epoch | None
    suspect_since: Annotated[Epoch | None, Meta(description="Its lease expired, and the guard keeps it served.")]
    suspect_reason: str
    lease_ttl: float | None
    lease_renewed_at: Annotated[Epoch | None, Meta(description="As of the last reading, some seconds old.")]
    lease_expires_at: Epoch | None
    override: OverrideView | None
    silence: Annotated[
        SilenceView | None,
        Meta(description="Not null: people see its status as SILENT, and Envoys receive `status` all the same."),
    ] = None


class EndpointList(Struct, frozen=True):
    """A page of endpoints; ``next`` is the cursor of the next page."""

    service: str
    version: int
    endpoints: list[EndpointView]
    next: str | None


ENDPOINT_EXAMPLE = EndpointView(
    service="shop",
    endpoint="10.0.0.5:8080",
    address="10.0.0.5",
    port=8080,
    status="HEALTHY",
    weight=10,
    instance_id="i-0abc",
    incarnation=1_763_600_000_000,
    health="HEALTHY",
    detail="GET /healthz: 200",
    draining=False,
    revision="1.8.2",
    region="ap-northeast-1",
    zone="ap-northeast-1a",
    canary=False,
    repository=None,
    metadata={"stage": "blue"},
    registered_at=1_763_600_000.0,
    changed_at=1_763_600_000.0,
    lapsed_at=None,
    leaving_at=None,
    suspect_since=None,
    suspect_reason="",
    lease_ttl=20.0,
    lease_renewed_at=1_763_600_100.0,
    lease_expires_at=1_763_600_120.0,
    override=None,
    silence=None,
)


def endpoint_view(endpoint: Endpoint, lease: Lease | None, silence: Silence | None) -> EndpointView:
    """Return the document of an endpoint with its lease and its silence."""
    registration, override = endpoint.registration, endpoint.override
    return EndpointView(
        service=endpoint.service,
        endpoint=endpoint.name,
        address=endpoint.address,
        port=endpoint.port,
        status=endpoint.status.value,
        weight=endpoint.weight,
        instance_id=registration.instance_id,
        incarnation=registration.incarnation,
        health=registration.health.value,
        detail=registration.detail,
        draining=endpoint.draining,
        revision=registration.revision,
        region=registration.region,
        zone=registration.zone,
        canary=endpoint.canary,
        repository=registration.repository,
        metadata=registration.metadata,
        registered_at=endpoint.registered_at,
        changed_at=endpoint.changed_at,
        lapsed_at=endpoint.lapsed_at,
        leaving_at=endpoint.leaving_at,
        suspect_since=endpoint.suspect_since,
        suspect_reason=endpoint.suspect_reason,
        lease_ttl=registration.ttl,
        lease_renewed_at=lease.renewed_at if lease else None,
        lease_expires_at=lease.expires_at if lease else None,
        override=None
        if override is None
        else OverrideView(
            weight=override.weight,
            canary=override.canary,
            drain=override.drain,
            reason=override.reason,
            actor=override.actor,
            set_at=override.set_at,
            expires_at=override.expires_at,
        ),
        silence=None if silence is None else silence_view(silence),
    )


def silence_view(silence: Silence) -> SilenceView:
    """Return the document of a silence."""
    return SilenceView(
        silence.since, silence.last_heard, silence.last_reported.value, silence.held_until, silence.reason
    )


show_examples(ENDPOINT_EXAMPLE, EndpointList("shop", 7, [ENDPOINT_EXAMPLE], None))
