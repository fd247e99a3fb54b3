"""The route that changes several endpoints of a service at once."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.errors import InvalidError
from registry.http.dependencies import READY, Actor, BulkPart
from registry.http.openapi import answers, body, problems, show_examples
from registry.http.parameters import ServiceName, decode
from registry.http.problems import problem_for
from registry.http.responses import json
from registry.http.views.bulk import BulkRequest, BulkResultView, BulkView
from registry.usecases.bulk import BulkChange, BulkResult
from wire.problem import Problem

router = APIRouter(tags=["registration"], dependencies=[READY])

_request = msgspec.json.Decoder(BulkRequest)


_REFUSED = Problem("Not found", 404, "10.0.0.6:8080 is not registered for shop")
show_examples(
    BulkView(
        "shop",
        [
            BulkResultView("10.0.0.5:8080", done=True, status="DRAINING", problem=None),
            BulkResultView("10.0.0.6:8080", done=False, status="", problem=_REFUSED),
        ],
    )
)


@router.post(
    "/v1/services/{service}/bulk",
    operation_id="change_endpoints",
    openapi_extra=body(
        BulkRequest,
        {
            "action": "drain",
            "endpoints": ["10.0.0.5:8080", "10.0.0.6:8080"],
            "reason": "kernel update",
            "expires_in": 3600,
        },
    ),
    responses=answers(
        BulkView,
        "A result for each endpoint, in their order.",
        None,
    )
    | problems(400, 413, 422, 503),
)
async def change_endpoints(service: ServiceName, request: Request, bulk: BulkPart, actor: Actor) -> Response:
    """Drain, undrain, weight or deregister several endpoints with one reason, each decided and done for itself.

    503 when nothing could be stored: then send all of it again. A deregistration beyond the guard's limit is refused
    for the endpoints beyond it, unless `force` is true.
    """
    wanted = decode(_request, await request.body())
    if wanted.weight is not None and wanted.action != "weight":
        raise InvalidError(f"weight is for the action weight, and the action is {wanted.action}", "$.weight")
    change = BulkChange(wanted.action, wanted.reason, wanted.weight, wanted.expires_in, wanted.force)
    results = await bulk.change(actor, service, wanted.endpoints, change)
    return json(BulkView(service, [_view(result) for result in results]))


def _view(result: BulkResult) -> BulkResultView:
    problem = None if result.error is None else problem_for(result.error)
    return BulkResultView(result.endpoint, problem is None, result.status, problem)
