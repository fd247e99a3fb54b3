"""The statements on leases: renew them, find expired ones, and credit time to all.

Heartbeats use ``renew``. The sweeper (``registry.background.sweeper``) uses the others: it decides by what they read,
with ``registry.core.expiry_guard``, and changes endpoints by ``registry.store.transaction``.
"""

import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import asyncpg
import structlog
from msgspec import Struct
from sqlalchemy import ColumnElement, DateTime, and_, bindparam, func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.endpoint import Key
from registry.core.expiry_guard import Candidate
from registry.core.lease import Lease, Leases
from registry.store.database import CHANNEL, SWEEP_LOCK, Database, driver_of, rows_of
from registry.store.driver import Driver, Statement
from registry.store.failures import LOCKED_STATES, first_line, leaves_connection, translate_errors
from registry.store.rows import moment
from registry.store.tables import endpoints, leases, overrides, registry_state
from registry.store.timeline import move_on
from registry.store.times import epoch

log = structlog.get_logger()

_LOCK_TIMEOUT = "200ms"
"""The lock timeout of a batch of renewals.

Changes lock a lease for some milliseconds. Two batches that wait for one another time out before PostgreSQL looks for
deadlocks.
"""
_RENEWALS = (
    "unnest(CAST(:ids AS bigint[]), CAST(:incarnations AS bigint[]), CAST(:changes AS bigint[]))"
    " AS told(id, incarnation, change)"
)
_MATCHES = "leases.endpoint_id = told.id AND leases.incarnation = told.incarnation AND leases.change = told.change"
_RENEWED = "UPDATE leases SET renewed_at = now(), expires_at = now() + make_interval(secs => leases.ttl)"
# The lock timeout is set before the first row is read, and holds for this statement alone.
_RENEW = Statement(
    text(
        f"{_RENEWED} FROM {_RENEWALS} WHERE (SELECT set_config('lock_timeout', '{_LOCK_TIMEOUT}', true)) IS NOT NULL"
        f" AND {_MATCHES} RETURNING leases.endpoint_id"
    )
)
_RENEW_UNLOCKED = Statement(
    text(
        "WITH known AS MATERIALIZED ("  # noqa: S608  # constants
        f" SELECT leases.endpoint_id FROM leases JOIN {_RENEWALS} ON {_MATCHES}),"
        f" free AS MATERIALIZED (SELECT leases.endpoint_id FROM leases JOIN {_RENEWALS} ON {_MATCHES}"
        " ORDER BY leases.endpoint_id FOR UPDATE OF leases SKIP LOCKED),"
        f" renewed AS ({_RENEWED} FROM free WHERE leases.endpoint_id = free.endpoint_id RETURNING leases.endpoint_id)"
        " SELECT known.endpoint_id, renewed.endpoint_id IS NOT NULL AS renewed"
        " FROM known LEFT JOIN renewed ON renewed.endpoint_id = known.endpoint_id"
    )
)
# One row with three columns of packed binary numbers. Nearly every lease is renewed between two reads, and a row for
# each of 100,000 leases would keep a process busy for a third of a second.
_LEASES_AFTER = Statement(
    text(
        "SELECT string_agg(int8send(endpoint_id), '') AS ids, string_agg(timestamptz_send(renewed_at), '') AS renewed,"
        " string_agg(timestamptz_send(expires_at), '') AS expires FROM (SELECT endpoint_id, renewed_at, expires_at"
        " FROM leases WHERE endpoint_id > :after ORDER BY endpoint_id LIMIT :count) AS held"
    )
)
_LEASES_PER_READ = 50_000
"""Leases that one statement reads, in about 12 ms: as long, a change waits for the connection of the feed."""
# A lease that was renewed since the last sweep is credited from its renewal on. No lease ends later than its full
# length from now, except leases that were renewed after ``now`` was read: if PostgreSQL's clock was set forwards in
# between, a full lease from the older reading would have ended already.
_CREDIT = Statement(
    text(
        "UPDATE leases SET expires_at = expires_at + (to_timestamp(:now) - greatest(renewed_at, to_timestamp(:last)))"
        " WHERE renewed_at <= to_timestamp(:now)"
    )
)
# After the clock was set back it is unknown how long no process swept, and which renewals came after that, so every
# lease begins again. The leases of suspects have expired, and keep their distance to now.
_SET_BACK = Statement(
    text(
        "UPDATE leases SET renewed_at = least(renewed_at, to_timestamp(:now)), expires_at = CASE"
        " WHEN EXISTS (SELECT FROM endpoints WHERE id = endpoint_id AND suspect_since IS NOT NULL)"
        " THEN expires_at + (to_timestamp(:now) - to_timestamp(:last))"
        " ELSE to_timestamp(:now) + make_interval(secs => ttl) END"
    )
)
_CLAMP = Statement(
    text(
        "UPDATE leases SET expires_at = to_timestamp(:now) + make_interval(secs => ttl)"
        " WHERE renewed_at <= to_timestamp(:now) AND expires_at > to_timestamp(:now) + make_interval(secs => ttl)"
    )
)
# Pending removals are delayed by the credited time: no heartbeat could be received meanwhile, and Envoy may not have
# been told that the endpoint is out of rotation. This is a change of the service, because each process decides in
# memory whether a removal is due. A locked service is skipped, so that it does not delay the leases of all.
_LOCK_WAITING = Statement(
    text(
        "SELECT name FROM services WHERE name IN"
        " (SELECT service FROM endpoints WHERE removed_at IS NULL AND unroutable_at IS NOT NULL)"
        " ORDER BY name FOR UPDATE SKIP LOCKED"
    )
)
_MOVE_REMOVAL = (
    "WITH counted AS ("
    " UPDATE services SET change = change + 1 WHERE name = ANY(CAST(:names AS text[])) RETURNING name, change)"
    " UPDATE endpoints SET change = counted.change,"
    " lapsed_at = lapsed_at + (to_timestamp(:now) - to_timestamp(:last)), unroutable_at = unroutable_at +"
    " CASE WHEN lapsed_at IS NOT NULL THEN to_timestamp(:now) - to_timestamp(:last) {otherwise} END"
    " FROM counted WHERE service = counted.name AND removed_at IS NULL AND unroutable_at IS NOT NULL"
)
_CREDIT_REMOVAL = Statement(
    text(
        # An endpoint that became unroutable after the sweeper had read its time, while its process was stopped, is not
        # credited.
        _MOVE_REMOVAL.format(
            otherwise="ELSE greatest(to_timestamp(:now) - greatest(unroutable_at, to_timestamp(:last)), interval '0')"
        )
    )
)
_SET_BACK_REMOVAL = Statement(
    text(
        _MOVE_REMOVAL.format(
            otherwise="WHEN unroutable_at > to_timestamp(:now) THEN to_timestamp(:now) - to_timestamp(:last)"
            " ELSE interval '0'"
        )
    )
)
_FOLLOW_CHANGES = Statement(
    text(
        "UPDATE leases SET change = endpoints.change FROM endpoints"
        " WHERE endpoints.id = leases.endpoint_id AND leases.change <> endpoints.change"
    )
)
_NOW = bindparam("now", type_=DateTime(timezone=True))
_LAST_SWEEP = Statement(
    select(
        func.extract("epoch", func.clock_timestamp()).label("now"),
        epoch(registry_state.c.last_sweep_at).label("last"),
    )
)
_STORE_SWEEP_TIME = Statement(text("UPDATE registry_state SET last_sweep_at = :now").bindparams(_NOW))
_NOT_DURABLE = Statement(text("SET LOCAL synchronous_commit = off"))
_SHORT_LOCK = Statement(text("SET LOCAL lock_timeout = '1s'"))
_LOCK_SERVICE = Statement(text("SELECT FROM services WHERE name = :name FOR UPDATE"))
_NEEDS_LEASE = " removed_at IS NULL AND lapsed_at IS NULL AND leaving_at IS NULL"
_MISSING = f"{_NEEDS_LEASE} AND NOT EXISTS (SELECT FROM leases WHERE endpoint_id = endpoints.id)"
# Two numbers of each set of ids. To look up the lease of each endpoint takes PostgreSQL 2.6 times the processor time,
# and nearly always the sets are equal. That other sets have the same numbers is as likely as a guess of 64 bits.
_SETS_DIFFER = Statement(
    text(
        "SELECT (SELECT (count(*), bit_xor(hashint8extended(id, 0))) FROM endpoints"  # noqa: S608  # constants
        f" WHERE {_NEEDS_LEASE}) IS DISTINCT FROM"
        " (SELECT (count(*), bit_xor(hashint8extended(endpoint_id, 0))) FROM leases) AS differ"
    )
)
_WITHOUT_LEASE = text(f"SELECT id, service FROM endpoints WHERE {_MISSING} ORDER BY service, id")  # noqa: S608  # constants
_GRANT_MISSING = Statement(
    text(
        "INSERT INTO leases (endpoint_id, incarnation, renewed_at, expires_at, ttl, change)"  # noqa: S608  # constants
        " SELECT id, incarnation, to_timestamp(:now), to_timestamp(:now) + make_interval(secs => ttl), ttl, change"
        f" FROM endpoints WHERE id = ANY(CAST(:ids AS bigint[])) AND {_MISSING}"
        " ON CONFLICT DO NOTHING RETURNING endpoint_id"
    )
)
_LOCK_TABLE = Statement(text("LOCK TABLE leases IN EXCLUSIVE MODE"))
_NOTIFY = Statement(
    text("SELECT pg_notify(:channel, name) FROM unnest(CAST(:names AS text[])) AS name").bindparams(channel=CHANNEL)
)
# Compared with the last sweep, because another process may have swept while this one was stopped. Then the time is
# credited already, and this process must not count the time since then as swept.
_COUNT_AS_SWEPT = Statement(
    text(
        "UPDATE registry_state SET last_sweep_at = to_timestamp(:now)"  # noqa: S608  # constants
        f" WHERE last_sweep_at IS NULL OR abs({epoch(registry_state.c.last_sweep_at)} - :last) < 0.001 RETURNING true"
    )
)
# The statements below compare with a time that the caller has read once and checked by its monotonic clock. They never
# read PostgreSQL's clock themselves, because it may have been set since.
_EXPIRED = Statement(
    select(
        leases.c.endpoint_id,
        endpoints.c.service,
        epoch(leases.c.expires_at).label("expired"),
        endpoints.c.suspect_since.is_not(None).label("suspect"),
        func.host(endpoints.c.address).label("address"),
        endpoints.c.port,
        endpoints.c.incarnation,
    )
    .join(endpoints, endpoints.c.id == leases.c.endpoint_id)
    .where(leases.c.expires_at < _NOW)
)
_WITH_DEPARTED = Statement(
    select(endpoints.c.service)
    .distinct()
    .where(
        endpoints.c.removed_at.is_(None),
        endpoints.c.unroutable_at <= _NOW,
        endpoints.c.leaving_at.is_not(None) | endpoints.c.lapsed_at.is_not(None),
    )
)
_ENDED_OVERRIDES = Statement(
    select(overrides.c.service, func.host(overrides.c.address).label("address"), overrides.c.port).where(
        overrides.c.expires_at < _NOW
    )
)
_LEAD = text(
    "SELECT CASE WHEN pg_try_advisory_lock(:key) THEN set_config('idle_session_timeout', :silence, false)"
    " || set_config('application_name', 'headcount-registry lead', false) END"
)
_BELOW_ALL_IDS = -1


class Renewed(Struct, frozen=True):
    """The result of a batch of renewals, by endpoint id.

    An endpoint in neither set was not renewed: its lease is gone, another incarnation holds it, or the endpoint
    changed.
    """

    renewed: frozenset[int]
    locked: frozenset[int] = frozenset()


async def renew(connection: AsyncConnection, renewals: Collection[tuple[int, int, int]]) -> Renewed:
    """Renew leases by endpoint id, incarnation and change.

    A locked lease is skipped, and does not delay the others. An empty batch checks whether PostgreSQL could renew. The
    statement is run on the driver, because SQLAlchemy's overhead costs as much a batch as PostgreSQL's work.

    Args:
        connection: a connection on which each statement commits by itself.
        renewals: the endpoint id, incarnation and change of each lease.

    Raises:
        UnavailableError: PostgreSQL cannot be reached, is too slow, or refuses writes. The connection is closed then,
            but for a ``RefusedError`` that is not stale.
    """
    with translate_errors():
        ids, incarnations, changes = zip(*sorted(renewals), strict=True) if renewals else ((), (), ())
        driver = await driver_of(connection)
        try:
            return await _renew(driver, ids=ids, incarnations=incarnations, changes=changes)
        except BaseException as error:
            if not leaves_connection(error):
                await connection.invalidate()
            raise


async def _renew(driver: Driver, **parameters: tuple[int, ...]) -> Renewed:
    try:
        return Renewed(frozenset(row[0] for row in await driver.rows(_RENEW, **parameters)))
    except asyncpg.PostgresError as error:
        if getattr(error, "sqlstate", None) not in LOCKED_STATES:
            raise
    outcomes: dict[int, bool] = dict(await driver.rows(_RENEW_UNLOCKED, **parameters))
    renewed = frozenset(endpoint_id for endpoint_id, stored in outcomes.items() if stored)
    return Renewed(renewed, frozenset(outcomes) - renewed)


async def all_leases(
    connection: AsyncConnection,
    between: Callable[[], Awaitable[None]] | None = None,
    leases_per_read: int = _LEASES_PER_READ,
) -> Leases:
    """Return all leases, each at least as new as the call; many are read by several statements.

    Args:
        connection: a connection on which each statement commits by itself.
        between: called between two statements; it may use the connection.
        leases_per_read: leases that one statement reads.
    """
    leases_read, after = Leases.none(), _BELOW_ALL_IDS
    while True:
        (row,) = await rows_of(connection, _LEASES_AFTER, after=after, count=leases_per_read)
        ids, renewed, expires = map(_numbers, row)
        leases_read.extend(ids, renewed, expires)
        if len(ids) < leases_per_read:
            return leases_read
        after = ids[-1]
        if between is not None:
            await between()


def _numbers(column: bytes | None) -> "array[int]":
    numbers = array("q", column or b"")
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


async def lease_of(connection: AsyncConnection, endpoint_id: int) -> Lease | None:
    """Return the lease of an endpoint; None if it has none, because it lapsed or left."""
    query = select(
        epoch(leases.c.renewed_at).label("renewed"),
        epoch(leases.c.expires_at).label("expires"),
    ).where(leases.c.endpoint_id == endpoint_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Lease(endpoint_id, float(row.renewed), float(row.expires))


async def try_lead(connection: AsyncConnection, max_silence: float) -> bool:
    """Try to become the leader, which is the one process that sweeps, for the life of this connection.

    PostgreSQL closes the leader's connection once it is silent for ``max_silence`` seconds, since a frozen process
    keeps its connections open and must lose the lead. A connection that does not get the lead is left unchanged.
    """
    parameters = {"key": SWEEP_LOCK, "silence": str(int(max_silence * 1000))}
    return (await connection.execute(_LEAD, parameters)).scalar_one() is not None


async def last_sweep(connection: AsyncConnection) -> tuple[float, float | None]:
    """Return the database's time, and the time of the last sweep of any process."""
    (row,) = await rows_of(connection, _LAST_SWEEP)
    return float(row.now), None if row.last is None else float(row.last)


async def credit_all(database: Database, last: float, now: float) -> None:
    """Extend every lease by the time from ``last`` to ``now``, and store ``now`` as the time of the last sweep.

    Args:
        database: the database.
        last: the database's time at the end of the last sweep; later than ``now`` when its clock was set back.
        now: the database's time.
    """
    async with database.driver_transaction() as driver:
        if not await driver.rows(_COUNT_AS_SWEPT, last=last, now=now):
            return
        names = await _credit_removals(driver, [row.name for row in await driver.rows(_LOCK_WAITING)], last, now)
        # Renewals lock rows in an order of their own, so that without the table lock they and this could deadlock. No
        # weaker mode: transactions that have read rows FOR UPDATE and not yet written them have to be awaited as well.
        await driver.run(_LOCK_TABLE)
        await driver.run(_CREDIT if now > last else _SET_BACK, last=last, now=now)
        await driver.run(_CLAMP, now=now)
        await driver.run(_FOLLOW_CHANGES)
        if names:
            await driver.run(_NOTIFY, names=names)


async def _credit_removals(driver: Driver, names: Sequence[str], last: float, now: float) -> list[str]:
    """Delay pending removals by the time from ``last`` to ``now``; return the services for which that was stored.

    A service that PostgreSQL refuses to change is skipped, so that it does not stop the credit of all leases. It is
    found by bisection: refusals are rare, and a try with many services costs hardly more than one with few.
    """
    if not names:
        return []
    try:
        # A savepoint within the transaction.
        async with driver.connection.transaction():
            await move_on(driver, names)
            await driver.run(_CREDIT_REMOVAL if now > last else _SET_BACK_REMOVAL, last=last, now=now, names=names)
    except asyncpg.PostgresError as error:
        if not leaves_connection(error):
            raise
        if len(names) == 1:
            log.warning("removals_not_credited", service=names[0], reason=first_line(error))
            return []
        middle = len(names) // 2
        credited = await _credit_removals(driver, names[:middle], last, now)
        return [*credited, *await _credit_removals(driver, names[middle:], last, now)]
    return list(names)


async def store_sweep_time(database: Database, now: float, *, durable: bool = True) -> None:
    """Store ``now``, the database's time, as the end of the last sweep.

    Args:
        database: the database.
        now: the database's time.
        durable: wait for the disk. If it does not, a crash of PostgreSQL may lose the time, and the next sweep then
            credits more of it.
    """
    async with database.driver_transaction() as driver:
        if not durable:
            await driver.run(_NOT_DURABLE)
        await driver.run(_STORE_SWEEP_TIME, now=moment(now))


def _at(now: float) -> ColumnElement[Any]:
    return literal(moment(now), DateTime(timezone=True))


async def expired_leases(connection: AsyncConnection, now: float) -> list[Candidate]:
    """Return the endpoints that are still served although their lease expired before ``now``."""
    return [
        Candidate(
            row.endpoint_id,
            row.service,
            float(row.expired),
            row.suspect,
            address=row.address,
            port=row.port,
            incarnation=row.incarnation,
        )
        for row in await rows_of(connection, _EXPIRED, now=moment(now))
    ]


async def count_endpoints(connection: AsyncConnection, now: float, window: float) -> tuple[Counter[str], Counter[str]]:
    """Return for each service the endpoints that have not lapsed, and those that lapsed within ``window``."""
    recent = _at(now - window)
    live = and_(endpoints.c.removed_at.is_(None), endpoints.c.lapsed_at.is_(None), endpoints.c.leaving_at.is_(None))
    query = (
        select(
            endpoints.c.service,
            func.count().filter(live).label("live"),
            func.count().filter(endpoints.c.lapsed_at > recent).label("lapsed"),
        )
        .where(endpoints.c.removed_at.is_(None) | (endpoints.c.lapsed_at > recent))
        .group_by(endpoints.c.service)
    )
    rows = list(await connection.execute(query))
    return (
        Counter({row.service: row.live for row in rows}),
        Counter({row.service: row.lapsed for row in rows}),
    )


async def services_with_departed(connection: AsyncConnection, now: float, delay: float) -> list[str]:
    """Return the services with an endpoint that left or lapsed at ``now - delay`` or before."""
    return [row.service for row in await rows_of(connection, _WITH_DEPARTED, now=moment(now - delay))]


async def ended_overrides(connection: AsyncConnection, now: float) -> list[Key]:
    """Return the overrides whose time was over before ``now``."""
    rows = await rows_of(connection, _ENDED_OVERRIDES, now=moment(now))
    return [(row.service, row.address, row.port) for row in rows]


async def endpoints_without_lease(connection: AsyncConnection) -> dict[str, list[int]]:
    """Return the ids of served endpoints without a lease, by service; without one, they would never expire."""
    (sets,) = await rows_of(connection, _SETS_DIFFER)
    if not sets.differ:
        return {}
    rows = await connection.execute(_WITHOUT_LEASE)
    by_service: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_service[row.service].append(row.id)
    return dict(by_service)


async def grant_missing(database: Database, service: str, ids: Collection[int], now: float) -> list[int]:
    """Grant a full lease from ``now`` to a service's endpoints without one; return the ids that got one."""
    async with database.driver_transaction() as driver:
        await driver.run(_SHORT_LOCK)
        # Changes of the service wait for the lock, so that no endpoint that leaves gets a lease.
        await driver.run(_LOCK_SERVICE, name=service)
        return [row[0] for row in await driver.rows(_GRANT_MISSING, ids=list(ids), now=now)]
