"""Locks of services for the rest of a transaction, and the versions of the locked services.

A transaction of any kind that changes a service locks it here first. At the first change since a fail-over the service
moves on to higher versions (``registry.store.timeline``).
"""

from typing import Any

from msgspec import Struct
from sqlalchemy import ARRAY, ColumnElement, Text, any_, bindparam, select

from registry.store.driver import Driver, Statement
from registry.store.tables import services
from registry.store.timeline import crossed, generation, move_on


class StoredVersion(Struct, frozen=True):
    """The version and the change of a service after a transaction."""

    version: int
    change: int


class LockedServices(Struct, frozen=True):
    """The versions of the services that a transaction has locked, and the number of promotions so far."""

    versions: dict[str, StoredVersion]
    generation: int = 0


def locking(names: ColumnElement[Any]) -> Statement:
    """Return the statement that locks the services of an array of names, in their order."""
    columns = (services.c.name, services.c.version, services.c.change, crossed, generation)
    return Statement(select(*columns).where(services.c.name == any_(names)).order_by(services.c.name).with_for_update())


LOCK_SERVICES = locking(bindparam("names", type_=ARRAY(Text)))
"""Locks the services that the parameter ``names`` names."""


async def lock_service(driver: Driver, service: str) -> bool:
    """Lock a service for the rest of the transaction; return False if it is not known."""
    return bool((await lock_services(driver, LOCK_SERVICES, names=[service])).versions)


async def lock_services(driver: Driver, lock: Statement, **parameters: object) -> LockedServices:
    """Lock the services of a statement that ``locking`` has made, and return their versions.

    Args:
        driver: the transaction.
        lock: the statement.
        parameters: the parameters of the statement.
    """
    rows = await driver.rows(lock, **parameters)
    if any(row.crossed for row in rows):
        # The first change since a fail-over: the former primary may have served the next version already.
        await move_on(driver, [row.name for row in rows])
        rows = await driver.rows(lock, **parameters)
    versions = {row.name: StoredVersion(row.version, row.change) for row in rows}
    return LockedServices(versions, rows[0].generation if rows else 0)
