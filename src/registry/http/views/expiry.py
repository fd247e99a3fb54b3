"""The JSON documents of what keeps leases from lapsing."""

from typing import Annotated

from msgspec import Meta, Struct

from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.http.views.epoch import Epoch
from registry.usecases.expiry import Suspect
from wire.model import Name, ServiceName


class PauseRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """An operator's wish that no lease lapses for a while."""

    reason: Name
    expires_in: Annotated[float, Meta(gt=0, le=86_400, description="Seconds; a pause without an end hides the dead.")]
    service: Annotated[ServiceName | None, Meta(description="Null: all services.")] = None


class PauseView(Struct, frozen=True):
    """A pause in force."""

    service: Annotated[str | None, Meta(description="Null: all services.")]
    actor: str
    reason: str
    since: Epoch
    until: Epoch


class SuspectView(Struct, frozen=True):
    """An endpoint that is served although its lease expired."""

    service: str
    endpoint: str
    since: Epoch
    until: Annotated[
        Epoch, Meta(description="When it lapses at the latest, unless it is heard of or expiry is paused for longer.")
    ]
    reason: str
    last_heard: Annotated[Epoch | None, Meta(description="When its last heartbeat came; null: that is not known.")]
    last_reported: Annotated[str, Meta(description="The health that its registrar reported last.")]


class ExpiryView(Struct, frozen=True):
    """The causes that keep leases from lapsing: the guard's suspects, and operators' pauses."""

    pauses: list[PauseView]
    suspects: list[SuspectView]


def pause_view(pause: Pause) -> PauseView:
    """Return the document of a pause."""
    service = None if pause.scope == EVERYWHERE else pause.scope
    return PauseView(service, pause.actor, pause.reason, pause.since, pause.until)


def suspect_view(suspect: Suspect) -> SuspectView:
    """Return the document of an endpoint that is served although its lease expired."""
    endpoint, silence = suspect.endpoint, suspect.silence
    return SuspectView(
        endpoint.service,
        endpoint.name,
        silence.since,
        silence.held_until,
        silence.reason,
        silence.last_heard,
        silence.last_reported.value,
    )
