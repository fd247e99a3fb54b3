"""The page of all services: counts by status, and warnings."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask_for_pauses
from registry.cooperative import cooperatively
from registry.core.presence import Presence
from registry.core.snapshot import Snapshot
from registry.http.dependencies import READY, CatalogPart, ExpiryPart, OverridesPart, Reader, StrengthPart

router = APIRouter(dependencies=[READY])

Sort = Literal["name", "trouble", "endpoints", "routable"]


class ServiceRow(Struct, frozen=True):
    """A service in the list, with its warnings, the worst first."""

    name: str
    version: int
    counts: dict[str, int]
    endpoints: int
    routable: int
    silent: int
    present: int
    expected: int
    missing: int
    warnings: list[str]


@router.get("/services")
async def show_services(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    catalog: CatalogPart,
    expiry: ExpiryPart,
    overrides: OverridesPart,
    strength: StrengthPart,
    reader: Reader,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    sort: Sort = "name",
    only: Literal["", "trouble"] = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show all services, or those that are searched for."""
    rows = [
        service_row_of(snapshot, strength.of(snapshot)) async for snapshot in cooperatively(catalog.services(reader))
    ]
    troubled = sum(bool(row.warnings) for row in rows)
    matching = [row for row in rows if matches(q, row.name) and (not only or row.warnings)]
    matching.sort(key=_SORTED[sort])
    return frame.page(
        "services.html",
        rows=page_of(matching, page),
        total=len(rows),
        troubled=troubled,
        unroutable=sum(bool(row.endpoints and not row.routable) for row in rows),
        endpoints=sum(row.endpoints for row in rows),
        pauses=await ask_for_pauses(expiry, reader),
        overrides=len(overrides.all(reader)),
        q=q,
        sort=sort,
        only=only,
    )


def service_row_of(snapshot: Snapshot, presence: Presence) -> ServiceRow:
    """Return a service in numbers, with its warnings."""
    return ServiceRow(
        name=snapshot.service,
        version=snapshot.version,
        counts=dict(snapshot.counts_for_people),
        endpoints=len(snapshot.endpoints),
        routable=snapshot.routable,
        silent=len(snapshot.silent),
        present=presence.present,
        expected=presence.expected,
        missing=presence.missing,
        warnings=_warnings(snapshot, presence),
    )


def _warnings(snapshot: Snapshot, presence: Presence) -> list[str]:
    counts = snapshot.counts_for_people
    warnings = []
    if not snapshot.routable and snapshot.endpoints:
        warnings.append("no routable endpoint")
    if presence.lost:
        warnings.append(f"{len(presence.lost)} lost")
    unexplained = presence.missing - len(presence.lost) - len(snapshot.silent)
    if unexplained > 0:
        warnings.append(f"{unexplained} missing")
    if snapshot.silent:
        warnings.append(f"{len(snapshot.silent)} silent, kept by the guard")
    if counts["TIMEOUT"]:
        warnings.append(f"{counts['TIMEOUT']} timed out")
    if counts["UNHEALTHY"]:
        warnings.append(f"{counts['UNHEALTHY']} unhealthy")
    if snapshot.quarantined:
        warnings.append(f"{len(snapshot.quarantined)} quarantined")
    return warnings


def _is_grave(row: ServiceRow) -> bool:
    """Return whether requests fail, or may: nothing is routable, or some of what is routable may be dead."""
    return row.silent > 0 or (row.endpoints > 0 and not row.routable)


def by_trouble(row: ServiceRow) -> tuple[object, ...]:
    """Return the key by which services in trouble come first, those whose requests fail before the others."""
    return not _is_grave(row), -row.silent, -len(row.warnings), row.routable, row.name


_SORTED: dict[Sort, Callable[[ServiceRow], Any]] = {
    "name": lambda row: row.name,
    "trouble": by_trouble,
    "endpoints": lambda row: (-row.endpoints, row.name),
    "routable": lambda row: (row.routable / row.endpoints if row.endpoints else 0.0, row.name),
}
