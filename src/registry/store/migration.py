"""The migrations: bring the schema to this program's revision, under a lock, before anything else uses it.

Almost every start finds it there. Alembic, with the templates that it makes new revisions from, takes a tenth of a
start, and is imported only where there is something to migrate.
"""

import asyncio
import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, text

from registry.database_url import DatabaseUrl
from registry.errors import BadSettingsError, UnavailableError, UnsuitableError
from registry.store.database import SCHEMA_LOCK, Database

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger()

_CHECK_TIMEOUT = 2.0
"""Seconds by which the check of the database may delay a start, for each connection."""


def migrations_path() -> Path:
    """Return the folder of the revisions: inside the package in a wheel, at the top of a checkout otherwise.

    Raises:
        BadSettingsError: neither is there, so the installation is broken.
    """
    package = Path(__file__).parents[1]
    for candidate in (package / "migrations", package.parents[1] / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise BadSettingsError("the migrations are missing from this installation; install headcount again")


@functools.cache
def _revisions() -> tuple[str, ...]:
    """Return the revisions that this program knows, oldest first, as the names of their files begin."""
    files = (migrations_path() / "versions").glob("[0-9]*.py")
    revisions = tuple(sorted(file.name.partition("_")[0] for file in files))
    if not revisions:
        raise BadSettingsError("this installation has no migrations; install headcount again")
    return revisions


def newest_revision() -> str:
    """Return the revision that this program expects."""
    return _revisions()[-1]


async def migrate(database_url: DatabaseUrl, statement_timeout: float) -> None:
    """Migrate the schema; of several processes that call it at once, one migrates and the others wait.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    database = Database(database_url, connections=1, timeout=statement_timeout, unbounded=True)
    try:
        await database.with_schema_lock(_upgrade)
    finally:
        await database.close()


def migrate_now(database_url: DatabaseUrl, statement_timeout: float) -> None:
    """Run ``migrate`` from a program without a loop."""
    asyncio.run(migrate(database_url, statement_timeout))


def migration_sql(database_url: DatabaseUrl, statement_timeout: float) -> str:
    """Return the SQL that `migrate` would run on this database, as a transaction for psql; change nothing.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    before = asyncio.run(_read_revision(database_url, statement_timeout))
    if before == newest_revision() or (before is not None and is_newer(before)):
        return f"-- The schema is {before}; there is nothing to do.\n"
    return (
        f"-- The schema of Headcount's registry, from {before or 'none'} to {newest_revision()}, for:\n"
        "-- psql --set ON_ERROR_STOP=1 --file=this-file, as the role that owns the schema\n"
        f"{_sql_from(before)}"
    )


async def _read_revision(database_url: DatabaseUrl, statement_timeout: float) -> str | None:
    database = Database(database_url, connections=1, timeout=statement_timeout, unbounded=True)
    try:
        async with database.session() as connection:
            return await connection.run_sync(stored_revision)
    finally:
        await database.close()


def check_database(database_url: DatabaseUrl, statement_timeout: float) -> None:
    """Check at the start whether a registry can run on its database; log it if PostgreSQL does not answer.

    Raises:
        UnsuitableError: it cannot.
        BadSettingsError: the URL is none.
    """
    try:
        asyncio.run(_check(database_url, min(statement_timeout, _CHECK_TIMEOUT)))
    except UnsuitableError:
        raise
    except UnavailableError as error:
        log.warning("database_not_checked", reason=error.cause)


async def _check(database_url: DatabaseUrl, statement_timeout: float) -> None:
    database = Database(database_url, connections=2, timeout=statement_timeout)
    try:
        await database.check()
    finally:
        await database.close()


def _upgrade(connection: Connection) -> None:
    before = stored_revision(connection)
    if before == newest_revision():
        return
    if before is not None and is_newer(before):
        # A newer registry has migrated the schema, which stays compatible with the version before.
        log.warning("schema_newer", revision=before, newest_known=newest_revision())
        return
    _run_migrations(connection)
    log.info("schema_migrated", before=before or "empty", now=newest_revision())


def is_newer(revision: str) -> bool:
    """Return whether a newer program made a revision: this one does not know it."""
    return revision not in _revisions()


def stored_revision(connection: Connection) -> str | None:
    """Return the revision of the schema; None: the database has none yet."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _run_migrations(connection: Connection) -> None:
    import alembic.command  # noqa: PLC0415  # see above

    config = _configuration()
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


def _sql_from(revision: str | None) -> str:
    import alembic.command  # noqa: PLC0415  # see above

    config = _configuration()
    config.output_buffer = io.StringIO()
    # As with_schema_lock does, so that no registry migrates at the same time.
    config.attributes["lock"] = f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"
    alembic.command.upgrade(config, "head" if revision is None else f"{revision}:head", sql=True)
    return config.output_buffer.getvalue()


def _configuration() -> "Config":
    import alembic.config  # noqa: PLC0415  # see above

    config = alembic.config.Config()
    config.set_main_option("script_location", str(migrations_path()))
    return config
