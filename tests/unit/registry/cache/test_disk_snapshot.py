"""The snapshot on disk: whole or not at all."""

import asyncio
import errno
import io
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness.examples import examples
from hypothesis import given, reject
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs
from unit.registry.making import NOW, endpoint, registration

from registry.cache.disk_file import documents_in, encode
from registry.cache.disk_snapshot import DiskSnapshot
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint, Override
from registry.core.shares import Share, Shares
from registry.core.snapshot import SnapshotDelta
from registry.errors import UnavailableError
from registry.xds.eds import resource
from wire.model import Report, check_metadata

METADATA = {"stage": "prod", "tier": 1, "share": 1.0, "on": True, "none": None, "deep": {"list": [1, {"b": "ü"}]}}
OVERRIDE = Override(
    weight=5, drain=True, actor="ann", reason="hot", set_at=NOW, expires_at=NOW + 0.25, instance_id="i-2", canary=True
)
FULL = [
    endpoint(1, stored=registration("i-1", metadata=METADATA, weight=7, zone="z", health=Report.DEGRADED, detail="d")),
    endpoint(2, override=OVERRIDE, suspect_since=NOW, suspect_reason="2 of 10"),
    endpoint(3, lapsed_at=NOW, unroutable_at=NOW, change=9),
    replace(endpoint(4, leaving_at=NOW), address="2001:db8::5", port=65_535),
]


def step(*endpoints: Endpoint, service: str = "shop", change: int = 7, version: int = 5) -> SnapshotDelta:
    """Return a step that lists these endpoints."""
    return SnapshotDelta(service, version, change, listed=endpoints, whole=True)


def known(*steps: SnapshotDelta) -> SnapshotCache:
    """Return what a process knows that has read these steps from a database."""
    cache = SnapshotCache()
    cache.set_database("5f0c1a9e")
    cache.apply(steps)
    cache.mark_ready(0.0)
    return cache


def content(cache: SnapshotCache) -> dict[str, Any]:
    """Return all that is known of services, without the encoded forms."""
    return {
        name: (snapshot.version, snapshot.change, dict(snapshot.endpoints))
        for name, snapshot in cache.services().items()
    }


async def restored(path: Path) -> SnapshotCache:
    """Return what a process knows that found this on disk."""
    cache = SnapshotCache()
    assert DiskSnapshot(path).restore(cache)
    return cache


async def test_what_was_kept_is_restored(tmp_path: Path) -> None:
    """Every field, also the types within metadata, and the numbers; it is ready and marked as stale."""
    cache = known(step(*FULL), step(endpoint(9, "cart"), service="cart", change=2, version=1))
    path = tmp_path / "new" / "snapshot.msgpack"
    await DiskSnapshot(path).keep(cache)
    filled = await restored(path)
    assert content(filled) == content(cache)
    assert (filled.database_id, filled.ready, filled.stale) == ("5f0c1a9e", True, True)
    metadata = filled.get("shop").ordered()[0].registration.metadata
    assert msgspec.json.encode(metadata) == msgspec.json.encode(METADATA)
    for api in ("v2", "v3"):
        for service in ("shop", "cart"):
            assert resource(api, filled.get(service)) == resource(api, cache.get(service))


async def test_shares_are_restored_with_what_they_did(tmp_path: Path) -> None:
    """Else the only version of a canary that was taken out would be served again while PostgreSQL is away."""
    shares = Shares((Share("instance_id=i-2", 0.0),), "ann", "bad", NOW)
    listed = [endpoint(1), endpoint(2)]
    cache = known(SnapshotDelta("shop", 5, 7, listed=listed, whole=True, shares=shares))
    await DiskSnapshot(tmp_path / "snapshot").keep(cache)
    filled = (await restored(tmp_path / "snapshot")).get("shop")
    assert (filled.shares, filled.routable, filled.counts["DRAINING"]) == (shares, 1, 1)
    assert resource("v3", filled) == resource("v3", cache.get("shop"))


async def test_a_file_without_shares_counts_as_the_version_before(tmp_path: Path) -> None:
    """A version that knows no shares wrote it: what it has may not be served under the number that had shares."""
    path = tmp_path / "snapshot"
    await DiskSnapshot(path).keep(
        known(step(endpoint(1)), step(endpoint(9, "cart"), service="cart", change=1, version=1))
    )
    content = path.read_bytes()
    documents = documents_in(content)
    older = [msgspec.msgpack.decode(document) for document in documents]
    for service in older[1:]:
        del service["shares"]
    path.write_bytes(b"".join(map(encode, older)))
    filled = await restored(path)
    assert (filled.get("shop").version, filled.get("shop").change) == (4, 6)
    # Version 1 is older than any share.
    assert (filled.get("cart").version, filled.get("cart").change) == (1, 1)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-(2.0**53), 2.0**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@examples(100)
@given(metadata=st.dictionaries(texts, json_values, max_size=5))
async def test_metadata_of_any_form_is_restored(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    """Else the answer after a cold start would differ from the one before, at the same version."""
    try:
        check_metadata(metadata)
    except ValueError:
        reject()
    path = tmp_path_factory.mktemp("archive") / "snapshot"
    cache = known(step(endpoint(1, stored=registration("i-1", metadata=metadata))))
    await DiskSnapshot(path).keep(cache)
    restored_metadata = (await restored(path)).get("shop").ordered()[0].registration.metadata
    assert msgspec.json.encode(restored_metadata) == msgspec.json.encode(metadata)


async def test_it_is_written_only_when_something_changed(tmp_path: Path) -> None:
    """Disks of small machines wear out, and a file that is not touched cannot be spoilt."""
    path = tmp_path / "snapshot"
    disk_snapshot, cache = DiskSnapshot(path), known(step(*FULL))
    await disk_snapshot.keep(cache)
    first = path.stat().st_ino
    await disk_snapshot.keep(cache)
    cache.apply([step(*FULL)])
    await disk_snapshot.keep(cache)
    assert path.stat().st_ino == first
    cache.apply([step(endpoint(1), change=8, version=6)])
    await disk_snapshot.keep(cache)
    assert content(await restored(path)) == content(cache)
    assert cache.set_database("another")
    cache.apply([step(*FULL)])
    cache.mark_ready(0.0)
    await disk_snapshot.keep(cache)
    assert (await restored(path)).database_id == "another"


async def test_what_is_not_of_the_database_is_not_written(tmp_path: Path) -> None:
    """Neither nothing, before the first reading, nor what came from disk itself."""
    path = tmp_path / "snapshot"
    cache = SnapshotCache()
    cache.set_database("5f0c1a9e")
    cache.apply([step(*FULL)])
    await DiskSnapshot(path).keep(cache)
    assert not path.exists()
    cache.restore("5f0c1a9e", cache.services())
    await DiskSnapshot(path).keep(cache)
    assert not path.exists()


async def test_a_file_of_another_database_is_not_served(tmp_path: Path) -> None:
    """A process that learned meanwhile which database it has keeps what it read, and stays not ready."""
    await DiskSnapshot(tmp_path / "snapshot").keep(known(step(*FULL)))
    cache = SnapshotCache()
    cache.set_database("another")
    cache.apply([step(endpoint(9, "cart"), service="cart")])
    with capture_logs() as logs:
        assert not DiskSnapshot(tmp_path / "snapshot").restore(cache)
    assert (cache.ready, cache.database_id, list(content(cache))) == (False, "another", ["cart"])
    assert [entry["event"] for entry in logs] == ["snapshot_unreadable"]
    assert "another" in logs[0]["reason"]


async def test_services_that_were_read_already_are_not_set_back(tmp_path: Path) -> None:
    """The first reading of a large database goes on while the file is restored."""
    await DiskSnapshot(tmp_path / "snapshot").keep(known(step(*FULL), step(endpoint(9, "cart"), service="cart")))
    cache = SnapshotCache()
    cache.set_database("5f0c1a9e")
    cache.apply([step(FULL[0], change=12, version=9)])
    assert DiskSnapshot(tmp_path / "snapshot").restore(cache)
    assert {name: snapshot.change for name, snapshot in cache.services().items()} == {"shop": 12, "cart": 7}
    assert (cache.ready, cache.stale, cache.endpoint_count()) == (True, True, 2)


async def test_many_services_are_kept_whole(tmp_path: Path) -> None:
    """More than are encoded in one turn of the loop."""
    cache = known(*(step(endpoint(n, f"s-{n}"), service=f"s-{n}", change=n, version=n) for n in range(1, 200)))
    await DiskSnapshot(tmp_path / "snapshot").keep(cache)
    assert content(await restored(tmp_path / "snapshot")) == content(cache)


async def test_nothing_is_found_where_nothing_was_kept(tmp_path: Path) -> None:
    """The first start of a machine says nothing about it."""
    with capture_logs() as logs:
        assert not DiskSnapshot(tmp_path / "none").restore(SnapshotCache())
    assert logs == []


async def test_a_truncated_file_is_refused_whole(tmp_path: Path) -> None:
    """Wherever it ends but between two services; a part of a service is never served."""
    path = tmp_path / "snapshot"
    await DiskSnapshot(path).keep(known(step(*FULL), step(endpoint(9, "cart"), service="cart")))
    whole = path.read_bytes()
    ends = {0}
    while max(ends) < len(whole):
        start = max(ends)
        ends.add(start + 4 + int.from_bytes(whole[start : start + 4], "big"))
    for size in set(range(len(whole))) - ends:
        path.write_bytes(whole[:size])
        refused(path)


def refused(path: Path) -> None:
    """Check that nothing is taken from a file, and that this is said."""
    cache = SnapshotCache()
    with capture_logs() as logs:
        assert not DiskSnapshot(path).restore(cache)
    assert [entry["event"] for entry in logs] == ["snapshot_unreadable"]
    assert (cache.ready, cache.stale, cache.services(), cache.database_id) == (False, False, {}, "")


def block(document: object) -> bytes:
    """Return a document as it stands in the file."""
    body = msgspec.msgpack.encode(document)
    return len(body).to_bytes(4, "big") + body


HEADER = {"format": 1, "database_id": "5f0c1a9e"}
SERVICE = {"service": "shop", "version": 1, "change": 1, "endpoints": [endpoint(1)]}


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="a newline"),
        pytest.param(b'{"services": []}', id="json"),
        pytest.param(b"\x00" * 4096, id="zeros"),
        pytest.param(os.urandom(4096), id="noise"),
        pytest.param(block(HEADER | {"format": 2}) + block(SERVICE), id="a newer format"),
        pytest.param(block(SERVICE), id="no header"),
        pytest.param(block(HEADER) + block({"service": "shop"}), id="half a service"),
        pytest.param(block(HEADER) + block(SERVICE | {"version": "1"}), id="another type"),
        pytest.param(block(HEADER) + block(SERVICE) + block({"version": 1}), id="a service without a name"),
        pytest.param(block(HEADER) + block(SERVICE) + b"\x00\x00", id="half a length"),
        pytest.param(block(HEADER) + block(SERVICE) + b"\xff\xff\xff\xff", id="a length without a block"),
    ],
)
async def test_a_foreign_or_damaged_file_is_refused_whole(tmp_path: Path, written: bytes) -> None:
    """Whatever it is: the process stays unready, as it would be without the file."""
    path = tmp_path / "snapshot"
    path.write_bytes(written)
    refused(path)


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param({"service": "cart"}, id="half a service"),
        pytest.param(SERVICE | {"service": "cart", "version": "1"}, id="another type"),
        pytest.param(SERVICE | {"service": "cart", "endpoints": [7]}, id="an endpoint of another type"),
    ],
)
async def test_a_service_that_cannot_be_read_is_unsure_alone(tmp_path: Path, damaged: dict[str, Any]) -> None:
    """The others are served; nothing is concluded of this one, which is said once, until it is read anew."""
    path = tmp_path / "snapshot"
    path.write_bytes(block(HEADER) + block(damaged) + block(SERVICE))
    cache = SnapshotCache()
    with capture_logs() as logs:
        assert DiskSnapshot(path).restore(cache)
    said = [entry["service"] for entry in logs if entry["event"] == "snapshot_service_unreadable"]
    assert (said, cache.unsure, list(cache.names())) == (["cart"], frozenset({"cart"}), ["cart", "shop"])
    assert (cache.ready, list(cache.services()), cache.knows("shop"), cache.knows("other")) == (
        True,
        ["shop"],
        True,
        False,
    )
    with pytest.raises(UnavailableError, match="cannot read the service cart"):
        cache.knows("cart")
    waits = asyncio.create_task(cache.wait(("cart",), 5))
    await asyncio.sleep(0)
    cache.mark_ready(1.0)
    assert (await waits, cache.unsure, cache.knows("cart")) == (True, frozenset(), False)


async def test_a_service_that_cannot_be_read_is_sure_with_its_first_snapshot(tmp_path: Path) -> None:
    """Before the reading of the whole database ends; and one that was read before the file is not set back by it."""
    path = tmp_path / "snapshot"
    path.write_bytes(block(HEADER) + block({"service": "cart"}) + block({"service": "read"}) + block(SERVICE))
    cache = SnapshotCache()
    cache.set_database("5f0c1a9e")
    cache.apply([step(endpoint(8, "read"), service="read")])
    assert DiskSnapshot(path).restore(cache)
    assert cache.unsure == {"cart"}
    advances = cache.advances
    cache.apply([step(endpoint(9, "cart"), service="cart")])
    assert (cache.unsure, cache.knows("cart"), cache.advances > advances) == (frozenset(), True, True)


async def test_what_postgresql_has_and_nobody_can_read_stays_unsure_on_disk(tmp_path: Path) -> None:
    """Otherwise the next start would take it for a service that never was."""
    cache = known(step(*FULL))
    cache.doubt("cart")
    cache.doubt("shop")
    cache.mark_ready(2.0, unread={"cart", "shop"})
    assert cache.unsure == {"cart"}, "of the other one an older snapshot goes on"
    await DiskSnapshot(tmp_path / "snapshot").keep(cache)
    filled = await restored(tmp_path / "snapshot")
    assert (list(filled.services()), filled.unsure) == (["shop"], frozenset({"cart"}))


async def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A directory stands in for what no permission helps against."""
    refused(tmp_path)


async def test_a_directory_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    """Not every five seconds; when it can be written again it is, and a second trouble is told again."""
    place = tmp_path / "data"
    place.write_text("a file where the directory should be")
    disk_snapshot, cache = DiskSnapshot(place / "snapshot"), known(step(*FULL))
    with capture_logs() as logs:
        for _ in range(3):
            await disk_snapshot.keep(cache)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("snapshot_not_kept", "warning")]
    place.unlink()
    await disk_snapshot.keep(cache)
    assert content(await restored(place / "snapshot")) == content(cache)
    (place / "snapshot").unlink()
    place.rmdir()
    place.write_text("again")
    cache.apply([step(endpoint(1), change=8)])
    with capture_logs() as logs:
        await disk_snapshot.keep(cache)
    assert len(logs) == 1


async def test_nothing_is_left_aside(tmp_path: Path) -> None:
    """The file is written beside and renamed; what is there is the file alone."""
    disk_snapshot = DiskSnapshot(tmp_path / "snapshot")
    for change in range(8, 12):
        await disk_snapshot.keep(known(step(endpoint(1), change=change)))
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Also where a version before left one that everybody may read, or a process that died left its part of one."""
    path = tmp_path / "data" / "snapshot.msgpack"
    cache = known(step(*FULL))
    disk_snapshot = DiskSnapshot(path)
    await disk_snapshot.keep(cache)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    path.chmod(0o644)
    await restored(path)
    assert path.stat().st_mode & 0o777 == 0o600
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.touch(0o644)
    path.chmod(0o644)
    cache.apply([step(*FULL, change=8, version=6)])
    await disk_snapshot.keep(cache)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_disk_that_fills_up_leaves_the_last_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes what fits, reports that, and only refuses the next byte; nothing is left aside."""
    path = tmp_path / "snapshot"
    before = known(step(*FULL[:1]))
    await DiskSnapshot(path).keep(before)

    class Full(io.FileIO):
        """A file on a disk that has room for 100 bytes more."""

        def write(self, content: Any) -> int:
            room = 100 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(memoryview(content)[:room])

    monkeypatch.setattr("registry.cache.disk_file.io.FileIO", Full)
    with capture_logs() as logs:
        await DiskSnapshot(path).keep(known(step(*FULL)))
    assert [line["event"] for line in logs] == ["snapshot_not_kept"]
    assert list(tmp_path.iterdir()) == [path]
    assert content(await restored(path)) == content(before)
