"""The transaction that changes endpoints: lock, load a ledger, let the rules work on it, store what changed."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    any_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.endpoint import Key, Override, Quarantined
from registry.ledger import Entry, Event, Ledger
from registry.numbers import before_first
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
from registry.store.timeline import crossed, generation, move_on
from registry.tables import endpoints, events, leases, overrides, services


class Committed(Struct, frozen=True):
    """The numbers of a service that a transaction left behind."""

    version: int
    change: int


class _Locked(Struct, frozen=True):
    """The numbers of the services that a transaction holds, and on which generation of timelines it runs."""

    numbers: dict[str, Committed]
    generation: int = 0


# An address is locked before services, services before leases, each in one order: so no two transactions wait
# for one another.
_LOCK_PLACES = text(
    "SELECT pg_advisory_xact_lock(key) FROM ("
    " SELECT DISTINCT hashtextextended(place, 0) AS key FROM unnest(CAST(:places AS text[])) AS place ORDER BY key"
    ") AS keys"
)
_SHORT_LOCK = text("SET LOCAL lock_timeout = '1s'")
_ADD_SERVICES = text(
    "INSERT INTO services (name, timeline) SELECT name, headcount_timeline()"
    " FROM unnest(CAST(:names AS text[])) AS name ORDER BY name ON CONFLICT DO NOTHING"
)
# Who knows anything of a service before its first version knows what a fail-over lost, and reads it whole.
_COUNT = text(
    "UPDATE services SET version = told.version, change = told.change,"
    " floor = CASE WHEN services.version = 0 THEN told.change ELSE services.floor END"
    " FROM unnest(CAST(:names AS text[]), CAST(:versions AS bigint[]), CAST(:changes AS bigint[]))"
    " AS told(name, version, change) WHERE services.name = told.name"
)
_NOTIFY = text("SELECT pg_notify(:channel, name) FROM unnest(CAST(:names AS text[])) AS name")


async def change_places(
    database: Database,
    service_names: Collection[str],
    places: Collection[Place],
    decide: Callable[[Ledger], None],
    *,
    founding: Collection[str] = (),
) -> dict[str, Committed]:
    """Let ``decide`` work on all endpoints at ``places``, of any service, and commit what it changed.

    Args:
        database: where.
        service_names: the services that this is about.
        places: addresses and ports.
        decide: gets the ledger.
        founding: those of the services that may come into being by it.

    Returns:
        The numbers after the commit of each service that was locked.
    """
    async with database.transaction() as connection:
        await connection.execute(_LOCK_PLACES, {"places": [f"{address} {port}" for address, port in places]})
        owning = await _owning_services(connection, places)
        if founding:
            await connection.execute(_ADD_SERVICES, {"names": sorted(founding)})
        locked = await _lock_services(connection, {*service_names, *owning})
        # Nobody can own what cannot be read, and whoever registers there must not fail for it.
        ledger, spoilt = await _load(connection, locked.numbers, places=places)
        decide(ledger)
        return await _save(connection, ledger, locked, spoilt)


async def change_service(
    database: Database,
    service: str,
    decide: Callable[[Ledger, Collection[int]], None],
    *,
    suspected: Collection[int] = (),
    lapsing: Collection[int] = (),
) -> dict[str, Committed]:
    """Let ``decide`` work on all listed endpoints of one service, and commit what it changed.

    Args:
        database: where.
        service: its name.
        decide: gets the ledger, and which of ``suspected`` have an expired lease still now that none of them
            can be renewed any more.
        suspected: ids of endpoints that were seen with an expired lease.
        lapsing: ids of those of them that may lapse. One that cannot be read is removed, as no rule can judge it, and
            silent it would be looked at again for ever.
    """
    async with database.transaction() as connection:
        # Whoever sweeps has other services to look at, and comes again.
        await connection.execute(_SHORT_LOCK)
        locked = await _lock_services(connection, {service})
        if not locked.numbers:
            # What another transaction founds from here on is not locked, and not to be judged.
            return {}
        ledger, spoilt = await _load(connection, locked.numbers, whole=service)
        expired = await _still_expired(connection, suspected) if suspected else ()
        decide(ledger, expired)
        return await _save(
            connection, ledger, locked, [one for one in spoilt if one.id in lapsing and one.id in expired]
        )


async def change_by_operator(
    database: Database, service: str, window: float, decide: Callable[[Ledger, int], None]
) -> dict[str, Committed]:
    """Let ``decide`` work on all listed endpoints of one service, and commit what it changed.

    Args:
        database: where.
        service: its name.
        window: seconds of the history that are looked at.
        decide: gets the ledger, and how many endpoints operators have deregistered within the window. Nobody
            can do so meanwhile.
    """
    async with database.transaction() as connection:
        locked = await _lock_services(connection, {service})
        if not locked.numbers:
            return {}
        ledger, _ = await _load(connection, locked.numbers, whole=service)
        since = moment(ledger.now - window)
        counted = select(func.count()).where(
            events.c.service == service, events.c.kind == "expelled", events.c.at > since
        )
        decide(ledger, (await connection.execute(counted)).scalar_one())
        return await _save(connection, ledger, locked)


async def _owning_services(connection: AsyncConnection, places: Collection[Place]) -> list[str]:
    found = select(endpoints.c.service).distinct().where(endpoints.c.removed_at.is_(None), _at(places))
    return list(await connection.scalars(found))


def _at(places: Collection[Place]) -> Any:  # noqa: ANN401  # a column expression
    return tuple_(endpoints.c.address, endpoints.c.port).in_(list(places))


def _leased_by(ids: Collection[int]) -> ColumnElement[bool]:
    """Match the leases of endpoints. As one argument: a statement takes 32,767, and a service may have more at once."""
    return leases.c.endpoint_id == any_(literal(sorted(ids), ARRAY(BigInteger)))


async def _lock_services(connection: AsyncConnection, names: Collection[str]) -> _Locked:
    locked = (
        select(services.c.name, services.c.version, services.c.change, crossed, generation)
        .where(services.c.name.in_(sorted(names)))
        .order_by(services.c.name)
        .with_for_update()
    )
    rows = list(await connection.execute(locked))
    if any(row.crossed for row in rows):
        # The first change since a fail-over: the next number may have been given out by the primary before.
        await move_on(connection, [row.name for row in rows])
        rows = list(await connection.execute(locked))
    numbers = {row.name: Committed(row.version, row.change) for row in rows}
    return _Locked(numbers, rows[0].generation if rows else 0)


async def _load(
    connection: AsyncConnection,
    numbers: Mapping[str, Committed],
    *,
    places: Collection[Place] = (),
    whole: str | None = None,
) -> tuple[Ledger, list[Quarantined]]:
    if whole is not None:
        wanted = (endpoints.c.service == whole) & endpoints.c.removed_at.is_(None)
    else:
        # Tombstones as well: they refuse the late heartbeats of those who left.
        wanted = _at(places) & or_(endpoints.c.service.in_(list(numbers)), endpoints.c.removed_at.is_(None))
    # The clock is read after the locks were had, so that changes of a service never go back in time.
    now = await clock(connection)
    found = list(await connection.execute(select_endpoints().where(wanted)))
    rows, quarantined = await endpoints_from(found)
    removed = {row.id for row in found if row.removed_at is not None}
    spoilt = [one for one in quarantined if one.id not in removed]
    kept = await _overrides(connection, places) if places else {}
    return Ledger(now, rows, kept), spoilt


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
        .where(_leased_by(ids), leases.c.expires_at < func.clock_timestamp())
        # A lease that is locked is being renewed, and to wait for it here could be to wait for one another.
        .with_for_update(skip_locked=True)
    )
    return set(await connection.scalars(held))


async def _save(
    connection: AsyncConnection, ledger: Ledger, locked: _Locked, spoilt: Collection[Quarantined] = ()
) -> dict[str, Committed]:
    """Store what a ledger changed, and remove the rows that are spoilt."""
    changed = list(ledger.changed())
    after = _count(changed, locked.numbers, locked.generation, {one.service for one in spoilt})
    moved = sorted(name for name in after if after[name] != locked.numbers[name])
    # First: the address of one may be the address of a newcomer.
    for one in spoilt:
        await _remove_spoilt(connection, ledger, one, after[one.service].change)
    if changed:
        await _save_endpoints(connection, changed, after)
    if changed or spoilt:
        await _save_events(connection, ledger, after)
    await _save_leases(connection, ledger, after)
    await _save_overrides(connection, ledger)
    if moved:
        told = {
            "versions": [after[name].version for name in moved],
            "changes": [after[name].change for name in moved],
        }
        await connection.execute(_COUNT, {"names": moved, **told})
        await connection.execute(_NOTIFY, {"channel": CHANNEL, "names": moved})
    return after


async def _remove_spoilt(connection: AsyncConnection, ledger: Ledger, one: Quarantined, change: int) -> None:
    """Remove a row that cannot be published, lease and all: who has not read it again may still serve what it was."""
    now = moment(ledger.now)
    removed = update(endpoints).where(endpoints.c.id == one.id)
    await connection.execute(removed.values(removed_at=now, changed_at=now, change=change))
    await connection.execute(delete(leases).where(leases.c.endpoint_id == one.id))
    reason = f"it was quarantined: {one.reason}"
    ledger.events.append(Event(one.service, one.address, one.port, "", "removed", reason, "registry", "REMOVED"))


def _count(
    changed: Collection[Entry],
    numbers: Mapping[str, Committed],
    generation: int,
    bereft: Collection[str] = (),
) -> dict[str, Committed]:
    """Return the numbers after a change; services that are ``bereft`` lose an endpoint besides."""
    after = dict(numbers)
    touched = {entry.after.service for entry in changed}.union(bereft)
    visible = {entry.after.service for entry in changed if entry.visible}.union(bereft)
    for name in touched:
        before = numbers[name]
        if not before.version:
            first = before_first(generation)
            before = Committed(first, max(first, before.change))
        after[name] = Committed(before.version + (name in visible), before.change + 1)
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


async def _save_leases(connection: AsyncConnection, ledger: Ledger, after: Mapping[str, Committed]) -> None:
    changed = [entry for entry in ledger.changed() if entry.before is not None]
    granted = list(ledger.granted())
    await _lock_leases(connection, {entry.after.id for entry in (*changed, *granted)})
    if granted:
        statement = upsert(leases)
        told = [_lease(entry, ledger.now, after[entry.after.service].change) for entry in granted]
        excluded = {name: statement.excluded[name] for name in told[0] if name != "endpoint_id"}
        await connection.execute(statement.on_conflict_do_update(index_elements=["endpoint_id"], set_=excluded), told)
    # Without its lease, or with another change, a heartbeat that goes by what was before matches nothing, and is
    # looked at again.
    ended = [entry.after.id for entry in changed if not entry.leased]
    if ended:
        await connection.execute(delete(leases).where(_leased_by(ended)))
    moved = [entry for entry in changed if entry.leased and not entry.granted]
    if moved:
        numbered = [{"moved_id": one.after.id, "number": after[one.after.service].change} for one in moved]
        statement_of = update(leases).where(leases.c.endpoint_id == bindparam("moved_id"))
        await connection.execute(statement_of.values(change=bindparam("number")), numbered)


async def _lock_leases(connection: AsyncConnection, ids: Collection[int]) -> None:
    """Take the rows in the order in which renewals take them, whatever is then done to them."""
    held = select(leases.c.endpoint_id).where(_leased_by(ids))
    await connection.execute(held.order_by(leases.c.endpoint_id).with_for_update())


def _lease(entry: Entry, now: float, change: int) -> dict[str, Any]:
    endpoint = entry.after
    ttl = endpoint.registration.ttl or 0.0
    return {
        "endpoint_id": endpoint.id,
        "incarnation": endpoint.registration.incarnation,
        "renewed_at": moment(now),
        "expires_at": moment(now + ttl),
        "ttl": ttl,
        "change": change if entry.changed else endpoint.change,
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
            "instance_id": override.instance_id,
            "canary": override.canary,
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
