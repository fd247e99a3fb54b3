"""Routes of the strength of services: expected numbers, and acknowledged losses."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.core.endpoint import endpoint_key
from registry.http.dependencies import READY, Actor, StrengthPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import EndpointName, Reason, ServiceName, decode
from registry.http.responses import json
from registry.http.views.services import AcknowledgedView, ExpectedRequest, ServiceDetailView, service_detail_view

router = APIRouter(tags=["catalog"], dependencies=[READY])

_expected = msgspec.json.Decoder(ExpectedRequest)
_LOST = "/v1/services/{service}/lost"


@router.put(
    "/v1/services/{service}/expected",
    operation_id="set_expected",
    openapi_extra=body(ExpectedRequest, {"expected": 5, "reason": "five for the sale"}),
    responses=answers(ServiceDetailView, "Stored.", None) | problems(400, 404, 413, 422, 503),
)
async def set_expected(service: ServiceName, request: Request, strength: StrengthPart, actor: Actor) -> Response:
    """Set how many endpoints a service should have. Null takes it back: the registrations' number counts again.

    Without either, those count that are listed and not on their way out, with those that were lost in the last day and
    not replaced.
    """
    wanted = decode(_expected, await request.body())
    snapshot = await strength.expect(actor, service, wanted.expected, wanted.reason)
    return json(service_detail_view(snapshot, strength.of(snapshot)))


@router.post(
    _LOST + "/acknowledge",
    operation_id="acknowledge_all_lost",
    responses=answers(AcknowledgedView, "They are missed no more.", {"service": "shop", "endpoints": ["10.0.0.5:8080"]})
    | problems(404, 413, 422, 503),
)
async def acknowledge_all_lost(
    service: ServiceName, strength: StrengthPart, actor: Actor, reason: Reason = ""
) -> Response:
    """Acknowledge the loss of all lost endpoints of a service: they are no longer listed as lost, nor expected."""
    acknowledged = await strength.acknowledge(actor, service, None, reason)
    return json(AcknowledgedView(service, [endpoint.name for endpoint in acknowledged]))


@router.post(
    _LOST + "/{endpoint}/acknowledge",
    operation_id="acknowledge_lost",
    responses=answers(AcknowledgedView, "It is missed no more.", {"service": "shop", "endpoints": ["10.0.0.5:8080"]})
    | problems(404, 413, 422, 503),
)
async def acknowledge_lost(
    service: ServiceName, endpoint: EndpointName, strength: StrengthPart, actor: Actor, reason: Reason = ""
) -> Response:
    """Acknowledge the loss of one endpoint: it is no longer listed as lost, nor expected."""
    acknowledged = await strength.acknowledge(actor, service, endpoint_key(service, endpoint), reason)
    return json(AcknowledgedView(service, [lost.name for lost in acknowledged]))
