"""The route of service discovery for Prometheus (http_sd)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from registry.http.dependencies import READY, ListsPart, Reader, Taken
from registry.http.lists.requests import TargetsRequest
from registry.http.openapi import NOT_MODIFIED, problems, reference
from registry.http.parameters import MAX_FILTER
from registry.http.responses import listed
from registry.http.views.targets import TargetGroup

router = APIRouter(tags=["prometheus"], dependencies=[READY])

_ANSWER: dict[str, Any] = {
    "description": "Every listed endpoint, one group each.",
    "content": {
        "application/json": {
            "schema": {"type": "array", "items": reference(TargetGroup)},
            "example": [{"targets": ["10.0.0.5:8080"], "labels": {"__meta_headcount_service": "shop"}}],
        }
    },
}


@router.head("/v1/prometheus/targets", include_in_schema=False)
@router.get(
    "/v1/prometheus/targets",
    operation_id="list_targets",
    responses={200: _ANSWER} | NOT_MODIFIED | problems(413, 422, 503),
)
async def list_targets(  # the parts of the route, and one argument a parameter
    lists: ListsPart,
    reader: Reader,
    conditions: Taken,
    service: Annotated[list[str] | None, Query(description="Only these services; repeat for several.")] = None,
    port: Annotated[
        str | None,
        Query(
            max_length=MAX_FILTER,
            description="Name of the metadata that says at which port an endpoint is scraped; an endpoint without it "
            "is left out. Without this parameter, endpoints are scraped where they serve.",
            examples=["metrics_port"],
        ),
    ] = None,
) -> Response:
    """List endpoints for Prometheus, unhealthy ones too: they are the ones to look at.

    Never an empty list while the state is unknown: Prometheus would drop every target.
    """
    asked = TargetsRequest(None if service is None else tuple(service), port)
    return listed(await lists.answer(reader, asked), conditions)
