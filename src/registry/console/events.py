"""The page of events: what happened, why and by whom, as it happens."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.console.page import Framed, ask
from registry.core.history import EventFilter
from registry.http.parameters import ReadyReplica, printable_filter
from registry.http.views import EventView, event_view
from registry.process import RegistryProcess
from registry.store.history import find_events

router = APIRouter()

_SHOWN = 100


@router.get("/events")
async def show_events(
    process: ReadyReplica,
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
        limit=_SHOWN,
    )
    events = await ask(_recorded(process, wanted))
    known = sorted(process.cache.services())
    return frame.page(
        "events.html", events=events, service=service, kind=kind, actor=actor, services=known[:1000], most=_SHOWN
    )


async def _recorded(process: RegistryProcess, wanted: EventFilter) -> list[EventView]:
    async with process.history_turns:
        return [event_view(one) for one in await find_events(process.database, wanted)]
