"""Between rows and the values of the rules; times are seconds since 1970 outside of this folder."""

import datetime as dt
import sys
from collections.abc import Iterable
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, and_, func, select

from registry.endpoint import Endpoint, Override, Quarantined, check_publishable
from registry.tables import endpoints, overrides
from wire.model import Registration, Report

_override_columns: list[ColumnElement[Any]] = [
    overrides.c.weight.label("override_weight"),
    overrides.c.drain.label("override_drain"),
    overrides.c.actor.label("override_actor"),
    overrides.c.reason.label("override_reason"),
    overrides.c.set_at.label("override_set_at"),
    overrides.c.expires_at.label("override_expires_at"),
    overrides.c.instance_id.label("override_instance_id"),
    overrides.c.canary.label("override_canary"),
]

endpoint_columns: list[ColumnElement[Any]] = [
    *(column for column in endpoints.c if column is not endpoints.c.address),
    # As text without the netmask that inet would print.
    func.host(endpoints.c.address).label("address"),
    *_override_columns,
]


class Row(Protocol):
    """What SQLAlchemy returns: columns by name."""

    def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401  # columns of any type


def select_endpoints() -> Select[Any]:
    """Return the select of everything that makes an ``Endpoint``."""
    joined = endpoints.outerjoin(
        overrides,
        and_(
            overrides.c.service == endpoints.c.service,
            overrides.c.address == endpoints.c.address,
            overrides.c.port == endpoints.c.port,
        ),
    )
    return select(*endpoint_columns).select_from(joined)


def endpoints_from(rows: Iterable[Row]) -> tuple[list[Endpoint], list[Quarantined]]:
    """Read endpoints; one that Envoy would reject, changed by hand or of a newer registry, takes no other with it."""
    read, quarantined = [], []
    for row in rows:
        try:
            endpoint = endpoint_from(row)
            check_publishable(endpoint)
            read.append(endpoint)
        except ValueError as error:
            quarantined.append(Quarantined(row.id, row.service, row.address, row.port, str(error)))
    return read, quarantined


def endpoint_from(row: Row) -> Endpoint:
    """Read an endpoint; texts that many endpoints share are kept once."""
    return Endpoint(
        id=row.id,
        service=sys.intern(row.service),
        address=row.address,
        port=row.port,
        registration=_registration(row),
        registered_at=row.registered_at.timestamp(),
        changed_at=row.changed_at.timestamp(),
        lapsed_at=seconds(row.lapsed_at),
        leaving_at=seconds(row.leaving_at),
        unroutable_at=seconds(row.unroutable_at),
        removed_at=seconds(row.removed_at),
        suspect_since=seconds(row.suspect_since),
        suspect_reason=sys.intern(row.suspect_reason),
        change=row.change,
        override=None if row.override_drain is None else override_from(row),
    )


def _registration(row: Row) -> Registration:
    return Registration(
        instance_id=row.instance_id,
        incarnation=row.incarnation,
        health=Report(row.health),
        draining=row.draining,
        revision=sys.intern(row.revision),
        region=sys.intern(row.region),
        zone=sys.intern(row.zone),
        canary=row.canary,
        weight=row.weight,
        repository=sys.intern(row.repository) if row.repository is not None else None,
        metadata=row.metadata,
        detail=sys.intern(row.detail),
        ttl=row.ttl,
    )


def override_from(row: Row) -> Override:
    """Read an override from its labelled columns."""
    return Override(
        weight=row.override_weight,
        drain=row.override_drain,
        actor=row.override_actor,
        reason=row.override_reason,
        set_at=row.override_set_at.timestamp(),
        expires_at=seconds(row.override_expires_at),
        instance_id=row.override_instance_id,
        canary=row.override_canary,
    )


def override_columns() -> list[ColumnElement[Any]]:
    """Return the labelled columns of an override."""
    return _override_columns


def to_row(endpoint: Endpoint, change: int) -> dict[str, Any]:
    """Return the columns of an endpoint without its id."""
    told = endpoint.registration
    return {
        "service": endpoint.service,
        "address": endpoint.address,
        "port": endpoint.port,
        "instance_id": told.instance_id,
        "incarnation": told.incarnation,
        "health": told.health.value,
        "draining": told.draining,
        "revision": told.revision,
        "region": told.region,
        "zone": told.zone,
        "canary": told.canary,
        "weight": told.weight,
        "repository": told.repository,
        "metadata": told.metadata,
        "detail": told.detail,
        "ttl": told.ttl,
        "registered_at": moment(endpoint.registered_at),
        "changed_at": moment(endpoint.changed_at),
        "lapsed_at": moment(endpoint.lapsed_at),
        "leaving_at": moment(endpoint.leaving_at),
        "unroutable_at": moment(endpoint.unroutable_at),
        "removed_at": moment(endpoint.removed_at),
        "suspect_since": moment(endpoint.suspect_since),
        "suspect_reason": endpoint.suspect_reason,
        "change": change,
    }


def seconds(value: dt.datetime | None) -> float | None:
    """Return seconds since 1970."""
    return None if value is None else value.timestamp()


def moment(value: float | None) -> dt.datetime | None:
    """Return what a timestamptz column takes."""
    return None if value is None else dt.datetime.fromtimestamp(value, dt.UTC)
