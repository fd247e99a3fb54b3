"""Service discovery for Prometheus (http_sd)."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from registry.api.documents import TargetGroup, problems
from registry.api.parameters import ReadyReplica
from registry.endpoint import Endpoint

router = APIRouter(tags=["prometheus"])

_ANSWER: dict[str, Any] = {
    "description": "Every listed endpoint, one group each.",
    "content": {
        "application/json": {
            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/TargetGroup"}},
            "example": [{"targets": ["10.0.0.5:8080"], "labels": {"__meta_headcount_service": "shop"}}],
        }
    },
}


@router.get(
    "/v1/prometheus/targets",
    operation_id="list_targets",
    responses={200: _ANSWER, **problems(413, 422, 503)},
)
async def list_targets(
    replica: ReadyReplica,
    service: Annotated[list[str] | None, Query(description="Only these services.")] = None,
) -> Response:
    """List endpoints for Prometheus, unhealthy ones too: they are what one wants to look at.

    Never an empty list while the state is unknown: Prometheus would drop every target.
    """
    groups = [
        _group(endpoint)
        for name, snapshot in sorted(replica.directory.services().items())
        if service is None or name in service
        for endpoint in snapshot.ordered()
    ]
    return Response(msgspec.json.encode(groups), media_type="application/json")


def _group(endpoint: Endpoint) -> TargetGroup:
    told = endpoint.registration
    labels = {
        "service": endpoint.service,
        "status": endpoint.status.value,
        "region": told.region,
        "zone": told.zone,
        "revision": told.revision,
        "instance_id": told.instance_id,
        "canary": str(endpoint.canary).lower(),
    }
    return TargetGroup([endpoint.name], {f"__meta_headcount_{name}": value for name, value in labels.items()})
