"""The events of endpoints, in an order that no late commit disturbs."""

from collections.abc import Sequence

from sqlalchemy import func, select, text, tuple_

from registry.core.history import EventFilter, Position, RecordedEvent
from registry.store.database import Database
from registry.store.tables import events

# Events of transactions that may still run, and of all that began after them, are not shown to a follower yet: so
# one that goes on from the last it saw misses none.
_SETTLED = text("events.transaction < pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


async def find_events(database: Database, wanted: EventFilter) -> Sequence[RecordedEvent]:
    """Return events, the newest first or, for a follower, the oldest first."""
    position = tuple_(events.c.transaction, events.c.id)
    found = select(
        *(column for column in events.c if column.name not in ("at", "address")),
        func.extract("epoch", events.c.at).label("at"),
        func.host(events.c.address).label("address"),
    )
    if wanted.settled:
        found = found.where(_SETTLED)
    if wanted.service is not None:
        found = found.where(events.c.service == wanted.service)
    if wanted.address_port is not None:
        found = found.where(events.c.address == wanted.address_port[0], events.c.port == wanted.address_port[1])
    if wanted.kind is not None:
        found = found.where(events.c.kind == wanted.kind)
    if wanted.actor is not None:
        found = found.where(events.c.actor.contains(wanted.actor, autoescape=True))
    if wanted.since is not None:
        found = found.where(events.c.at >= func.to_timestamp(wanted.since))
    if wanted.after is not None:
        found = found.where(position < wanted.after if wanted.newest_first else position > wanted.after)
    order = [events.c.transaction, events.c.id]
    found = found.order_by(*(column.desc() if wanted.newest_first else column for column in order))
    async with database.session() as connection:
        rows = await connection.execute(found.limit(wanted.limit))
        return [_recorded(row) for row in rows]


async def latest_events_at(database: Database, service: str, at: float) -> Sequence[RecordedEvent]:
    """Return, for each endpoint that was listed at a past time, the event that made it what it was then."""
    position = [events.c.transaction.desc(), events.c.id.desc()]
    last = (
        select(events)
        .distinct(events.c.address, events.c.port)
        .where(events.c.service == service, events.c.address.is_not(None), events.c.at <= func.to_timestamp(at))
        .order_by(events.c.address, events.c.port, *position)
        .subquery()
    )
    found = select(
        *(column for column in last.c if column.name not in ("at", "address")),
        func.extract("epoch", last.c.at).label("at"),
        func.host(last.c.address).label("address"),
    ).where(last.c.status != "REMOVED")
    async with database.session() as connection:
        return [_recorded(row) for row in await connection.execute(found)]


async def newest_position(database: Database) -> Position:
    """Return where the history ends now."""
    found = await find_events(database, EventFilter(limit=1, settled=True))
    return found[0].position if found else (0, 0)


def _recorded(row: object) -> RecordedEvent:
    values = {name: getattr(row, name) for name in RecordedEvent.__struct_fields__}
    return RecordedEvent(**(values | {"at": float(values["at"])}))
