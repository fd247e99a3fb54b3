"""The JSON documents of operators' overrides."""

from typing import Annotated

from msgspec import Meta, Struct

from registry.core.override_change import ExpiresIn
from registry.http.views.epoch import Epoch
from registry.usecases.overrides import OverrideInForce
from wire.model import Text, Weight


class OverrideRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """An override as an operator asks for it, over whatever the endpoint's registrar says."""

    weight: Annotated[Weight | None, Meta(description="Null leaves the registration's weight.")] = None
    canary: Annotated[bool | None, Meta(description="Null leaves the registration's word.")] = None
    drain: bool = False
    reason: Text = ""
    expires_in: Annotated[ExpiresIn | None, Meta(description="Seconds until the override ends by itself.")] = None


class ListedOverrideView(Struct, frozen=True):
    """An override in force, with its endpoint."""

    service: str
    endpoint: str
    instance_id: Annotated[str, Meta(description="It applies to this instance alone.")]
    status: Annotated[str | None, Meta(description="What Envoys are told; null while the endpoint is not listed.")]
    weight: int | None
    canary: bool | None
    drain: bool
    reason: str
    actor: str
    set_at: Epoch
    expires_at: Epoch | None
    open_ended: Annotated[bool, Meta(description="It has no end, and is older than an hour: is it still wanted?")]


class OverrideList(Struct, frozen=True):
    """A page of overrides; ``next`` is the cursor of the next page."""

    overrides: list[ListedOverrideView]
    next: str | None


def listed_override_view(item: OverrideInForce, now: float) -> ListedOverrideView:
    """Return the document of an override in force; ``now`` is the database's time."""
    override = item.override
    return ListedOverrideView(
        service=item.service,
        endpoint=item.name,
        instance_id=override.instance_id,
        status=None if item.endpoint is None else item.endpoint.status.value,
        weight=override.weight,
        canary=override.canary,
        drain=override.drain,
        reason=override.reason,
        actor=override.actor,
        set_at=override.set_at,
        expires_at=override.expires_at,
        open_ended=override.open_ended(now),
    )
