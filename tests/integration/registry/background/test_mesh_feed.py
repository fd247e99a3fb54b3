"""Following what is served of the mesh configuration, with a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from harness.mesh_revisions import Nodes, store_revision
from sqlalchemy import text

from meshconfig.resource import Kind
from registry.background.mesh_feed import MeshFeed
from registry.cache.disk_mesh import DiskMesh
from registry.cache.mesh_cache import MeshCache
from registry.core.mesh import ServedSet, show_version, version_of
from registry.errors import UnavailableError
from registry.store import mesh as store
from registry.store.database import MESH_CHANNEL, Database
from wire.node import Node

FIRST: Nodes = {
    "web": {"clusters": {"user": {}, "cart": {}}, "routes": {"default": {}}, "listeners": {}},
    "api": {"clusters": {"user": {}}, "routes": {"default": {"a": 1}}, "listeners": {}},
}


@pytest.fixture
async def database(migrated: str) -> AsyncIterator[Database]:
    """A database with the schema and without a mesh configuration."""
    connected = Database(migrated, connections=4, timeout=5)
    yield connected
    await connected.close()


async def execute(database: Database, statement: str) -> None:
    """Write something as a person would."""
    async with database.transaction() as connection:
        await connection.execute(text(statement))


def served(cache: MeshCache, kind: Kind, cluster: str = "web") -> ServedSet:
    """Return what an Envoy of a cluster is served."""
    found = cache.find(kind, Node("i-1", cluster))
    assert found is not None
    return found


def versions(cache: MeshCache, kind: Kind, cluster: str = "web") -> tuple[str, dict[str, str]]:
    """Return the version of a set, and those of its resources."""
    found = served(cache, kind, cluster)
    return show_version(found.version), {name: show_version(each.version) for name, each in found.resources.items()}


async def test_what_stays_the_same_keeps_its_version(database: Database) -> None:
    """A revision moves the versions of what it changes, and of the sets that these are in."""
    cache = MeshCache()
    read: list[bytes] = []
    feed = MeshFeed(database, cache)
    feed.on_body = read.append
    await feed.load()
    assert (cache.ready, cache.revision, len(cache)) == (True, 0, 0)
    assert await store_revision(database, FIRST) == 1
    await feed.refresh()
    bodies = {each.body for cluster in ("web", "api") for each in served(cache, "clusters", cluster).resources.values()}
    assert bodies <= set(read)
    assert len(read) == len(set(read)), "streams encode each once"
    assert versions(cache, "clusters") == ("1.1", {"cart": "1.1", "user": "1.1"})
    assert served(cache, "clusters", "api").resources["user"].body is served(cache, "clusters").resources["user"].body
    second: Nodes = {
        "web": {"clusters": {"user": {"alt_stat_name": "u"}, "new": {}}, "routes": {"default": {}}, "listeners": {}},
        "api": FIRST["api"],
    }
    await store_revision(database, second)
    await feed.refresh()
    assert versions(cache, "clusters") == ("2.1", {"new": "2.1", "user": "2.1"})
    assert versions(cache, "routes") == ("1.1", {"default": "1.1"})
    assert versions(cache, "clusters", "api") == ("1.1", {"user": "1.1"})
    await store_revision(database, {"web": second["web"]})
    await feed.refresh()
    assert versions(cache, "clusters", "api") == ("3.1", {})
    assert served(cache, "routes", "api").resources == {}


async def test_the_resources_of_each_revision_are_kept(database: Database) -> None:
    """Rolling back is to store the resources of an earlier one; only what changed takes rows."""
    second: Nodes = {"web": {**FIRST["web"], "clusters": {"user": {"x": 2}}}}
    for nodes in (FIRST, second, FIRST):
        await store_revision(database, nodes)
    async with database.session() as connection:
        contents = [await store.read_contents(connection, number) for number in (1, 2, 3)]
        assert await store.read_newest_contents(connection) == contents[2]
    assert contents[0] == contents[2]
    assert sorted(contents[1]) == ["web"]
    assert sorted(contents[1]["web"]["clusters"]) == ["user"]


async def test_every_process_follows_within_milliseconds(database: Database) -> None:
    """A notification wakes the feed of each; without one, a look a second does."""
    caches = [MeshCache(), MeshCache()]
    feeds = [MeshFeed(database, cache) for cache in caches]
    async with database.listen({MESH_CHANNEL: lambda _change: feeds[0].nudge()}, lambda: None):
        for feed in feeds:
            await feed.load()
        tasks = [asyncio.create_task(feed.run()) for feed in feeds]
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await store_revision(database, FIRST)
        await _until(lambda: caches[0].revision == 1, 0.5)
        assert time.monotonic() - begun < 0.5
        await _until(lambda: caches[1].revision == 1, 3)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


ROUTES_OF_API = "node_cluster = 'api' AND kind = 'routes' AND name = 'default'"


@pytest.mark.parametrize(
    "spoil",
    [
        f"UPDATE mesh_served SET sha256 = 'none' WHERE {ROUTES_OF_API}",
        f"UPDATE mesh_served SET kind = 'clusters', name = 'x' WHERE {ROUTES_OF_API}",
        "DELETE FROM mesh_served WHERE node_cluster = 'api' AND kind = 'routes' AND name = '*'",
    ],
)
async def test_a_spoilt_row_costs_its_node_alone(database: Database, spoil: str) -> None:
    """A process that knows the node serves it on; one that starts is in doubt about this one, and serves the others."""
    before = MeshCache()
    feed = MeshFeed(database, before)
    await store_revision(database, FIRST)
    await feed.load()
    await execute(database, spoil)
    await store_revision(database, {**FIRST, "web": {**FIRST["web"], "clusters": {}}})
    feed._change = None
    feed._bodies.clear()
    await feed.refresh()
    assert versions(before, "clusters") == ("2.1", {})
    assert versions(before, "routes", "api") == ("1.1", {"default": "1.1"})
    assert list(before.unreadable) == ["api"]
    started = MeshCache()
    await MeshFeed(database, started).load()
    assert started.ready
    assert versions(started, "clusters") == ("2.1", {})
    for kind in ("clusters", "routes", "listeners"):
        with pytest.raises(UnavailableError):
            served(started, kind, "api")


async def test_a_later_revision_heals_a_spoilt_node(database: Database) -> None:
    """It is stored whole again when its bytes change, and the body comes back when they are the same."""
    await store_revision(database, FIRST)
    await execute(database, "DELETE FROM mesh_bodies")
    cache = MeshCache()
    feed = MeshFeed(database, cache)
    await feed.load()
    assert sorted(cache.unreadable) == ["api", "web"]
    await store_revision(database, FIRST)
    feed._change = None
    await feed.refresh()
    assert cache.unreadable == {}
    assert versions(cache, "clusters") == ("1.1", {"cart": "1.1", "user": "1.1"})


async def test_numbers_that_a_fail_over_lost_are_not_used_again(database: Database) -> None:
    """The process serves on what it knows; the next revision is above what an Envoy brings, and what was lost."""
    cache = MeshCache()
    feed = MeshFeed(database, cache)
    await store_revision(database, FIRST)
    await store_revision(database, {**FIRST, "web": {"clusters": {}}})
    await feed.load()
    for statement in (
        "DELETE FROM mesh_revisions WHERE number = 2",
        "UPDATE mesh_state SET revision = 1, step = 1, change = 1",
        "UPDATE mesh_served SET revision = 1, step = 1, change = 1",
    ):
        await execute(database, statement)
    await feed.refresh()
    assert served(cache, "clusters").version == version_of(2, 1)
    cache.claim_ahead(5)
    # It fails once: the claim is not forgotten by that.
    await execute(database, "ALTER TABLE mesh_state ADD CONSTRAINT too_high CHECK (floor < 5)")
    await feed.refresh()
    await execute(database, "ALTER TABLE mesh_state DROP CONSTRAINT too_high")
    await feed.refresh()
    assert await store_revision(database, FIRST) == 106
    await execute(database, "UPDATE mesh_state SET timeline = timeline - 1")
    assert await store_revision(database, FIRST) == 207
    assert await store_revision(database, FIRST) == 208


async def test_a_process_without_postgresql_serves_the_copy_on_disk(database: Database, tmp_path: Path) -> None:
    """Until it reads the database; a copy of another one is not served, nor one that is damaged."""
    await store_revision(database, FIRST)
    cache = MeshCache()
    await MeshFeed(database, cache).load()
    disk = DiskMesh(tmp_path / "mesh.msgpack")
    await disk.keep(cache)
    restored = MeshCache()
    assert disk.restore(restored)
    assert (restored.stale, restored.revision) == (True, 1)
    assert versions(restored, "clusters") == versions(cache, "clusters")
    assert restored.database_id == cache.database_id
    await store_revision(database, {**FIRST, "web": {**FIRST["web"], "clusters": {}}})
    await MeshFeed(database, restored).load()
    assert not restored.stale
    assert versions(restored, "clusters") == ("2.1", {})
    other = MeshCache()
    other.set_database("another")
    assert not disk.restore(other)
    (tmp_path / "mesh.msgpack").write_bytes((tmp_path / "mesh.msgpack").read_bytes()[:-5])
    assert not disk.restore(MeshCache())


async def _until(condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
