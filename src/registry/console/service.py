"""The page of one service: its endpoints by locality, and a chart of their status over time."""

from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from msgspec import Struct
from msgspec.structs import asdict

from registry.console.links import links_out
from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask_for_pauses
from registry.console.service_contents import Contents, LocalityCounts, ServiceContentsPart, locality_of
from registry.console.service_rows import service_row_of
from registry.console.subscribers import page_of_subscribers
from registry.console.traffic_rows import neighbours
from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint
from registry.core.presence import MAX_SHOWN
from registry.core.shares import misleading_shares
from registry.core.silence import StatusForPeople
from registry.core.subscriber_status import SubscriberFilter
from registry.http.dependencies import (
    READY,
    CatalogPart,
    ExpiryPart,
    HistoryPart,
    MeshStatusPart,
    Reader,
    SettingsPart,
    StrengthPart,
    SubscribersPart,
    TrafficPart,
)
from registry.http.parameters import ServiceName
from registry.http.responses import json
from registry.http.views.endpoints import EndpointView, endpoint_view
from registry.http.views.services import lost_view
from registry.usecases.catalog import EndpointFilter, ListedEndpoint
from wire.address import format_endpoint

router = APIRouter(dependencies=[READY])

Hours = Annotated[Literal["1", "6", "24"], Query()]


class Locality(Struct, frozen=True):
    """Endpoints of one page that share region and zone, with the number that the service has there.

    ``overdue`` has the names of those whose heartbeat is overdue.
    """

    region: str
    zone: str
    endpoints: Sequence[EndpointView]
    overdue: frozenset[str]
    all: int
    routable: int
    silent: int


class Filters(Struct, frozen=True):
    """The filters of the list of endpoints; what is empty stands for any. ``show`` adds metadata to each row."""

    q: str
    status: str
    zone: str
    revision: str
    instance: str
    metadata: str
    show: str

    @property
    def query(self) -> dict[str, str]:
        """The filters that are set, as an address has them."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def further(self) -> int:
        """The number of those that are set among the filters that are folded in at first."""
        return sum(bool(value) for value in (self.zone, self.revision, self.instance, self.metadata, self.show))

    @property
    def exact(self) -> EndpointFilter:
        """The filters that compare whole values, as the API has them."""
        return EndpointFilter(
            {self.status} if self.status else (),
            zone=self.zone or None,
            revision=self.revision or None,
            instance_id=self.instance or None,
            metadata=self.metadata or None,
        )


async def _filters(
    q: Annotated[str, Query(max_length=255)] = "",
    status: Literal[""] | StatusForPeople = "",
    zone: Annotated[str, Query(max_length=255)] = "",
    revision: Annotated[str, Query(max_length=255)] = "",
    instance: Annotated[str, Query(max_length=255)] = "",
    metadata: Annotated[str, Query(max_length=1000)] = "",
    show: Literal["", "metadata"] = "",
) -> Filters:
    return Filters(q, status, zone, revision, instance, metadata, show)


Filtered = Annotated[Filters, Depends(_filters)]


@router.get("/services/{service}")
async def show_service(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    service: ServiceName,
    catalog: CatalogPart,
    all_contents: ServiceContentsPart,
    expiry: ExpiryPart,
    subscribers: SubscribersPart,
    settings: SettingsPart,
    strength: StrengthPart,
    mesh: MeshStatusPart,
    traffic: TrafficPart,
    reader: Reader,
    frame: Framed,
    filters: Filtered,
    page: Annotated[int, Query(ge=1)] = 1,
    hours: Hours = "1",
) -> Response:
    """Show one service, with the endpoints that match the filters."""
    snapshot = catalog.service(reader, service)
    presence = strength.of(snapshot)
    groups = snapshot.groups
    contents = all_contents.of(snapshot)
    rows = page_of([each async for each in _matching(contents.endpoints, filters)], page)
    callers = await traffic.pairs(reader, "1m", callee=service)
    callees = await traffic.pairs(reader, "1m", caller=service)
    return frame.page(
        "service.html",
        service=service_row_of(snapshot, presence),
        source=presence.source,
        expected_by=snapshot.expected_by,
        lost=[lost_view(endpoint) for endpoint in presence.lost[:MAX_SHOWN]],
        lost_count=len(presence.lost),
        shares=snapshot.shares,
        groups=groups,
        misleading=misleading_shares(groups),
        rows=rows,
        usual=contents.usual,
        localities=_localities(catalog.with_leases(rows.items), contents),
        quarantined={
            format_endpoint(*address_port): row.reason for address_port, row in sorted(snapshot.quarantined.items())
        },
        pauses=await ask_for_pauses(expiry, reader, service),
        overrides=len(snapshot.overridden),
        in_mesh=mesh.node(reader, service) is not None,
        neighbours=await neighbours(callers.pairs, callees.pairs),
        subscribers=await page_of_subscribers(subscribers, reader, SubscriberFilter(service=service)),
        filters=filters,
        query=filters.query,
        choices=contents.choices,
        links=links_out(settings.link_service, {"service": service}),
        hours=hours,
    )


@router.get("/services/{service}/counts")
async def get_counts(
    service: ServiceName, history: HistoryPart, reader: Reader, frame: Framed, hours: Hours = "1"
) -> Response:
    """Return the counts of the last hours, for the chart."""
    return json(await history.status_counts(reader, service, frame.now - 3600 * int(hours), frame.now))


async def _matching(everyone: Sequence[Endpoint], filters: Filters) -> AsyncIterator[Endpoint]:
    """Yield the endpoints that match the filters; without any, they are not looked at one by one."""
    if not filters.q and filters.exact == EndpointFilter():
        for endpoint in everyone:
            yield endpoint
        return
    wanted = filters.exact
    async for endpoint in cooperatively(everyone):
        if wanted.fits(endpoint) and _matches(endpoint, filters.q):
            yield endpoint


def _matches(endpoint: Endpoint, query: str) -> bool:
    registration = endpoint.registration
    texts = (registration.instance_id, registration.revision, registration.zone, registration.detail)
    return matches(query, endpoint.name, *texts)


def _localities(shown: Sequence[ListedEndpoint], contents: Contents) -> list[Locality]:
    rows = groupby(shown, key=lambda listed: locality_of(listed.endpoint))
    return [_locality(locality, list(group), contents.localities[locality]) for locality, group in rows]


def _locality(locality: tuple[str, str], shown: Sequence[ListedEndpoint], counts: LocalityCounts) -> Locality:
    return Locality(
        *locality,
        endpoints=[endpoint_view(listed.endpoint, listed.lease, listed.silence) for listed in shown],
        overdue=frozenset(listed.endpoint.name for listed in shown if listed.overdue),
        all=counts.all,
        silent=counts.silent,
        routable=counts.routable,
    )
