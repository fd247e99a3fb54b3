"""Routes of expiry: the causes that keep leases from lapsing, and pauses by operators."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from registry.http.dependencies import READY, Actor, ExpiryPart, Reader
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode
from registry.http.responses import json
from registry.http.views.expiry import ExpiryView, PauseRequest, PauseView, pause_view, suspect_view

router = APIRouter(tags=["expiry"], dependencies=[READY])

_pause = msgspec.json.Decoder(PauseRequest)

Scope = Annotated[str | None, Query(max_length=255, description="Of this service; without it, of all.")]

_PAUSE = {"service": "shop", "actor": "ann from 10.0.0.9", "reason": "network work", "since": 1.0, "until": 601.0}
_SUSPECT = {
    "service": "shop",
    "endpoint": "10.0.0.5:8080",
    "since": 1_763_600_000.0,
    "until": 1_763_600_900.0,
    "reason": "2 of 10 of the service lapsed within 60 s, limit 20 %",
    "last_heard": 1_763_599_979.0,
    "last_reported": "HEALTHY",
}


@router.get(
    "/v1/expiry",
    operation_id="get_expiry",
    responses=answers(ExpiryView, "The pauses and the suspects.", {"pauses": [_PAUSE], "suspects": [_SUSPECT]})
    | problems(413, 503),
)
async def get_expiry(expiry: ExpiryPart, reader: Reader) -> Response:
    """Return the pauses in force, and the endpoints that are served although their lease expired."""
    pauses = [pause_view(pause) for pause in await expiry.pauses(reader)]
    suspects = [suspect_view(suspect) for suspect in expiry.suspects(reader)]
    return json(ExpiryView(pauses, suspects))


@router.put(
    "/v1/expiry/pause",
    operation_id="pause_expiry",
    openapi_extra=body(PauseRequest, {"service": "shop", "reason": "network work", "expires_in": 600}),
    responses=answers(PauseView, "From now on no lease lapses there.", _PAUSE) | problems(400, 413, 422, 503),
)
async def pause_expiry(request: Request, expiry: ExpiryPart, actor: Actor) -> Response:
    """Let no lease lapse for a while, in one service or everywhere. Drains and deregistrations go on."""
    wanted = decode(_pause, await request.body())
    pause = await expiry.pause(actor, wanted.service, reason=wanted.reason, seconds=wanted.expires_in)
    return json(pause_view(pause))


@router.delete(
    "/v1/expiry/pause",
    operation_id="resume_expiry",
    status_code=204,
    responses=problems(404, 413, 422, 503),
)
async def resume_expiry(expiry: ExpiryPart, actor: Actor, service: Scope = None) -> Response:
    """Take a pause back; what expired meanwhile lapses by the rules of the guard."""
    await expiry.resume(actor, service)
    return Response(status_code=204)
