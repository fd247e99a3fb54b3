"""The schema: what the migrations make is what the code expects, however often and by however many it is made."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from harness.postgres import Postgres
from harness.process import script
from sqlalchemy import Connection, text

from registry.errors import RefusedError, UnavailableError
from registry.store.database import Database
from registry.store.migration import migrate_now, migrations_path, newest_revision
from registry.store.tables import metadata

# The key of the lock under which registries migrate.
SCHEMA_LOCK = 0x48454144

CATALOG = {
    "columns": "SELECT table_name || '.' || column_name, data_type, is_nullable, column_default, is_identity"
    " FROM information_schema.columns WHERE table_schema = 'public'",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": "SELECT conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'",
}


@pytest.fixture
def database(empty_database: str) -> str:
    """A database that a test migrates itself."""
    return empty_database


def run(url: str, work: Callable[[Connection], Any]) -> Any:
    """Run something on a connection, as it is found in the store."""

    async def on_connection() -> Any:
        database = Database(url, connections=1, timeout=10)
        try:
            async with database.transaction() as connection:
                return await connection.run_sync(work)
        finally:
            await database.close()

    return asyncio.run(on_connection())


def catalog(server: Postgres, url: str) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return columns, indexes and constraints by their names."""
    return {
        kind: {row[0]: tuple(row)[1:] for row in server.execute(query, url=url) if "alembic" not in row[0]}
        for kind, query in CATALOG.items()
    }


def test_the_migrations_make_the_tables_of_the_code(database: str) -> None:
    """Alembic finds no difference, types and defaults included."""
    migrate_now(database, 10)

    def compare(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert run(database, compare) == []


def test_names_predicates_and_constraints_are_those_of_the_code(server: Postgres, database: str) -> None:
    """Compared in PostgreSQL's own words: indexes with their predicates and methods, keys, checks, identities."""
    migrate_now(database, 10)
    drawn = server.create_database()
    # A default of a column that a migration makes.
    server.execute("CREATE FUNCTION headcount_transaction() RETURNS bigint RETURN 0", url=drawn)
    run(drawn, metadata.create_all)
    made, wanted = catalog(server, database), catalog(server, drawn)
    assert made == wanted
    assert "WHERE (removed_at IS NULL)" in made["indexes"]["endpoints_listed_key"][0]
    assert "lapsed_at IS NOT NULL" in made["indexes"]["endpoints_departing_idx"][0]


def test_leases_keep_room_in_their_pages(server: Postgres, database: str) -> None:
    """Renewals stay in their page, no index stands on what they change, and vacuum comes early."""
    migrate_now(database, 10)
    ((options,),) = server.execute("SELECT reloptions FROM pg_class WHERE relname = 'leases'", url=database)
    assert "fillfactor=75" in options
    assert "autovacuum_vacuum_scale_factor=0.05" in options
    indexes = server.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'leases'", url=database)
    assert [row[0].rpartition("(")[2] for row in indexes] == ["endpoint_id)"]


def test_renewals_touch_no_index(server: Postgres, database: str) -> None:
    """PostgreSQL counts most of them as HOT updates, even when all leases are renewed at once."""
    migrate_now(database, 10)
    server.execute("INSERT INTO services (name) VALUES ('shop')", url=database)
    server.execute(
        "WITH made AS (INSERT INTO endpoints (service, address, port, instance_id, incarnation, health, draining,"
        " revision, region, zone, canary, metadata, detail, ttl, registered_at, changed_at, change)"
        " SELECT 'shop', '10.0.0.0'::inet + n, 80, 'i', 1, 'HEALTHY', false,"
        " '', '', '', false, '{}', '', 20, now(), now(), 1"
        " FROM generate_series(1, 200) AS n RETURNING id)"
        " INSERT INTO leases SELECT id, 1, now(), now(), 20 FROM made",
        url=database,
    )
    counted = (
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables, pg_stat_force_next_flush() WHERE relname = 'leases'"
    )
    for _ in range(10):
        server.execute("UPDATE leases SET renewed_at = now(), expires_at = now()", url=database)
    ended = time.monotonic() + 10
    while (updates := tuple(server.execute(counted, url=database)[0]))[0] < 2000 and time.monotonic() < ended:
        time.sleep(0.05)
    assert updates[0] == 2000
    assert updates[1] > 0.75 * 2000


def test_migrating_twice_does_nothing(server: Postgres, database: str) -> None:
    """The database stays the one it was: its identity and its schema."""
    migrate_now(database, 10)
    identity = "SELECT database_id FROM registry_state"
    before = (server.execute(identity, url=database), catalog(server, database))
    migrate_now(database, 10)
    assert (server.execute(identity, url=database), catalog(server, database)) == before
    ((name,),) = before[0]
    assert len(name) == 8


def test_two_databases_have_two_identities(server: Postgres, database: str) -> None:
    """Versions of one are never compared with those of the other."""
    other = server.create_database()
    names = set()
    for url in (database, other):
        migrate_now(url, 10)
        names |= {row[0] for row in server.execute("SELECT database_id FROM registry_state", url=url)}
    assert len(names) == 2


def test_processes_that_migrate_at_once_all_succeed(server: Postgres, database: str) -> None:
    """One does it, the others wait for it and find it done."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env["REGISTRY_DATABASE_URL"] = database
    started = [
        subprocess.Popen([*script("registry"), "migrate"], env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert sum("schema_migrated" in one for one in said) == 1
    assert server.execute("SELECT count(*) FROM registry_state", url=database)[0][0] == 1


def test_a_long_migration_elsewhere_is_waited_for(server: Postgres, database: str) -> None:
    """However short statements may usually be."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, database, str(SCHEMA_LOCK)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        migrate_now(database, 1.0)
    assert holder.returncode == 0
    assert server.execute("SELECT count(*) FROM registry_state", url=database)[0][0] == 1


_HOLD = """
import asyncio, asyncpg, sys
async def hold():
    connection = await asyncpg.connect(sys.argv[1])
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({sys.argv[2]})")
        print("held", flush=True)
        await asyncio.sleep(2)
    await connection.close()
asyncio.run(hold())
"""


def test_a_newer_schema_is_left_alone(server: Postgres, database: str) -> None:
    """A registry that goes back keeps what the newer one made, and serves on."""
    migrate_now(database, 10)
    server.execute("UPDATE alembic_version SET version_num = '9999'", url=database)
    before = catalog(server, database)
    migrate_now(database, 10)
    assert server.execute("SELECT version_num FROM alembic_version", url=database)[0][0] == "9999"
    assert catalog(server, database) == before


def test_the_newest_revision_is_the_one_that_is_stored(server: Postgres, database: str) -> None:
    """What the program expects is what it makes."""
    migrate_now(database, 10)
    assert server.execute("SELECT version_num FROM alembic_version", url=database)[0][0] == newest_revision()


def test_the_files_of_revisions_are_numbered_as_they_follow_each_other() -> None:
    """A start reads the newest revision from their names alone, without Alembic."""
    files = {path.name for path in (migrations_path() / "versions").glob("*.py")}
    scripts = list(ScriptDirectory(migrations_path()).walk_revisions())
    assert {Path(script.path).name for script in scripts} == files
    assert all(Path(script.path).name.partition("_")[0] == script.revision for script in scripts)
    assert [script.revision for script in scripts] == sorted((script.revision for script in scripts), reverse=True)
    assert scripts[0].revision == newest_revision()


def test_a_start_with_a_schema_that_is_there_imports_no_alembic(database: str) -> None:
    """It would take a tenth of each start."""
    migrate_now(database, 10)
    code = (
        "import sys; from registry.store.migration import migrate_now;"
        f" migrate_now({database!r}, 10); print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[-1] == "False"


def test_a_migration_that_fails_leaves_nothing_behind(server: Postgres, database: str) -> None:
    """It is one transaction."""
    server.execute("CREATE TABLE events (id int)", url=database)
    with pytest.raises(RefusedError, match="duplicate table") as caught:
        migrate_now(database, 10)
    assert 'relation "events" already exists' in caught.value.cause
    tables = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", url=database)
    assert [row[0] for row in tables] == ["events"]


def test_a_database_that_is_away_is_an_outage() -> None:
    """The command line says so plainly."""
    with pytest.raises(UnavailableError):
        migrate_now("postgresql://nobody@127.0.0.1:1/none", 2)


def test_ports_are_checked_by_the_database_too(server: Postgres, database: str) -> None:
    """What nobody may write is refused also from psql."""
    migrate_now(database, 10)
    found = run(database, lambda connection: connection.execute(text(CATALOG["constraints"])).all())
    assert any("port" in row[0] and "65535" in row[1] for row in found)
