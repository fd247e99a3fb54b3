"""The deletion of old revisions of the mesh configuration, with a real PostgreSQL."""

from typing import Any

from harness.mesh_revisions import Nodes, store_revision
from sqlalchemy import text

from registry.store import mesh as store
from registry.store import mesh_pruning
from registry.store.database import Database


def nodes(number: int) -> Nodes:
    """Return resources of which one is another one in each revision."""
    return {"web": {"clusters": {"user": {}, "cart": {"alt_stat_name": f"c{number}"}}, "routes": {}, "listeners": {}}}


async def execute(database: Database, *statements: str) -> None:
    """Write something as a person would."""
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def column(database: Database, query: str) -> list[Any]:
    """Return the first column of some rows."""
    async with database.session() as connection:
        return list(await connection.scalars(text(query)))


async def contents(database: Database, *numbers: int) -> list[store.Contents]:
    """Return the resources of revisions."""
    async with database.session() as connection:
        return [await store.read_contents(connection, number) for number in numbers]


async def test_old_revisions_are_deleted_and_nothing_that_is_needed(migrated: str) -> None:
    """The newest, those that are rolled out, those whose files others have, and all that is served stay."""
    database = Database(migrated, connections=4, timeout=5)
    numbers = "SELECT number FROM mesh_revisions ORDER BY number"
    try:
        for number in range(1, 9):
            assert await store_revision(database, nodes(number)) == number
        assert await mesh_pruning.prune(database, age=3600, kept=2) == 0
        assert len(await column(database, "SELECT sha256 FROM mesh_bodies")) == 9
        # The last one has the files of the second, the fourth is rolled out, and the sixth cannot be deleted.
        await execute(
            database,
            "UPDATE mesh_revisions SET at = at - interval '1 day'",
            "UPDATE mesh_revisions SET content = 2 WHERE number = 8",
            "INSERT INTO mesh_rollout VALUES ('api', 0, 4, '{}', now())",
            "CREATE TABLE pins (number bigint REFERENCES mesh_revisions)",
            "INSERT INTO pins VALUES (6)",
            "INSERT INTO mesh_gateways VALUES ('web', 7, now(), '[]'), ('gone', 7, now(), '[]')",
        )
        before = await contents(database, 2, 4, 6, 7, 8)
        assert await mesh_pruning.prune(database, age=3600, kept=2) == 3
        assert await column(database, numbers) == [2, 4, 6, 7, 8]
        assert await contents(database, 2, 4, 6, 7, 8) == before
        assert await column(database, "SELECT node_cluster FROM mesh_gateways") == ["web"]
        digests = {digest for each in before for named in each["web"].values() for digest in named.values()}
        assert set(await column(database, "SELECT sha256 FROM mesh_bodies")) == digests
        assert await column(database, "SELECT DISTINCT sha256 FROM mesh_served WHERE sha256 <> ''")
        assert set(await column(database, "SELECT sha256 FROM mesh_served WHERE sha256 <> ''")) <= digests
        # Whatever is set, the revision in force stays, and the one whose files it has.
        await execute(database, "DELETE FROM pins", "DELETE FROM mesh_rollout")
        assert await mesh_pruning.prune(database, age=0, kept=0) == 3
        assert await column(database, numbers) == [2, 8]
        assert await column(database, "SELECT node_cluster FROM mesh_gateways") == []
    finally:
        await database.close()
