"""The check whether a registry can start on a database: its schema, and the rights of the role."""

import asyncio
from collections.abc import Iterable

from msgspec import Struct
from sqlalchemy import Connection, Row, text

from registry.database_url import DatabaseUrl
from registry.store.database import Database
from registry.store.migration import is_newer, newest_revision, stored_revision
from registry.store.tables import metadata

_ROLE = text("SELECT format('%I', current_user) AS role, quote_ident(coalesce(current_schema(), 'public')) AS schema")
# A role without USAGE on a schema does not find its tables by their names.
_HIDDEN = text(
    "SELECT format('%I', nspname) FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace"
    " WHERE relname = 'alembic_version' AND relkind = 'r' AND NOT has_schema_privilege(schema.oid, 'USAGE') LIMIT 1"
)
_LACKING = text(
    "SELECT privilege, string_agg(name, ', ' ORDER BY name) AS tables, count(*) AS count"
    " FROM unnest(CAST(:tables AS text[])) AS name,"
    " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege"
    " WHERE NOT has_table_privilege(to_regclass(name), privilege) GROUP BY privilege ORDER BY privilege DESC"
)
_MAX_NAMED = 3
"""Tables that are named; of more, their number."""


class SchemaCheck(Struct, frozen=True):
    """The result of a check: whether a registry can start, and one line that says so or what to do."""

    fits: bool
    line: str


def check_schema(database_url: DatabaseUrl, statement_timeout: float) -> SchemaCheck:
    """Check the schema and the rights of the role; change nothing.

    Raises:
        UnavailableError: PostgreSQL is away, or refuses the connection.
    """
    return asyncio.run(_run(database_url, statement_timeout))


async def _run(database_url: DatabaseUrl, statement_timeout: float) -> SchemaCheck:
    database = Database(database_url, connections=1, timeout=statement_timeout, unbounded=True)
    try:
        async with database.session() as connection:
            return await connection.run_sync(_check)
    finally:
        await database.close()


def _check(connection: Connection) -> SchemaCheck:
    stored, newest = stored_revision(connection), newest_revision()
    own = connection.execute(_ROLE).one()
    if stored is None:
        hidden = connection.scalar(_HIDDEN)
        if hidden is not None:
            grant = f"GRANT USAGE ON SCHEMA {hidden} TO {own.role}"
            return _misfit(f"{own.role} may not look into the schema {hidden}", grant)
        return _misfit(f"the database has no schema yet, and this program needs {newest}", "registry migrate")
    if not is_newer(stored):
        if stored != newest:
            return _misfit(f"the schema is {stored}, and this program needs {newest}", "registry migrate, as its owner")
        lacking = connection.execute(_LACKING, {"tables": sorted(metadata.tables)}).all()
        if lacking:
            grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {own.schema} TO {own.role}"
            return _misfit(f"{own.role} lacks {_named(lacking)}", grant)
        return SchemaCheck(True, f"the schema is {stored}, as this program needs it")
    return SchemaCheck(
        True, f"the schema is {stored}, of a newer program; this one knows {newest}, and runs on it as well"
    )


def _misfit(finding: str, fix: str) -> SchemaCheck:
    return SchemaCheck(False, f"{finding}; run: {fix}")


def _named(lacking: Iterable[Row[tuple[str, str, int]]]) -> str:
    return " and ".join(
        f"{row.privilege} on {row.tables if row.count <= _MAX_NAMED else f'{row.count} tables'}"  # type: ignore[operator]
        for row in lacking
    )
