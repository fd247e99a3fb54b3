"""Routes for the two questions of an incident: why is it not served, and what was there at that time."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.core.endpoint import endpoint_key
from registry.core.history import RecordedEvent
from registry.http.dependencies import READY, ExplanationsPart, HistoryPart, Reader
from registry.http.openapi import answers, problems
from registry.http.parameters import EndpointName, ServiceName
from registry.http.responses import json
from registry.http.views.history import ExplanationView, StandingList, StandingView, explanation_view
from wire.address import format_endpoint

router = APIRouter(tags=["history"], dependencies=[READY])


@router.get(
    "/v1/services/{service}/endpoints/{endpoint}/explain",
    operation_id="explain_endpoint",
    responses=answers(ExplanationView, "Why, in words, with what happened.", None) | problems(404, 413, 422, 503),
)
async def explain_endpoint(
    service: ServiceName, endpoint: EndpointName, explanations: ExplanationsPart, reader: Reader
) -> Response:
    """Say why an endpoint is, or is not, getting traffic, what happened to it, and what would change it.

    While PostgreSQL is away it answers from memory, and says what is missing.
    """
    return json(explanation_view(await explanations.explain(reader, endpoint_key(service, endpoint))))


@router.get(
    "/v1/services/{service}/history",
    operation_id="list_past_endpoints",
    responses=answers(
        StandingList,
        "The endpoints that were listed then.",
        {
            "service": "shop",
            "at": 1_763_600_000.0,
            "endpoints": [
                {
                    "endpoint": "10.0.0.5:8080",
                    "instance_id": "i-0abc",
                    "status": "HEALTHY",
                    "since": 1_763_599_000.0,
                    "reason": "first registration as HEALTHY",
                }
            ],
        },
    )
    | problems(404, 413, 422, 503),
)
async def list_past_endpoints(
    service: ServiceName,
    history: HistoryPart,
    reader: Reader,
    at: Annotated[float, Query(ge=0, le=1e11, description="Seconds since 1970, as far back as history is kept.")],
) -> Response:
    """Return the endpoints of a service as they were at a past time."""
    standing = await history.latest_events_at(reader, service, at)
    return json(StandingList(service, at, [_standing_view(event) for event in standing]))


def _standing_view(event: RecordedEvent) -> StandingView:
    endpoint = format_endpoint(event.address or "", event.port or 0)
    return StandingView(endpoint, event.instance_id, event.status, event.at, event.reason)
