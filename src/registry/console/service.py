"""The page of one service: its endpoints by locality, and how many had which status over time."""

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask
from registry.console.services import row_of
from registry.console.status_counts import counts_of
from registry.console.subscribers import roll_of
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot
from registry.core.subscriber import SubscriberFilter
from registry.errors import NotFoundError
from registry.http.parameters import ReadyReplica, ServiceName
from registry.http.v1.expiry import pauses_of
from registry.http.views import EndpointView, endpoint_view, json
from registry.process import RegistryProcess
from wire.address import format_endpoint
from wire.model import Health

router = APIRouter()

Hours = Annotated[Literal["1", "6", "24"], Query()]


class Locality(Struct, frozen=True):
    """The endpoints of a page that share a region and a zone, and how many the service has there in all."""

    region: str
    zone: str
    endpoints: Sequence[EndpointView]
    all: int
    routable: int


@router.get("/services/{service}")
async def show_service(
    service: ServiceName,
    process: ReadyReplica,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    status: Literal["", Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.DRAINING, Health.TIMEOUT] = "",
    page: Annotated[int, Query(ge=1)] = 1,
    hours: Hours = "1",
) -> Response:
    """Show one service, or those of its endpoints that are searched for."""
    snapshot = _known(process, service)
    everyone = sorted(snapshot.ordered(), key=_locality)
    found = page_of([one for one in everyone if (not status or one.status == status) and _matches(one, q)], page)
    return frame.page(
        "service.html",
        service=row_of(snapshot),
        rows=found,
        localities=_localities(process, found.items, everyone),
        quarantined={format_endpoint(*place): one.reason for place, one in sorted(snapshot.quarantined.items())},
        pauses=await ask(pauses_of(process)),
        roll=await roll_of(process, SubscriberFilter(service=service)),
        q=q,
        status=status,
        hours=hours,
    )


@router.get("/services/{service}/counts")
async def get_counts(service: ServiceName, process: ReadyReplica, frame: Framed, hours: Hours = "1") -> Response:
    """Return the counts of the last hours, for the chart."""
    _known(process, service)
    return json(await counts_of(process, service, frame.now - 3600 * int(hours), frame.now))


def _known(process: RegistryProcess, service: str) -> Snapshot:
    if not process.cache.knows(service):
        raise NotFoundError(f"The service {service} never had an endpoint, or is forgotten.")
    return process.cache.get(service)


def _locality(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.registration.region, endpoint.registration.zone


def _matches(endpoint: Endpoint, query: str) -> bool:
    told = endpoint.registration
    return matches(query, endpoint.name, told.instance_id, told.revision, told.zone, told.detail)


def _localities(process: RegistryProcess, shown: Sequence[Endpoint], everyone: Sequence[Endpoint]) -> list[Locality]:
    members = {place: list(group) for place, group in groupby(everyone, key=_locality)}
    leases = process.cache.leases
    return [
        Locality(
            *place,
            endpoints=[endpoint_view(one, leases.get(one.id)) for one in group],
            all=len(members[place]),
            routable=sum(one.routable for one in members[place]),
        )
        for place, group in groupby(shown, key=_locality)
    ]
