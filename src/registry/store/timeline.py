"""PostgreSQL's timeline, which each promotion of a standby changes, and the versions of services across it."""

from collections.abc import Collection

from sqlalchemy import BigInteger, ColumnElement, Integer, bindparam, func, select, text

from registry.core.versions import version_jump
from registry.store.database import CHANNEL
from registry.store.driver import Driver, Statement
from registry.store.tables import registry_state, services

# Subqueries, so that each is evaluated once a statement and not once a row.
_now = select(func.headcount_timeline()).scalar_subquery()
_first = select(registry_state.c.timeline).scalar_subquery()

generation: ColumnElement[int] = func.greatest(_now - _first, 0, type_=Integer).label("generation")
"""The number of promotions since the database was created."""
crossed: ColumnElement[bool] = func.coalesce(services.c.timeline, _first).is_distinct_from(_now).label("crossed")
"""Whether a service was last changed on another timeline; one without a timeline counts as of the first."""

_MOVE_ON = Statement(
    text(
        "WITH moved AS (UPDATE services SET timeline = headcount_timeline(),"
        # Version 0 means that the service never had an endpoint, and stays 0.
        " version = CASE WHEN version > 0 THEN version + :far ELSE 0 END,"
        " change = CASE WHEN version > 0 THEN change + :far ELSE change END,"
        " floor = CASE WHEN version > 0 THEN change + :far ELSE floor END"
        " WHERE name = ANY(CAST(:names AS text[]))"
        " AND coalesce(timeline, (SELECT timeline FROM registry_state)) IS DISTINCT FROM (SELECT headcount_timeline())"
        " RETURNING name) SELECT pg_notify(:channel, name) FROM moved"
    ).bindparams(bindparam("far", type_=BigInteger), channel=CHANNEL)
)


async def move_on(driver: Driver, names: Collection[str]) -> None:
    """Raise the versions of services that were last changed on another timeline, so that readers read them whole.

    The services have to be locked, and this transaction must not have raised their versions before.
    """
    await driver.run(_MOVE_ON, names=sorted(names), far=version_jump())
