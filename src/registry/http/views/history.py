"""The JSON documents of events, of explanations, and of what was listed at a past time."""

from typing import Annotated

from msgspec import Meta, Struct

from registry.core.history import RecordedEvent
from registry.http.openapi import show_examples
from registry.http.views.endpoints import ENDPOINT_EXAMPLE, EndpointView, endpoint_view
from registry.http.views.epoch import Epoch
from registry.usecases.explain import ExplainedEndpoint
from wire.address import format_endpoint


class EventView(Struct, frozen=True):
    """An event of an endpoint, with its reason and its actor."""

    id: Annotated[str, Meta(description="Its place in the history; pages and streams go on from it.")]
    at: Epoch
    service: Annotated[str, Meta(description="* where it is of all services.")]
    endpoint: Annotated[str | None, Meta(description="Null where it is of a whole service, or of all.")]
    instance_id: str
    kind: str
    reason: str
    actor: str
    status: str
    version: int


class EventList(Struct, frozen=True):
    """A page of the history; ``next`` is the cursor of the next page."""

    events: list[EventView]
    next: str | None


class ExplanationView(Struct, frozen=True):
    """Why an endpoint is, or is not, getting traffic."""

    service: str
    endpoint: str
    listed: Annotated[bool, Meta(description="Whether Envoys are told of it at all.")]
    served: Annotated[bool, Meta(description="Whether they may send it traffic.")]
    status: str | None
    because: Annotated[list[str], Meta(description="The deciding reason first.")]
    would_change: list[str]
    now: EndpointView | None
    events: Annotated[list[EventView], Meta(description="Its last events, the oldest first.")]
    from_memory: Annotated[
        bool, Meta(description="PostgreSQL is away: this is what the process knows, and `missing` is left out.")
    ] = False
    missing: Annotated[list[str], Meta(description="In words what an explanation from memory lacks.")] = []
    away: Annotated[str, Meta(description="Why PostgreSQL could not be asked; empty: it was asked.")] = ""


class StandingView(Struct, frozen=True):
    """An endpoint as it was at a past time."""

    endpoint: str
    instance_id: str
    status: str
    since: Epoch
    reason: str


class StandingList(Struct, frozen=True):
    """The endpoints that were listed at a past time."""

    service: str
    at: Epoch
    endpoints: list[StandingView]


_EXPLANATION = ExplanationView(
    service="shop",
    endpoint="10.0.0.5:8080",
    listed=True,
    served=True,
    status="HEALTHY",
    because=["its registrar reports HEALTHY (GET /healthz: 200)", "its lease has 17.2s left; last heard of 2.8s ago"],
    would_change=["a failing check, a drain, a deregistration, or silence for the length of its lease"],
    now=ENDPOINT_EXAMPLE,
    events=[],
)


def event_view(event: RecordedEvent) -> EventView:
    """Return the document of an event."""
    return EventView(
        id=f"{event.transaction}-{event.id}",
        at=event.at,
        service=event.service,
        endpoint=format_endpoint(event.address, event.port)
        if event.address is not None and event.port is not None
        else None,
        instance_id=event.instance_id,
        kind=event.kind,
        reason=event.reason,
        actor=event.actor,
        status=event.status,
        version=event.version,
    )


def explanation_view(explained: ExplainedEndpoint) -> ExplanationView:
    """Return the document of an explanation."""
    endpoint, explanation = explained.endpoint, explained.explanation
    return ExplanationView(
        service=explained.key[0],
        endpoint=format_endpoint(*explained.key[1:]),
        listed=endpoint is not None,
        served=explanation.served,
        status=None if endpoint is None else endpoint.status.value,
        because=explanation.because,
        would_change=explanation.would_change,
        now=None if endpoint is None else endpoint_view(endpoint, explained.lease, explained.silence),
        events=[event_view(event) for event in explained.events],
        from_memory=explained.away is not None,
        missing=explained.away.missing if explained.away else [],
        away=explained.away.reason if explained.away else "",
    )


show_examples(_EXPLANATION)
