"""Rows of leases are deleted by hand: the live renew and stay, the dead lapse after one more lease."""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.figures import Figures
from harness.fleet import fleet
from harness.postgres import Postgres
from harness.process import eventually
from harness.registrar import registrar
from harness.registry import Registry, registry

pytestmark = pytest.mark.faults

_TTL = 4.0
_LOOK = 5.0 + 1.0
"""Seconds between two looks for endpoints without a lease, and a sweep."""


def test_every_lease_is_deleted(
    database: str, server: Postgres, workplace: Path, service: str, figures: Figures
) -> None:
    """Two live endpoints, a dead one, and one of a service whose leases PostgreSQL refuses to store."""
    refused, dead = f"{service}-refused", f"{service}-dead"
    with (
        registry(database, workplace, lease_ttl=f"{_TTL}s", removal_delay="2s") as found,
        fleet(workplace, 2) as apps,
        registrar(workplace, found.url, service, apps[0]),
        registrar(workplace, found.url, service, apps[1]),
    ):
        eventually(lambda: found.statuses(service) == dict.fromkeys(apps, "HEALTHY"), within=20)
        found.register(refused, "10.0.0.9:80", ttl=600)
        found.register(dead, "10.0.0.1:80", ttl=_TTL)
        (row,) = server.execute(f"SELECT id FROM endpoints WHERE service = '{refused}'", url=database)
        server.execute("DELETE FROM leases", url=database)
        check = f"ALTER TABLE leases ADD CONSTRAINT refused CHECK (endpoint_id <> {row['id']}) NOT VALID"
        server.execute(check, url=database)
        took = eventually(_lapsed(found, dead), within=30)
        events = found.client.get(f"/v1/events?service={service}").json()["events"]
        eventually(lambda: _refused(found) == [refused], within=10)
    fault = f"all leases deleted, lease of {_TTL:g} s"
    figures.at_most("A6", f"{fault}: a silent endpoint is not routable", _TTL + _LOOK + 1, took)
    figures.equal("A6", f"{fault}: kinds of events of live endpoints", {"registered"}, {one["kind"] for one in events})


def _lapsed(found: Registry, service: str) -> Callable[[], bool]:
    return lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}


def _refused(found: Registry) -> list[str]:
    refused = found.client.get("/v1/state").json()["sweeper"]["refused"] or []
    return [one["service"] for one in refused if one["action"] == "missing_lease"]
