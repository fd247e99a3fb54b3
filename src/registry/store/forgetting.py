"""Forgetting services that have had no endpoint for as long as the history is kept.

The numbers of a service that is founded begin above those of all that were forgotten (``registry_state.first_number``,
and the trigger that reads it): so its versions never go back, although nothing is kept of it by name.
"""

import structlog
from sqlalchemy import text

from registry.errors import RefusedError
from registry.store.database import FORGET_LOCK, Database

log = structlog.get_logger()

_MOST = 100
"""Services that one call forgets; the next call goes on."""

# The last event is looked for by the index of its service, whatever PostgreSQL knows of the table.
_FORGETTABLE = (
    "created_at < now() - make_interval(secs => :age)"
    " AND NOT EXISTS (SELECT FROM endpoints WHERE endpoints.service = services.name)"
    " AND NOT EXISTS (SELECT FROM overrides WHERE overrides.service = services.name)"
    " AND coalesce((SELECT at FROM events WHERE events.service = services.name"
    " ORDER BY transaction DESC, id DESC LIMIT 1) < now() - make_interval(secs => :age), true)"
)
# In any order, so that those that cannot be forgotten keep no other from it.
_CANDIDATES = text(f"SELECT name FROM services WHERE {_FORGETTABLE} ORDER BY random() LIMIT {_MOST}")  # noqa: S608  # constants
_SHORT_LOCK = text("SET LOCAL lock_timeout = '1s'")
# Nobody founds a service meanwhile; while somebody does, this is for the next time.
_ALONE = text("SELECT pg_try_advisory_xact_lock(:key)")
_LOCK_SERVICE = text("SELECT name FROM services WHERE name = :name FOR UPDATE SKIP LOCKED")
# In a statement behind the locks, which sees all that was stored before they were had.
_FORGET = text(
    "WITH gone AS (DELETE FROM services"  # noqa: S608  # constants
    f" WHERE name = :name AND {_FORGETTABLE} RETURNING version, change)"
    " UPDATE registry_state SET first_number = greatest(first_number, gone.version, gone.change) FROM gone"
    " RETURNING true"
)


async def forget_services(database: Database, age: float) -> None:
    """Forget services that have had no endpoint, no tombstone, no override and no event for ``age`` seconds.

    One that is locked is left for the next time, as is one that PostgreSQL refuses to delete.
    """
    async with database.session() as connection:
        names = list(await connection.scalars(_CANDIDATES, {"age": age}))
    for name in names:
        try:
            forgotten = await _forget(database, name, age)
        except RefusedError as error:
            log.warning("service_not_forgotten", service=name, reason=error.cause)
        else:
            if forgotten:
                log.info("service_forgotten", service=name)


async def _forget(database: Database, name: str, age: float) -> bool:
    async with database.transaction() as connection:
        await connection.execute(_SHORT_LOCK)
        if not (await connection.execute(_ALONE, {"key": FORGET_LOCK})).scalar_one():
            return False
        if (await connection.execute(_LOCK_SERVICE, {"name": name})).first() is None:
            return False
        return (await connection.execute(_FORGET, {"name": name, "age": age})).first() is not None
