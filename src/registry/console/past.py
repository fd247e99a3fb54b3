"""The page of a service at a past time: what was listed, and what had happened just before."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.console.page import Framed, Missing, ask
from registry.console.times import moment_of
from registry.core.history import EventFilter
from registry.core.silence import STATUSES_FOR_PEOPLE
from registry.errors import InvalidError
from registry.http.dependencies import READY, HistoryPart, Reader
from registry.http.parameters import ServiceName
from registry.http.views.history import event_view

router = APIRouter(dependencies=[READY])

_MAX_EVENTS = 30
"""Events before the time that the page shows."""
_MAX_ROWS = 500
"""Endpoints that the page shows, those in trouble first."""
_STEPS = (
    (-3600, "1 h earlier"),
    (-300, "5 min earlier"),
    (-60, "1 min earlier"),
    (60, "1 min later"),
    (300, "5 min later"),
)
_WORST_FIRST = ("SILENT", "TIMEOUT", "UNHEALTHY", "DEGRADED", "DRAINING", "HEALTHY")


@router.get("/services/{service}/past")
async def show_past(
    service: ServiceName,
    history: HistoryPart,
    reader: Reader,
    frame: Framed,
    at: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Show the endpoints of a service as they were at a past time, and the events up to it."""
    try:
        moment = min(moment_of(at), frame.now) if at else frame.now
    except ValueError:
        raise InvalidError(f"{at!r} is no time in UTC like 2026-11-29T02:31:04", "query:at") from None
    listed = await ask(history.latest_events_at(reader, service, moment))
    events = await ask(history.events(reader, EventFilter(service=service, until=moment, limit=_MAX_EVENTS)))
    rows = [] if isinstance(listed, Missing) else [event_view(event) for event in listed]
    rows.sort(key=lambda row: (_WORST_FIRST.index(row.status) if row.status in _WORST_FIRST else 0, row.endpoint or ""))
    return frame.page(
        "past.html",
        service=service,
        moment=moment,
        away=listed if isinstance(listed, Missing) else events if isinstance(events, Missing) else None,
        rows=rows[:_MAX_ROWS],
        total=len(rows),
        counts=Counter(row.status for row in rows),
        order=STATUSES_FOR_PEOPLE,
        events=[] if isinstance(events, Missing) else [event_view(event) for event in events],
        steps=[(moment + seconds, words) for seconds, words in _STEPS if moment + seconds < frame.now],
    )
