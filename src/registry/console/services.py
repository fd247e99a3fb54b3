"""The page of all services: counts by status, and what is wrong with whom."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.console.listing import matches, page_of
from registry.console.page import Framed, ask
from registry.cooperative import cooperatively
from registry.core.snapshot import Snapshot
from registry.http.parameters import ReadyReplica
from registry.http.v1.expiry import pauses_of
from wire.model import Health

router = APIRouter()

Sort = Literal["name", "trouble", "endpoints", "routable"]


class Row(Struct, frozen=True):
    """A service in the list; ``warnings`` say what a person should look at, the worst first."""

    name: str
    version: int
    counts: dict[str, int]
    endpoints: int
    routable: int
    warnings: list[str]


@router.get("/services")
async def show_services(
    process: ReadyReplica,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    sort: Sort = "name",
    only: Literal["", "trouble"] = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show all services, or those that are searched for."""
    rows = [row_of(snapshot) async for snapshot in cooperatively(process.cache.services().values())]
    troubled = sum(bool(row.warnings) for row in rows)
    found = [row for row in rows if matches(q, row.name) and (not only or row.warnings)]
    found.sort(key=_SORTED[sort])
    return frame.page(
        "services.html",
        rows=page_of(found, page),
        known=len(rows),
        troubled=troubled,
        endpoints=sum(row.endpoints for row in rows),
        pauses=await ask(pauses_of(process)),
        q=q,
        sort=sort,
        only=only,
    )


def row_of(snapshot: Snapshot) -> Row:
    """Return a service in numbers, with its warnings."""
    counts = snapshot.counts
    routable = counts[Health.HEALTHY] + counts[Health.DEGRADED]
    return Row(
        name=snapshot.service,
        version=snapshot.version,
        counts=dict(counts),
        endpoints=len(snapshot.endpoints),
        routable=routable,
        warnings=_warnings(snapshot, routable),
    )


def _warnings(snapshot: Snapshot, routable: int) -> list[str]:
    counts = snapshot.counts
    said = []
    if not routable and snapshot.endpoints:
        said.append("no endpoint may have traffic")
    if counts[Health.TIMEOUT]:
        said.append(f"{counts[Health.TIMEOUT]} silent")
    if counts[Health.UNHEALTHY]:
        said.append(f"{counts[Health.UNHEALTHY]} unhealthy")
    if snapshot.suspects:
        said.append(f"{snapshot.suspects} suspected, kept served by the guard")
    if snapshot.quarantined:
        said.append(f"{len(snapshot.quarantined)} quarantined")
    return said


_SORTED: dict[Sort, Callable[[Row], Any]] = {
    "name": lambda row: row.name,
    "trouble": lambda row: (-len(row.warnings), row.routable, row.name),
    "endpoints": lambda row: (-row.endpoints, row.name),
    "routable": lambda row: (row.routable / row.endpoints if row.endpoints else 0.0, row.name),
}
