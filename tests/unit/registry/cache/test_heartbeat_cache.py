"""Heartbeats that repeat themselves."""

import sys

from msgspec.structs import replace
from unit.registry.making import endpoint

from registry.cache.heartbeat_cache import HeartbeatCache, digest
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import SnapshotDelta


async def test_words_stand_for_the_endpoint_as_it_was() -> None:
    """Once it has changed, is gone, has another row or is of another database, the words have to be read again."""
    cache = SnapshotCache()
    cache.set_database("one")
    listed = replace(endpoint(1), change=1)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[listed])])
    known = HeartbeatCache(cache)
    words = digest(b"a")
    assert known.endpoint(words) is None
    known.keep(words, listed)
    assert known.endpoint(words) is listed
    cache.apply([SnapshotDelta("shop", 1, 2, listed=[replace(listed, change=2)])])
    assert known.endpoint(words) is None
    cache.apply([SnapshotDelta("shop", 2, 3, listed=[replace(listed, id=2)])])
    assert known.endpoint(words) is None
    cache.apply([SnapshotDelta("shop", 2, 4, listed=[listed])])
    assert known.endpoint(words) is listed
    cache.set_database("two")
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[listed])])
    assert known.endpoint(words) is None
    cache.set_database("one")
    cache.apply([SnapshotDelta("shop", 2, 4, listed=[listed])])
    assert known.endpoint(words) is listed
    cache.apply([SnapshotDelta("shop", 3, 5, removed=[(("10.0.0.2", 80), 1)])])
    cache.apply([SnapshotDelta("shop", 3, 6, removed=[((listed.address, listed.port), 1)])])
    assert known.endpoint(words) is None


async def test_an_endpoint_that_was_replaced_is_not_kept_for_its_words() -> None:
    """However many words were said of it: it may have 8 KiB of metadata."""
    cache = SnapshotCache()
    listed = endpoint(1)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[listed])])
    held = sys.getrefcount(listed)
    known = HeartbeatCache(cache)
    for number in range(20):
        known.keep(digest(str(number).encode()), listed)
    assert known.endpoint(digest(b"0")) is listed
    assert sys.getrefcount(listed) == held


async def test_what_is_said_again_and_again_outlives_what_was_said_once() -> None:
    """However much is said, two generations are kept."""
    cache = SnapshotCache()
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[endpoint(1)])])
    listed = cache.find(endpoint(1).key)
    assert listed is not None
    known = HeartbeatCache(cache, max_entries=10)
    known.keep(digest(b"steady"), listed)
    for number in range(100):
        known.keep(digest(b"once", str(number).encode()), listed)
        assert known.endpoint(digest(b"steady")) is listed
        assert len(known) <= 20
    assert known.endpoint(digest(b"once", b"0")) is None


def test_a_path_and_a_body_are_not_one_word() -> None:
    """What ends the one may not begin the other."""
    assert len({digest(b"/a", b"{}"), digest(b"/a{", b"}"), digest(b"/a{}")}) == 3
