"""Routes of errands: operators ask, registrars take and answer."""

import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from registry.core.errands import COLLECT_TIMEOUT, StoredErrand
from registry.errors import InvalidError
from registry.http.dependencies import READY, Actor, ErrandsPart, Reader
from registry.http.disconnection import unless_disconnected
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode
from registry.http.requests import HELD
from registry.http.responses import json
from registry.http.views.errands import (
    ErrandAnswered,
    ErrandRequest,
    ErrandsAsked,
    ErrandView,
    errand_view,
    question_view,
)
from registry.usecases.errands import handed_out
from wire.errand import MAX_ENDPOINTS, MAX_HOLD, ErrandResult, NextErrand

_RETRY_AFTER = COLLECT_TIMEOUT * 2 / 3
"""Seconds after which a registrar whose request is not held asks again: early enough for an errand asked meanwhile."""

router = APIRouter(tags=["errands"], dependencies=[READY])

_request = msgspec.json.Decoder(ErrandRequest)
_EXAMPLE = {
    "service": "shop",
    "arguments": {"verb": "tap", "seconds": 30, "status": "5xx", "caller": "checkout"},
    "reason": "payments answers 503",
}
_RESULT = {"outcome": "done", "log_level": {"loggers": {"http": "debug"}, "before": {"http": "info"}, "seconds": 600}}
_Instance = Annotated[str, Query(min_length=1, max_length=255, description="The registrar's instance.")]
_Wait = Annotated[float, Query(ge=0, le=MAX_HOLD, description="Seconds to wait for the answer.")]


@router.post(
    "/v1/errands",
    status_code=201,
    operation_id="ask_errand",
    openapi_extra=body(ErrandRequest, _EXAMPLE),
    responses=answers(ErrandsAsked, "Asked: an errand for each registrar.", None, 201)
    | problems(400, 404, 413, 422, 429, 503),
)
async def ask_errand(request: Request, errands: ErrandsPart, actor: Actor) -> Response:
    """Ask the Envoys of a service, or one Envoy, by way of the registrars beside them.

    `clusters` and `config` need a grant of `inspect` for the service; `log-level`, `tap` and `top` one of `debug`, also
    for the caller that they name. Each errand is an event of the history, with who asked and why. A registrar gets at
    most one at a time and six in a minute, and takes only what its REGISTRAR_ERRANDS allows.
    """
    wanted = decode(_request, await request.body())
    question = await errands.ask(
        actor,
        wanted.arguments,
        service=wanted.service,
        endpoint=wanted.endpoint,
        reason=wanted.reason,
        everything=wanted.all,
        confirm=wanted.confirm,
    )
    return json(question_view(question), 201)


@router.get(
    "/v1/errands/next",
    operation_id="next_errand",
    responses=answers(NextErrand, "An errand, or none until now.", {"retry_after": 0.0}) | problems(404, 409, 422, 503),
)
async def next_errand(
    request: Request,
    errands: ErrandsPart,
    reader: Reader,
    instance: _Instance,
    endpoint: Annotated[
        list[str],
        Query(min_length=1, max_length=MAX_ENDPOINTS, description="Its endpoints, each as service/ip:port."),
    ],
    wait: Annotated[float, Query(ge=1, le=MAX_HOLD, description="Seconds to wait for one.")] = MAX_HOLD,
) -> Response:
    """Return the next errand of a registrar, when there is one or after some seconds.

    A registrar that asks again without having answered the errand before has lost it. Beyond 2,000 requests that a
    process holds, it is answered at once, with `retry_after`.
    """
    started = time.monotonic()
    hold = await errands.hold(reader, instance, endpoint)
    request.scope[HELD] = True
    if hold is None or isinstance(hold, StoredErrand):
        return json(handed_out(hold, _RETRY_AFTER))
    try:
        await request.body()
        left = max(0.0, wait - (time.monotonic() - started))
        errand = await unless_disconnected(hold.wait(left), request.receive)
    finally:
        errands.let_go(hold)
    return json(handed_out(errand))


@router.get(
    "/v1/errands/{errand}",
    operation_id="get_errand",
    responses=answers(ErrandView, "The errand, with its result if there is one.", None) | problems(404, 422, 503),
)
async def get_errand(
    request: Request, errand: str, errands: ErrandsPart, reader: Reader, wait: _Wait = 0.0
) -> Response:
    """Return an errand and its result, when it is over or after some seconds; they are kept for 10 minutes."""
    request.scope[HELD] = wait > 0
    await request.body()
    view = await unless_disconnected(errands.find(reader, errand, wait), request.receive)
    # An asker that has disconnected reads no response.
    return Response() if view is None else json(errand_view(view))


@router.post(
    "/v1/errands/{errand}/result",
    operation_id="answer_errand",
    openapi_extra=body(ErrandResult, _RESULT),
    responses=answers(ErrandAnswered, "Taken, unless it had a result already.", {"taken": True})
    | problems(400, 404, 409, 413, 422, 503),
)
async def answer_errand(  # one argument a parameter
    request: Request,
    errand: str,
    errands: ErrandsPart,
    actor: Actor,
    instance: _Instance,
    endpoint: Annotated[str, Query(max_length=512, description="The endpoint that the errand named: service/ip:port.")],
) -> Response:
    """Answer an errand that a registrar was given: at most 256 kB."""
    content = await request.body()
    if not content:
        raise InvalidError("the body is empty; send the result", "$")
    return json(ErrandAnswered(await errands.answer(actor, errand, instance, endpoint, content)))
