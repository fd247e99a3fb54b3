"""The transaction that changes endpoints: lock, load a ledger, let the rules work on it, store what changed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Text,
    any_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.dialects.postgresql import insert as upsert

from registry.core.changeset import Changeset, EndpointChange, Event
from registry.core.endpoint import Key, Override, Quarantined
from registry.core.snapshot import AddressPort
from registry.core.versions import version_before_first
from registry.errors import RegistryError
from registry.store.database import CHANNEL, Database
from registry.store.driver import Driver, NamedRecord, Statement
from registry.store.rows import (
    endpoints_from,
    moment,
    override_columns,
    override_from,
    select_endpoints,
    to_row,
)
from registry.store.tables import endpoints, events, leases, overrides, services
from registry.store.timeline import crossed, generation, move_on


class StoredVersion(Struct, frozen=True):
    """The numbers of a service that a transaction left behind."""

    version: int
    change: int


class _ForgottenMeanwhileError(RegistryError):
    """A service was there when a transaction began, and was forgotten before it was locked: begin anew."""


class _Locked(Struct, frozen=True):
    """The numbers of the services that a transaction holds, and on which generation of timelines it runs."""

    numbers: dict[str, StoredVersion]
    generation: int = 0


_names = bindparam("names", type_=ARRAY(Text))
_ids = bindparam("ids", type_=ARRAY(BigInteger))
_place = (
    func.unnest(bindparam("addresses", type_=ARRAY(INET)), bindparam("ports", type_=ARRAY(Integer)))
    .table_valued("address", "port")
    .render_derived("place")
)
_places = select(_place)

# An address is locked before services, services before leases, each in one order: so no two transactions wait
# for one another. One that is forgotten after this statement has looked for it, and before it is locked, makes the
# transaction begin anew. And as it takes longer to plan these statements than to run them, that is done once a
# connection.
_LOCK_PLACES = Statement(
    text(
        "SELECT pg_advisory_xact_lock(key), set_config('plan_cache_mode', 'force_generic_plan', true),"
        " ARRAY(SELECT name FROM unnest(CAST(:creates_services AS text[])) AS wanted(name)"
        " WHERE NOT EXISTS (SELECT FROM services WHERE services.name = wanted.name)) AS missing"
        " FROM (SELECT DISTINCT hashtextextended(place, 0) AS key FROM unnest(CAST(:address_ports AS text[])) AS place"
        " ORDER BY key) AS keys"
    )
)
_SHORT_LOCK = Statement(text("SET LOCAL lock_timeout = '1s'"))
_ADD_SERVICES = Statement(
    text(
        "INSERT INTO services (name, timeline) SELECT name, headcount_timeline()"
        " FROM unnest(CAST(:names AS text[])) AS name ORDER BY name ON CONFLICT DO NOTHING RETURNING name"
    )
)
# Of registrations that were all refused: their names would be known for as long as the history.
_DROP_UNUSED = Statement(text("DELETE FROM services WHERE name = ANY(CAST(:names AS text[]))"))
# By its place alone, behind OFFSET 0: before the first ANALYZE, PostgreSQL takes the table, and the index of all that
# are listed, to be short, and would read all of it, by a plan that a connection keeps while they grow.
_there = (
    select(endpoints)
    .where(endpoints.c.address == _place.c.address, endpoints.c.port == _place.c.port)
    .offset(0)
    .lateral()
)
_at_places = select(_there).select_from(_place.join(_there, true())).subquery("at_places")
_owning = select(_at_places.c.service).where(_at_places.c.removed_at.is_(None))
# As an array, which is had before the first service is looked for: so that it is looked for by its key.
_wanted = func.array(select(func.unnest(_names)).union(_owning).scalar_subquery())
_lock = select(services.c.name, services.c.version, services.c.change, crossed, generation)
_LOCK_SERVICES = Statement(_lock.where(services.c.name == any_(_names)).order_by(services.c.name).with_for_update())
_LOCK_OWNING_TOO = Statement(_lock.where(services.c.name == any_(_wanted)).order_by(services.c.name).with_for_update())
# Tombstones as well: they refuse the late heartbeats of those who left.
_LOAD_PLACES = Statement(
    select_endpoints(or_(_at_places.c.service == any_(_names), _at_places.c.removed_at.is_(None)), _at_places)
)
_LOAD_SERVICE = Statement(
    select_endpoints((endpoints.c.service == bindparam("service")) & endpoints.c.removed_at.is_(None))
)
_OVERRIDES = Statement(
    select(
        overrides.c.service,
        func.host(overrides.c.address).label("address"),
        overrides.c.port,
        *override_columns(),
    ).where(tuple_(overrides.c.address, overrides.c.port).in_(_places))
)
_EXPELLED = Statement(
    select(func.count()).where(
        events.c.service == bindparam("service"), events.c.kind == "expelled", events.c.at > bindparam("since")
    )
)
# As one argument: a statement takes 32,767, and a service may have more endpoints at once.
_leased = leases.c.endpoint_id == any_(_ids)
# Compared with the expiry that was judged, and not with PostgreSQL's clock, which may have been set since: a renewal
# changes the expiry, whatever the time is.
_STILL_EXPIRED = Statement(
    text(
        "SELECT leases.endpoint_id FROM leases"
        " JOIN unnest(CAST(:ids AS bigint[]), CAST(:expiries AS timestamptz[])) AS judged(id, expires_at)"
        " ON leases.endpoint_id = judged.id AND leases.expires_at = judged.expires_at"
        # A lease that is locked is being renewed, and to wait for it here could be to wait for one another.
        " FOR UPDATE OF leases SKIP LOCKED"
    )
)
_REMOVE = Statement(
    update(endpoints)
    .where(endpoints.c.id == bindparam("known_id"))
    .values(removed_at=bindparam("now"), changed_at=bindparam("now"), change=bindparam("number"))
)
_told = [column.name for column in endpoints.c if column.name != "id"]
_UPDATE_ENDPOINT = Statement(update(endpoints).where(endpoints.c.id == bindparam("known_id")), _told)
_ADD_ENDPOINT = Statement(insert(endpoints).returning(endpoints.c.id), _told)
_ADD_EVENT = Statement(insert(events), [column.name for column in events.c if column.name not in ("id", "transaction")])
# In the order in which renewals take them, whatever is then done to them.
_LOCK_LEASES = Statement(select(leases.c.endpoint_id).where(_leased).order_by(leases.c.endpoint_id).with_for_update())
_END_LEASES = Statement(delete(leases).where(_leased))
_FOLLOW = Statement(
    update(leases).where(leases.c.endpoint_id == bindparam("moved_id")).values(change=bindparam("number"))
)
_grant = upsert(leases)
_GRANT = Statement(
    _grant.on_conflict_do_update(
        index_elements=["endpoint_id"],
        set_={column.name: _grant.excluded[column.name] for column in leases.c if column.name != "endpoint_id"},
    ),
    [column.name for column in leases.c],
)
_override = upsert(overrides)
_SET_OVERRIDE = Statement(
    _override.on_conflict_do_update(
        index_elements=list(overrides.primary_key),
        set_={column.name: _override.excluded[column.name] for column in overrides.c if not column.primary_key},
    ),
    [column.name for column in overrides.c],
)
_CLEAR_OVERRIDE = Statement(
    delete(overrides).where(*(column == bindparam(column.name) for column in overrides.primary_key))
)
# Who knows anything of a service before its first version knows what a fail-over lost, and reads it whole.
_COUNT = Statement(
    text(
        "WITH counted AS (UPDATE services SET version = told.version, change = told.change,"
        " floor = CASE WHEN services.version = 0 THEN told.change ELSE services.floor END"
        " FROM unnest(CAST(:names AS text[]), CAST(:versions AS bigint[]), CAST(:changes AS bigint[]))"
        " AS told(name, version, change) WHERE services.name = told.name RETURNING services.name, services.change)"
        " SELECT pg_notify(:channel, name || ' ' || change) FROM counted"
    ).bindparams(channel=CHANNEL)
)


async def change_at_addresses(
    database: Database,
    service_names: Collection[str],
    address_ports: Collection[AddressPort],
    decide: Callable[[Changeset], None],
    *,
    creates_services: Collection[str] = (),
    max_new_services: int | None = None,
) -> dict[str, StoredVersion]:
    """Let ``decide`` work on all endpoints at ``address_ports``, of any service, and commit what it changed.

    Args:
        database: where.
        service_names: the services that this is about.
        address_ports: the addresses with their ports.
        decide: gets the changeset.
        creates_services: those of the services that may be created; a service that gets no endpoint is not created.
        max_new_services: how many of them may be created; None: all.

    Returns:
        The numbers after the commit of each service that was locked.
    """
    while True:
        with suppress(_ForgottenMeanwhileError):
            return await _change_places(
                database, service_names, address_ports, decide, creates_services, max_new_services
            )


async def _change_places(
    database: Database,
    service_names: Collection[str],
    address_ports: Collection[AddressPort],
    decide: Callable[[Changeset], None],
    creates_services: Collection[str],
    max_new_services: int | None,
) -> dict[str, StoredVersion]:
    async with database.driver_transaction() as driver:
        told = _at(address_ports)
        keys = [f"{address} {port}" for address, port in address_ports]
        missing = (await driver.rows(_LOCK_PLACES, address_ports=keys, creates_services=sorted(creates_services)))[
            0
        ].missing
        admitted = missing if max_new_services is None else missing[:max_new_services]
        founded = [row.name for row in await driver.rows(_ADD_SERVICES, names=admitted)] if admitted else []
        locked = await _lock_services(driver, _LOCK_OWNING_TOO, names=sorted(service_names), **told)
        unadmitted_services = frozenset(creates_services) - locked.numbers.keys()
        if not unadmitted_services.issubset(missing[len(admitted) :]):
            # To found it now would be to lock services out of their order.
            raise _ForgottenMeanwhileError
        kept = {_key(row): override_from(row) for row in await driver.rows(_OVERRIDES, **told)}
        # Nobody can own what cannot be read, and whoever registers there must not fail for it.
        changeset, spoilt = await _changeset(
            await driver.rows(_LOAD_PLACES, names=sorted(locked.numbers), **told), kept
        )
        changeset.unadmitted_services = unadmitted_services
        decide(changeset)
        after = await _save(driver, changeset, locked, spoilt)
        unused = [name for name in founded if after[name] == locked.numbers[name]]
        if unused:
            await driver.run(_DROP_UNUSED, names=unused)
        return {name: numbers for name, numbers in after.items() if name not in unused}


async def change_service(
    database: Database,
    service: str,
    decide: Callable[[Changeset, Collection[int]], None],
    *,
    expiries: Mapping[int, float] | None = None,
    lapsing: Collection[int] = (),
) -> dict[str, StoredVersion]:
    """Let ``decide`` work on all listed endpoints of one service, and commit what it changed.

    Args:
        database: where.
        service: its name.
        decide: gets the ledger, and the ids of ``expiries`` whose lease was not renewed. None of these leases can be
            renewed until the commit.
        expiries: when the leases expired that were judged, by the ids of their endpoints.
        lapsing: ids of those of them that may lapse. One that cannot be read is removed, as no rule can judge it, and
            silent it would be looked at again for ever.
    """
    async with database.driver_transaction() as driver:
        # Whoever sweeps has other services to look at, and comes again.
        await driver.run(_SHORT_LOCK)
        locked = await _lock_services(driver, _LOCK_SERVICES, names=[service])
        if not locked.numbers:
            # What another transaction founds from here on is not locked, and not to be judged.
            return {}
        changeset, spoilt = await _changeset(await driver.rows(_LOAD_SERVICE, service=service))
        expired = await _unrenewed(driver, expiries) if expiries else set()
        decide(changeset, expired)
        return await _save(
            driver, changeset, locked, [one for one in spoilt if one.id in lapsing and one.id in expired]
        )


async def _unrenewed(driver: Driver, expiries: Mapping[int, float]) -> set[int]:
    ids, moments = list(expiries), [moment(expires_at) for expires_at in expiries.values()]
    return {row.endpoint_id for row in await driver.rows(_STILL_EXPIRED, ids=ids, expiries=moments)}


async def change_by_operator(
    database: Database, service: str, window: float, decide: Callable[[Changeset, int], None]
) -> dict[str, StoredVersion]:
    """Let ``decide`` work on all listed endpoints of one service, and commit what it changed.

    Args:
        database: where.
        service: its name.
        window: seconds of the history that are looked at.
        decide: gets the ledger, and how many endpoints operators have deregistered within the window. Nobody
            can do so meanwhile.
    """
    async with database.driver_transaction() as driver:
        locked = await _lock_services(driver, _LOCK_SERVICES, names=[service])
        if not locked.numbers:
            return {}
        changeset, _ = await _changeset(await driver.rows(_LOAD_SERVICE, service=service))
        (counted,) = await driver.rows(_EXPELLED, service=service, since=moment(changeset.now - window))
        decide(changeset, counted[0])
        return await _save(driver, changeset, locked)


def _at(address_ports: Collection[AddressPort]) -> dict[str, list[Any]]:
    return {"addresses": [address for address, _ in address_ports], "ports": [port for _, port in address_ports]}


def _key(row: NamedRecord) -> Key:
    return (row.service, row.address, row.port)


async def _lock_services(driver: Driver, lock: Statement, **told: object) -> _Locked:
    rows = await driver.rows(lock, **told)
    if any(row.crossed for row in rows):
        # The first change since a fail-over: the next number may have been given out by the primary before.
        await move_on(driver, [row.name for row in rows])
        rows = await driver.rows(lock, **told)
    numbers = {row.name: StoredVersion(row.version, row.change) for row in rows}
    return _Locked(numbers, rows[0].generation if rows else 0)


async def _changeset(
    found: Sequence[NamedRecord], kept: Mapping[Key, Override] | None = None
) -> tuple[Changeset, list[Quarantined]]:
    """Open a ledger on the rows that were read after the locks were had: so time never goes back for a service."""
    there = [row for row in found if row.id is not None]
    rows, quarantined = await endpoints_from(there)
    removed = {row.id for row in there if row.removed_at is not None}
    return Changeset(float(found[0].now), rows, kept), [one for one in quarantined if one.id not in removed]


async def _save(
    driver: Driver, changeset: Changeset, locked: _Locked, spoilt: Collection[Quarantined] = ()
) -> dict[str, StoredVersion]:
    """Store what a ledger changed, and remove the rows that are spoilt."""
    changed = list(changeset.changed())
    after = _count(changed, locked.numbers, locked.generation, {one.service for one in spoilt})
    moved = sorted(name for name in after if after[name] != locked.numbers[name])
    # First: the address of one may be the address of a newcomer.
    for one in spoilt:
        await _remove_spoilt(driver, changeset, one, after[one.service].change)
    if changed:
        await _save_endpoints(driver, changed, after)
    if changed or spoilt:
        await _save_events(driver, changeset, after)
    await _save_leases(driver, changeset, after)
    await _save_overrides(driver, changeset)
    if moved:
        told = {
            "versions": [after[name].version for name in moved],
            "changes": [after[name].change for name in moved],
        }
        await driver.run(_COUNT, names=moved, **told)
    return after


async def _remove_spoilt(driver: Driver, changeset: Changeset, one: Quarantined, change: int) -> None:
    """Remove a row that cannot be published, lease and all: who has not read it again may still serve what it was."""
    now = moment(changeset.now)
    await driver.run(_REMOVE, known_id=one.id, now=now, number=change)
    await driver.run(_END_LEASES, ids=[one.id])
    reason = f"it was quarantined: {one.reason}"
    changeset.events.append(Event(one.service, one.address, one.port, "", "removed", reason, "registry", "REMOVED"))


def _count(
    changed: Collection[EndpointChange],
    numbers: Mapping[str, StoredVersion],
    generation: int,
    bereft: Collection[str] = (),
) -> dict[str, StoredVersion]:
    """Return the numbers after a change; services that are ``bereft`` lose an endpoint besides."""
    after = dict(numbers)
    touched = {entry.after.service for entry in changed}.union(bereft)
    visible = {entry.after.service for entry in changed if entry.visible}.union(bereft)
    for name in touched:
        before = numbers[name]
        if not before.version:
            first = version_before_first(generation)
            before = StoredVersion(first, max(first, before.change))
        after[name] = StoredVersion(before.version + (name in visible), before.change + 1)
    return after


async def _save_endpoints(
    driver: Driver, changed: Collection[EndpointChange], after: Mapping[str, StoredVersion]
) -> None:
    # Departures first: the address of one may be the address of a newcomer.
    known = sorted((e for e in changed if e.after.id), key=lambda e: (e.after.removed_at is None, e.after.id))
    if known:
        await driver.run_each(
            _UPDATE_ENDPOINT,
            [to_row(e.after, after[e.after.service].change) | {"known_id": e.after.id} for e in known],
        )
    new = [entry for entry in changed if not entry.after.id]
    if new:
        rows = [to_row(entry.after, after[entry.after.service].change) for entry in new]
        for entry, (endpoint_id,) in zip(new, await driver.rows_of_each(_ADD_ENDPOINT, rows), strict=True):
            entry.stored_as(endpoint_id)


async def _save_leases(driver: Driver, changeset: Changeset, after: Mapping[str, StoredVersion]) -> None:
    changed = [entry for entry in changeset.changed() if entry.before is not None]
    granted = list(changeset.granted())
    touched = {entry.after.id for entry in (*changed, *granted)}
    if len(touched) > 1:
        await driver.run(_LOCK_LEASES, ids=sorted(touched))
    if granted:
        told = [_lease(entry, changeset.now, after[entry.after.service].change) for entry in granted]
        await driver.run_each(_GRANT, told)
    # Without its lease, or with another change, a heartbeat that goes by what was before matches nothing, and is
    # looked at again.
    ended = [entry.after.id for entry in changed if not entry.leased]
    if ended:
        await driver.run(_END_LEASES, ids=sorted(ended))
    moved = [entry for entry in changed if entry.leased and not entry.granted]
    if moved:
        numbered = [{"moved_id": one.after.id, "number": after[one.after.service].change} for one in moved]
        await driver.run_each(_FOLLOW, numbered)


def _lease(entry: EndpointChange, now: float, change: int) -> dict[str, Any]:
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


async def _save_overrides(driver: Driver, changeset: Changeset) -> None:
    for (service, address, port), override in changeset.overrides.items():
        key = {"service": service, "address": address, "port": port}
        if override is None:
            await driver.run(_CLEAR_OVERRIDE, **key)
            continue
        told = key | {
            "weight": override.weight,
            "drain": override.drain,
            "actor": override.actor,
            "reason": override.reason,
            "set_at": moment(override.set_at),
            "expires_at": moment(override.expires_at),
            "instance_id": override.instance_id,
            "canary": override.canary,
        }
        await driver.run(_SET_OVERRIDE, **told)


async def _save_events(driver: Driver, changeset: Changeset, after: Mapping[str, StoredVersion]) -> None:
    rows = [_event(event, changeset.now, after[event.service].version) for event in changeset.events]
    await driver.run_each(_ADD_EVENT, rows)


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
