"""The statements on the audit."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import TextClause, bindparam, func, insert, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.audit import BULK_VERBS, AuditEntry, AuditFilter, StoredEntry
from registry.store.database import Database
from registry.store.left_out import SHORT_LOCK
from registry.store.rows import moment
from registry.store.tables import audit
from registry.store.times import bounded

_MAX_DELETED = 5_000
"""Rows that one transaction deletes."""
_MAX_DELETES = 40
"""Transactions that one call deletes by; the next call continues."""
_BULK_SHARE = 0.75
"""Share of the rows that refusals, registrations and logins may have."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SET_COUNT = update(audit).where(audit.c.id == bindparam("row")).values(count=bindparam("new_count"))

_IS_BULK = f"(decision <> 'allowed' OR verb IN ({', '.join(repr(verb) for verb in BULK_VERBS)}))"
# Numbers are given without gaps but for failed batches, so that there are never more rows than that.
_MOST_THERE_CAN_BE = text("SELECT coalesce(max(id) - min(id) + 1, 0) FROM audit")
_COUNT = text(f"SELECT count(*) FILTER (WHERE {_IS_BULK}) AS bulk, count(*) AS entries FROM audit")  # noqa: S608  # constants
_DELETE_OLD = text(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < now() - make_interval(secs => :age)"
    " ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED)"
)
_DELETE_BULK = text(
    f"DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE {_IS_BULK} ORDER BY at LIMIT :limit"  # noqa: S608  # constants
    " FOR UPDATE SKIP LOCKED)"
)
_DELETE_FIRST = text(
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED)"
)


async def add_entries(connection: AsyncConnection, entries: Sequence[AuditEntry]) -> list[int]:
    """Store entries, and return the number of each one's row."""
    rows = [asdict(entry) | {"at": moment(entry.at)} for entry in entries]
    statement = insert(audit).returning(audit.c.id, sort_by_parameter_order=True)
    return list((await connection.execute(statement, rows)).scalars())


async def set_counts(connection: AsyncConnection, counts: Sequence[tuple[int, int]]) -> None:
    """Set the counts of rows; one that is deleted already has none."""
    await connection.execute(SHORT_LOCK)
    await connection.execute(_SET_COUNT, [{"row": row, "new_count": count} for row, count in counts])


async def find_entries(database: Database, wanted: AuditFilter) -> list[StoredEntry]:
    """Return the entries that a filter matches, the newest first."""
    query = select(*(bounded(each).label("at") if each is audit.c.at else each for each in audit.c))
    if wanted.principal is not None:
        query = query.where(audit.c.principal.contains(wanted.principal, autoescape=True))
    for column, value in (
        (audit.c.verb, wanted.verb),
        (audit.c.service, wanted.service),
        (audit.c.decision, wanted.decision),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(audit.c.at >= func.to_timestamp(wanted.since))
    if wanted.until is not None:
        query = query.where(audit.c.at < func.to_timestamp(wanted.until))
    if wanted.after is not None:
        microseconds, row = wanted.after
        query = query.where(tuple_(audit.c.at, audit.c.id) < (_EPOCH + timedelta(microseconds=microseconds), row))
    query = query.order_by(audit.c.at.desc(), audit.c.id.desc()).limit(wanted.limit)
    async with database.session() as connection:
        return [_stored(row) for row in await connection.execute(query)]


async def prune(database: Database, *, age: float, most: int) -> int:
    """Delete entries that are older than ``age`` seconds, and the oldest beyond ``most``.

    Refusals, registrations and logins, of which clients make as many as they like, have a share of ``most``.

    Returns:
        the number of entries that were deleted because there were too many.
    """
    await _delete(database, _DELETE_OLD, {"age": age})
    async with database.session() as connection:
        if (await connection.execute(_MOST_THERE_CAN_BE)).scalar_one() <= most * _BULK_SHARE:
            return 0
        row = (await connection.execute(_COUNT)).one()
    excess_bulk = max(0, row.bulk - int(most * _BULK_SHARE))
    deleted = await _delete(database, _DELETE_BULK, {}, most=excess_bulk)
    return deleted + await _delete(database, _DELETE_FIRST, {}, most=max(0, row.entries - deleted - most))


def _stored(row: Any) -> StoredEntry:  # noqa: ANN401  # a row of SQLAlchemy
    values = {name: getattr(row, name) for name in AuditEntry.__struct_fields__}
    entry = AuditEntry(**(values | {"at": row.at.timestamp()}))
    return StoredEntry(((row.at - _EPOCH) // timedelta(microseconds=1), row.id), entry)


async def _delete(
    database: Database, statement: TextClause, parameters: Mapping[str, float], most: int | None = None
) -> int:
    """Delete in short transactions; the next call continues after the last of them."""
    deleted = 0
    for _ in range(_MAX_DELETES):
        limit = _MAX_DELETED if most is None else min(_MAX_DELETED, most - deleted)
        if limit == 0:
            break
        async with database.transaction() as connection:
            gone = (await connection.execute(statement, dict(parameters) | {"limit": limit})).rowcount
        deleted += gone
        if gone < limit:
            break
    return deleted
