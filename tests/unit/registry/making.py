"""Endpoints and registrations for the tests of the rules."""

from array import array
from typing import Any

from msgspec.structs import replace

from registry.core.endpoint import Endpoint
from registry.core.endpoint_table import EndpointTable
from registry.core.lease import Leases
from registry.core.snapshot import Snapshot
from wire.model import Registration

NOW = 1_000_000.0


def registration(instance: str = "i-1", incarnation: int = 1, **fields: Any) -> Registration:
    """Return what an instance says, with a lease of 20 s."""
    return Registration(instance, incarnation, **({"ttl": 20.0} | fields))


def endpoint(number: int = 1, service: str = "shop", stored: Registration | None = None, **fields: Any) -> Endpoint:
    """Return the endpoint 10.0.x.y:80 of this number, also its id."""
    address = f"10.0.{number // 250}.{number % 250 + 1}"
    made = Endpoint(number, service, address, 80, stored or registration(f"i-{number}"), NOW, NOW)
    made = replace(made, **fields)
    return replace(made, unroutable_at=None if made.routable else fields.get("unroutable_at", NOW))


def leases(*held: tuple[int, float, float]) -> Leases:
    """Return leases by their endpoint's id, when each was renewed and when it expires."""
    ids, renewed, expires = zip(*sorted(held), strict=True)
    return Leases(array("q", ids), array("q", map(_since_2000, renewed)), array("q", map(_since_2000, expires)))


def _since_2000(seconds: float) -> int:
    return round((seconds - 946_684_800) * 1e6)


def snapshot(*endpoints: Endpoint, service: str = "shop", version: int = 1, change: int = 1) -> Snapshot:
    """Return a snapshot of these endpoints."""
    return Snapshot(service, version, change, EndpointTable(endpoints))
