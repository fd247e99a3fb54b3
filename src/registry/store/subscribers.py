"""What each process knows of who polls it, where all processes can read it."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from registry.store.database import Database, clock
from registry.store.rows import Row
from registry.subscribers import FORGOTTEN_AFTER, LAG, Sighting
from registry.tables import subscribers

_KEY = ("process", "service", "node_id", "address", "api")
_ROWS_A_STATEMENT = 500


class Sought(Struct, frozen=True):
    """Which subscribers are asked for; None is any."""

    service: str | None = None
    node_id: str | None = None
    cluster: str | None = None
    zone: str | None = None

    def fits(self, one: Sighting) -> bool:
        """Tell whether a sighting is one of them."""
        return all(
            wanted is None or getattr(one, name) == wanted for name, wanted in msgspec.structs.asdict(self).items()
        )


async def tell(database: Database, sightings: Sequence[Sighting], now: float) -> None:
    """Store what a process knows, over what it knew of the same subscribers before.

    Args:
        database: where.
        sightings: at most one of each subscriber of a service.
        now: the database's time.

    Raises:
        UnavailableError: it could not be stored.
    """
    rows = [msgspec.structs.asdict(one) | {"told_at": now} for one in sightings]
    async with database.transaction() as connection:
        for start in range(0, len(rows), _ROWS_A_STATEMENT):
            statement = upsert(subscribers).values(rows[start : start + _ROWS_A_STATEMENT])
            excluded = {name: statement.excluded[name] for name in rows[0] if name not in _KEY}
            await connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=excluded))


async def forget(database: Database, now: float) -> None:
    """Delete what no process has told of for so long that it is of no interest."""
    old = (
        select(*(subscribers.c[name] for name in _KEY))
        .where(subscribers.c.told_at < now - FORGOTTEN_AFTER)
        # Another process deletes them as well.
        .with_for_update(skip_locked=True)
    )
    async with database.transaction() as connection:
        await connection.execute(delete(subscribers).where(tuple_(*(subscribers.c[name] for name in _KEY)).in_(old)))


async def told_by_others(database: Database, process: str, sought: Sought) -> list[Sighting]:
    """Return what other processes than this one know.

    Raises:
        UnavailableError: it cannot be read.
    """
    found = select(subscribers).where(subscribers.c.process != process)
    for name, wanted in msgspec.structs.asdict(sought).items():
        if wanted is not None:
            found = found.where(subscribers.c[name] == wanted)
    async with database.session() as connection:
        now = await clock(connection)
        rows = await connection.execute(found.where(subscribers.c.told_at > now - FORGOTTEN_AFTER))
        return [_sighting(row, now) for row in rows]


def _sighting(row: Row, now: float) -> Sighting:
    values = {name: getattr(row, name) for name in Sighting.__struct_fields__}
    # A process that died holds nothing any more, whatever it said last.
    return Sighting(**values | {"held": row.held and row.told_at > now - LAG})
