"""The documented routes of discovery: one for each REST path of the resource types that this process serves.

Envoys are answered in front of the application (`registry.http.asgi`, `registry.http.fast_protocol`); the same
responses are given here, where the OpenAPI document describes them.
"""

from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from registry.http.dependencies import DiscoveryPart, Reader
from registry.http.openapi import problems
from registry.http.parameters import subscriber_address
from registry.xds.discovery import REFUSED
from registry.xds.resources import TYPES, RestPath, rest_paths

TimeoutHeader = Annotated[
    str | None,
    Header(
        alias="x-envoy-expected-rq-timeout-ms",
        description="How long the subscriber waits: a poll whose version is current is held almost as long.",
    ),
]


def build_router(paths: Iterable[RestPath] = ()) -> APIRouter:
    """Return the routes of these paths; without any, those of every type, to describe them."""
    router = APIRouter(tags=["discovery"])
    for path in paths or chain.from_iterable(map(rest_paths, TYPES)):
        route = _route(path)
        router.add_api_route(
            path.url,
            route,
            methods=["POST"],
            operation_id=route.__name__,
            description=path.type.descriptions.get(path.api, ""),
            openapi_extra=_request(path),
            responses=_responses(path),
        )
    return router


def _route(rest_path: RestPath) -> Callable[..., Awaitable[Response]]:
    async def fetch(
        request: Request, discovery: DiscoveryPart, reader: Reader, expected_timeout: TimeoutHeader = None
    ) -> Response:
        path = discovery.paths[rest_path.url]
        poll = discovery.read(path, reader, await request.body())
        peer = subscriber_address(request.headers.get("x-forwarded-for"), request.client)
        try:
            response = discovery.now(path, poll, peer) or await discovery.later(path, poll, peer, expected_timeout)
        except REFUSED:
            await discovery.held_polls.delay_refusal(reader.address, expected_timeout)
            raise
        return Response(response.body, response.status, media_type="application/json" if response.body else None)

    fetch.__name__ = f"fetch_{rest_path.type.name}_{rest_path.api}"
    return fetch


def _request(path: RestPath) -> dict[str, object]:
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
            "type_url": {"type": "string", "enum": [path.type_url, ""]},
        },
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": body}},
        }
    }


def _responses(path: RestPath) -> dict[int | str, dict[str, object]]:
    resource = {"@type": path.type_url, **path.type.example}
    example = {"version_info": "5f0c1a9e:7", "resources": [resource], "type_url": path.type_url}
    schema = {
        "type": "object",
        "properties": {
            "version_info": {"type": "string", "description": "Sent back by the next poll; not to be parsed."},
            "resources": {"type": "array", "items": {"type": "object"}},
            "type_url": {"type": "string", "const": path.type_url},
        },
        "required": ["version_info", "resources", "type_url"],
    }
    return {
        200: {
            "description": "The resources that are asked for.",
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        304: {"description": "The version that the subscriber holds is current."},
        **problems(400, 413, 422, 503),
    }
