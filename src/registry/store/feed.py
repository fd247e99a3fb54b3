"""What changed since: the rows that bring a process's snapshots up to the database."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Text,
    and_,
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

from registry.numbers import far
from registry.snapshot import Step
from registry.store.database import CHANNEL, Database
from registry.store.rows import Row, endpoint_columns, endpoints_from
from registry.store.transaction import Committed
from registry.tables import endpoints, overrides, registry_state, services

_RAISE = text(
    "INSERT INTO services AS known (name, version, change, floor, timeline)"
    " VALUES (:name, :version + :far, :change + :far, :change + :far, headcount_timeline())"
    " ON CONFLICT (name) DO UPDATE SET version = greatest(known.version, :version) + :far,"
    " change = greatest(known.change, :change) + :far, floor = greatest(known.change, :change) + :far,"
    " timeline = headcount_timeline()"
    " WHERE known.version <= :version OR known.change < :change"
    " RETURNING version"
).bindparams(*(bindparam(name, type_=BigInteger) for name in ("version", "change", "far")))
_NOTIFY_ONE = text("SELECT pg_notify(:channel, :name)")


async def database_id(database: Database) -> str:
    """Return what tells this database from any other one, also from one that replaced it."""
    async with database.session() as connection:
        return str((await connection.execute(select(registry_state.c.database_id))).scalar_one())


async def numbers(connection: AsyncConnection) -> dict[str, Committed]:
    """Return version and change of every service."""
    rows = await connection.execute(select(services.c.name, services.c.version, services.c.change))
    return {row.name: Committed(row.version, row.change) for row in rows}


async def steps(connection: AsyncConnection, held: Mapping[str, int]) -> list[Step]:
    """Return what became of services since the changes that are held, in one consistent read.

    A service that is held below its floor comes whole.
    """
    told = (
        func.unnest(
            bindparam("names", list(held), type_=ARRAY(Text)),
            bindparam("changes", list(held.values()), type_=ARRAY(BigInteger)),
        )
        .table_valued(column("name", Text), column("change", BigInteger), name="held")
        .render_derived()
    )
    # A service that is not held at all is as good as one that is held too old: no tombstone is of interest.
    whole = or_(told.c.change < services.c.floor, told.c.change == 0)
    wanted = and_(
        endpoints.c.service == services.c.name,
        endpoints.c.change > case((whole, literal(-1, BigInteger)), else_=told.c.change),
        or_(endpoints.c.removed_at.is_(None), ~whole),
    )
    override = and_(
        overrides.c.service == endpoints.c.service,
        overrides.c.address == endpoints.c.address,
        overrides.c.port == endpoints.c.port,
    )
    found = (
        select(
            services.c.name.label("name"),
            services.c.version.label("service_version"),
            services.c.change.label("service_change"),
            whole.label("whole"),
            *endpoint_columns,
        )
        .select_from(told.join(services, services.c.name == told.c.name).outerjoin(endpoints, wanted))
        .outerjoin(overrides, override)
        .order_by(services.c.name, endpoints.c.id)
    )
    rows = await connection.execute(found)
    return [_step(name, list(group)) for name, group in groupby(rows, key=_name)]


def _name(row: Row) -> str:
    return str(row.name)


def _step(name: str, rows: Iterable[Row]) -> Step:
    rows = list(rows)
    first = rows[0]
    changed = [row for row in rows if row.id is not None]
    listed, quarantined = endpoints_from(row for row in changed if row.removed_at is None)
    return Step(
        name,
        first.service_version,
        first.service_change,
        listed=listed,
        removed=[((one.address, one.port), one.id) for one in changed if one.removed_at is not None],
        quarantined=quarantined,
        whole=first.whole,
        # Of what is read whole nobody can say which row changed last.
        made_at=None if first.whole else min((one.changed_at.timestamp() for one in changed), default=None),
    )


async def raise_above(database: Database, service: str, version: int, change: int) -> None:
    """Make a service's numbers greater than ones that were served although the database does not know them.

    A fail-over can lose the last commits; their numbers must not come back with other content. Others may have served
    greater ones of them, so the step is a far one. Readers below read the service whole.
    """
    async with database.transaction() as connection:
        told = {"name": service, "version": version, "change": change, "far": far()}
        if (await connection.execute(_RAISE, told)).first() is not None:
            await connection.execute(_NOTIFY_ONE, {"channel": CHANNEL, "name": service})
