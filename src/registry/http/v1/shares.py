"""Routes of shares of traffic within a service."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.http.dependencies import READY, Actor, CatalogPart, Reader, SharesPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import Reason, ServiceName, decode
from registry.http.responses import json
from registry.http.views.shares import SharesRequest, SharesView, shares_view

router = APIRouter(tags=["catalog"], dependencies=[READY])

_request = msgspec.json.Decoder(SharesRequest)
_PATH = "/v1/services/{service}/shares"


@router.get(
    _PATH,
    operation_id="get_shares",
    responses=answers(SharesView, "The shares.", None) | problems(404, 422, 503),
)
async def get_shares(service: ServiceName, catalog: CatalogPart, shares: SharesPart, reader: Reader) -> Response:
    """Return the shares of traffic of a service's groups, and what each group gets."""
    snapshot = catalog.service(reader, service)
    return json(shares_view(snapshot, await shares.warnings(snapshot)))


@router.put(
    _PATH,
    operation_id="set_shares",
    openapi_extra=body(
        SharesRequest, {"shares": [{"selector": "revision=1.9.0", "percent": 10}], "reason": "try 1.9.0"}
    ),
    responses=answers(SharesView, "Stored.", None) | problems(400, 404, 409, 413, 422, 503),
)
async def set_shares(service: ServiceName, request: Request, shares: SharesPart, actor: Actor) -> Response:
    """Set the shares of traffic of a service's groups, in place of those that it has.

    Weights are computed from what is routable whenever the service changes, so a group keeps its share when it scales.
    All of them change with one version, which every Envoy follows that polls the service. While a shift is under way it
    sets them, and this is 409.
    """
    wanted = decode(_request, await request.body())
    return json(shares_view(*await shares.set(actor, service, wanted.groups, wanted.reason)))


@router.delete(
    _PATH,
    operation_id="clear_shares",
    responses=answers(SharesView, "Taken back.", {"service": "shop", "version": 9, "groups": []})
    | problems(404, 409, 413, 422, 503),
)
async def clear_shares(service: ServiceName, shares: SharesPart, actor: Actor, reason: Reason = "") -> Response:
    """Take the shares of a service back: each endpoint has its own weight again."""
    return json(shares_view(*await shares.clear(actor, service, reason)))
