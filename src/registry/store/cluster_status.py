"""What PostgreSQL tells of the registry as a whole: its clock, its schema, who follows and sweeps, late leases."""

import time
from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.lease import SweepTime
from registry.store.database import SWEEP_LOCK, Database
from registry.store.leases import endpoints_without_lease
from registry.store.tables import endpoints, leases, registry_state

_MOST_SERVICES = 20

_SERVER = text(
    "SELECT current_setting('server_version') AS version,"
    " (SELECT version_num FROM alembic_version) AS revision,"
    " NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean AS writable"
)
# The lead is an advisory lock of 64 bits; pg_locks shows the halves of its number as classid and objid.
_PEERS = text(
    "SELECT host(client_addr) AS address, extract(epoch from backend_start) AS since,"
    " EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = activity.pid AND locktype = 'advisory' AND granted"
    "  AND classid = 0 AND objid = :lead) AS leads"
    " FROM pg_stat_activity AS activity WHERE datname = current_database()"
    " AND application_name IN ('headcount-registry feed', 'headcount-registry lead') ORDER BY backend_start"
)


class RegistryBackend(Struct, frozen=True):
    """A registry process, as PostgreSQL sees one of its connections; no address: a Unix socket.

    PostgreSQL hides both of another role's connections from a role that may not read all statistics.
    """

    address: str | None
    since: float | None


class LeaseCounts(Struct, frozen=True):
    """The leases of one service: all, those that missed a heartbeat, those that are over."""

    service: str
    leases: int
    late: int
    expired: int


class ClusterStatus(Struct, frozen=True):
    """One look at the database.

    ``ahead`` is by how many seconds its clock is ahead of this machine's, and ``took`` how long the look took, which
    bounds the error of that. ``latest`` lists the services with late leases, the most first. ``missing`` counts the
    endpoints that are served and have no lease.
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
    """Return what the database tells of the whole now.

    Raises:
        UnavailableError: it does not answer, or its schema is missing.
    """
    begun = time.monotonic()
    async with database.session() as connection:
        return await _read(connection, begun)


async def _read(connection: AsyncConnection, begun: float) -> ClusterStatus:
    before = time.time()
    clocks = select(
        func.extract("epoch", func.clock_timestamp()).label("now"),
        func.extract("epoch", registry_state.c.last_sweep_at).label("swept"),
    )
    read = (await connection.execute(clocks)).one()
    here = (before + time.time()) / 2
    server = (await connection.execute(_SERVER)).one()
    peers = list(await connection.execute(_PEERS, {"lead": SWEEP_LOCK}))
    leading = [_peer(row.address, row.since) for row in peers if row.leads]
    tallies = await _tallies(connection)
    return ClusterStatus(
        server=server.version,
        schema=server.revision,
        writable=server.writable,
        ahead=float(read.now) - here,
        took=time.monotonic() - begun,
        swept=None if read.swept is None else SweepTime(float(read.swept), float(read.now) - float(read.swept)),
        leader=leading[0] if leading else None,
        followers=[_peer(row.address, row.since) for row in peers if not row.leads],
        leases=sum(tally.leases for tally in tallies),
        late=sum(tally.late for tally in tallies),
        expired=sum(tally.expired for tally in tallies),
        missing=sum(map(len, (await endpoints_without_lease(connection)).values())),
        latest=[tally for tally in tallies if tally.late or tally.expired][:_MOST_SERVICES],
    )


def _peer(address: str | None, since: object) -> RegistryBackend:
    return RegistryBackend(address, None if since is None else float(str(since)))


async def _tallies(connection: AsyncConnection) -> Sequence[LeaseCounts]:
    """Count per service; a lease is late when half of it is over, since registrars beat at a quarter."""
    passed = func.extract("epoch", func.clock_timestamp() - leases.c.renewed_at)
    late = func.count().filter(passed > leases.c.ttl / 2)
    found = (
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
    return [LeaseCounts(row.service, row.leases, row.late, row.expired) for row in await connection.execute(found)]
