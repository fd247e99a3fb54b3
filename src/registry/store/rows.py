"""The conversion between rows and the values of the rules, whose times are seconds since 1970."""

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
from registry.store.times import bounded
from wire.model import Registration, Report

_override_columns: list[ColumnElement[Any]] = [
    overrides.c.weight.label("override_weight"),
    overrides.c.drain.label("override_drain"),
    overrides.c.actor.label("override_actor"),
    overrides.c.reason.label("override_reason"),
    bounded(overrides.c.set_at).label("override_set_at"),
    bounded(overrides.c.expires_at).label("override_expires_at"),
    overrides.c.instance_id.label("override_instance_id"),
    overrides.c.canary.label("override_canary"),
]


def endpoint_columns(source: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of an ``Endpoint``, in the order in which ``endpoint_from`` takes them.

    Args:
        source: the table of endpoints or a subquery of it; overrides have to be joined.
    """
    return [
        source.c.id,
        source.c.service,
        # As text without the netmask that inet would print.
        func.host(source.c.address).label("address"),
        source.c.port,
        bounded(source.c.registered_at).label("registered_at"),
        bounded(source.c.changed_at).label("changed_at"),
        bounded(source.c.lapsed_at).label("lapsed_at"),
        bounded(source.c.leaving_at).label("leaving_at"),
        bounded(source.c.unroutable_at).label("unroutable_at"),
        bounded(source.c.removed_at).label("removed_at"),
        bounded(source.c.suspect_since).label("suspect_since"),
        source.c.suspect_reason,
        source.c.change,
        source.c.owner,
        bounded(source.c.lost_at).label("lost_at"),
        source.c.lost_reason,
        bounded(source.c.spare_since).label("spare_since"),
        source.c.drained_by,
        source.c.instance_id,
        source.c.incarnation,
        source.c.health,
        source.c.draining,
        source.c.revision,
        source.c.region,
        source.c.zone,
        source.c.canary,
        source.c.weight,
        source.c.repository,
        source.c.metadata,
        source.c.detail,
        source.c.ttl,
        source.c.expected,
        overrides.c.drain.label("override_drain"),
        *(column for column in _override_columns if column.name != "override_drain"),
    ]


def overrides_of(source: FromClause) -> ColumnElement[bool]:
    """Return the condition that joins each endpoint with its override."""
    return and_(
        overrides.c.service == source.c.service,
        overrides.c.address == source.c.address,
        overrides.c.port == source.c.port,
    )


Number = TypeVar("Number", int, float)


class Row(Protocol):
    """A row of SQLAlchemy or of the driver, with its columns by name and in their order."""

    def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401  # columns of any type

    def __iter__(self) -> Iterator[Any]: ...


def select_endpoints(condition: ColumnElement[bool], source: FromClause = endpoints) -> Select[Any]:
    """Return a query of the columns of an ``Endpoint`` and of PostgreSQL's time.

    The time is in each row. If there is no endpoint, one row has the time and a null id.

    Args:
        condition: the condition for the endpoints.
        source: the table of endpoints, or a subquery with all its columns.
    """
    joined = (
        func.clock_timestamp()
        .table_valued(column("now"))
        .render_derived()
        .outerjoin(source, condition)
        .outerjoin(overrides, overrides_of(source))
    )
    return select(*endpoint_columns(source), func.extract("epoch", column("now")).label("now")).select_from(joined)


async def endpoints_from(rows: Iterable[Row]) -> tuple[list[Endpoint], list[Quarantined]]:
    """Read endpoints, yielding to the event loop after every few."""
    listed: list[Endpoint] = []
    quarantined: list[Quarantined] = []
    async for row in cooperatively(rows):
        endpoint = read_row(row)
        if isinstance(endpoint, Endpoint):
            listed.append(endpoint)
        else:
            quarantined.append(endpoint)
    return listed, quarantined


def read_row(row: Row) -> Endpoint | Quarantined:
    """Read an endpoint, or return it as quarantined if Envoy would reject it or it cannot be read."""
    try:
        endpoint = endpoint_from(row)
        check_publishable(endpoint)
    except ValueError as error:
        return Quarantined(row.id, row.service, row.address, row.port, str(error))
    return endpoint


def endpoint_from(row: Row) -> Endpoint:
    """Read an endpoint; values that many endpoints share are kept in memory once.

    Columns are read by position: by name they take four times as long, which is most of the start of a process.
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
        owner,
        lost_at,
        lost_reason,
        spare_since,
        drained_by,
        *columns,
    ) = row
    changed = changed_at.timestamp()
    return Endpoint(
        endpoint_id,
        intern(service),
        address,
        _shared(port),
        _registration(columns),
        changed if registered_at == changed_at else registered_at.timestamp(),
        changed,
        seconds(lapsed_at),
        seconds(leaving_at),
        seconds(unroutable_at),
        seconds(removed_at),
        seconds(suspect_since),
        intern(suspect_reason),
        change,
        None if columns[_OVERRIDE_DRAIN_INDEX] is None else override_from(row),
        intern(owner),
        seconds(lost_at),
        intern(lost_reason),
        seconds(spare_since),
        intern(drained_by),
    )


@lru_cache(maxsize=1024, typed=True)
def _shared(number: Number) -> Number:
    """Return one object for all equal numbers, which endpoints with the same port or lease then share."""
    return number


_OVERRIDE_DRAIN_INDEX = 14
"""The position of ``override_drain`` behind ``drained_by``; null: there is no override."""
_NO_METADATA: dict[str, Any] = {}


def _registration(columns: Sequence[Any]) -> Registration:
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
        expected,
        *_,
    ) = columns
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
        # Most endpoints have none, and an empty dict for each would take as much memory as the address.
        metadata or (_NO_METADATA if metadata == {} else metadata),
        intern(detail),
        _shared(ttl),
        expected,
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
    registration = endpoint.registration
    return {
        "service": endpoint.service,
        "address": endpoint.address,
        "port": endpoint.port,
        "instance_id": registration.instance_id,
        "incarnation": registration.incarnation,
        "health": registration.health.value,
        "draining": registration.draining,
        "revision": registration.revision,
        "region": registration.region,
        "zone": registration.zone,
        "canary": registration.canary,
        "weight": registration.weight,
        "repository": registration.repository,
        # SQLAlchemy tells the driver to take JSON as text.
        "metadata": msgspec.json.encode(registration.metadata).decode(),
        "detail": registration.detail,
        "ttl": registration.ttl,
        "expected": registration.expected,
        "registered_at": moment(endpoint.registered_at),
        "changed_at": moment(endpoint.changed_at),
        "lapsed_at": moment(endpoint.lapsed_at),
        "leaving_at": moment(endpoint.leaving_at),
        "unroutable_at": moment(endpoint.unroutable_at),
        "removed_at": moment(endpoint.removed_at),
        "suspect_since": moment(endpoint.suspect_since),
        "suspect_reason": endpoint.suspect_reason,
        "change": change,
        "owner": endpoint.owner,
        "lost_at": moment(endpoint.lost_at),
        "lost_reason": endpoint.lost_reason,
        "spare_since": moment(endpoint.spare_since),
        "drained_by": endpoint.drained_by,
    }


def seconds(value: dt.datetime | None) -> float | None:
    """Return seconds since 1970."""
    return None if value is None else value.timestamp()


def moment(value: float | None) -> dt.datetime | None:
    """Return a time as a timestamptz column takes it."""
    return None if value is None else dt.datetime.fromtimestamp(value, dt.UTC)
