"""Sums over windows, beside a plain list of what was added."""

from hypothesis import given
from hypothesis import strategies as st

from registry.core.traffic_sums import LEVELS, Sums, WindowSums
from wire.traffic_digest import MAX_COUNT

STEPS = st.one_of(st.integers(0, 3), st.integers(0, 80), st.integers(300, 500))
additions = st.lists(
    st.tuples(
        STEPS,
        st.one_of(st.integers(0, 50), st.integers(0, MAX_COUNT)),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=120,
)
LENGTHS = (1, 6, 30)
KEPT = (6, 10, 12)
Added = tuple[int, int, int]
"""The slot, a count, and its bucket."""


def check(sums: WindowSums, slot: int, plain: list[Added]) -> None:
    """Check that all that can be read is exactly what was added in the slots of each window."""
    sums.advance(slot)
    for level, window in zip(LEVELS, sums.windows(), strict=True):
        length = LENGTHS[level]
        inside = [each for each in plain if each[0] // length >= slot // length - KEPT[level]]
        expect(window, inside)
    counts = [count for at, count, _ in plain if at >= slot - KEPT[0]]
    assert sums.last_minute(1, 0) == [len(counts), sum(counts)]
    assert sums.last_hour() == sum(count for at, count, _ in plain if at // 30 >= slot // 30 - KEPT[2])
    expect(sums.total(), plain)


def expect(sums: Sums, added: list[Added]) -> None:
    """Check sums against what was added, with no number above that of a digest."""
    buckets: dict[int, int] = {}
    for _, count, bucket in added:
        if count:
            buckets[bucket] = min(buckets.get(bucket, 0) + count, MAX_COUNT)
    assert sums.counts == [min(sum(count for _, count, _ in added), MAX_COUNT), len(added)]
    assert sums.buckets == buckets


@given(additions, st.integers(0, 400))
def test_a_window_has_what_its_slots_have(added: list[tuple[int, int, int, bool]], later: int) -> None:
    """Exactly: whatever was added in the slots that it keeps, and nothing that has left them; however often it is read.

    An absurd number is shown as the largest one, and is gone when it has left the window.
    """
    sums, slot, plain = WindowSums(2, 0), 0, list[Added]()
    for step, count, bucket, is_read in added:
        slot += step
        sums.add(slot, (count, 1), (bucket, count) if count else ())
        plain.append((slot, count, bucket))
        if is_read:
            check(sums, slot, plain)
    check(sums, slot + later, plain)


def test_time_that_goes_back_changes_nothing() -> None:
    """The clock is monotonic; a digest of the same moment is of the open slot."""
    sums = WindowSums(1, 10)
    sums.add(10, (5,), ())
    sums.add(9, (1,), ())
    assert sums.windows()[0].counts == [6]


def test_windows_that_were_read_stay_as_they_were() -> None:
    """A reader is interrupted between two pairs, and digests come meanwhile."""
    sums = WindowSums(1, 10)
    sums.add(10, (5,), (3, 5))
    windows, total = sums.windows(), sums.total()
    sums.add(10, (1,), (3, 1))
    assert [(each.counts, each.buckets) for each in (*windows, total)] == [([5], {3: 5})] * 4


def test_absurd_numbers_end_at_the_largest_one_and_leave_with_their_slots() -> None:
    """Sums stay encodable, and a pair shows its true numbers again when the absurd ones have left the window."""
    sums = WindowSums(2, 0)
    for slot in range(60):
        for _ in range(100):
            sums.add(slot, (MAX_COUNT, 1), (5, MAX_COUNT))
    for window in (*sums.windows(), sums.total()):
        assert (window.counts[0], window.buckets) == (MAX_COUNT, {5: MAX_COUNT})
    sums.add(500, (7, 1), (5, 7))
    assert [(window.counts, window.buckets) for window in sums.windows()] == [([7, 1], {5: 7})] * 3
