"""The statements of the change feed: the rows that have changed since a process last read them."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Select,
    Text,
    bindparam,
    case,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint, Key, Override, Quarantined
from registry.core.lease import SweepTime
from registry.core.shares import Shares, check_shares
from registry.core.snapshot import SnapshotDelta
from registry.core.versions import version_jump
from registry.errors import InvalidError
from registry.store.database import CHANNEL, Database, rows_of
from registry.store.driver import Statement
from registry.store.rows import Row, endpoint_columns, override_columns, override_from, overrides_of, read_row
from registry.store.service_locks import StoredVersion
from registry.store.tables import endpoints, overrides, registry_state, services
from registry.store.times import age_of, epoch

log = structlog.get_logger()

_RAISE = text(
    "INSERT INTO services AS known (name, version, change, floor, timeline)"
    " VALUES (:name, :version + :far, :change + :far, :change + :far, headcount_timeline())"
    " ON CONFLICT (name) DO UPDATE SET version = greatest(known.version, :version) + :far,"
    " change = greatest(known.change, :change) + :far, floor = greatest(known.change, :change) + :far,"
    " timeline = headcount_timeline()"
    " WHERE known.version <= :version OR known.change < :change"
    " RETURNING version"
).bindparams(*(bindparam(name, type_=BigInteger) for name in ("version", "change", "far")))
_READ_STATE = Statement(
    text(
        "SELECT database_id, current_setting('transaction_read_only')::boolean AS read_only,"  # noqa: S608  # constants
        f" {epoch(registry_state.c.last_sweep_at)} AS swept, {age_of(registry_state.c.last_sweep_at)} AS ago"
        " FROM registry_state"
    )
)
MAX_UNLISTED_OVERRIDES = 1000
"""Overrides without a listed endpoint that a process keeps in memory."""
_UNLISTED_OVERRIDES = Statement(
    select(overrides.c.service, func.host(overrides.c.address).label("address"), overrides.c.port, *override_columns())
    .where(~exists().where(overrides_of(endpoints), endpoints.c.removed_at.is_(None)))
    .order_by(overrides.c.set_at)
    .limit(MAX_UNLISTED_OVERRIDES)
)
_NOTIFY_ONE = text("SELECT pg_notify(:channel, :name)")


def _changes_since() -> Select[Any]:
    held = (
        func.unnest(bindparam("names", type_=ARRAY(Text)), bindparam("changes", type_=ARRAY(BigInteger)))
        .table_valued(column("name", Text), column("change", BigInteger), name="held")
        .render_derived()
    )
    # A service that the reader does not have is read whole, like one that it has too old: tombstones are of no use.
    whole = or_(held.c.change < services.c.floor, held.c.change == 0)
    # By their changes, behind OFFSET 0: otherwise PostgreSQL looks at all endpoints of a service for the few that have
    # changed.
    changed = (
        select(endpoints)
        .where(
            endpoints.c.service == services.c.name,
            endpoints.c.change > case((whole, literal(-1, BigInteger)), else_=held.c.change),
        )
        .offset(0)
        .lateral("changed")
    )
    joined = (
        held.join(services, services.c.name == held.c.name)
        .outerjoin(changed, or_(changed.c.removed_at.is_(None), changed.c.lost_at.is_not(None), ~whole))
        .outerjoin(overrides, overrides_of(changed))
    )
    return (
        select(
            *endpoint_columns(changed),
            services.c.name.label("name"),
            services.c.version.label("service_version"),
            services.c.change.label("service_change"),
            services.c.expected.label("service_expected"),
            services.c.expected_by.label("service_expected_by"),
            services.c.shares.label("service_shares"),
            whole.label("whole"),
        )
        .select_from(joined)
        .order_by(services.c.name, changed.c.id)
    )


_decode_shares = msgspec.json.Decoder(Shares).decode
_CHANGES_SINCE = Statement(_changes_since())
_SERVICE_VERSIONS = Statement(select(services.c.name, services.c.version, services.c.change))


async def read_state(connection: AsyncConnection) -> tuple[str, bool, SweepTime | None]:
    """Return the database's id, whether it refuses writes, and the time of the last sweep of any process, or None."""
    (row,) = await rows_of(connection, _READ_STATE)
    return row.database_id, row.read_only, None if row.ago is None else SweepTime(float(row.swept), float(row.ago))


async def service_versions(connection: AsyncConnection) -> dict[str, StoredVersion]:
    """Return the version and change of every service."""
    numbers = {}
    async for name, version, change in cooperatively(await rows_of(connection, _SERVICE_VERSIONS)):
        numbers[name] = StoredVersion(version, change)
    return numbers


async def first_version(connection: AsyncConnection) -> int:
    """Return the greatest number of any forgotten service; the versions of new services begin above it."""
    return int((await connection.execute(select(registry_state.c.first_number))).scalar_one())


async def unlisted_overrides(connection: AsyncConnection) -> dict[Key, Override]:
    """Return the overrides whose endpoint is not listed, the oldest first, up to ``MAX_UNLISTED_OVERRIDES``."""
    rows = await rows_of(connection, _UNLISTED_OVERRIDES)
    return {(row.service, row.address, row.port): override_from(row) for row in rows}


async def steps(connection: AsyncConnection, held: Mapping[str, int]) -> list[SnapshotDelta]:
    """Return the changes of services since the changes in ``held``, in one consistent read.

    A service whose change in ``held`` is below its floor is returned whole.
    """
    rows = await rows_of(connection, _CHANGES_SINCE, names=list(held), changes=list(held.values()))
    deltas: dict[str, SnapshotDelta] = {}
    async for row in cooperatively(rows):
        delta = deltas.get(row.name)
        if delta is None:
            delta = deltas[row.name] = SnapshotDelta(
                row.name,
                row.service_version,
                row.service_change,
                whole=row.whole,
                expected=row.service_expected,
                expected_by=row.service_expected_by,
                shares=_shares(row.name, row.service_shares),
            )
        if row.id is not None:
            _add(delta, row)
    return list(deltas.values())


def _shares(service: str, stored: str) -> Shares | None:
    """Return the shares of a service; None if there are none, or they cannot be read.

    The latter were written past the API. The endpoints have their own weights then: without a service its callers fail.
    """
    if not stored:
        return None
    try:
        shares = _decode_shares(stored)
        check_shares(shares.groups)
    except (msgspec.MsgspecError, InvalidError) as error:
        log.warning("shares_unreadable", service=service, reason=str(error))
        return None
    return shares


def _add(delta: SnapshotDelta, row: Row) -> None:
    # Of a service that is read whole, it is not known which row changed last.
    if not delta.whole:
        changed = row.changed_at.timestamp()
        delta.made_at = min(changed, delta.made_at or changed)
    if row.removed_at is not None:
        delta.removed.append(((row.address, row.port), row.id))
        if row.lost_at is None:
            return
    endpoint = read_row(row)
    if isinstance(endpoint, Endpoint) and endpoint.lost_at is not None:
        delta.lost.append(endpoint)
    if row.removed_at is not None:
        return
    if isinstance(endpoint, Quarantined):
        delta.quarantined.append(endpoint)
    else:
        delta.listed.append(endpoint)


async def raise_above(database: Database, service: str, version: int, change: int) -> None:
    """Raise a service's version and change above numbers that were served and that the database has lost.

    A fail-over can lose the last commits, and their numbers must not be used again for other content. Other processes
    may have served greater ones, so the step is a large one (``registry.core.versions``). Readers below the new numbers
    read the service whole.
    """
    async with database.transaction() as connection:
        parameters = {"name": service, "version": version, "change": change, "far": version_jump()}
        if (await connection.execute(_RAISE, parameters)).first() is not None:
            await connection.execute(_NOTIFY_ONE, {"channel": CHANNEL, "name": service})
