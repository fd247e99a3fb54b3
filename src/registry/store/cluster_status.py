"""The status of the cluster as PostgreSQL has it: clock, schema, connected processes, leader and late leases."""

import time
from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.lease import SweepTime
from registry.store.database import SWEEP_LOCK, Database
from registry.store.leases import endpoints_without_lease
from registry.store.tables import endpoints, leases, registry_state
from registry.store.times import age_of, epoch

_MAX_SERVICES = 20
"""Services with late leases that a status lists."""

_SERVER = text(
    "SELECT current_setting('server_version') AS version,"
    " (SELECT version_num FROM alembic_version) AS revision,"
    " NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean AS writable"
)
# The lead is an advisory lock of 64 bits; pg_locks shows the halves of its number as classid and objid.
_BACKENDS = text(
    "SELECT host(client_addr) AS address, extract(epoch from backend_start) AS since,"
    " EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = activity.pid AND locktype = 'advisory' AND granted"
    "  AND classid = 0 AND objid = :lead) AS leads"
    " FROM pg_stat_activity AS activity WHERE datname = current_database()"
    " AND application_name IN ('headcount-registry feed', 'headcount-registry lead') ORDER BY backend_start"
)


class RegistryBackend(Struct, frozen=True):
    """A connection of a registry process, as ``pg_stat_activity`` shows it; address None: a Unix socket.

    PostgreSQL hides address and start of another role's connections from a role without ``pg_read_all_stats``.
    """

    address: str | None
    since: float | None


class LeaseCounts(Struct, frozen=True):
    """The numbers of a service's leases: all of them, those that missed a heartbeat, and those that expired."""

    service: str
    leases: int
    late: int
    expired: int


class ClusterStatus(Struct, frozen=True):
    """The status of the cluster at one moment.

    Attributes:
        server: PostgreSQL's version.
        schema: the revision of the schema.
        writable: whether PostgreSQL accepts writes.
        ahead: seconds by which PostgreSQL's clock is ahead of this machine's.
        took: seconds that the queries took, which bounds the error of ``ahead``.
        swept: the last sweep of any process; None: no process ever swept.
        leader: the process that sweeps.
        followers: the processes that listen for changes.
        leases: the number of leases.
        late: the number of leases that missed a heartbeat.
        expired: the number of leases that have expired.
        latest: the services with late leases, those with the most first.
        missing: the number of endpoints that are served and have no lease.
    """

    server: str
    schema: str
    writable: bool
    ahead: float
    took: float
    swept: SweepTime | None
    leader: RegistryBackend | None
    followers: list[RegistryBackend]
    leases: int
    late: int
    expired: int
    latest: list[LeaseCounts]
    missing: int = 0


async def read_cluster_status(database: Database) -> ClusterStatus:
    """Return the status of the cluster now.

    Raises:
        UnavailableError: it does not answer, or its schema is missing.
    """
    began = time.monotonic()
    async with database.session() as connection:
        return await _read(connection, began)


async def _read(connection: AsyncConnection, began: float) -> ClusterStatus:
    asked_at = time.time()
    clocks = select(
        func.extract("epoch", func.clock_timestamp()).label("now"),
        epoch(registry_state.c.last_sweep_at).label("swept"),
    )
    read = (await connection.execute(clocks)).one()
    local_time = (asked_at + time.time()) / 2
    server = (await connection.execute(_SERVER)).one()
    backends = list(await connection.execute(_BACKENDS, {"lead": SWEEP_LOCK}))
    leading = [_backend(row.address, row.since) for row in backends if row.leads]
    counts = await _lease_counts(connection)
    return ClusterStatus(
        server=server.version,
        schema=server.revision,
        writable=server.writable,
        ahead=float(read.now) - local_time,
        took=time.monotonic() - began,
        swept=None if read.swept is None else SweepTime(float(read.swept), float(read.now) - float(read.swept)),
        leader=leading[0] if leading else None,
        followers=[_backend(row.address, row.since) for row in backends if not row.leads],
        leases=sum(count.leases for count in counts),
        late=sum(count.late for count in counts),
        expired=sum(count.expired for count in counts),
        missing=sum(map(len, (await endpoints_without_lease(connection)).values())),
        latest=[count for count in counts if count.late or count.expired][:_MAX_SERVICES],
    )


def _backend(address: str | None, since: object) -> RegistryBackend:
    return RegistryBackend(address, None if since is None else float(str(since)))


async def _lease_counts(connection: AsyncConnection) -> Sequence[LeaseCounts]:
    """Count leases by service; one is late after half its time, since heartbeats come at a quarter of it."""
    since_renewal = age_of(leases.c.renewed_at)
    late = func.count().filter(since_renewal > leases.c.ttl / 2)
    counts = (
        select(
            endpoints.c.service,
            func.count().label("leases"),
            late.label("late"),
            func.count().filter(leases.c.expires_at < func.clock_timestamp()).label("expired"),
        )
        .join(endpoints, endpoints.c.id == leases.c.endpoint_id)
        .group_by(endpoints.c.service)
        .order_by(late.desc(), endpoints.c.service)
    )
    return [LeaseCounts(row.service, row.leases, row.late, row.expired) for row in await connection.execute(counts)]
