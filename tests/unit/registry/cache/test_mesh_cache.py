"""What is served of the mesh configuration: versions never decrease, and doubt is never taken for nothing."""

import asyncio

import pytest
from unit.registry.mesh import node_of, resource, served

from registry.cache.mesh_cache import MeshCache
from registry.errors import UnavailableError
from wire.node import Node

WEB = Node("i-1", "web")


def ready() -> MeshCache:
    """Return a cache that has read its database."""
    cache = MeshCache()
    cache.set_database("db")
    cache.mark_ready()
    return cache


def test_nothing_is_known_before_the_database_is_read() -> None:
    """Then a node.cluster without any definition has none, and says so."""
    cache = MeshCache()
    with pytest.raises(UnavailableError):
        cache.find("clusters", WEB)
    cache.set_database("db")
    cache.mark_ready()
    assert cache.find("clusters", WEB) is None


async def test_versions_never_decrease() -> None:
    """What PostgreSQL has lost in a fail-over goes on being served, and is named."""
    cache = ready()
    cache.apply([served("web", 7, clusters={"user": "a"}, routes={"default": "b"})])
    assert cache.apply([served("web", 6, clusters={"user": "old"}, routes={"default": "b"})]) == ["web"]
    assert cache.apply([served("web", 8, clusters={"user": "c"})]) == ["web"]
    found = cache.find("clusters", WEB)
    assert found is not None
    assert found.resources["user"] == resource("user", 7, "a")
    assert cache.apply([served("web", 8, clusters={}, routes={})]) == []
    found = cache.find("clusters", WEB)
    assert found is not None
    assert not found.resources


async def test_a_node_that_cannot_be_read_costs_itself_alone() -> None:
    """It stays as it was; where nothing is known of it, it is unsure, until it can be read again."""
    cache = ready()
    cache.apply([served("web", 1, clusters={"user": "a"})])
    woken: list[str] = []
    cache.watch("clusters", "api", lambda: woken.append("api"))
    cache.note_unreadable({"web": "a row is spoilt", "api": "a row is spoilt"})
    assert cache.find("clusters", WEB) is not None
    with pytest.raises(UnavailableError, match="api"):
        cache.find("clusters", Node("i-2", "api"))
    assert cache.find("clusters", Node("i-3", "shop")) is None
    cache.note_unreadable({})
    assert cache.find("clusters", Node("i-2", "api")) is None


async def test_another_database_makes_it_unsure() -> None:
    """Its numbers mean something else, so nothing is answered until it is read."""
    cache = ready()
    cache.apply([served("web", 7, clusters={"user": "a"})])
    assert cache.set_database("another")
    with pytest.raises(UnavailableError):
        cache.find("clusters", WEB)
    with pytest.raises(ValueError, match="another"):
        cache.restore("db", 7, [])
    cache.mark_ready()
    cache.apply([served("web", 1, clusters={"user": "new"})])
    assert cache.find("clusters", WEB) is not None


def test_a_copy_on_disk_is_never_newer_than_what_was_read() -> None:
    """It fills what is missing, and is marked as stale until the database is read."""
    cache = MeshCache()
    cache.restore("db", 6, [served("web", 6, clusters={"user": "a"})])
    assert (cache.ready, cache.stale, cache.revision) == (True, True, 6)
    cache.set_database("db")
    cache.mark_ready()
    assert not cache.stale


async def test_a_copy_on_disk_is_no_proof_that_nothing_is_defined() -> None:
    """What it lacks is unsure until the database is read, which wakes the polls that wait for it."""
    cache = MeshCache()
    cache.restore("db", 6, [served("web", 6, clusters={"user": "a"})])
    assert cache.find("clusters", WEB) is not None
    with pytest.raises(UnavailableError, match="from disk"):
        cache.find("clusters", Node("i-2", "api"))
    with pytest.raises(UnavailableError, match="from disk"):
        cache.find("listeners", WEB)
    woken: list[str] = []
    cache.watch("clusters", "api", lambda: woken.append("api"))
    cache.set_database("db")
    cache.mark_ready()
    await asyncio.sleep(0)
    assert woken == ["api"]
    assert cache.find("clusters", Node("i-2", "api")) is None


async def test_a_share_of_the_node_ids_is_served_something_else() -> None:
    """By the hash of the id; the others are served as before."""
    cache = ready()
    cache.apply([served("web", 6, share=30, share_version=7, clusters={"user": "a"}, share_clusters={"user": "b"})])
    bodies = [node_of(cache, f"i-{number}", "clusters", "user") for number in range(1_000)]
    assert set(bodies) == {b"a", b"b"}
    assert 240 < bodies.count(b"b") < 360
