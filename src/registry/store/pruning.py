"""Deleting what is old: tombstones, events, and services without endpoints."""

import random
from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import TextClause, func, select, text

from registry.core.presence import MAX_LOST_AGE
from registry.errors import RefusedError, UnavailableError
from registry.store.database import Database
from registry.store.forgetting import forget_services
from registry.store.tables import endpoints, services

log = structlog.get_logger()

_MAX_SERVICES_PER_DELETE = 50
"""Services whose tombstones one transaction deletes at most: changes of these services wait for it."""
_MAX_EVENTS_PER_DELETE = 5_000
"""Events that one transaction deletes at most, so that it is short."""
_MAX_DELETES = 40
"""Transactions of one call at most; 200,000 events every 30 s are more than a registry can write."""

_PRUNE_TOMBSTONES = text(
    # A lost endpoint is listed for people, by its tombstone, for longer than tombstones are needed.
    "WITH gone AS (DELETE FROM endpoints WHERE removed_at < now() - make_interval(secs => :age)"  # noqa: S608  # constants
    f" AND (lost_at IS NULL OR lost_at < now() - make_interval(secs => {MAX_LOST_AGE}))"
    # Only of locked services: others may have got tombstones meanwhile, which are left for the next call.
    " AND service = ANY(CAST(:names AS text[])) RETURNING service, change)"
    " UPDATE services SET floor = greatest(floor, pruned.change)"
    " FROM (SELECT service, max(change) AS change FROM gone GROUP BY service) AS pruned"
    " WHERE services.name = pruned.service"
)


# Of each endpoint that was listed at the cut, the last event before it that has a status is kept, so that its state at
# any later time is known.
def _prune_events(before_cut: str) -> TextClause:
    return text(
        f"DELETE FROM events WHERE id IN (SELECT old.id FROM events AS old"  # noqa: S608  # constants
        f" WHERE {before_cut.format('old')} AND (old.address IS NULL OR old.status IN ('REMOVED', '') OR EXISTS ("
        "  SELECT FROM events AS newer WHERE newer.service = old.service AND newer.address = old.address"
        "  AND newer.port = old.port AND newer.status <> ''"
        "  AND (newer.transaction, newer.id) > (old.transaction, old.id)"
        f"  AND {before_cut.format('newer')})) LIMIT {_MAX_EVENTS_PER_DELETE})"
    )


_PRUNE_OLD_EVENTS = _prune_events("{}.at < now() - make_interval(secs => :age)")
# By id, since ids grow with time and are never fewer than the rows, so that no rows have to be counted.
_PRUNE_EXCESS_EVENTS = _prune_events("{}.id <= (SELECT max(id) FROM events) - :most")


async def prune(database: Database, *, tombstones: float, history: float, most_events: int) -> int:
    """Delete old tombstones, old events and events beyond the maximum, and forget services without endpoints.

    Readers that have not seen a deleted tombstone are below the service's floor and read the service whole. Tombstones
    that cannot be deleted keep nothing else from being done.

    Args:
        database: the database.
        tombstones: seconds for which tombstones are kept.
        history: seconds for which events are kept, and services without endpoints after their last event.
        most_events: the maximum number of events.

    Returns:
        the number of events that were deleted because there were too many.

    Raises:
        UnavailableError: PostgreSQL is away or too slow; what it has done is done.
    """
    failure: UnavailableError | None = None
    try:
        await _prune_all_tombstones(database, tombstones)
    except UnavailableError as error:
        failure = error
    await _prune(database, _PRUNE_OLD_EVENTS, {"age": history})
    excess = await _prune(database, _PRUNE_EXCESS_EVENTS, {"most": most_events})
    await forget_services(database, history)
    if failure is not None:
        raise failure
    return excess


async def _prune_all_tombstones(database: Database, age: float) -> None:
    async with database.session() as connection:
        gone = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, age)
        lost_until = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, MAX_LOST_AGE)
        pruned = (
            select(endpoints.c.service)
            .distinct()
            .where(endpoints.c.removed_at < gone, endpoints.c.lost_at.is_(None) | (endpoints.c.lost_at < lost_until))
        )
        names = list(await connection.scalars(pruned))
    # In random order, so that a service whose tombstones take too long does not block the others.
    random.shuffle(names)
    for begin in range(0, len(names), _MAX_SERVICES_PER_DELETE):
        await _prune_tombstones(database, names[begin : begin + _MAX_SERVICES_PER_DELETE], age)


async def _prune_tombstones(database: Database, names: Sequence[str], age: float) -> None:
    """Delete the old tombstones of services; a locked service is left for the next call.

    A service that PostgreSQL refuses to change is found by bisection, and does not stop the others.
    """
    try:
        async with database.transaction() as connection:
            # The order in which changes lock: services first.
            wanted = select(services.c.name).where(services.c.name.in_(names)).order_by(services.c.name)
            locked = list(await connection.scalars(wanted.with_for_update(skip_locked=True)))
            await connection.execute(_PRUNE_TOMBSTONES, {"age": age, "names": locked})
    except RefusedError as error:
        if len(names) == 1:
            log.warning("tombstones_not_pruned", service=names[0], reason=error.cause)
            return
        middle = len(names) // 2
        await _prune_tombstones(database, names[:middle], age)
        await _prune_tombstones(database, names[middle:], age)


async def _prune(database: Database, statement: TextClause, parameters: Mapping[str, float]) -> int:
    """Delete in short transactions until nothing is left; the next call continues after the last of them."""
    pruned = 0
    for _ in range(_MAX_DELETES):
        async with database.transaction() as connection:
            gone = (await connection.execute(statement, dict(parameters))).rowcount
        pruned += gone
        if gone < _MAX_EVENTS_PER_DELETE:
            break
    return pruned
