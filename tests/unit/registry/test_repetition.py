"""Heartbeats that repeat themselves."""

from unit.registry.making import endpoint

from registry.directory import Directory
from registry.repetition import Repetitions, digest
from registry.snapshot import Step


async def test_words_stand_for_the_very_endpoint_that_is_listed() -> None:
    """One that was replaced, though it looks the same, has to be compared anew; and so has one that is gone."""
    directory = Directory()
    directory.apply([Step("shop", 1, 1, listed=[endpoint(1)])])
    listed = directory.find(endpoint(1).key)
    assert listed is not None
    known = Repetitions(directory)
    assert known.endpoint(digest(b"a")) is None
    known.keep(digest(b"a"), listed)
    assert known.endpoint(digest(b"a")) is listed
    directory.apply([Step("shop", 1, 2, listed=[endpoint(1)])])
    assert known.endpoint(digest(b"a")) is None
    known.keep(digest(b"a"), endpoint(1))
    directory.apply([Step("shop", 2, 3, removed=[(("10.0.0.2", 80), 1)])])
    assert known.endpoint(digest(b"a")) is None


async def test_what_is_said_again_and_again_outlives_what_was_said_once() -> None:
    """However much is said, two generations are kept."""
    directory = Directory()
    directory.apply([Step("shop", 1, 1, listed=[endpoint(1)])])
    listed = directory.find(endpoint(1).key)
    assert listed is not None
    known = Repetitions(directory, most=10)
    known.keep(digest(b"steady"), listed)
    for number in range(100):
        known.keep(digest(b"once", str(number).encode()), listed)
        assert known.endpoint(digest(b"steady")) is listed
        assert len(known) <= 20
    assert known.endpoint(digest(b"once", b"0")) is None


def test_a_path_and_a_body_are_not_one_word() -> None:
    """What ends the one may not begin the other."""
    assert len({digest(b"/a", b"{}"), digest(b"/a{", b"}"), digest(b"/a{}")}) == 3
