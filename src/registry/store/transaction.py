"""The transaction that changes endpoints: lock, load a ledger, let the rules work on it, store what changed."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import bindparam, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.endpoint import Endpoint, Key, Override
from registry.ledger import Entry, Event, Ledger
from registry.snapshot import Place
from registry.store.database import CHANNEL, Database, clock
from registry.store.rows import (
    endpoints_from,
    moment,
    override_columns,
    override_from,
    select_endpoints,
    to_row,
)
from registry.tables import endpoints, events, leases, overrides, services


class Committed(Struct, frozen=True):
    """The numbers of a service that a transaction left behind."""

    version: int
    change: int


# An address is locked before services, services before leases, each in one order: so no two transactions wait
# for one another.
_LOCK_PLACES = text(
    "SELECT pg_advisory_xact_lock(key) FROM ("
    " SELECT DISTINCT hashtextextended(place, 0) AS key FROM unnest(CAST(:places AS text[])) AS place ORDER BY key"
    ") AS keys"
)
_ADD_SERVICES = text(
    "INSERT INTO services (name) SELECT name FROM unnest(CAST(:names AS text[])) AS name ORDER BY name"
    " ON CONFLICT DO NOTHING"
)
_COUNT = text(
    "UPDATE services SET version = told.version, change = told.change"
    " FROM unnest(CAST(:names AS text[]), CAST(:versions AS bigint[]), CAST(:changes AS bigint[]))"
    " AS told(name, version, change) WHERE services.name = told.name"
)
_NOTIFY = text("SELECT pg_notify(:channel, name) FROM unnest(CAST(:names AS text[])) AS name")


async def change_places(
    database: Database,
    service_names: Collection[str],
    places: Collection[Place],
    decide: Callable[[Ledger], None],
) -> dict[str, Committed]:
    """Let ``decide`` work on all endpoints at ``places``, of any service, and commit what it changed.

    Returns:
        The numbers after the commit of each service that was locked.
    """
    async with database.transaction() as connection:
        await connection.execute(_LOCK_PLACES, {"places": [f"{address} {port}" for address, port in places]})
        owning = await _owning_services(connection, places)
        numbers = await _lock_services(connection, {*service_names, *owning})
        ledger = await _load(connection, numbers, places=places)
        decide(ledger)
        return await _save(connection, ledger, numbers)


async def change_service(
    database: Database,
    service: str,
    decide: Callable[[Ledger, Collection[int]], None],
    *,
    suspected: Collection[int] = (),
) -> dict[str, Committed]:
    """Let ``decide`` work on all listed endpoints of one service, and commit what it changed.

    Args:
        database: where.
        service: its name.
        decide: gets the ledger, and which of ``suspected`` have an expired lease still now that none of them
            can be renewed any more.
        suspected: ids of endpoints that were seen with an expired lease.
    """
    async with database.transaction() as connection:
        numbers = await _lock_services(connection, {service})
        ledger = await _load(connection, numbers, whole=service)
        expired = await _still_expired(connection, suspected) if suspected else ()
        decide(ledger, expired)
        return await _save(connection, ledger, numbers)


async def _owning_services(connection: AsyncConnection, places: Collection[Place]) -> list[str]:
    found = select(endpoints.c.service).distinct().where(endpoints.c.removed_at.is_(None), _at(places))
    return list(await connection.scalars(found))


def _at(places: Collection[Place]) -> Any:  # noqa: ANN401  # a column expression
    return tuple_(endpoints.c.address, endpoints.c.port).in_(list(places))


async def _lock_services(connection: AsyncConnection, names: Collection[str]) -> dict[str, Committed]:
    await connection.execute(_ADD_SERVICES, {"names": sorted(names)})
    locked = (
        select(services.c.name, services.c.version, services.c.change)
        .where(services.c.name.in_(sorted(names)))
        .order_by(services.c.name)
        .with_for_update()
    )
    return {row.name: Committed(row.version, row.change) for row in await connection.execute(locked)}


async def _load(
    connection: AsyncConnection,
    numbers: Mapping[str, Committed],
    *,
    places: Collection[Place] = (),
    whole: str | None = None,
) -> Ledger:
    if whole is not None:
        wanted = (endpoints.c.service == whole) & endpoints.c.removed_at.is_(None)
    else:
        # Tombstones as well: they refuse the late heartbeats of those who left.
        wanted = _at(places) & or_(endpoints.c.service.in_(list(numbers)), endpoints.c.removed_at.is_(None))
    # The clock is read after the locks were had, so that changes of a service never go back in time.
    now = await clock(connection)
    rows, quarantined = endpoints_from(await connection.execute(select_endpoints().where(wanted)))
    if places and quarantined:
        # Nobody can own what cannot be read, and whoever registers there must not fail for it.
        spoilt = endpoints.c.id.in_([one.id for one in quarantined])
        await connection.execute(update(endpoints).where(spoilt).values(removed_at=moment(now)))
    kept = await _overrides(connection, places) if places else {}
    return Ledger(now, rows, kept)


async def _overrides(connection: AsyncConnection, places: Collection[Place]) -> dict[Key, Override]:
    found = select(
        overrides.c.service,
        func.host(overrides.c.address).label("address"),
        overrides.c.port,
        *override_columns(),
    ).where(tuple_(overrides.c.address, overrides.c.port).in_(list(places)))
    return {(row.service, row.address, row.port): override_from(row) for row in await connection.execute(found)}


async def _still_expired(connection: AsyncConnection, ids: Collection[int]) -> Collection[int]:
    held = (
        select(leases.c.endpoint_id)
        .where(leases.c.endpoint_id.in_(sorted(ids)), leases.c.expires_at < func.clock_timestamp())
        # A lease that is locked is being renewed, and to wait for it here could be to wait for one another.
        .with_for_update(skip_locked=True)
    )
    return set(await connection.scalars(held))


async def _save(connection: AsyncConnection, ledger: Ledger, numbers: Mapping[str, Committed]) -> dict[str, Committed]:
    changed = list(ledger.changed())
    after = _count(changed, numbers)
    moved = sorted(name for name in after if after[name] != numbers[name])
    if changed:
        await _save_endpoints(connection, changed, after)
        await _save_events(connection, ledger, after)
    await _save_leases(connection, ledger)
    await _save_overrides(connection, ledger)
    if moved:
        told = {
            "versions": [after[name].version for name in moved],
            "changes": [after[name].change for name in moved],
        }
        await connection.execute(_COUNT, {"names": moved, **told})
        await connection.execute(_NOTIFY, {"channel": CHANNEL, "names": moved})
    return after


def _count(changed: Collection[Entry], numbers: Mapping[str, Committed]) -> dict[str, Committed]:
    after = dict(numbers)
    touched = {entry.after.service for entry in changed}
    visible = {entry.after.service for entry in changed if entry.visible}
    for name in touched:
        after[name] = Committed(numbers[name].version + (name in visible), numbers[name].change + 1)
    return after


async def _save_endpoints(
    connection: AsyncConnection, changed: Collection[Entry], after: Mapping[str, Committed]
) -> None:
    # Departures first: the address of one may be the address of a newcomer.
    known = sorted((e for e in changed if e.after.id), key=lambda e: (e.after.removed_at is None, e.after.id))
    if known:
        await connection.execute(
            update(endpoints).where(endpoints.c.id == bindparam("known_id")),
            [to_row(e.after, after[e.after.service].change) | {"known_id": e.after.id} for e in known],
        )
    new = [entry for entry in changed if not entry.after.id]
    if new:
        added = await connection.execute(
            insert(endpoints).returning(endpoints.c.id, sort_by_parameter_order=True),
            [to_row(entry.after, after[entry.after.service].change) for entry in new],
        )
        for entry, endpoint_id in zip(new, added.scalars(), strict=True):
            entry.stored_as(endpoint_id)


async def _save_leases(connection: AsyncConnection, ledger: Ledger) -> None:
    granted = [_lease(entry.after, ledger.now) for entry in ledger.granted()]
    if granted:
        statement = upsert(leases)
        excluded = {name: statement.excluded[name] for name in ("incarnation", "renewed_at", "expires_at", "ttl")}
        granted.sort(key=lambda lease: int(lease["endpoint_id"]))
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["endpoint_id"], set_=excluded), granted
        )
    # Without its lease, a heartbeat that still takes an endpoint for listed matches nothing and is looked at again.
    ended = sorted(entry.after.id for entry in ledger.changed() if entry.before is not None and not entry.leased)
    if ended:
        await connection.execute(delete(leases).where(leases.c.endpoint_id.in_(ended)))


def _lease(endpoint: Endpoint, now: float) -> dict[str, Any]:
    ttl = endpoint.registration.ttl or 0.0
    return {
        "endpoint_id": endpoint.id,
        "incarnation": endpoint.registration.incarnation,
        "renewed_at": moment(now),
        "expires_at": moment(now + ttl),
        "ttl": ttl,
    }


async def _save_overrides(connection: AsyncConnection, ledger: Ledger) -> None:
    for (service, address, port), override in ledger.overrides.items():
        key = {"service": service, "address": address, "port": port}
        if override is None:
            await connection.execute(delete(overrides).filter_by(**key))
            continue
        told = {
            "weight": override.weight,
            "drain": override.drain,
            "actor": override.actor,
            "reason": override.reason,
            "set_at": moment(override.set_at),
            "expires_at": moment(override.expires_at),
        }
        statement = upsert(overrides).values(**key, **told)
        await connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=told))


async def _save_events(connection: AsyncConnection, ledger: Ledger, after: Mapping[str, Committed]) -> None:
    rows = [_event(event, ledger.now, after[event.service].version) for event in ledger.events]
    await connection.execute(insert(events), rows)


def _event(event: Event, now: float, version: int) -> dict[str, Any]:
    return {
        "at": moment(now),
        "service": event.service,
        "address": event.address,
        "port": event.port,
        "instance_id": event.instance_id,
        "kind": event.kind,
        "reason": event.reason,
        "actor": event.actor,
        "status": event.status,
        "version": version,
    }
