"""The deletion of services that have had no endpoint for the event retention.

The version of a new service begins above the versions of all forgotten services (``registry_state.first_number``, and
the trigger that reads it). So the versions of a name never go back, although nothing is kept under the name.
"""

import structlog
from sqlalchemy import text

from registry.errors import RefusedError
from registry.store.database import FORGET_LOCK, Database

log = structlog.get_logger()

_MAX_SERVICES = 100
"""Services that one call forgets; the next call continues."""

# The last event is looked for by the index of its service, whatever PostgreSQL knows of the table.
_FORGETTABLE = (
    "created_at < now() - make_interval(secs => :age)"
    " AND NOT EXISTS (SELECT FROM endpoints WHERE endpoints.service = services.name)"
    " AND NOT EXISTS (SELECT FROM overrides WHERE overrides.service = services.name)"
    " AND coalesce((SELECT at FROM events WHERE events.service = services.name"
    " ORDER BY transaction DESC, id DESC LIMIT 1) < now() - make_interval(secs => :age), true)"
)
# In random order, so that services that cannot be forgotten do not block the others.
_CANDIDATES = text(f"SELECT name FROM services WHERE {_FORGETTABLE} ORDER BY random() LIMIT {_MAX_SERVICES}")  # noqa: S608  # constants
_SHORT_LOCK = text("SET LOCAL lock_timeout = '1s'")
# No service is created meanwhile; while one is being created, the next call forgets.
_ALONE = text("SELECT pg_try_advisory_xact_lock(:key)")
_LOCK_SERVICE = text("SELECT name FROM services WHERE name = :name FOR UPDATE SKIP LOCKED")
# In a statement after the locks, which sees everything that was stored before they were acquired.
_FORGET = text(
    "WITH gone AS (DELETE FROM services"  # noqa: S608  # constants
    f" WHERE name = :name AND {_FORGETTABLE} RETURNING version, change)"
    " UPDATE registry_state SET first_number = greatest(first_number, gone.version, gone.change) FROM gone"
    " RETURNING true"
)

_FORGET_METADATA = text("DELETE FROM mesh_catalog WHERE service = :name")


async def forget_services(database: Database, age: float) -> None:
    """Forget services that have had no endpoint, tombstone, override or event for ``age`` seconds.

    A service that is locked, or that PostgreSQL refuses to delete, is left for the next call.
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
        if (await connection.execute(_FORGET, {"name": name, "age": age})).first() is None:
            return False
        await connection.execute(_FORGET_METADATA, {"name": name})
        return True
