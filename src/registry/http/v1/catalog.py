"""What is registered: services and endpoints, with filters and pages, from memory."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from registry.auth.principal import Asking
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot
from registry.errors import InvalidError, NotFoundError
from registry.http.parameters import (
    Cursor,
    EndpointName,
    Force,
    PageSize,
    ReadyReplica,
    ServiceName,
    endpoint_key,
    read_cursor,
    write_cursor,
)
from registry.http.views import (
    EndpointList,
    EndpointView,
    ExpelledView,
    ServiceList,
    ServiceView,
    answers,
    endpoint_view,
    json,
    problems,
)
from registry.process import RegistryProcess
from wire.address import format_endpoint
from wire.model import Health

router = APIRouter(tags=["catalog"])

IfNoneMatch = Annotated[str | None, Header(description="The ETag that is held already.")]
_NOT_MODIFIED: dict[int | str, dict[str, object]] = {304: {"description": "The ETag is current."}}


@router.get(
    "/v1/services",
    operation_id="list_services",
    responses=answers(
        ServiceList,
        "A page of services by name.",
        {
            "services": [{"name": "shop", "version": 7, "endpoints": 3, "statuses": {"HEALTHY": 3}}],
            "next": "c2hvcA==",
        },
    )
    | problems(413, 422, 503),
)
async def list_services(
    process: ReadyReplica,
    prefix: Annotated[str, Query(max_length=255, description="Names that begin so.")] = "",
    limit: PageSize = 100,
    cursor: Cursor = None,
) -> Response:
    """List services by name, with the counts of their endpoints by status."""
    after = read_cursor(cursor) if cursor else ""
    names = sorted(name for name in process.cache.services() if name.startswith(prefix) and name > after)
    page = [service_view(process.cache.get(name)) for name in names[:limit]]
    return json(ServiceList(page, write_cursor(page[-1].name) if len(names) > limit else None))


@router.get(
    "/v1/services/{service}",
    operation_id="get_service",
    responses=answers(
        ServiceView,
        "The service in numbers.",
        {"name": "shop", "version": 7, "endpoints": 3, "statuses": {"HEALTHY": 2, "DRAINING": 1}},
    )
    | problems(404, 413, 422, 503),
)
async def get_service(service: ServiceName, process: ReadyReplica) -> Response:
    """Return a service in numbers."""
    return json(service_view(_known(process, service)))


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
    process: ReadyReplica,
    asking: Asking,
    reason: Annotated[str, Query(min_length=1, max_length=1000, description="Why, for the history.")],
    force: Force = False,  # a query parameter, which is always named
) -> Response:
    """Deregister every endpoint of a service. They are left out after the removal delay; the service stays known."""
    gone = await process.operator_deregistration.service(service, asking.name, reason, force=force)
    return json(ExpelledView(gone.service, gone.version, gone.endpoints))


@router.get(
    "/v1/services/{service}/endpoints",
    operation_id="list_endpoints",
    responses=answers(EndpointList, "A page of endpoints.", None) | _NOT_MODIFIED | problems(404, 413, 422, 503),
)
async def list_endpoints(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    service: ServiceName,
    process: ReadyReplica,
    status: Annotated[list[Health] | None, Query(description="Published status; repeat for several.")] = None,
    region: Annotated[str | None, Query(max_length=255)] = None,
    zone: Annotated[str | None, Query(max_length=255)] = None,
    revision: Annotated[str | None, Query(max_length=255)] = None,
    instance_id: Annotated[str | None, Query(max_length=255)] = None,
    canary: Annotated[bool | None, Query()] = None,
    limit: PageSize = 100,
    cursor: Cursor = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """List the endpoints of a service in the order of their registration, those on their way out included."""
    snapshot = _known(process, service)
    # Lease times come with each reading of the leases, everything else with a change.
    etag = f'"{process.cache.database_id}-{snapshot.change}-{process.cache.lease_reading}"'
    if if_none_match == etag:
        return Response(status_code=304, headers={"etag": etag})
    wanted = {
        "region": region,
        "zone": zone,
        "revision": revision,
        "instance_id": instance_id,
    }
    after = _endpoint_cursor(cursor)
    found = [
        endpoint
        for endpoint in snapshot.ordered()
        if endpoint.id > after
        and (not status or endpoint.status in status)
        and (canary is None or endpoint.canary is canary)
        and all(value is None or getattr(endpoint.registration, name) == value for name, value in wanted.items())
    ]
    page = [_endpoint_view(process, endpoint) for endpoint in found[:limit]]
    following = write_cursor(str(found[limit - 1].id)) if len(found) > limit else None
    return json(EndpointList(service, snapshot.version, page, following), headers={"etag": etag})


@router.get(
    "/v1/services/{service}/endpoints/{endpoint}",
    operation_id="get_endpoint",
    responses=answers(EndpointView, "The endpoint.", None) | problems(404, 413, 422, 503),
)
async def get_endpoint(service: ServiceName, endpoint: EndpointName, process: ReadyReplica) -> Response:
    """Return an endpoint, what is published for it and what it was made of."""
    found = process.cache.find(endpoint_key(service, endpoint))
    if found is None:
        raise NotFoundError(f"{endpoint} is not registered for {service}")
    return json(_endpoint_view(process, found))


def _known(process: RegistryProcess, service: str) -> Snapshot:
    if not process.cache.knows(service):
        raise NotFoundError(f"service {service} never had an endpoint, or is forgotten")
    return process.cache.get(service)


def service_view(snapshot: Snapshot) -> ServiceView:
    """Return what is told of a service."""
    quarantined = {
        format_endpoint(*address_port): quarantined_row.reason
        for address_port, quarantined_row in snapshot.quarantined.items()
    }
    return ServiceView(snapshot.service, snapshot.version, len(snapshot.endpoints), dict(snapshot.counts), quarantined)


def _endpoint_view(process: RegistryProcess, endpoint: Endpoint) -> EndpointView:
    return endpoint_view(endpoint, process.cache.leases.get(endpoint.id))


def _endpoint_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    last = read_cursor(cursor)
    if not (last.isascii() and last.isdigit() and len(last) <= 19):
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor")
    return int(last)
