"""The page of all services: counts by status, and warnings."""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from markupsafe import Markup

from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask_for_pauses, render
from registry.console.service_rows import ServiceRow, ServiceRowsPart
from registry.http.dependencies import READY, CatalogPart, ExpiryPart, OverridesPart, Reader

router = APIRouter(dependencies=[READY])

_MAX_LINES = 2_000
"""Lines of the table that are kept, of about 1.5 kB each. A line depends on its row alone."""

Sort = Literal["name", "trouble", "endpoints", "routable"]


@router.get("/services")
async def show_services(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    service_rows: ServiceRowsPart,
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
    rows = await service_rows.all(reader)
    troubled = sum(bool(row.warnings) for row in rows)
    matching = [row for row in rows if matches(q, row.name) and (not only or row.warnings)]
    matching.sort(key=_SORTED[sort])
    shown = page_of(matching, page)
    return frame.page(
        "services.html",
        rows=shown,
        lines=[_line(msgspec.msgpack.encode(row)) for row in shown.items],
        total=len(rows),
        unavailable=catalog.unavailable(reader),
        troubled=troubled,
        unroutable=sum(bool(row.endpoints and not row.routable) for row in rows),
        endpoints=sum(row.endpoints for row in rows),
        pauses=await ask_for_pauses(expiry, reader),
        overrides=len(overrides.all(reader)),
        q=q,
        sort=sort,
        only=only,
    )


@lru_cache(maxsize=_MAX_LINES)
def _line(row: bytes) -> Markup:
    """Return the line of a row, which is encoded so that it can be the key."""
    return render("service_line.html", row=msgspec.msgpack.decode(row, type=ServiceRow))


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
