"""What changed since: the rows that bring a process's snapshots up to the database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Select,
    Text,
    bindparam,
    case,
    column,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.cooperative import cooperatively
from registry.core.endpoint import Quarantined
from registry.core.lease import SweepTime
from registry.core.snapshot import SnapshotDelta
from registry.core.versions import version_jump
from registry.store.database import CHANNEL, Database, discard, driver_of
from registry.store.driver import Statement
from registry.store.rows import Row, endpoint_columns, overrides_of, read_row
from registry.store.tables import endpoints, overrides, registry_state, services
from registry.store.transaction import StoredVersion

_RAISE = text(
    "INSERT INTO services AS known (name, version, change, floor, timeline)"
    " VALUES (:name, :version + :far, :change + :far, :change + :far, headcount_timeline())"
    " ON CONFLICT (name) DO UPDATE SET version = greatest(known.version, :version) + :far,"
    " change = greatest(known.change, :change) + :far, floor = greatest(known.change, :change) + :far,"
    " timeline = headcount_timeline()"
    " WHERE known.version <= :version OR known.change < :change"
    " RETURNING version"
).bindparams(*(bindparam(name, type_=BigInteger) for name in ("version", "change", "far")))
_STANDING = text(
    "SELECT current_setting('transaction_read_only')::boolean AS read_only,"
    " extract(epoch FROM last_sweep_at) AS swept, extract(epoch FROM clock_timestamp() - last_sweep_at) AS ago"
    " FROM registry_state"
)
_NOTIFY_ONE = text("SELECT pg_notify(:channel, :name)")


def _steps() -> Select[Any]:
    told = (
        func.unnest(bindparam("names", type_=ARRAY(Text)), bindparam("changes", type_=ARRAY(BigInteger)))
        .table_valued(column("name", Text), column("change", BigInteger), name="held")
        .render_derived()
    )
    # A service that is not held at all is as good as one that is held too old: no tombstone is of interest.
    whole = or_(told.c.change < services.c.floor, told.c.change == 0)
    # By their changes, behind OFFSET 0: otherwise PostgreSQL looks at all endpoints of a service for the few that have
    # changed.
    changed = (
        select(endpoints)
        .where(
            endpoints.c.service == services.c.name,
            endpoints.c.change > case((whole, literal(-1, BigInteger)), else_=told.c.change),
        )
        .offset(0)
        .lateral("changed")
    )
    found = (
        told.join(services, services.c.name == told.c.name)
        .outerjoin(changed, or_(changed.c.removed_at.is_(None), ~whole))
        .outerjoin(overrides, overrides_of(changed))
    )
    return (
        select(
            *endpoint_columns(changed),
            services.c.name.label("name"),
            services.c.version.label("service_version"),
            services.c.change.label("service_change"),
            whole.label("whole"),
        )
        .select_from(found)
        .order_by(services.c.name, changed.c.id)
    )


_STEPS = Statement(_steps())


async def database_id(database: Database) -> str:
    """Return what tells this database from any other one, also from one that replaced it."""
    async with database.session() as connection:
        return str((await connection.execute(select(registry_state.c.database_id))).scalar_one())


async def read_state(connection: AsyncConnection) -> tuple[bool, SweepTime | None]:
    """Return whether the database refuses writes, and when any process swept last; None: never."""
    row = (await connection.execute(_STANDING)).one()
    return row.read_only, None if row.ago is None else SweepTime(float(row.swept), float(row.ago))


async def service_versions(connection: AsyncConnection) -> dict[str, StoredVersion]:
    """Return version and change of every service."""
    rows = await connection.execute(select(services.c.name, services.c.version, services.c.change))
    return {row.name: StoredVersion(row.version, row.change) for row in rows}


async def first_version(connection: AsyncConnection) -> int:
    """Return the greatest number of any service that was forgotten; those that are founded begin above it."""
    return int((await connection.execute(select(registry_state.c.first_number))).scalar_one())


async def steps(connection: AsyncConnection, held: Mapping[str, int]) -> list[SnapshotDelta]:
    """Return what became of services since the changes that are held, in one consistent read.

    A service that is held below its floor comes whole.
    """
    driver = await driver_of(connection)
    try:
        found = await driver.rows(_STEPS, names=list(held), changes=list(held.values()))
    except BaseException:
        await discard(connection, driver)
        raise
    read: dict[str, SnapshotDelta] = {}
    async for row in cooperatively(found):
        step = read.get(row.name)
        if step is None:
            step = read[row.name] = SnapshotDelta(row.name, row.service_version, row.service_change, whole=row.whole)
        if row.id is not None:
            _add(step, row)
    return list(read.values())


def _add(step: SnapshotDelta, row: Row) -> None:
    # Of what is read whole nobody can say which row changed last.
    if not step.whole:
        changed = row.changed_at.timestamp()
        step.made_at = min(changed, step.made_at or changed)
    if row.removed_at is not None:
        step.removed.append(((row.address, row.port), row.id))
        return
    found = read_row(row)
    if isinstance(found, Quarantined):
        step.quarantined.append(found)
    else:
        step.listed.append(found)


async def raise_above(database: Database, service: str, version: int, change: int) -> None:
    """Make a service's numbers greater than ones that were served although the database does not know them.

    A fail-over can lose the last commits; their numbers must not come back with other content. Others may have served
    greater ones of them, so the step is a far one. Readers below read the service whole.
    """
    async with database.transaction() as connection:
        told = {"name": service, "version": version, "change": change, "far": version_jump()}
        if (await connection.execute(_RAISE, told)).first() is not None:
            await connection.execute(_NOTIFY_ONE, {"channel": CHANNEL, "name": service})
