"""Between rows and the values of the rules; times are seconds since 1970 outside of this folder."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from sys import intern
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import ColumnElement, FromClause, Select, and_, column, func, select

from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint, Override, Quarantined, check_publishable
from registry.store.tables import endpoints, overrides
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


def endpoint_columns(found: FromClause) -> list[ColumnElement[Any]]:
    """Return what makes an ``Endpoint``, in the order in which ``endpoint_from`` takes it.

    Args:
        found: the endpoints, or what was selected of them; overrides have to be joined.
    """
    return [
        found.c.id,
        found.c.service,
        # As text without the netmask that inet would print.
        func.host(found.c.address).label("address"),
        found.c.port,
        found.c.registered_at,
        found.c.changed_at,
        found.c.lapsed_at,
        found.c.leaving_at,
        found.c.unroutable_at,
        found.c.removed_at,
        found.c.suspect_since,
        found.c.suspect_reason,
        found.c.change,
        found.c.instance_id,
        found.c.incarnation,
        found.c.health,
        found.c.draining,
        found.c.revision,
        found.c.region,
        found.c.zone,
        found.c.canary,
        found.c.weight,
        found.c.repository,
        found.c.metadata,
        found.c.detail,
        found.c.ttl,
        overrides.c.drain.label("override_drain"),
        *(column for column in _override_columns if column.name != "override_drain"),
    ]


def overrides_of(found: FromClause) -> ColumnElement[bool]:
    """Match the override of each endpoint."""
    return and_(
        overrides.c.service == found.c.service,
        overrides.c.address == found.c.address,
        overrides.c.port == found.c.port,
    )


Number = TypeVar("Number", int, float)


class Row(Protocol):
    """What SQLAlchemy and the driver return: columns by name, and in their order."""

    def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401  # columns of any type

    def __iter__(self) -> Iterator[Any]: ...


def select_endpoints(wanted: ColumnElement[bool], found: FromClause = endpoints) -> Select[Any]:
    """Return the select of everything that makes an ``Endpoint``, and of the time when it is run.

    The time comes with each row, and if there is none, with one whose id is null.

    Args:
        wanted: which endpoints.
        found: where they are looked for, with all columns of the table.
    """
    joined = (
        func.clock_timestamp()
        .table_valued(column("now"))
        .render_derived()
        .outerjoin(found, wanted)
        .outerjoin(overrides, overrides_of(found))
    )
    return select(*endpoint_columns(found), func.extract("epoch", column("now")).label("now")).select_from(joined)


async def endpoints_from(rows: Iterable[Row]) -> tuple[list[Endpoint], list[Quarantined]]:
    """Read endpoints, many of them in turns with others."""
    read: list[Endpoint] = []
    quarantined: list[Quarantined] = []
    async for row in cooperatively(rows):
        found = read_row(row)
        if isinstance(found, Endpoint):
            read.append(found)
        else:
            quarantined.append(found)
    return read, quarantined


def read_row(row: Row) -> Endpoint | Quarantined:
    """Read an endpoint; one that Envoy would reject, changed by hand or of a newer registry, takes no other with it."""
    try:
        endpoint = endpoint_from(row)
        check_publishable(endpoint)
    except ValueError as error:
        return Quarantined(row.id, row.service, row.address, row.port, str(error))
    return endpoint


def endpoint_from(row: Row) -> Endpoint:
    """Read an endpoint; what many endpoints share is kept once.

    By position: 26 columns by name take four times as long, and are most of the time in which a process starts.
    """
    (
        endpoint_id,
        service,
        address,
        port,
        registered_at,
        changed_at,
        lapsed_at,
        leaving_at,
        unroutable_at,
        removed_at,
        suspect_since,
        suspect_reason,
        change,
        *told,
    ) = row
    changed = changed_at.timestamp()
    return Endpoint(
        endpoint_id,
        intern(service),
        address,
        _shared(port),
        _registration(told),
        changed if registered_at == changed_at else registered_at.timestamp(),
        changed,
        seconds(lapsed_at),
        seconds(leaving_at),
        seconds(unroutable_at),
        seconds(removed_at),
        seconds(suspect_since),
        intern(suspect_reason),
        change,
        None if told[_OVERRIDDEN] is None else override_from(row),
    )


@lru_cache(maxsize=1024, typed=True)
def _shared(number: Number) -> Number:
    """Return the first of equal numbers, so that one object serves all endpoints with the same port or lease."""
    return number


_OVERRIDDEN = 13
_NO_METADATA: dict[str, Any] = {}


def _registration(told: Sequence[Any]) -> Registration:
    (
        instance_id,
        incarnation,
        health,
        draining,
        revision,
        region,
        zone,
        canary,
        weight,
        repository,
        metadata,
        detail,
        ttl,
        *_,
    ) = told
    return Registration(
        instance_id,
        incarnation,
        Report(health),
        draining,
        intern(revision),
        intern(region),
        intern(zone),
        canary,
        weight,
        repository and intern(repository),
        # Most have none, and an empty dict for each would cost as much as the address.
        metadata or (_NO_METADATA if metadata == {} else metadata),
        intern(detail),
        _shared(ttl),
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
        # SQLAlchemy tells the driver to take JSON as text.
        "metadata": msgspec.json.encode(told.metadata).decode(),
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
