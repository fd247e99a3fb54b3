"""Routes of shifts of traffic: begin one, look at it, pause, resume, abort and promote it."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.http.dependencies import READY, Actor, Reader, ShiftsPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import ServiceName, decode
from registry.http.responses import json
from registry.http.views.shifts import ShiftList, ShiftOrder, ShiftRequest, ShiftView, shift_view

router = APIRouter(tags=["catalog"], dependencies=[READY])

_request = msgspec.json.Decoder(ShiftRequest)
_order = msgspec.json.Decoder(ShiftOrder)
_PATH = "/v1/services/{service}/shift"
_ORDER = body(ShiftOrder, {"reason": "errors at the shop's database"})
_REFUSED = problems(400, 404, 409, 413, 422, 503)


@router.get("/v1/shifts", operation_id="list_shifts", responses=answers(ShiftList, "The shifts.", None) | problems(503))
async def list_shifts(shifts: ShiftsPart, reader: Reader) -> Response:
    """Return the last shift of each service that had any, without its curve."""
    return json(ShiftList([shift_view(shift, curve=False) for shift in await shifts.list_all(reader)]))


@router.get(_PATH, operation_id="get_shift", responses=answers(ShiftView, "It.", None) | problems(404, 422, 503))
async def get_shift(service: ServiceName, shifts: ShiftsPart, reader: Reader) -> Response:
    """Return the shift of a service, under way or the last one, with the curve of both groups."""
    return json(shift_view(await shifts.get(reader, service)))


@router.post(
    _PATH,
    operation_id="start_shift",
    openapi_extra=body(ShiftRequest, {"to": "revision=1.9.0", "steps": [5, 25, 50, 100], "reason": "release 1.9.0"}),
    responses=answers(ShiftView, "It has begun with its first step.", None) | _REFUSED,
)
async def start_shift(service: ServiceName, request: Request, shifts: ShiftsPart, actor: Actor) -> Response:
    """Give a group of a service's endpoints more and more of its requests, and take them back if it fails.

    The registry advances it, and judges the group by what Envoys report of its endpoints. While too little is known it
    holds. An aborted group has a share of 0; a done one keeps the share of the last step.
    """
    wanted = decode(_request, await request.body())
    return json(shift_view(await shifts.start(actor, service, wanted.plan(actor.name))))


@router.post(
    f"{_PATH}/pause",
    operation_id="pause_shift",
    openapi_extra=_ORDER,
    responses=answers(ShiftView, "It goes no further.", None) | _REFUSED,
)
async def pause_shift(service: ServiceName, request: Request, shifts: ShiftsPart, actor: Actor) -> Response:
    """Let a running shift neither advance nor be aborted by its rule; the shares stay as they are."""
    return json(shift_view(await shifts.pause(actor, service, await _reason(request))))


@router.post(
    f"{_PATH}/resume",
    operation_id="resume_shift",
    openapi_extra=_ORDER,
    responses=answers(ShiftView, "It goes on.", None) | _REFUSED,
)
async def resume_shift(service: ServiceName, request: Request, shifts: ShiftsPart, actor: Actor) -> Response:
    """Let a paused shift go on, with its step from the beginning and its shares in force again."""
    return json(shift_view(await shifts.resume(actor, service, await _reason(request))))


@router.post(
    f"{_PATH}/abort",
    operation_id="abort_shift",
    openapi_extra=_ORDER,
    responses=answers(ShiftView, "Its group has a share of 0.", None) | _REFUSED,
)
async def abort_shift(service: ServiceName, request: Request, shifts: ShiftsPart, actor: Actor) -> Response:
    """Take the group of a shift back: all requests go to the others from the next answer to each Envoy."""
    return json(shift_view(await shifts.abort(actor, service, await _reason(request))))


@router.post(
    f"{_PATH}/promote",
    operation_id="promote_shift",
    openapi_extra=_ORDER,
    responses=answers(ShiftView, "Its group has all requests.", None) | _REFUSED,
)
async def promote_shift(service: ServiceName, request: Request, shifts: ShiftsPart, actor: Actor) -> Response:
    """Give the group of a shift all requests now, and end the shift."""
    return json(shift_view(await shifts.promote(actor, service, await _reason(request))))


async def _reason(request: Request) -> str:
    return decode(_order, await request.body() or b"{}").reason
