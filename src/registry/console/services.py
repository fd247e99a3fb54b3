"""The page of all services: counts by status, and warnings."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask_for_pauses
from registry.cooperative import cooperatively
from registry.core.snapshot import Snapshot
from registry.http.dependencies import READY, CatalogPart, ExpiryPart, OverridesPart, Reader
from wire.model import Health

router = APIRouter(dependencies=[READY])

Sort = Literal["name", "trouble", "endpoints", "routable"]


class ServiceRow(Struct, frozen=True):
    """A service in the list, with its warnings, the worst first."""

    name: str
    version: int
    counts: dict[str, int]
    endpoints: int
    routable: int
    warnings: list[str]


@router.get("/services")
async def show_services(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    catalog: CatalogPart,
    expiry: ExpiryPart,
    overrides: OverridesPart,
    reader: Reader,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    sort: Sort = "name",
    only: Literal["", "trouble"] = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show all services, or those that are searched for."""
    rows = [service_row_of(snapshot) async for snapshot in cooperatively(catalog.services(reader))]
    troubled = sum(bool(row.warnings) for row in rows)
    matching = [row for row in rows if matches(q, row.name) and (not only or row.warnings)]
    matching.sort(key=_SORTED[sort])
    return frame.page(
        "services.html",
        rows=page_of(matching, page),
        total=len(rows),
        troubled=troubled,
        endpoints=sum(row.endpoints for row in rows),
        pauses=await ask_for_pauses(expiry, reader),
        overrides=len(overrides.all(reader)),
        q=q,
        sort=sort,
        only=only,
    )


def service_row_of(snapshot: Snapshot) -> ServiceRow:
    """Return a service in numbers, with its warnings."""
    counts = snapshot.counts
    routable = counts[Health.HEALTHY] + counts[Health.DEGRADED]
    return ServiceRow(
        name=snapshot.service,
        version=snapshot.version,
        counts=dict(counts),
        endpoints=len(snapshot.endpoints),
        routable=routable,
        warnings=_warnings(snapshot, routable),
    )


def _warnings(snapshot: Snapshot, routable: int) -> list[str]:
    counts = snapshot.counts
    warnings = []
    if not routable and snapshot.endpoints:
        warnings.append("no routable endpoint")
    if counts[Health.TIMEOUT]:
        warnings.append(f"{counts[Health.TIMEOUT]} timed out")
    if counts[Health.UNHEALTHY]:
        warnings.append(f"{counts[Health.UNHEALTHY]} unhealthy")
    if snapshot.silent:
        warnings.append(f"{len(snapshot.silent)} silent, kept by the guard")
    if snapshot.quarantined:
        warnings.append(f"{len(snapshot.quarantined)} quarantined")
    return warnings


_SORTED: dict[Sort, Callable[[ServiceRow], Any]] = {
    "name": lambda row: row.name,
    "trouble": lambda row: (-len(row.warnings), row.routable, row.name),
    "endpoints": lambda row: (-row.endpoints, row.name),
    "routable": lambda row: (row.routable / row.endpoints if row.endpoints else 0.0, row.name),
}
