"""What stays is looked through by one full collection, and by no other."""

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from registry.garbage_collection import settle, unsettle


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the collector as it was found."""
    thresholds = gc.get_threshold()
    yield
    unsettle()
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_survives_a_full_collection_is_exempt_from_the_next() -> None:
    """And from a young one it is not, since most of it is about to go."""
    settle()
    held = [[number] for number in range(1_000)]
    gc.collect(1)
    assert any(each is held for each in gc.get_objects())
    gc.collect()
    assert not any(each is held for each in gc.get_objects())
    assert gc.get_freeze_count() > 1_000


def test_exempt_objects_are_freed_when_nothing_refers_to_them() -> None:
    """As a connection is that ends."""
    settle()
    held = [[number] for number in range(10_000)]
    gc.collect()
    frozen = gc.get_freeze_count()
    held.clear()
    assert gc.get_freeze_count() < frozen - 9_000


def test_a_process_that_has_stopped_exempts_nothing() -> None:
    """Otherwise what runs after it in the same program would never be freed."""
    settle()
    settle()
    unsettle()
    held = [[1]]
    gc.collect()
    assert any(each is held for each in gc.get_objects())
    unsettle()


def test_the_middle_generation_is_looked_through_in_small_parts() -> None:
    """Polls wait for each part: what a change of many node.clusters allocates is not gathered for a long look."""
    settle()
    seen: list[int] = []

    def note(phase: str, info: Mapping[str, Any]) -> None:
        if phase == "start" and info["generation"] == 1:
            seen.append(len(gc.get_objects(0)) + len(gc.get_objects(1)))

    gc.callbacks.append(note)
    held = [[number] for number in range(30_000)]
    gc.callbacks.remove(note)
    assert len(held) == 30_000
    assert seen
    assert max(seen) < 5_000
