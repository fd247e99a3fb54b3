"""Why leases do not lapse: the guard's suspects, and operators who pause expiry and let it go on."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from registry.auth.principal import Asking
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.http.parameters import ReadyReplica, decode
from registry.http.views import (
    ExpiryView,
    PauseRequest,
    PauseView,
    SuspectView,
    answers,
    body,
    json,
    problems,
)
from registry.process import RegistryProcess
from registry.store import pauses

router = APIRouter(tags=["expiry"])

_pause = msgspec.json.Decoder(PauseRequest)

Scope = Annotated[str | None, Query(max_length=255, description="Of this service; without it, of all.")]

_PAUSE = {"service": "shop", "actor": "ann from 10.0.0.9", "reason": "network work", "since": 1.0, "until": 601.0}
_SUSPECT = {
    "service": "shop",
    "endpoint": "10.0.0.5:8080",
    "since": 1_763_600_000.0,
    "until": 1_763_600_900.0,
    "reason": "2 of 10 of the service lapsed within 60 s",
}


@router.get(
    "/v1/expiry",
    operation_id="get_expiry",
    responses=answers(ExpiryView, "What holds leases back.", {"pauses": [_PAUSE], "suspects": [_SUSPECT]})
    | problems(413, 503),
)
async def get_expiry(process: ReadyReplica) -> Response:
    """Return the pauses in force, and the endpoints that are served although their lease expired."""
    return json(ExpiryView(await pauses_of(process), suspects_of(process)))


@router.put(
    "/v1/expiry/pause",
    operation_id="pause_expiry",
    openapi_extra=body(PauseRequest, {"service": "shop", "reason": "network work", "expires_in": 600}),
    responses=answers(PauseView, "From now on no lease lapses there.", _PAUSE) | problems(400, 413, 422, 503),
)
async def pause_expiry(request: Request, process: ReadyReplica, asking: Asking) -> Response:
    """Let no lease lapse for a while, in one service or everywhere. Drains and deregistrations go on."""
    wanted = decode(_pause, await request.body())
    scope = wanted.service or EVERYWHERE
    made = await pauses.pause(
        process.database, scope, actor=asking.name, reason=wanted.reason, seconds=wanted.expires_in
    )
    return json(_view(made))


@router.delete(
    "/v1/expiry/pause",
    operation_id="resume_expiry",
    status_code=204,
    responses=problems(404, 413, 422, 503),
)
async def resume_expiry(process: ReadyReplica, asking: Asking, service: Scope = None) -> Response:
    """Take a pause back; what expired meanwhile lapses by the rules of the guard."""
    await pauses.resume(process.database, service or EVERYWHERE, actor=asking.name)
    return Response(status_code=204)


async def pauses_of(process: RegistryProcess) -> list[PauseView]:
    """Return the pauses in force.

    Raises:
        UnavailableError: PostgreSQL, which keeps them, is away.
    """
    async with process.history_turns, process.database.session() as connection:
        in_force = await pauses.in_force(connection)
    return [_view(pause) for pause in in_force.values()]


def _view(pause: Pause) -> PauseView:
    service = None if pause.scope == EVERYWHERE else pause.scope
    return PauseView(service, pause.actor, pause.reason, pause.since, pause.until)


def suspects_of(process: RegistryProcess) -> list[SuspectView]:
    """Return the endpoints that are served although their lease expired."""
    hold = process.settings.last_endpoint_hold
    return [
        SuspectView(one.service, one.name, one.suspect_since, one.suspect_since + hold, one.suspect_reason)
        for snapshot in process.cache.services().values()
        if snapshot.suspects
        for one in snapshot.ordered()
        if one.suspect_since is not None
    ]
