"""The rows of services in the console's lists, made once for as long as their services are the same."""

from typing import Annotated

from fastapi import Depends, Request
from msgspec import Struct

from registry.auth.principal import Principal
from registry.cooperative import cooperatively
from registry.core.presence import Presence, unchanged_between
from registry.core.snapshot import Snapshot
from registry.http.dependencies import part_of
from registry.http.lists.kept import Dated, Kept
from registry.usecases.catalog import Catalog, Moment

_MAX_ROWS = 16_777_216
"""Bytes of rows that are kept: those of about 16,000 services."""
_ROW_SIZE = 1_000
"""Bytes that a kept row takes beside the names in it."""


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


class _DatedRow(Dated):
    __slots__ = ("row",)
    row: ServiceRow


class ServiceRows:
    """Makes the rows of services. Each open page asks for all of them every two seconds.

    Args:
        catalog: reads the services.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._rows: Kept[_DatedRow] = Kept(_MAX_ROWS)
        """By service. Written by _row()."""

    async def all(self, principal: Principal) -> list[ServiceRow]:
        """Return the rows of all services that a principal may read."""
        services = self._catalog.services(principal)
        moment = self._catalog.moment()
        return [self._row(snapshot, moment) async for snapshot in cooperatively(services)]

    def _row(self, snapshot: Snapshot, moment: Moment) -> ServiceRow:
        stamp = moment.stamp_of(snapshot)
        kept = self._rows.get(snapshot.service)
        if kept is not None and kept.is_current(stamp, moment.now):
            return kept.row
        dated = _DatedRow(stamp, *unchanged_between(snapshot.lost.values(), moment.now))
        dated.row = service_row_of(snapshot, snapshot.presence(moment.now, moment.desired_counts))
        self._rows.put(snapshot.service, dated, _ROW_SIZE + 2 * len(snapshot.service))
        return dated.row


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


async def _service_rows(request: Request) -> ServiceRows:
    return part_of(request, ServiceRows)


ServiceRowsPart = Annotated[ServiceRows, Depends(_service_rows)]
"""The argument of pages that show all services."""
