"""The page of events: what happened, why and by whom, as it happens."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.console.page import Framed, Missing, ask
from registry.core.history import EventFilter
from registry.http.dependencies import READY, CatalogPart, HistoryPart, Reader
from registry.http.parameters import printable_filter
from registry.http.views.history import event_view

router = APIRouter(dependencies=[READY])

_MAX_EVENTS = 100
"""Events that the page shows when it is opened."""
_MAX_SERVICES = 1000
"""Services whose names the filter suggests."""


@router.get("/events")
async def show_events(
    history: HistoryPart,
    catalog: CatalogPart,
    reader: Reader,
    frame: Framed,
    service: Annotated[str, Query(max_length=255)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
    actor: Annotated[str, Query(max_length=255)] = "",
) -> Response:
    """Show the newest events that the filters let through; the page follows them by /v1/events."""
    wanted = EventFilter(
        service=printable_filter("service", service) or None,
        kind=printable_filter("kind", kind) or None,
        actor=printable_filter("actor", actor) or None,
        limit=_MAX_EVENTS,
    )
    events = await ask(history.events(reader, wanted))
    return frame.page(
        "events.html",
        events=events if isinstance(events, Missing) else [event_view(event) for event in events],
        service=service,
        kind=kind,
        actor=actor,
        services=catalog.names(reader)[:_MAX_SERVICES],
        most=_MAX_EVENTS,
    )
