"""What each process knows of who polls it, where all processes can read it."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import delete, select, text, tuple_

from registry.store.database import Database, clock
from registry.subscribers import FORGOTTEN_AFTER, LAG, Node, Sighting
from registry.tables import subscribers
from registry.turns import in_turns

_KEY = ("process", "service", "node_id", "address", "api")
_FOUND = [subscribers.c[name] for name in Sighting.__struct_fields__]
_COLUMNS = [column.name for column in subscribers.c]
_NAMES = ", ".join(_COLUMNS)
# One JSON document and not twenty parameters a row: to write a statement of thousands takes longer than to run it.
_TELL = text(
    f"INSERT INTO subscribers ({_NAMES}) SELECT {_NAMES} FROM json_populate_recordset("  # noqa: S608  # constants
    "json_populate_record(NULL::subscribers, json_build_object('told_at', CAST(:now AS double precision))),"
    f" CAST(:sightings AS json)) ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in _KEY)
)


class Sought(Struct, frozen=True):
    """Which subscribers are asked for; None is any."""

    service: str | None = None
    node_id: str | None = None
    cluster: str | None = None
    zone: str | None = None

    def fits(self, node: Node) -> bool:
        """Tell whether a node is one of them, whatever it asks for."""
        return (
            self.node_id in (None, node.id) and self.cluster in (None, node.cluster) and self.zone in (None, node.zone)
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
    async with database.transaction() as connection:
        await connection.execute(_TELL, {"sightings": msgspec.json.encode(sightings).decode(), "now": now})


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
    found = select(*_FOUND, subscribers.c.told_at).where(subscribers.c.process != process)
    for name, wanted in msgspec.structs.asdict(sought).items():
        if wanted is not None:
            found = found.where(subscribers.c[name] == wanted)
    async with database.session() as connection:
        now = await clock(connection)
        rows = await connection.execute(found.where(subscribers.c.told_at > now - FORGOTTEN_AFTER))
        return [_sighting(row, now) async for row in in_turns(rows)]


def _sighting(row: Sequence[Any], now: float) -> Sighting:
    *values, told_at = row
    found = Sighting(*values)
    # A process that died holds nothing any more, whatever it said last.
    return replace(found, held=False) if found.held and told_at <= now - LAG else found
