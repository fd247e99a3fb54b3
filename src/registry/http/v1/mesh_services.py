"""Routes of the services that gateways select from: what is known of each, and the removal of one."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from msgspec import Meta, Struct

from registry.http.dependencies import READY, Actor, MeshServicesPart, Reader
from registry.http.openapi import answers, problems
from registry.http.parameters import Cursor, PageSize, Reason, ServiceName, read_cursor, write_cursor
from registry.http.responses import json

router = APIRouter(tags=["mesh"], dependencies=[READY])


class RegisteredView(Struct, frozen=True):
    """A service as gateways select it."""

    service: str
    endpoints: Annotated[int, Meta(description="0: the metadata is the last that it had.")]
    metadata: Annotated[dict[str, list[str]], Meta(description="The values of each key, over all endpoints.")]


class RegisteredList(Struct, frozen=True):
    """A page of the services that gateways select from."""

    services: list[RegisteredView]
    next: str | None
    unavailable: Annotated[
        list[str],
        Meta(description="Services of this page that this process cannot read; gateways go on by what they had last."),
    ]


_EXAMPLE = {
    "services": [{"service": "greeter", "endpoints": 0, "metadata": {"protocol": ["grpc"]}}],
    "next": "Z3JlZXRlcg==",
    "unavailable": [],
}
_FORGOTTEN: dict[int | str, Any] = {204: {"description": "Its last known metadata is deleted."}}


@router.get(
    "/v1/mesh/catalog",
    operation_id="list_mesh_catalog",
    responses=answers(RegisteredList, "A page of services by name.", _EXAMPLE) | problems(413, 422, 503),
)
async def list_mesh_catalog(
    services: MeshServicesPart, reader: Reader, limit: PageSize = 100, cursor: Cursor = None
) -> Response:
    """List the services that gateways select from, with their metadata; without endpoints the last that is known."""
    page = await services.page(reader, read_cursor(cursor) if cursor else "", limit)
    views = [
        RegisteredView(each.service, each.endpoints, {key: list(values) for key, values in each.metadata.items()})
        for each in page.services
    ]
    following = None if page.following is None else write_cursor(page.following)
    return json(RegisteredList(views, following, page.unavailable))


@router.delete(
    "/v1/mesh/catalog/{service}",
    operation_id="forget_mesh_service",
    status_code=204,
    responses=_FORGOTTEN | problems(404, 413, 422, 503),
)
async def forget_mesh_service(
    service: ServiceName, services: MeshServicesPart, actor: Actor, reason: Reason = ""
) -> Response:
    """Remove a service that has no endpoints, and will get none, from the gateways that select it by metadata."""
    await services.forget(actor, service, reason)
    return Response(status_code=204)
