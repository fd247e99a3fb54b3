"""Routes of the history of changes: pages, and a stream that goes on where its reader left off."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from registry.client_deadline import note_client_wait
from registry.core.endpoint import endpoint_key
from registry.core.history import EventFilter, Position, RecordedEvent
from registry.errors import InvalidError
from registry.http.dependencies import READY, HistoryPart, Reader, principal_of
from registry.http.openapi import answers, problems
from registry.http.parameters import Cursor, PageSize, printable_filter
from registry.http.responses import json
from registry.http.views.history import EventList, event_view
from registry.usecases.history import EventStream

router = APIRouter(tags=["history"], dependencies=[READY])

_EXAMPLE = {
    "events": [
        {
            "id": "742-19",
            "at": 1_763_600_000.0,
            "service": "shop",
            "endpoint": "10.0.0.5:8080",
            "instance_id": "i-0abc",
            "kind": "health",
            "reason": "HEALTHY to UNHEALTHY: GET /healthz: connection refused",
            "actor": "10.0.0.5",
            "status": "UNHEALTHY",
            "version": 8,
        }
    ],
    "next": "742-19",
}
_ANSWERS = answers(EventList, "A page, the newest first; or a stream, the oldest first.", _EXAMPLE)
_ANSWERS[200]["content"]["text/event-stream"] = {
    "schema": {"type": "string"},
    "example": 'id: 742-19\nevent: health\ndata: {"id":"742-19"}\n\n',
}


@router.get(
    "/v1/events",
    operation_id="list_events",
    responses=_ANSWERS | problems(413, 422, 429, 503),
)
async def list_events(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    request: Request,
    history: HistoryPart,
    reader: Reader,
    service: Annotated[str | None, Query(max_length=255)] = None,
    endpoint: Annotated[
        str | None, Query(max_length=64, description="ip:port, of any service or of the one named.")
    ] = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    actor: Annotated[
        str | None, Query(max_length=255, description="The principal that asked, or a part of its name.")
    ] = None,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="Seconds since 1970.")] = None,
    until: Annotated[float | None, Query(ge=0, le=1e11, description="Seconds since 1970; not for a stream.")] = None,
    limit: PageSize = 100,
    cursor: Cursor = None,
    last_event_id: Annotated[str | None, Header(max_length=64, description="Where a stream goes on.")] = None,
) -> Response:
    """Return what happened, why and by whom. With `Accept: text/event-stream` it follows what happens next."""
    wanted = EventFilter(
        service=printable_filter("service", service),
        kind=printable_filter("kind", kind),
        actor=printable_filter("actor", actor),
        since=since,
        until=until,
        limit=limit,
    )
    if endpoint is not None:
        wanted = replace(wanted, address_port=endpoint_key(service or "", endpoint, "query:endpoint")[1:])
    if "text/event-stream" in request.headers.get("accept", ""):
        after = _position(last_event_id) if last_event_id else None
        wanted = replace(wanted, until=None)
        # A stream goes on for longer than a client waits for its beginning.
        note_client_wait(None)
        return _StreamResponse(await history.follow(reader, partial(principal_of, request), wanted, after))
    wanted = replace(wanted, after=_position(cursor) if cursor else None)
    page = [event_view(event) for event in await history.events(reader, wanted)]
    return json(EventList(page, page[-1].id if len(page) == limit else None))


class _StreamResponse(StreamingResponse):
    """A stream of events that gives its place back when it ends, however it ends."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__(_encoded(stream), media_type="text/event-stream")
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


async def _encoded(stream: EventStream) -> AsyncIterator[bytes]:
    yield b": following\n\n"
    async for events in stream.batches():
        for event in events:
            yield _encode(event)
        if not events:
            yield b": nothing new\n\n"


def _encode(event: RecordedEvent) -> bytes:
    data = msgspec.json.encode(event_view(event))
    return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (*event.position, event.kind.encode(), data)


def _position(text: str) -> Position:
    transaction, dash, number = text.partition("-")
    parts = (transaction, number)
    if not dash or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in parts):
        raise InvalidError("no place in the history; use the id of an event", "query:cursor")
    return int(transaction), int(number)
