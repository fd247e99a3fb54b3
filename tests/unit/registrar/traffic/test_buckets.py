"""Envoy's bins as buckets of a digest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.traffic.buckets import BinReader, bucket_of
from registry.core.latency_buckets import middle


def test_bins_are_read_as_envoy_writes_them() -> None:
    """Lower end, width and count; several bins may be one bucket, and one bin may be two."""
    counts = BinReader().read(b"0,0:9, 4,0.1:1, 110,10:100, 400,10:3")
    assert sum(counts.values()) == 113
    assert counts[0] == 9
    assert counts[bucket_of(405)] == 3
    # From 110 to 120 ms: a bucket ends at 115.5.
    assert (counts[33], counts[34]) == (55, 45)


def test_no_bins_are_no_counts() -> None:
    """As those of a histogram that nothing was added to."""
    assert BinReader().read(b"") == {}


@pytest.mark.parametrize("text", [b"x", b"1,0.1", b"1,0.1:x", b"1,0.1:2;3,0.1:4"])
def test_what_is_no_bin_is_an_error(text: bytes) -> None:
    """Rather than a latency that nobody measured."""
    with pytest.raises(ValueError, match=r"could not convert|invalid literal"):
        BinReader().read(text)


@given(st.floats(1, 999_999))
def test_the_middle_of_a_bucket_stands_for_its_latencies(milliseconds: float) -> None:
    """Within 7.5 %, on both sides of the wire."""
    assert middle(bucket_of(milliseconds)) == pytest.approx(milliseconds, rel=0.08)


@given(st.dictionaries(st.integers(10, 99), st.integers(1, 500), min_size=1), st.integers(0, 3))
def test_no_request_is_lost_and_counts_never_fall(bins: dict[int, int], power: int) -> None:
    """However bins are divided: a later reading has at least as many in each bucket as an earlier one."""
    reader = BinReader()

    def text(more: int) -> bytes:
        scale = 10**power
        return ", ".join(f"{low * scale},{scale}:{count + more}" for low, count in bins.items()).encode()

    before, after = reader.read(text(0)), reader.read(text(7))
    assert sum(after.values()) == sum(bins.values()) + 7 * len(bins)
    assert all(after.get(bucket, 0) >= count for bucket, count in before.items())
