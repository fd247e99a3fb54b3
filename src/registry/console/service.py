"""The page of one service: its endpoints by locality, and a chart of their status over time."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Response
from msgspec import Struct
from msgspec.structs import asdict

from registry.console.links import links_out
from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask_for_pauses
from registry.console.service_rows import service_row_of
from registry.console.subscribers import page_of_subscribers
from registry.console.traffic_rows import neighbours
from registry.core.endpoint import Endpoint, metadata_texts
from registry.core.presence import MAX_SHOWN
from registry.core.shares import misleading_shares
from registry.core.silence import StatusForPeople, is_silent
from registry.core.subscriber import SubscriberFilter
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

Value = TypeVar("Value")

router = APIRouter(dependencies=[READY])

_MAX_CHOICES = 100
"""Values that a filter offers."""
_MAX_CHOICE = 80
"""Characters of a value of metadata that a filter offers."""

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


class Usual(Struct, frozen=True):
    """The revision and the weight that most endpoints of a service have; a row says what differs."""

    revision: str
    weight: int | None


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


class Choices(Struct, frozen=True):
    """The values that filters offer; at most ``_MAX_CHOICES`` of each, any other can be written."""

    zones: Sequence[str]
    revisions: Sequence[str]
    instances: Sequence[str]
    metadata: Sequence[str]


@router.get("/services/{service}")
async def show_service(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    service: ServiceName,
    catalog: CatalogPart,
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
    everyone = sorted(snapshot.ordered(), key=_place)
    wanted = filters.exact
    matching = [endpoint for endpoint in everyone if wanted.fits(endpoint) and _matches(endpoint, filters.q)]
    rows = page_of(matching, page)
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
        usual=_usual(everyone),
        localities=_localities(catalog.with_leases(rows.items), everyone),
        quarantined={
            format_endpoint(*address_port): row.reason for address_port, row in sorted(snapshot.quarantined.items())
        },
        pauses=await ask_for_pauses(expiry, reader, service),
        overrides=len(snapshot.overridden),
        in_mesh=mesh.node(reader, service) is not None,
        neighbours=neighbours(callers.pairs, callees.pairs),
        subscribers=await page_of_subscribers(subscribers, reader, SubscriberFilter(service=service)),
        filters=filters,
        query=filters.query,
        choices=_choices(everyone),
        links=links_out(settings.link_service, {"service": service}),
        hours=hours,
    )


@router.get("/services/{service}/counts")
async def get_counts(
    service: ServiceName, history: HistoryPart, reader: Reader, frame: Framed, hours: Hours = "1"
) -> Response:
    """Return the counts of the last hours, for the chart."""
    return json(await history.status_counts(reader, service, frame.now - 3600 * int(hours), frame.now))


def _place(endpoint: Endpoint) -> tuple[str, str, bool]:
    """Return by what endpoints are sorted: by locality, and silent ones first, since they may be dead."""
    return (*_locality(endpoint), not is_silent(endpoint))


def _locality(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.registration.region, endpoint.registration.zone


def _matches(endpoint: Endpoint, query: str) -> bool:
    registration = endpoint.registration
    texts = (registration.instance_id, registration.revision, registration.zone, registration.detail)
    return matches(query, endpoint.name, *texts)


def _usual(everyone: Sequence[Endpoint]) -> Usual:
    return Usual(
        _most_frequent([endpoint.registration.revision for endpoint in everyone]) or "",
        _most_frequent([endpoint.weight for endpoint in everyone]),
    )


def _most_frequent(values: Sequence[Value]) -> Value | None:
    """Return the most frequent value, the first one of those that are equally frequent."""
    return max(Counter(values).items(), key=lambda item: item[1], default=(None, 0))[0]


def _choices(everyone: Sequence[Endpoint]) -> Choices:
    registrations = [endpoint.registration for endpoint in everyone]
    return Choices(
        zones=_some({registration.zone for registration in registrations}),
        revisions=_some({registration.revision for registration in registrations}),
        instances=_some({registration.instance_id for registration in registrations[:_MAX_CHOICES]}),
        metadata=_some(
            {
                f"{key}={text}"
                for registration in registrations[:_MAX_CHOICES]
                for key, text in metadata_texts(registration.metadata).items()
                if len(text) <= _MAX_CHOICE
            }
        ),
    )


def _some(values: Collection[str]) -> list[str]:
    return sorted(value for value in values if value)[:_MAX_CHOICES]


def _localities(shown: Sequence[ListedEndpoint], everyone: Sequence[Endpoint]) -> list[Locality]:
    members = {locality: list(group) for locality, group in groupby(everyone, key=_locality)}
    by_locality = groupby(shown, key=lambda listed: _locality(listed.endpoint))
    rows = {locality: list(group) for locality, group in by_locality}
    return [
        Locality(
            *locality,
            endpoints=[endpoint_view(listed.endpoint, listed.lease, listed.silence) for listed in group],
            overdue=frozenset(listed.endpoint.name for listed in group if listed.overdue),
            all=len(members[locality]),
            silent=sum(map(is_silent, members[locality])),
            routable=sum(endpoint.routable for endpoint in members[locality]),
        )
        for locality, group in rows.items()
    ]
