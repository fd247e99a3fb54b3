"""The queries of events, in an order that transactions that commit late do not disturb."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Select, Text, bindparam, column, func, or_, select, text, true, tuple_
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from registry.auth.grants import Reach
from registry.core.expiry_guard import EVERYWHERE
from registry.core.history import EventFilter, Position, RecordedEvent
from registry.store.database import Database
from registry.store.tables import events
from registry.store.times import epoch

# Events of transactions that may still run, and of all that began after them, are not shown to a follower yet. So a
# follower that continues after the last event that it saw misses none.
_SETTLED = text(
    "events.transaction < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    " + (SELECT transaction_offset FROM registry_state)"
)


async def find_events(database: Database, wanted: EventFilter) -> Sequence[RecordedEvent]:
    """Return the events that a filter matches, in its order."""
    query = _of_services(wanted) if wanted.services else _matching(wanted)
    async with database.session() as connection:
        rows = await connection.execute(query.limit(wanted.limit))
        return [_recorded(row) for row in rows]


def _matching(wanted: EventFilter) -> Select[Any]:
    """Return the query of the events that a filter matches, without its limit."""
    position = tuple_(events.c.transaction, events.c.id)
    query = select(
        *(column for column in events.c if column.name not in ("at", "address")),
        epoch(events.c.at).label("at"),
        func.host(events.c.address).label("address"),
    )
    if wanted.reach is not None and not wanted.services:
        query = query.where(_reached(wanted.reach))
    if wanted.settled:
        query = query.where(_SETTLED)
    if wanted.service is not None:
        query = query.where(events.c.service == wanted.service)
    if wanted.address_port is not None:
        query = query.where(events.c.address == wanted.address_port[0], events.c.port == wanted.address_port[1])
    if wanted.kind is not None:
        query = query.where(events.c.kind == wanted.kind)
    if wanted.actor is not None:
        query = query.where(events.c.actor.contains(wanted.actor, autoescape=True))
    if wanted.since is not None:
        query = query.where(events.c.at >= func.to_timestamp(wanted.since))
    if wanted.until is not None:
        query = query.where(events.c.at <= func.to_timestamp(wanted.until))
    if wanted.after is not None:
        query = query.where(position < wanted.after if wanted.newest_first else position > wanted.after)
    return query.order_by(*_order(wanted, events.c))


def _of_services(wanted: EventFilter) -> Select[Any]:
    """Return the same query for few services: each is searched by its index, and the results are merged.

    Otherwise a page of services with few events would take a scan of all events.
    """
    parameter = bindparam("names", list(wanted.services), ARRAY(Text))
    names = func.unnest(parameter).table_valued(column("name", Text)).render_derived()
    each = _matching(wanted).where(events.c.service == names.c.name).limit(wanted.limit).lateral()
    return select(each).select_from(names.join(each, true())).order_by(*_order(wanted, each.c))


def _order(wanted: EventFilter, columns: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[Any]]:
    order = (columns.transaction, columns.id)
    return [column.desc() if wanted.newest_first else column for column in order]


def _reached(reach: Reach) -> ColumnElement[bool]:
    """Return the condition for events of the services that are reached, and of all services at once."""
    return or_(
        events.c.service.in_([*sorted(reach.names), EVERYWHERE]),
        *(events.c.service.startswith(prefix, autoescape=True) for prefix in reach.prefixes),
    )


async def latest_events_at(database: Database, service: str, at: float) -> Sequence[RecordedEvent]:
    """Return the last event of each endpoint that was listed at a past time, which tells its state then.

    Events without a status, like those of errands, tell none and are passed over.
    """
    position = [events.c.transaction.desc(), events.c.id.desc()]
    of_endpoints = (events.c.service == service, events.c.address.is_not(None), events.c.status != "")
    last = (
        select(events)
        .where(*of_endpoints, events.c.at <= func.to_timestamp(at))
        .ext(postgresql.distinct_on(events.c.address, events.c.port))
        .order_by(events.c.address, events.c.port, *position)
        .subquery()
    )
    query = select(
        *(column for column in last.c if column.name not in ("at", "address")),
        epoch(last.c.at).label("at"),
        func.host(last.c.address).label("address"),
    ).where(last.c.status != "REMOVED")
    async with database.session() as connection:
        return [_recorded(row) for row in await connection.execute(query)]


async def newest_position(database: Database) -> Position:
    """Return where the history ends now."""
    newest = await find_events(database, EventFilter(limit=1, settled=True))
    return newest[0].position if newest else (0, 0)


def _recorded(row: object) -> RecordedEvent:
    values = {name: getattr(row, name) for name in RecordedEvent.__struct_fields__}
    return RecordedEvent(**(values | {"at": float(values["at"])}))
