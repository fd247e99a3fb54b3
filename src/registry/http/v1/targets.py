"""The route of service discovery for Prometheus (http_sd)."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from registry.core.endpoint import Endpoint
from registry.http.dependencies import READY, CatalogPart, Reader
from registry.http.openapi import problems, reference
from registry.http.views.targets import TargetGroup

router = APIRouter(tags=["prometheus"], dependencies=[READY])

_UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_]")

_ANSWER: dict[str, Any] = {
    "description": "Every listed endpoint, one group each.",
    "content": {
        "application/json": {
            "schema": {"type": "array", "items": reference(TargetGroup)},
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
    catalog: CatalogPart,
    reader: Reader,
    service: Annotated[list[str] | None, Query(description="Only these services; repeat for several.")] = None,
    port: Annotated[
        str | None,
        Query(
            max_length=255,
            description="Name of the metadata that says at which port an endpoint is scraped; an endpoint without it "
            "is left out. Without this parameter, endpoints are scraped where they serve.",
            examples=["metrics_port"],
        ),
    ] = None,
) -> Response:
    """List endpoints for Prometheus, unhealthy ones too: they are the ones to look at.

    Never an empty list while the state is unknown: Prometheus would drop every target.
    """
    targets = catalog.scrape_targets(reader, service, port)
    return Response(msgspec.json.encode([_group(*target) for target in targets]), media_type="application/json")


def _group(endpoint: Endpoint, target: str) -> TargetGroup:
    registration = endpoint.registration
    labels = {f"metadata_{_UNNAMEABLE.sub('_', name)}": text for name, text in _texts(registration.metadata)}
    labels |= {
        "service": endpoint.service,
        "endpoint": endpoint.name,
        "status": endpoint.status.value,
        "region": registration.region,
        "zone": registration.zone,
        "revision": registration.revision,
        "instance_id": registration.instance_id,
        "canary": str(endpoint.canary).lower(),
    }
    return TargetGroup([target], {f"__meta_headcount_{name}": value for name, value in labels.items()})


def _texts(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what can be a label's value."""
    for name, value in metadata.items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, bool | int | float):
            yield name, msgspec.json.encode(value).decode()
