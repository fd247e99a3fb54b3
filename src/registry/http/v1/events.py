"""The history of changes: pages from PostgreSQL, and a stream that goes on where a reader left off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from registry.core.history import EventFilter, RecordedEvent
from registry.errors import InvalidError, UnavailableError
from registry.http.parameters import Cursor, PageSize, ReadyReplica, endpoint_key, printable_filter
from registry.http.views import EventList, answers, event_view, json, problems
from registry.process import MAX_STREAMS, RegistryProcess
from registry.store.history import find_events, newest_position

router = APIRouter(tags=["history"])

_LOOK_EVERY = 0.25
_KEEP_ALIVE = 15.0
_BATCH = 500

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
    responses=_ANSWERS | problems(413, 422, 503),
)
async def list_events(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    request: Request,
    process: ReadyReplica,
    service: Annotated[str | None, Query(max_length=255)] = None,
    endpoint: Annotated[
        str | None, Query(max_length=64, description="ip:port, of any service or of the one named.")
    ] = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    actor: Annotated[str | None, Query(max_length=255, description="Who asked, or a part of the name.")] = None,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="Seconds since 1970.")] = None,
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
        limit=limit,
    )
    if endpoint is not None:
        wanted = replace(wanted, address_port=endpoint_key(service or "", endpoint, "query:endpoint")[1:])
    if "text/event-stream" in request.headers.get("accept", ""):
        return await _follow(process, wanted, last_event_id)
    wanted = replace(wanted, after=_position(cursor) if cursor else None)
    async with process.history_turns:
        found = await find_events(process.database, wanted)
    page = [event_view(one) for one in found]
    return json(EventList(page, page[-1].id if len(page) == limit else None))


class _EventStream(StreamingResponse):
    """A stream that holds one of the process's places for readers until it ends, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], places: asyncio.Semaphore) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


async def _follow(process: RegistryProcess, wanted: EventFilter, last_event_id: str | None) -> Response:
    """Begin a stream.

    Its place is taken before the answer begins: a reader for whom there is none is refused, rather than held.

    Raises:
        UnavailableError: there is no place, or PostgreSQL is away.
    """
    if process.streams.locked():
        raise UnavailableError(
            f"too many event streams are open on this process (limit {MAX_STREAMS}); retry later", 10
        )
    await process.streams.acquire()
    try:
        async with process.history_turns:
            after = _position(last_event_id) if last_event_id else await newest_position(process.database)
    except BaseException:
        process.streams.release()
        raise
    following = replace(wanted, newest_first=False, settled=True, after=after, limit=_BATCH)
    return _EventStream(_stream(process, following), process.streams)


async def _stream(process: RegistryProcess, wanted: EventFilter) -> AsyncIterator[bytes]:
    quiet = 0.0
    yield b": following\n\n"
    while not process.cache.closing:
        found = await _news(process, wanted)
        for one in found:
            yield _event(one)
        if found:
            wanted, quiet = replace(wanted, after=(found[-1].transaction, found[-1].id)), 0.0
            continue
        await asyncio.sleep(_LOOK_EVERY)
        quiet += _LOOK_EVERY
        if quiet >= _KEEP_ALIVE:
            quiet = 0.0
            yield b": nothing new\n\n"


async def _news(process: RegistryProcess, wanted: EventFilter) -> Sequence[RecordedEvent]:
    try:
        async with process.history_turns:
            return await find_events(process.database, wanted)
    except UnavailableError:
        # The reader keeps its place; what happens meanwhile is in the history when PostgreSQL is back.
        return []


def _event(one: RecordedEvent) -> bytes:
    data = msgspec.json.encode(event_view(one))
    return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (one.transaction, one.id, one.kind.encode(), data)


def _position(text: str) -> tuple[int, int]:
    transaction, dash, number = text.partition("-")
    parts = (transaction, number)
    if not dash or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in parts):
        raise InvalidError("no place in the history; use the id of an event", "query:cursor")
    return int(transaction), int(number)
