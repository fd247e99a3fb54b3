"""Routes of shifts of traffic: begin one, look at it, pause, resume, abort and promote it."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.core.shift import Shift
from registry.http.dependencies import READY, Actor, Reader, ShiftsPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import ServiceName, decode
from registry.http.responses import json
from registry.http.views.shifts import ShiftList, ShiftOrder, ShiftRequest, ShiftView, shift_view
from registry.usecases.shifts import Order, TrafficShifts

router = APIRouter(tags=["catalog"], dependencies=[READY])

_request = msgspec.json.Decoder(ShiftRequest)
_order = msgspec.json.Decoder(ShiftOrder)
_PATH = "/v1/services/{service}/shift"
_ORDER = body(ShiftOrder, {"reason": "errors at the shop's database"})
_REFUSED = problems(400, 404, 409, 413, 422, 503)


@router.get("/v1/shifts", operation_id="list_shifts", responses=answers(ShiftList, "The shifts.", None) | problems(503))
async def list_shifts(shifts: ShiftsPart, reader: Reader) -> Response:
    """Return the last shift of each service that had any, without its curve."""
    return json(ShiftList([_view(shifts, shift, curve=False) for shift in await shifts.list_all(reader)]))


@router.get(_PATH, operation_id="get_shift", responses=answers(ShiftView, "It.", None) | problems(404, 422, 503))
async def get_shift(service: ServiceName, shifts: ShiftsPart, reader: Reader) -> Response:
    """Return the shift of a service, under way or the last one, with the curve of both groups."""
    return json(_view(shifts, await shifts.get(reader, service)))


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
    return json(_view(shifts, await shifts.start(actor, service, wanted.plan(actor.name))))


def _view(shifts: TrafficShifts, shift: Shift, *, curve: bool = True) -> ShiftView:
    return shift_view(shift, shifts.in_force(shift.service), curve=curve)


def _add_order(order: Order, answer: str, words: str) -> None:
    """Add the route of an order; all four take a reason and return the shift as it is then."""

    async def give(service: ServiceName, request: Request, shifts: ShiftsPart, actor: Actor) -> Response:
        reason = decode(_order, await request.body() or b"{}").reason
        return json(_view(shifts, await shifts.order(actor, service, order, reason)))

    router.add_api_route(
        f"{_PATH}/{order}",
        give,
        methods=["POST"],
        name=f"{order}_shift",
        description=words,
        operation_id=f"{order}_shift",
        openapi_extra=_ORDER,
        responses=answers(ShiftView, answer, None) | _REFUSED,
    )


_add_order(
    "pause",
    "It goes no further.",
    "Let a running shift neither advance nor be aborted by its rule; the shares stay as they are.",
)
_add_order(
    "resume", "It goes on.", "Let a paused shift go on, with its step from the beginning and its shares in force again."
)
_add_order(
    "abort",
    "Its group has a share of 0.",
    "Take the group of a shift back: all requests go to the others from the next answer to each Envoy.",
)
_add_order("promote", "Its group has all requests.", "Give the group of a shift all requests now, and end the shift.")
