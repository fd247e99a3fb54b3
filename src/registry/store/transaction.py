"""The transactions that change endpoints: lock, load a changeset, apply the rules to it, and store what has changed.

Three functions do so: ``change_at_addresses`` for registrations and heartbeats, ``change_service`` for the sweeper and
for lost endpoints, and ``change_by_operator`` for deregistrations by operators. The rules are those of
``registry.core.changeset``. The notification that is sent at the commit lets ``registry.background.change_feed`` of
each process read the change.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Text,
    all_,
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

from registry.core.changeset import Changeset, EndpointChange
from registry.core.endpoint import Key, Override, Quarantined
from registry.core.endpoint_table import AddressPort
from registry.core.event import Event
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
from registry.store.single_change import SINGLE_CHANGE, parameters
from registry.store.tables import endpoints, events, leases, overrides, services
from registry.store.timeline import crossed, generation, move_on


class StoredVersion(Struct, frozen=True):
    """The version and the change of a service after a transaction."""

    version: int
    change: int


class _ForgottenMeanwhileError(RegistryError):
    """A service was forgotten before the transaction could lock it, so the transaction has to start again."""


class _Locked(Struct, frozen=True):
    """The versions of the services that a transaction has locked, and the number of promotions so far."""

    numbers: dict[str, StoredVersion]
    generation: int = 0


_names = bindparam("names", type_=ARRAY(Text))
_ids = bindparam("ids", type_=ARRAY(BigInteger))
_address_port = (
    func.unnest(bindparam("addresses", type_=ARRAY(INET)), bindparam("ports", type_=ARRAY(Integer)))
    .table_valued("address", "port")
    .render_derived("place")
)
_address_ports = select(_address_port)

# Addresses are locked before services, and services before leases, each in one order, so that no two transactions
# deadlock. A service that is forgotten after this statement has found it, and before it is locked, makes the
# transaction start again. These statements take longer to plan than to run, so that is done once a connection.
_LOCK_ADDRESSES = Statement(
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
# Services of registrations that were all refused, whose names would be kept for the event retention otherwise.
_DELETE_UNUSED_SERVICES = Statement(text("DELETE FROM services WHERE name = ANY(CAST(:names AS text[]))"))
# By address and port alone, behind OFFSET 0. Before the first ANALYZE, PostgreSQL takes the table, and the index of
# listed endpoints, to be short, and would scan all of it by a plan that a connection keeps while they grow.
_at_address = (
    select(endpoints)
    .where(endpoints.c.address == _address_port.c.address, endpoints.c.port == _address_port.c.port)
    .offset(0)
    .lateral()
)
_at_addresses = select(_at_address).select_from(_address_port.join(_at_address, true())).subquery("at_places")
_owners = select(_at_addresses.c.service).where(_at_addresses.c.removed_at.is_(None))
# As an array, which is computed before the first service is searched, so that services are searched by their key.
_names_and_owners = func.array(select(func.unnest(_names)).union(_owners).scalar_subquery())
_lock = select(services.c.name, services.c.version, services.c.change, crossed, generation)
_LOCK_SERVICES = Statement(_lock.where(services.c.name == any_(_names)).order_by(services.c.name).with_for_update())
_LOCK_SERVICES_AND_OWNERS = Statement(
    _lock.where(services.c.name == any_(_names_and_owners)).order_by(services.c.name).with_for_update()
)
# Tombstones as well, since they fence late heartbeats of endpoints that left.
_LOAD_AT_ADDRESSES = Statement(
    select_endpoints(or_(_at_addresses.c.service == any_(_names), _at_addresses.c.removed_at.is_(None)), _at_addresses)
)
# With the lost endpoints, of which there are few, or none.
_LOAD_SERVICE = Statement(
    select_endpoints(
        (endpoints.c.service == bindparam("service"))
        & (endpoints.c.removed_at.is_(None) | endpoints.c.lost_at.is_not(None))
    )
)
_LOAD_UNROUTABLE = Statement(
    select_endpoints(
        (endpoints.c.service == bindparam("service"))
        & endpoints.c.removed_at.is_(None)
        & endpoints.c.unroutable_at.is_not(None)
    )
)
# More than one, because a row may be one that cannot be read.
_LOAD_SOME_ROUTABLE = Statement(
    select_endpoints(
        (endpoints.c.service == bindparam("service"))
        & endpoints.c.removed_at.is_(None)
        & endpoints.c.unroutable_at.is_(None)
    ).limit(10)
)
_LOAD_LOST = Statement(
    select_endpoints((endpoints.c.service == any_(_names)) & endpoints.c.lost_at.is_not(None))
    .order_by(
        (endpoints.c.instance_id == any_(bindparam("instances", type_=ARRAY(Text)))).desc(),
        endpoints.c.lost_at,
        endpoints.c.id,
    )
    .limit(bindparam("most", type_=Integer))
)
_OVERRIDES = Statement(
    select(
        overrides.c.service,
        func.host(overrides.c.address).label("address"),
        overrides.c.port,
        *override_columns(),
    ).where(tuple_(overrides.c.address, overrides.c.port).in_(_address_ports))
)
_DEREGISTERED_BY_OPERATORS = Statement(
    select(func.count()).where(
        events.c.service == bindparam("service"), events.c.kind == "expelled", events.c.at > bindparam("since")
    )
)
_ROUTABLE = Statement(
    select(func.count()).where(
        endpoints.c.service == bindparam("service"),
        endpoints.c.removed_at.is_(None),
        endpoints.c.unroutable_at.is_(None),
        endpoints.c.id != all_(_ids),
    )
)
# As one argument: a statement takes 32,767, and a service may have more endpoints at once.
_leased = leases.c.endpoint_id == any_(_ids)
# Compared with the expiry that the sweeper has read, and not with PostgreSQL's clock, which may have been set since. A
# renewal changes the expiry, whatever the time is.
_STILL_EXPIRED = Statement(
    text(
        "SELECT leases.endpoint_id FROM leases"
        " JOIN unnest(CAST(:ids AS bigint[]), CAST(:expiries AS timestamptz[])) AS judged(id, expires_at)"
        " ON leases.endpoint_id = judged.id AND leases.expires_at = judged.expires_at"
        # A locked lease is being renewed, and waiting for it here could deadlock.
        " FOR UPDATE OF leases SKIP LOCKED"
    )
)
NOW = Statement(text("SELECT extract(epoch FROM clock_timestamp())"))
_REMOVE_ENDPOINT = Statement(
    update(endpoints)
    .where(endpoints.c.id == bindparam("known_id"))
    .values(removed_at=bindparam("now"), changed_at=bindparam("now"), change=bindparam("number"))
)
_endpoint_columns = [column.name for column in endpoints.c if column.name != "id"]
_UPDATE_ENDPOINT = Statement(update(endpoints).where(endpoints.c.id == bindparam("known_id")), _endpoint_columns)
_ADD_ENDPOINT = Statement(insert(endpoints).returning(endpoints.c.id), _endpoint_columns)
ADD_EVENT = Statement(insert(events), [column.name for column in events.c if column.name not in ("id", "transaction")])
# In the order in which renewals lock them, before any of them is changed.
_LOCK_LEASES = Statement(select(leases.c.endpoint_id).where(_leased).order_by(leases.c.endpoint_id).with_for_update())
_DELETE_LEASES = Statement(delete(leases).where(_leased))
_MOVE_LEASE = Statement(
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
# A reader that has any change of a service before its first version has what a fail-over lost, and reads it whole.
_SET_VERSIONS = Statement(
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
    """Apply ``decide`` to all endpoints at ``address_ports``, of any service, and commit the changes.

    Args:
        database: the database.
        service_names: the services to lock, whose endpoints may be changed.
        address_ports: the addresses with their ports.
        decide: changes endpoints by the methods of the changeset.
        creates_services: those of the services that may be created; a service that gets no endpoint is not created.
        max_new_services: how many of them may be created; None: all.

    Returns:
        the version after the commit of each service that was locked.
    """
    while True:
        with suppress(_ForgottenMeanwhileError):
            return await _try_change_at_addresses(
                database, service_names, address_ports, decide, creates_services, max_new_services
            )


async def _try_change_at_addresses(
    database: Database,
    service_names: Collection[str],
    address_ports: Collection[AddressPort],
    decide: Callable[[Changeset], None],
    creates_services: Collection[str],
    max_new_services: int | None,
) -> dict[str, StoredVersion]:
    async with database.driver_transaction() as driver:
        parameters = _at(address_ports)
        keys = [f"{address} {port}" for address, port in address_ports]
        (row, *_) = await driver.rows(_LOCK_ADDRESSES, address_ports=keys, creates_services=sorted(creates_services))
        missing = row.missing
        admitted = missing if max_new_services is None else missing[:max_new_services]
        created = [row.name for row in await driver.rows(_ADD_SERVICES, names=admitted)] if admitted else []
        locked = await _lock_services(driver, _LOCK_SERVICES_AND_OWNERS, names=sorted(service_names), **parameters)
        unadmitted_services = frozenset(creates_services) - locked.numbers.keys()
        if not unadmitted_services.issubset(missing[len(admitted) :]):
            # To create the service now would lock services out of their order.
            raise _ForgottenMeanwhileError
        kept = {_key(row): override_from(row) for row in await driver.rows(_OVERRIDES, **parameters)}
        # A row that cannot be read has no owner, and must not make a registration at its address fail.
        changeset, quarantined = await _changeset(
            await driver.rows(_LOAD_AT_ADDRESSES, names=sorted(locked.numbers), **parameters), kept
        )
        changeset.unadmitted_services = unadmitted_services
        decide(changeset)
        await _fill_places(driver, changeset)
        after = await _save(driver, changeset, locked, quarantined)
        unused = [name for name in created if after[name] == locked.numbers[name]]
        if unused:
            await driver.run(_DELETE_UNUSED_SERVICES, names=unused)
        return {name: numbers for name, numbers in after.items() if name not in unused}


async def change_service(
    database: Database,
    service: str,
    decide: Callable[[Changeset, Collection[int]], None],
    *,
    expiries: Mapping[int, float] | None = None,
    lapsing: Collection[int] = (),
) -> dict[str, StoredVersion]:
    """Apply ``decide`` to all listed endpoints of one service, and commit the changes.

    Args:
        database: the database.
        service: the service's name.
        decide: gets the changeset, and the ids of ``expiries`` whose lease was not renewed. None of these leases can be
            renewed until the commit.
        expiries: the expiry of each lease to decide about, by endpoint id.
        lapsing: ids of endpoints among them that may lapse. A row among these that cannot be read is removed, because
            the rules cannot change it, and its lease would be found expired again for ever.
    """
    async with database.driver_transaction() as driver:
        # The sweeper has other services to change, and tries this one again.
        await driver.run(_SHORT_LOCK)
        locked = await _lock_services(driver, _LOCK_SERVICES, names=[service])
        if not locked.numbers:
            # A service that another transaction creates from here on is not locked, and must not be changed.
            return {}
        changeset, quarantined = await _changeset(await driver.rows(_LOAD_SERVICE, service=service))
        expired = await _unrenewed(driver, expiries) if expiries else set()
        decide(changeset, expired)
        return await _save(
            driver, changeset, locked, [row for row in quarantined if row.id in lapsing and row.id in expired]
        )


async def change_unroutable(
    database: Database, service: str, decide: Callable[[Changeset], None]
) -> dict[str, StoredVersion]:
    """Apply ``decide`` to the endpoints of one service that may not receive traffic, and commit the changes.

    The others are not loaded, so that a large service is not locked for the seconds that takes.

    Args:
        database: the database.
        service: the service's name.
        decide: gets a changeset with these endpoints, and with a few that may receive traffic if there are any.
    """
    async with database.driver_transaction() as driver:
        await driver.run(_SHORT_LOCK)
        locked = await _lock_services(driver, _LOCK_SERVICES, names=[service])
        if not locked.numbers:
            return {}
        rows = [
            *await driver.rows(_LOAD_UNROUTABLE, service=service),
            *await driver.rows(_LOAD_SOME_ROUTABLE, service=service),
        ]
        changeset, _ = await _changeset(rows)
        decide(changeset)
        return await _save(driver, changeset, locked)


async def _unrenewed(driver: Driver, expiries: Mapping[int, float]) -> set[int]:
    ids, moments = list(expiries), [moment(expires_at) for expires_at in expiries.values()]
    return {row.endpoint_id for row in await driver.rows(_STILL_EXPIRED, ids=ids, expiries=moments)}


async def change_by_operator(
    database: Database, service: str, window: float, decide: Callable[[Changeset, int], None]
) -> dict[str, StoredVersion]:
    """Apply ``decide`` to all listed endpoints of one service, and commit the changes.

    Args:
        database: the database.
        service: the service's name.
        window: seconds of the history in which deregistrations by operators are counted.
        decide: gets the changeset, and the number of endpoints that operators have deregistered within the window. No
            other transaction can deregister endpoints of the service until the commit.
    """
    async with database.driver_transaction() as driver:
        locked = await _lock_services(driver, _LOCK_SERVICES, names=[service])
        if not locked.numbers:
            return {}
        changeset, _ = await _changeset(await driver.rows(_LOAD_SERVICE, service=service))
        (counted,) = await driver.rows(
            _DEREGISTERED_BY_OPERATORS, service=service, since=moment(changeset.now - window)
        )
        decide(changeset, counted[0])
        return await _save(driver, changeset, locked)


async def change_endpoint_by_operator(
    database: Database,
    key: Key,
    window: float,
    decide: Callable[[Changeset, int, int], None],
    quarantined: Collection[int] = (),
) -> dict[str, StoredVersion]:
    """Apply ``decide`` to one endpoint, without loading the others of its service, and commit the change.

    Args:
        database: the database.
        key: service, address and port.
        window: as for ``change_by_operator``.
        decide: gets the changeset, the number of the service's endpoints that may receive traffic, and the number that
            operators have deregistered within the window. No other transaction can change either until the commit.
        quarantined: ids of rows that are in no answer, and so may not receive traffic.
    """
    service = key[0]
    async with database.driver_transaction() as driver:
        locked = await _lock_services(driver, _LOCK_SERVICES, names=[service])
        if not locked.numbers:
            return {}
        parameters = _at([(key[1], key[2])])
        changeset, _ = await _changeset(await driver.rows(_LOAD_AT_ADDRESSES, names=[service], **parameters))
        (routable,) = await driver.rows(_ROUTABLE, service=service, ids=list(quarantined))
        (counted,) = await driver.rows(
            _DEREGISTERED_BY_OPERATORS, service=service, since=moment(changeset.now - window)
        )
        decide(changeset, routable[0], counted[0])
        return await _save(driver, changeset, locked)


async def lock_service(driver: Driver, service: str) -> bool:
    """Lock a service for the rest of the transaction; return False if it is not known."""
    return bool((await _lock_services(driver, _LOCK_SERVICES, names=[service])).numbers)


async def _fill_places(driver: Driver, changeset: Changeset) -> None:
    """Load the lost endpoints of services that have gained an endpoint, which is rare, and let the rules decide."""
    gained = changeset.gained
    if not gained:
        return
    rows = await driver.rows(
        _LOAD_LOST,
        names=sorted({endpoint.service for endpoint in gained}),
        instances=[endpoint.registration.instance_id for endpoint in gained],
        # Some of them may be those at the addresses, which the changeset has.
        most=2 * len(gained),
    )
    lost, _ = await endpoints_from([row for row in rows if row.id is not None])
    changeset.fill_places(lost)


def _at(address_ports: Collection[AddressPort]) -> dict[str, list[Any]]:
    return {"addresses": [address for address, _ in address_ports], "ports": [port for _, port in address_ports]}


def _key(row: NamedRecord) -> Key:
    return (row.service, row.address, row.port)


async def _lock_services(driver: Driver, lock: Statement, **parameters: object) -> _Locked:
    rows = await driver.rows(lock, **parameters)
    if any(row.crossed for row in rows):
        # The first change since a fail-over: the former primary may have served the next version already.
        await move_on(driver, [row.name for row in rows])
        rows = await driver.rows(lock, **parameters)
    numbers = {row.name: StoredVersion(row.version, row.change) for row in rows}
    return _Locked(numbers, rows[0].generation if rows else 0)


async def _changeset(
    rows: Sequence[NamedRecord], kept: Mapping[Key, Override] | None = None
) -> tuple[Changeset, list[Quarantined]]:
    """Make a changeset of rows that were read after the locks, so that a service's time never goes back."""
    stored = [row for row in rows if row.id is not None]
    readable, quarantined = await endpoints_from(stored)
    removed = {row.id for row in stored if row.removed_at is not None}
    return Changeset(float(rows[0].now), readable, kept), [row for row in quarantined if row.id not in removed]


async def _save(
    driver: Driver, changeset: Changeset, locked: _Locked, quarantined: Collection[Quarantined] = ()
) -> dict[str, StoredVersion]:
    """Store the changes of a changeset, and remove the given quarantined rows."""
    changed = list(changeset.changed())
    after = _next_versions(changed, locked.numbers, locked.generation, {row.service for row in quarantined})
    raised = sorted(name for name in after if after[name] != locked.numbers[name])
    if _is_single(changeset, changed, locked.numbers, raised, quarantined):
        await _save_single(driver, changeset, changed[0], after)
        return after
    # First, because a new endpoint may take the address of one of them.
    for row in quarantined:
        await _remove_quarantined(driver, changeset, row, after[row.service].change)
    if changed:
        await _save_endpoints(driver, changed, after)
    if changed or quarantined:
        await _save_events(driver, changeset, after)
    await _save_leases(driver, changeset, after)
    await _save_overrides(driver, changeset)
    if raised:
        versions = {
            "versions": [after[name].version for name in raised],
            "changes": [after[name].change for name in raised],
        }
        await driver.run(_SET_VERSIONS, names=raised, **versions)
    return after


def _is_single(
    changeset: Changeset,
    changed: Sequence[EndpointChange],
    before: Mapping[str, StoredVersion],
    raised: Sequence[str],
    quarantined: Collection[Quarantined],
) -> bool:
    """Return whether this is the usual change, of one stored endpoint that renews its lease by it."""
    return (
        len(changed) == len(raised) == len(changeset.events) == 1
        and changed[0].after.id > 0
        and changed[0].before is not None
        and before[raised[0]].version > 0
        and list(changeset.granted()) == list(changed)
        and not quarantined
        and not changeset.overrides
    )


async def _save_single(
    driver: Driver, changeset: Changeset, entry: EndpointChange, after: Mapping[str, StoredVersion]
) -> None:
    numbers = after[entry.after.service]
    await driver.run(
        SINGLE_CHANGE,
        **parameters(
            to_row(entry.after, numbers.change),
            _event(changeset.events[0], changeset.now, numbers.version),
            _lease(entry, changeset.now, numbers.change),
            numbers.version,
        ),
    )


async def _remove_quarantined(driver: Driver, changeset: Changeset, row: Quarantined, change: int) -> None:
    """Remove a quarantined row and its lease; the removal is a change, so that all processes drop it."""
    now = moment(changeset.now)
    await driver.run(_REMOVE_ENDPOINT, known_id=row.id, now=now, number=change)
    await driver.run(_DELETE_LEASES, ids=[row.id])
    reason = f"it was quarantined: {row.reason}"
    changeset.events.append(Event(row.service, row.address, row.port, "", "removed", reason, "registry", "REMOVED"))


def _next_versions(
    changed: Collection[EndpointChange],
    numbers: Mapping[str, StoredVersion],
    generation: int,
    losing_endpoint: Collection[str] = (),
) -> dict[str, StoredVersion]:
    """Return the versions after a change; services in ``losing_endpoint`` lose a quarantined row as well."""
    after = dict(numbers)
    touched = {entry.after.service for entry in changed}.union(losing_endpoint)
    visible = {entry.after.service for entry in changed if entry.visible}.union(losing_endpoint)
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
    # Removals first, because a new endpoint may take the address of a removed one.
    stored = sorted((e for e in changed if e.after.id), key=lambda e: (e.after.removed_at is None, e.after.id))
    if stored:
        await driver.run_each(
            _UPDATE_ENDPOINT,
            [to_row(e.after, after[e.after.service].change) | {"known_id": e.after.id} for e in stored],
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
        granted_rows = [_lease(entry, changeset.now, after[entry.after.service].change) for entry in granted]
        await driver.run_each(_GRANT, granted_rows)
    # A heartbeat that is compared with the former state matches no lease once the lease is gone or has another change,
    # and then goes the way of a registration.
    ended = [entry.after.id for entry in changed if not entry.leased]
    if ended:
        await driver.run(_DELETE_LEASES, ids=sorted(ended))
    moved = [entry for entry in changed if entry.leased and not entry.granted]
    if moved:
        moved_rows = [{"moved_id": entry.after.id, "number": after[entry.after.service].change} for entry in moved]
        await driver.run_each(_MOVE_LEASE, moved_rows)


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
        values = key | {
            "weight": override.weight,
            "drain": override.drain,
            "actor": override.actor,
            "reason": override.reason,
            "set_at": moment(override.set_at),
            "expires_at": moment(override.expires_at),
            "instance_id": override.instance_id,
            "canary": override.canary,
        }
        await driver.run(_SET_OVERRIDE, **values)


async def _save_events(driver: Driver, changeset: Changeset, after: Mapping[str, StoredVersion]) -> None:
    rows = [_event(event, changeset.now, after[event.service].version) for event in changeset.events]
    await driver.run_each(ADD_EVENT, rows)


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
