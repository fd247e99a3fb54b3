"""Discovery for Envoy: v2 and v3 EDS.

Envoys come through the door in front of this application (`registry.http`); the same answers are given here,
where OpenAPI documents them.
"""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from registry.http.dependencies import DiscoveryPart
from registry.http.parameters import subscriber_address
from registry.http.views import problems
from registry.xds.discovery import Discovery
from registry.xds.eds import TYPE_URL, Api

router = APIRouter(tags=["discovery"])

TimeoutHeader = Annotated[
    str | None,
    Header(
        alias="x-envoy-expected-rq-timeout-ms",
        description="How long the subscriber waits: a poll whose version is current is held almost as long.",
    ),
]


def _documented(api: Api) -> dict[str, object]:
    body = {"version_info": "", "node": {"id": "i-0abc", "cluster": "web"}, "resource_names": ["shop"]}
    schema = {
        "type": "object",
        "properties": {
            "version_info": {"type": "string", "description": "That of the last accepted answer."},
            "node": {"type": "object"},
            "resource_names": {
                "type": "array",
                "items": {"type": "string", "maxLength": 1024},
                "maxItems": 10_000,
            },
            "type_url": {"type": "string", "enum": [TYPE_URL[api], ""]},
        },
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": body}},
        }
    }


def _answers(api: Api) -> dict[int | str, dict[str, object]]:
    resource = {"@type": TYPE_URL[api], "cluster_name": "shop", "endpoints": []}
    example = {"version_info": "5f0c1a9e:7", "resources": [resource], "type_url": TYPE_URL[api]}
    schema = {"type": "object", "required": ["version_info", "resources", "type_url"]}
    return {
        200: {
            "description": "The assignments that are asked for.",
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        304: {"description": "The version that the subscriber holds is current."},
        **problems(400, 413, 422, 503),
    }


@router.post(
    "/v2/discovery:endpoints",
    operation_id="fetch_endpoints_v2",
    openapi_extra=_documented("v2"),
    responses=_answers("v2"),
)
async def fetch_endpoints_v2(request: Request, discovery: DiscoveryPart, patience: TimeoutHeader = None) -> Response:
    """Return v2 ClusterLoadAssignments, one for each name in order."""
    return await _answer(discovery, "v2", request, patience)


@router.post(
    "/v3/discovery:endpoints",
    operation_id="fetch_endpoints_v3",
    openapi_extra=_documented("v3"),
    responses=_answers("v3"),
)
async def fetch_endpoints_v3(request: Request, discovery: DiscoveryPart, patience: TimeoutHeader = None) -> Response:
    """Return v3 ClusterLoadAssignments; a service that never had an endpoint is left out."""
    return await _answer(discovery, "v3", request, patience)


async def _answer(discovery: Discovery, api: Api, request: Request, patience: str | None) -> Response:
    poll = discovery.read(api, await request.body())
    peer = subscriber_address(request.headers.get("x-forwarded-for"), request.client)
    answer = discovery.now(api, poll, peer) or await discovery.later(api, poll, peer, patience)
    return Response(answer.body, answer.status, media_type="application/json" if answer.body else None)
