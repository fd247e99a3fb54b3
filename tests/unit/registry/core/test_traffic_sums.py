"""Sums over windows, beside a plain list of what was added."""

from hypothesis import given
from hypothesis import strategies as st

from registry.core.traffic_sums import LEVELS, WindowSums
from wire.traffic_digest import MAX_COUNT

additions = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 80), st.integers(300, 500)),
        st.integers(0, 50),
        st.integers(0, 5),
    ),
    max_size=120,
)
LENGTHS = (1, 6, 30)
KEPT = (6, 10, 12)


@given(additions, st.integers(0, 400))
def test_a_window_has_what_its_slots_have(added: list[tuple[int, int, int]], later: int) -> None:
    """Exactly: whatever was added in the slots that it keeps, and nothing that has left them."""
    sums, slot, plain = WindowSums(2, 0), 0, []
    for step, count, bucket in added:
        slot += step
        sums.add(slot, (count, 1), (bucket, count) if count else ())
        plain.append((slot, count, bucket))
    slot += later
    sums.advance(slot)
    for level in LEVELS:
        length = LENGTHS[level]
        inside = [each for each in plain if each[0] // length >= slot // length - KEPT[level]]
        buckets: dict[int, int] = {}
        for _, count, bucket in inside:
            if count:
                buckets[bucket] = buckets.get(bucket, 0) + count
        window = sums.windows()[level]
        assert window.counts == [sum(count for _, count, _ in inside), len(inside)]
        assert window.buckets == buckets
    assert sums.total().counts == [sum(count for _, count, _ in plain), len(plain)]


def test_time_that_goes_back_changes_nothing() -> None:
    """The clock is monotonic; a digest of the same moment is of the open slot."""
    sums = WindowSums(1, 10)
    sums.add(10, (5,), ())
    sums.add(9, (1,), ())
    assert sums.windows()[0].counts == [6]


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
