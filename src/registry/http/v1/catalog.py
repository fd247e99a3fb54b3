"""Routes of the catalogue: services and endpoints, with filters and pages."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.core.endpoint import endpoint_key
from registry.core.silence import StatusForPeople
from registry.http.dependencies import READY, Actor, CatalogPart, ListsPart, OperatorDeregistrationPart, Reader, Taken
from registry.http.lists.requests import EndpointsRequest, ServiceRequest, ServicesRequest
from registry.http.openapi import NOT_MODIFIED, answers, problems
from registry.http.parameters import (
    MAX_FILTER,
    MAX_METADATA_FILTER,
    PAGE,
    Cursor,
    EndpointName,
    Force,
    PageSize,
    ServiceName,
)
from registry.http.responses import json, listed
from registry.http.views.endpoints import EndpointList, EndpointView, endpoint_view
from registry.http.views.services import ExpelledView, ServiceDetailView, ServiceList
from registry.usecases.catalog import EndpointFilter

router = APIRouter(tags=["catalog"], dependencies=[READY])


@router.head("/v1/services", include_in_schema=False)
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
    | NOT_MODIFIED
    | problems(413, 422, 503),
)
async def list_services(  # the parts of the route, and one argument a parameter
    lists: ListsPart,
    reader: Reader,
    conditions: Taken,
    prefix: Annotated[str, Query(max_length=MAX_FILTER, description="Names that begin so.")] = "",
    limit: PageSize = PAGE,
    cursor: Cursor = None,
) -> Response:
    """List services by name, with the counts of their endpoints by status."""
    asked = ServicesRequest(prefix, cursor, limit)
    return listed(await lists.answer(reader, asked), conditions)


@router.head("/v1/services/{service}", include_in_schema=False)
@router.get(
    "/v1/services/{service}",
    operation_id="get_service",
    responses=answers(
        ServiceDetailView,
        "The service in numbers.",
        None,
    )
    | NOT_MODIFIED
    | problems(404, 413, 422, 503),
)
async def get_service(service: ServiceName, lists: ListsPart, reader: Reader, conditions: Taken) -> Response:
    """Return a service in numbers, with its lost endpoints: those that lapsed and whose place nothing has filled."""
    return listed(await lists.answer(reader, ServiceRequest(service)), conditions)


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


@router.head("/v1/services/{service}/endpoints", include_in_schema=False)
@router.get(
    "/v1/services/{service}/endpoints",
    operation_id="list_endpoints",
    responses=answers(EndpointList, "A page of endpoints.", None) | NOT_MODIFIED | problems(404, 413, 422, 503),
)
async def list_endpoints(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    service: ServiceName,
    lists: ListsPart,
    reader: Reader,
    conditions: Taken,
    status: Annotated[
        list[StatusForPeople] | None,
        Query(description="As people see it: SILENT ones are not among the HEALTHY; repeat for several."),
    ] = None,
    region: Annotated[str | None, Query(max_length=MAX_FILTER)] = None,
    zone: Annotated[str | None, Query(max_length=MAX_FILTER)] = None,
    revision: Annotated[str | None, Query(max_length=MAX_FILTER)] = None,
    instance_id: Annotated[str | None, Query(max_length=MAX_FILTER)] = None,
    canary: Annotated[bool | None, Query()] = None,
    metadata: Annotated[
        str | None,
        Query(
            max_length=MAX_METADATA_FILTER,
            description="A key, or key=value; a value that is no text is written as JSON.",
        ),
    ] = None,
    limit: PageSize = PAGE,
    cursor: Cursor = None,
) -> Response:
    """List the endpoints of a service in the order of their registration, those on their way out included."""
    wanted = EndpointFilter(tuple(status or ()), region, zone, revision, instance_id, canary, metadata)
    asked = EndpointsRequest(service, wanted, cursor, limit)
    return listed(await lists.answer(reader, asked), conditions)


@router.get(
    "/v1/services/{service}/endpoints/{endpoint}",
    operation_id="get_endpoint",
    responses=answers(EndpointView, "The endpoint.", None) | problems(404, 413, 422, 503),
)
async def get_endpoint(service: ServiceName, endpoint: EndpointName, catalog: CatalogPart, reader: Reader) -> Response:
    """Return an endpoint, what is published for it and what it was made of."""
    listed = catalog.endpoint(reader, endpoint_key(service, endpoint))
    return json(endpoint_view(listed.endpoint, listed.lease, listed.silence))
