"""The transactions that change endpoints: lock, load a changeset, apply the rules to it, and store what has changed.

``change_at_addresses`` is for registrations and heartbeats; ``change_service`` and ``change_unroutable`` are for the
sweeper and for lost endpoints; ``change_by_operator`` and ``change_endpoint_by_operator`` are for deregistrations by
operators. The rules are those of ``registry.core.changeset``, and ``registry.store.changeset_writer`` stores what they
have changed. The notification at the commit lets ``registry.background.change_feed`` of each process read the change.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Integer, Text, all_, any_, bindparam, func, or_, select, text, true, tuple_
from sqlalchemy.dialects.postgresql import INET

from registry.core.changeset import Changeset
from registry.core.endpoint import Key, Override, Quarantined
from registry.core.endpoint_table import AddressPort
from registry.errors import RegistryError
from registry.store.changeset_writer import save
from registry.store.database import Database
from registry.store.driver import Driver, NamedRecord, Statement
from registry.store.rows import endpoints_from, moment, override_columns, override_from, select_endpoints
from registry.store.service_locks import LOCK_SERVICES, StoredVersion, lock_services, locking
from registry.store.tables import endpoints, events, overrides


class _ForgottenMeanwhileError(RegistryError):
    """A service was forgotten before the transaction could lock it, so the transaction has to start again."""


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
_LOCK_SERVICES_AND_OWNERS = locking(_names_and_owners)
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
        locked = await lock_services(driver, _LOCK_SERVICES_AND_OWNERS, names=sorted(service_names), **parameters)
        unadmitted_services = frozenset(creates_services) - locked.versions.keys()
        if not unadmitted_services.issubset(missing[len(admitted) :]):
            # To create the service now would lock services out of their order.
            raise _ForgottenMeanwhileError
        kept = {_key(row): override_from(row) for row in await driver.rows(_OVERRIDES, **parameters)}
        # A row that cannot be read has no owner, and must not make a registration at its address fail.
        changeset, quarantined = await _changeset(
            await driver.rows(_LOAD_AT_ADDRESSES, names=sorted(locked.versions), **parameters), kept
        )
        changeset.unadmitted_services = unadmitted_services
        decide(changeset)
        await _fill_places(driver, changeset)
        after = await save(driver, changeset, locked, quarantined)
        unused = [name for name in created if after[name] == locked.versions[name]]
        if unused:
            await driver.run(_DELETE_UNUSED_SERVICES, names=unused)
        return {name: stored for name, stored in after.items() if name not in unused}


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
        locked = await lock_services(driver, LOCK_SERVICES, names=[service])
        if not locked.versions:
            # A service that another transaction creates from here on is not locked, and must not be changed.
            return {}
        changeset, quarantined = await _changeset(await driver.rows(_LOAD_SERVICE, service=service))
        expired = await _unrenewed(driver, expiries) if expiries else set()
        decide(changeset, expired)
        return await save(
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
        locked = await lock_services(driver, LOCK_SERVICES, names=[service])
        if not locked.versions:
            return {}
        rows = [
            *await driver.rows(_LOAD_UNROUTABLE, service=service),
            *await driver.rows(_LOAD_SOME_ROUTABLE, service=service),
        ]
        changeset, _ = await _changeset(rows)
        decide(changeset)
        return await save(driver, changeset, locked)


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
        locked = await lock_services(driver, LOCK_SERVICES, names=[service])
        if not locked.versions:
            return {}
        changeset, _ = await _changeset(await driver.rows(_LOAD_SERVICE, service=service))
        (counted,) = await driver.rows(
            _DEREGISTERED_BY_OPERATORS, service=service, since=moment(changeset.now - window)
        )
        decide(changeset, counted[0])
        return await save(driver, changeset, locked)


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
        locked = await lock_services(driver, LOCK_SERVICES, names=[service])
        if not locked.versions:
            return {}
        parameters = _at([(key[1], key[2])])
        changeset, _ = await _changeset(await driver.rows(_LOAD_AT_ADDRESSES, names=[service], **parameters))
        (routable,) = await driver.rows(_ROUTABLE, service=service, ids=list(quarantined))
        (counted,) = await driver.rows(
            _DEREGISTERED_BY_OPERATORS, service=service, since=moment(changeset.now - window)
        )
        decide(changeset, routable[0], counted[0])
        return await save(driver, changeset, locked)


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


async def _changeset(
    rows: Sequence[NamedRecord], kept: Mapping[Key, Override] | None = None
) -> tuple[Changeset, list[Quarantined]]:
    """Make a changeset of rows that were read after the locks, so that a service's time never goes back."""
    stored = [row for row in rows if row.id is not None]
    readable, quarantined = await endpoints_from(stored)
    removed = {row.id for row in stored if row.removed_at is not None}
    return Changeset(float(rows[0].now), readable, kept), [row for row in quarantined if row.id not in removed]
