"""Publishing services: what is stored, when, and what a failure of one costs the others."""

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from unit.registry.making import endpoint

from registry.background.publish_target import DirectoryTarget, PublishTarget, object_name, target_of
from registry.background.publisher import Publisher
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import SnapshotDelta
from registry.errors import BadSettingsError


class Shelf(PublishTarget):
    """A place in memory.

    Attributes:
        objects: what is there.
        stored: the names that were stored, in order.
        broken: the names that cannot be stored.
        hanging: the names that are stored when ``go`` is set.
    """

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        self.go = threading.Event()
        self.objects: dict[str, bytes] = {}
        self.stored: list[str] = []
        self.broken: set[str] = set()
        self.unlisted = False

    def digests(self) -> Mapping[str, bytes]:
        """Return the digests, or fail."""
        if self.unlisted:
            raise PermissionError("no grant to list")
        return {name: hashlib.md5(body).digest() for name, body in self.objects.items()}

    def put(self, name: str, body: bytes) -> bytes:
        """Store an object, or fail."""
        if name in self.broken:
            raise OSError("no space left on device")
        if name in self.hanging:
            self.go.wait(60)
        self.objects[name] = body
        self.stored.append(name)
        return hashlib.md5(body).digest()


def filled(**versions: int) -> SnapshotCache:
    """Return a cache with a service of one endpoint for each name."""
    cache = SnapshotCache()
    cache.set_database("db")
    for name, version in versions.items():
        cache.apply([SnapshotDelta(name, version, version, listed=[endpoint(version, name)])])
    cache.mark_ready(0.0)
    return cache


def change(cache: SnapshotCache, service: str, version: int, *, empty: bool = False) -> None:
    """Give a service another endpoint, or none."""
    gone = [((each.address, each.port), each.id) for each in cache.get(service).ordered()] if empty else []
    listed = [] if empty else [endpoint(version, service)]
    cache.apply([SnapshotDelta(service, version, version, listed=listed, removed=gone)])


async def test_only_what_changed_is_stored_again() -> None:
    """A round without changes stores nothing, and an object is what a v3 poll gets."""
    cache, shelf = filled(shop=1, cart=1), Shelf()
    publisher = Publisher(shelf, cache, lambda: True)
    await publisher.publish()
    await publisher.publish()
    assert sorted(shelf.stored) == ["cart.json", "shop.json"]
    change(cache, "shop", 2)
    await publisher.publish()
    assert shelf.stored[2:] == ["shop.json"]
    document = json.loads(shelf.objects["shop.json"])
    assert document["version_info"] == "db:2"
    assert document["resources"][0]["cluster_name"] == "shop"


async def test_one_service_that_fails_keeps_no_other_back() -> None:
    """It is tried again each round, and published when it can be."""
    cache, shelf = filled(shop=1, cart=1), Shelf()
    shelf.broken = {"shop.json"}
    publisher = Publisher(shelf, cache, lambda: True)
    await publisher.publish()
    assert (list(shelf.objects), dict(publisher.failing)) == (
        ["cart.json"],
        {"shop": "OSError: no space left on device"},
    )
    shelf.broken = set()
    await publisher.publish()
    assert (sorted(shelf.objects), dict(publisher.failing)) == (["cart.json", "shop.json"], {})


async def test_nothing_is_published_from_doubt() -> None:
    """Neither before the state is read, nor while it may be outdated, nor by a process that does not lead."""
    unread, shelf = SnapshotCache(), Shelf()
    await Publisher(shelf, unread, lambda: True).publish()
    stale = filled(shop=1)
    stale._stale = True
    await Publisher(shelf, stale, lambda: True).publish()
    await Publisher(shelf, filled(shop=1), lambda: False).publish()
    assert shelf.stored == []


async def test_a_service_without_endpoints_keeps_its_last_object() -> None:
    """Old hosts are better than none where nothing else answers."""
    cache, shelf = filled(shop=1), Shelf()
    publisher = Publisher(shelf, cache, lambda: True)
    await publisher.publish()
    before = dict(shelf.objects)
    change(cache, "shop", 2, empty=True)
    assert not cache.get("shop").endpoints
    await publisher.publish()
    assert shelf.objects == before


@pytest.mark.parametrize("unlisted", [False, True])
async def test_a_new_leader_stores_what_is_not_there(unlisted: bool) -> None:
    """Everything, where it may not list what is there."""
    cache, shelf = filled(shop=1, cart=1), Shelf()
    await Publisher(shelf, cache, lambda: True).publish()
    shelf.stored.clear()
    shelf.unlisted = unlisted
    change(cache, "cart", 2)
    leads = [True]
    publisher = Publisher(shelf, cache, lambda: leads[0])
    await publisher.publish()
    assert sorted(shelf.stored) == (["cart.json", "shop.json"] if unlisted else ["cart.json"])
    leads[0] = False
    await publisher.publish()
    assert not publisher.failing


async def test_an_object_that_is_gone_or_changed_is_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of the bucket deletes old objects, and a leader that was frozen ends its last request after all."""
    cache, shelf = filled(shop=1, cart=1, user=1), Shelf()
    publisher = Publisher(shelf, cache, lambda: True)
    await publisher.publish()
    stored = dict(shelf.objects)
    shelf.stored.clear()
    del shelf.objects["shop.json"]
    shelf.objects["cart.json"] = b"of the former leader"
    await publisher.publish()
    assert shelf.stored == []
    monkeypatch.setattr(publisher, "_verify_at", 0.0)
    shelf.unlisted = True
    await publisher.publish()
    assert shelf.stored == []
    monkeypatch.setattr(publisher, "_verify_at", 0.0)
    shelf.unlisted = False
    await publisher.publish()
    assert (sorted(shelf.stored), shelf.objects) == (["cart.json", "shop.json"], stored)


async def test_a_place_that_does_not_answer_is_seen_and_holds_nothing_else_up() -> None:
    """Its round takes as long as it takes: the gauges follow meanwhile, and other work of threads goes on."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    gauge = REGISTRY.get_sample_value
    cache, shelf = filled(**{f"s{number}": 1 for number in range(12)}), Shelf()
    shelf.hanging = {f"s{number}.json" for number in range(1, 12)}
    shelf.broken = {"s0.json"}
    publishing = asyncio.create_task(Publisher(shelf, cache, lambda: True).publish())
    try:
        async with asyncio.timeout(30):
            while gauge("registry_publish_failures") != 1 or not gauge("registry_publish_lag_seconds"):
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "done") == "done"
        assert not publishing.done()
    finally:
        shelf.go.set()
        await publishing
    assert len(shelf.objects) == 11


def test_a_directory_has_whole_files_only(tmp_path: Path) -> None:
    """A file is renamed into its place, also over another one, and is readable by a server of another user."""
    target = DirectoryTarget(tmp_path / "new")
    target.put("shop.json", b"{}")
    target.put("shop.json", b'{"a":1}')
    (only,) = (tmp_path / "new").iterdir()
    assert (only.name, only.read_bytes(), only.stat().st_mode & 0o777) == ("shop.json", b'{"a":1}', 0o644)
    assert list(target.digests()) == ["shop.json"]


def test_what_a_killed_publisher_left_is_removed(tmp_path: Path) -> None:
    """By its name and age, whichever way the clock went; nothing that somebody writes now, and nothing of others."""
    ages = {f".{number:016x}.new": age for number, age in enumerate((3600, -3600, 1))}
    for name, age in {**ages, ".mine.new": 3600}.items():
        (tmp_path / name).write_text("{")
        at = time.time() - age
        os.utime(tmp_path / name, (at, at))
    assert DirectoryTarget(tmp_path).digests() == {}
    assert {path.name for path in tmp_path.iterdir()} == {f".{2:016x}.new", ".mine.new"}


def test_what_is_no_file_in_a_directory_is_left_out(tmp_path: Path) -> None:
    """Neither a directory nor a fifo, which is not waited for, hides the files beside."""
    target = DirectoryTarget(tmp_path)
    target.put("shop.json", b"{}")
    (tmp_path / "a.json").mkdir()
    os.mkfifo(tmp_path / "b.json")
    (tmp_path / "c.json").symlink_to("nowhere")
    assert list(target.digests()) == ["shop.json"]
    target.put("b.json", b"{}")
    assert sorted(target.digests()) == ["b.json", "shop.json"]


@pytest.mark.parametrize("place", ["relative", "s3://", "s3://UPPER/x", "https://example.com", ""])
def test_what_is_no_place_is_refused(place: str) -> None:
    """The error says what is allowed."""
    with pytest.raises(BadSettingsError, match="s3://bucket"):
        target_of(place)


def test_objects_are_called_by_their_services() -> None:
    """Static servers decode what a URL has encoded; and no name leads out of the directory."""
    assert object_name("shop:v2~x@y.z-1") == "shop:v2~x@y.z-1.json"
    assert object_name("../a/b") == "..%2Fa%2Fb.json"
