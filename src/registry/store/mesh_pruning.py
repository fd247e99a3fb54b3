"""The deletion of old revisions of the mesh configuration, and of what no revision and no Envoy needs any more.

Every deletion locks the mesh configuration, as applies and roll-outs do, so that what is wanted and served stays.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import text
from sqlalchemy.sql.elements import TextClause

from registry.errors import RefusedError
from registry.store.database import Database
from registry.store.mesh import lock

log = structlog.get_logger()

_MAX_REVISIONS = 100
"""Revisions that one call deletes; the next call continues."""
_MAX_ROWS = 5_000
"""Resources of revisions, bodies, and notes on gateways that one call deletes of each."""

# The newest revisions, those that are rolled out, and those whose files a later one has are kept, whatever their age.
_OLD = text(
    "SELECT number FROM mesh_revisions AS old WHERE at < now() - make_interval(secs => :age)"
    " AND number NOT IN (SELECT number FROM mesh_revisions ORDER BY number DESC LIMIT :kept)"
    " AND number NOT IN (SELECT revision FROM mesh_rollout)"
    " AND NOT EXISTS (SELECT FROM mesh_revisions AS later"
    " WHERE later.content = old.number AND later.number <> old.number)"
    " ORDER BY number LIMIT :limit"
)
_DELETE_REVISIONS = text("DELETE FROM mesh_revisions WHERE number = ANY(CAST(:numbers AS bigint[]))")
# A resource is of the revisions from `since` on and before `until`.
_DELETE_CONTENTS = text(
    "DELETE FROM mesh_contents WHERE ctid = ANY(ARRAY(SELECT ctid FROM mesh_contents AS old WHERE until IS NOT NULL"
    " AND NOT EXISTS (SELECT FROM mesh_revisions WHERE number >= old.since AND number < old.until) LIMIT :limit))"
)
_DELETE_BODIES = text(
    "DELETE FROM mesh_bodies WHERE sha256 = ANY(ARRAY(SELECT sha256 FROM mesh_bodies AS old"
    " WHERE NOT EXISTS (SELECT FROM mesh_contents WHERE mesh_contents.sha256 = old.sha256)"
    " AND NOT EXISTS (SELECT FROM mesh_served WHERE mesh_served.sha256 = old.sha256) LIMIT :limit))"
)

# A rollback may serve a gateway as it was compiled again in an earlier revision, for as long as that one is kept.
_DELETE_GATEWAYS = text(
    "DELETE FROM mesh_gateways WHERE node_cluster = ANY(ARRAY(SELECT node_cluster FROM mesh_gateways AS old"
    " WHERE NOT EXISTS (SELECT FROM mesh_revisions WHERE number = old.revision)"
    " OR NOT EXISTS (SELECT FROM mesh_contents WHERE mesh_contents.node_cluster = old.node_cluster) LIMIT :limit))"
)


async def prune(database: Database, *, age: float, kept: int) -> int:
    """Delete revisions that are older than ``age`` seconds, but for the newest ``kept``; return how many.

    A revision that PostgreSQL refuses to delete is found by bisection, and does not stop the others.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    async with database.transaction() as connection:
        await lock(connection)
        old = list(await connection.scalars(_OLD, {"age": age, "kept": max(1, kept), "limit": _MAX_REVISIONS}))
    deleted = await _delete_revisions(database, old, age, kept)
    for statement in (_DELETE_CONTENTS, _DELETE_BODIES, _DELETE_GATEWAYS):
        await _delete_unused(database, statement)
    return deleted


async def _delete_revisions(database: Database, numbers: Sequence[int], age: float, kept: int) -> int:
    if not numbers:
        return 0
    try:
        async with database.transaction() as connection:
            await lock(connection)
            # A rollback may need one of them since they were looked for.
            parameters = {"age": age, "kept": max(1, kept), "limit": _MAX_REVISIONS}
            still = set(await connection.scalars(_OLD, parameters)).intersection(numbers)
            return (await connection.execute(_DELETE_REVISIONS, {"numbers": sorted(still)})).rowcount
    except RefusedError as error:
        if len(numbers) == 1:
            log.warning("mesh_revision_not_pruned", revision=numbers[0], reason=error.cause)
            return 0
        middle = len(numbers) // 2
        first = await _delete_revisions(database, numbers[:middle], age, kept)
        return first + await _delete_revisions(database, numbers[middle:], age, kept)


async def _delete_unused(database: Database, statement: TextClause) -> None:
    try:
        async with database.transaction() as connection:
            await lock(connection)
            await connection.execute(statement, {"limit": _MAX_ROWS})
    except RefusedError as error:
        log.warning("mesh_rows_not_pruned", reason=error.cause)
