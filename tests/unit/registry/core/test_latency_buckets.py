"""Latencies in buckets, and their quantiles."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.latency_buckets import cumulative, middle, quantiles, total_milliseconds
from wire.traffic_digest import LAST_BUCKET

milliseconds = st.floats(1.0, 900_000.0)


def bucket_of(value: float) -> int:
    """Return the bucket of a latency, as the specification of a digest says it."""
    return 0 if value < 1 else min(LAST_BUCKET, math.ceil(16 * math.log10(value)) or 1)


@given(st.lists(milliseconds, min_size=1, max_size=200))
def test_quantiles_are_within_a_half_bucket(values: list[float]) -> None:
    """Of the latency that has this rank, whatever the latencies are."""
    counts = Counter(map(bucket_of, values))
    ordered = sorted(values)
    for part, quantile in zip((0.5, 0.95, 0.99), quantiles(counts, (0.5, 0.95, 0.99)), strict=True):
        exact = ordered[math.ceil(part * len(ordered)) - 1]
        assert quantile == pytest.approx(exact, rel=0.08)


def test_without_requests_there_is_no_quantile() -> None:
    """Rather than one of zero."""
    assert quantiles({}, (0.5, 0.99)) == [None, None]


def test_requests_below_a_millisecond_have_half_of_one() -> None:
    """Envoy counts whole milliseconds."""
    assert quantiles({0: 10}, (0.5, 0.95, 0.99)) == [0.5, 0.5, 0.5]


@given(st.dictionaries(st.integers(0, LAST_BUCKET), st.integers(1, 1000)))
def test_cumulative_counts_grow_to_all_but_the_last(counts: dict[int, int]) -> None:
    """As a histogram of Prometheus has to; the requests above the last bound are in +Inf alone."""
    bounds = cumulative(counts)
    assert [bound for bound, _ in bounds] == sorted(bound for bound, _ in bounds)
    reached = [count for _, count in bounds]
    assert reached == sorted(reached)
    assert reached[-1] == sum(count for bucket, count in counts.items() if bucket < LAST_BUCKET)
    assert total_milliseconds(counts) == pytest.approx(sum(middle(each) * count for each, count in counts.items()))
