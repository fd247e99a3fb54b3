"""Routes of the catalogue: services and endpoints, with filters and pages."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from registry.core.endpoint import endpoint_key
from registry.core.silence import StatusForPeople
from registry.errors import InvalidError
from registry.http.dependencies import READY, Actor, CatalogPart, OperatorDeregistrationPart, Reader, StrengthPart
from registry.http.openapi import answers, problems
from registry.http.parameters import (
    Cursor,
    EndpointName,
    Force,
    PageSize,
    ServiceName,
    read_cursor,
    write_cursor,
)
from registry.http.responses import json
from registry.http.views.endpoints import EndpointList, EndpointView, endpoint_view
from registry.http.views.services import ExpelledView, ServiceDetailView, ServiceList, service_detail_view, service_view
from registry.usecases.catalog import EndpointFilter

router = APIRouter(tags=["catalog"], dependencies=[READY])

IfNoneMatch = Annotated[str | None, Header(description="The ETag that is held already.")]
_NOT_MODIFIED: dict[int | str, dict[str, object]] = {304: {"description": "The ETag is current."}}


@router.get(
    "/v1/services",
    operation_id="list_services",
    responses=answers(
        ServiceList,
        "A page of services by name.",
        {
            "services": [
                {
                    "name": "shop",
                    "version": 7,
                    "endpoints": 3,
                    "statuses": {"HEALTHY": 2, "SILENT": 1},
                    "routable": 3,
                    "silent": 1,
                    "present": 2,
                    "expected": 4,
                    "expected_source": "observed",
                    "missing": 2,
                    "lost_count": 1,
                }
            ],
            "next": "c2hvcA==",
        },
    )
    | problems(413, 422, 503),
)
async def list_services(
    catalog: CatalogPart,
    strength: StrengthPart,
    reader: Reader,
    prefix: Annotated[str, Query(max_length=255, description="Names that begin so.")] = "",
    limit: PageSize = 100,
    cursor: Cursor = None,
) -> Response:
    """List services by name, with the counts of their endpoints by status."""
    after = read_cursor(cursor) if cursor else ""
    page = catalog.page_of_services(reader, prefix, after, limit)
    services = [service_view(snapshot, strength.of(snapshot)) for snapshot in page.services]
    return json(ServiceList(services, write_cursor(services[-1].name) if page.more else None))


@router.get(
    "/v1/services/{service}",
    operation_id="get_service",
    responses=answers(
        ServiceDetailView,
        "The service in numbers.",
        None,
    )
    | problems(404, 413, 422, 503),
)
async def get_service(service: ServiceName, catalog: CatalogPart, strength: StrengthPart, reader: Reader) -> Response:
    """Return a service in numbers, with its lost endpoints: those that lapsed and whose place nothing has filled."""
    snapshot = catalog.service(reader, service)
    return json(service_detail_view(snapshot, strength.of(snapshot)))


@router.delete(
    "/v1/services/{service}",
    operation_id="deregister_service",
    responses=answers(
        ExpelledView,
        "All of its endpoints are out of rotation.",
        {"service": "shop", "version": 8, "endpoints": ["10.0.0.5:8080"]},
    )
    | problems(404, 409, 413, 422, 503),
)
async def deregister_service(
    service: ServiceName,
    operator_deregistration: OperatorDeregistrationPart,
    actor: Actor,
    reason: Annotated[str, Query(min_length=1, max_length=1000, description="Why, for the history.")],
    force: Force = False,  # a query parameter, which is always named
) -> Response:
    """Deregister every endpoint of a service. They are left out after the removal delay; the service stays known."""
    deregistered = await operator_deregistration.service(actor, service, reason, force=force)
    return json(ExpelledView(deregistered.service, deregistered.version, deregistered.endpoints))


@router.get(
    "/v1/services/{service}/endpoints",
    operation_id="list_endpoints",
    responses=answers(EndpointList, "A page of endpoints.", None) | _NOT_MODIFIED | problems(404, 413, 422, 503),
)
async def list_endpoints(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    service: ServiceName,
    catalog: CatalogPart,
    reader: Reader,
    status: Annotated[
        list[StatusForPeople] | None,
        Query(description="As people see it: SILENT ones are not among the HEALTHY; repeat for several."),
    ] = None,
    region: Annotated[str | None, Query(max_length=255)] = None,
    zone: Annotated[str | None, Query(max_length=255)] = None,
    revision: Annotated[str | None, Query(max_length=255)] = None,
    instance_id: Annotated[str | None, Query(max_length=255)] = None,
    canary: Annotated[bool | None, Query()] = None,
    metadata: Annotated[
        str | None,
        Query(max_length=1000, description="A key, or key=value; a value that is no text is written as JSON."),
    ] = None,
    limit: PageSize = 100,
    cursor: Cursor = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """List the endpoints of a service in the order of their registration, those on their way out included."""
    reading = catalog.reading(reader, service)
    etag = f'"{reading.id}"'
    if if_none_match == etag:
        return Response(status_code=304, headers={"etag": etag})
    wanted = EndpointFilter(status or (), region, zone, revision, instance_id, canary, metadata)
    page = catalog.page_of_endpoints(reading, wanted, after=_endpoint_cursor(cursor), limit=limit)
    endpoints = [endpoint_view(listed.endpoint, listed.lease, listed.silence) for listed in page.endpoints]
    following = write_cursor(str(page.endpoints[-1].endpoint.id)) if page.more else None
    return json(EndpointList(service, reading.snapshot.version, endpoints, following), headers={"etag": etag})


@router.get(
    "/v1/services/{service}/endpoints/{endpoint}",
    operation_id="get_endpoint",
    responses=answers(EndpointView, "The endpoint.", None) | problems(404, 413, 422, 503),
)
async def get_endpoint(service: ServiceName, endpoint: EndpointName, catalog: CatalogPart, reader: Reader) -> Response:
    """Return an endpoint, what is published for it and what it was made of."""
    listed = catalog.endpoint(reader, endpoint_key(service, endpoint))
    return json(endpoint_view(listed.endpoint, listed.lease, listed.silence))


def _endpoint_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    last = read_cursor(cursor)
    if not (last.isascii() and last.isdigit() and len(last) <= 19):
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor")
    return int(last)
