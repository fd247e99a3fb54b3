"""Latencies as counts in buckets of equal width on a logarithmic scale, and their quantiles.

A bucket is 15.5 % wide, so its geometric middle is within 7.5 % of everything in it. Sums of buckets are buckets of the
sum, which no quantile is.
"""

from collections.abc import Iterable, Mapping

from wire.traffic_digest import BUCKETS_A_DECADE, LAST_BUCKET

BELOW_MILLISECOND = 0.5
"""The milliseconds that stand for the first bucket; Envoy counts whole ones."""
_UPPER_BOUNDS = tuple(10 ** (bucket / BUCKETS_A_DECADE) for bucket in range(LAST_BUCKET + 1))
_MIDDLES = (
    BELOW_MILLISECOND,
    *(10 ** ((bucket - 0.5) / BUCKETS_A_DECADE) for bucket in range(1, LAST_BUCKET + 1)),
)
_EDGE_BUCKETS = range(0, LAST_BUCKET, 4)


def middle(bucket: int) -> float:
    """Return the milliseconds that stand for a bucket."""
    return _MIDDLES[bucket]


def quantiles(counts: Mapping[int, int], wanted: Iterable[float]) -> list[float | None]:
    """Return the milliseconds within which each of these parts of the requests ended; None without any.

    Args:
        counts: the number of requests by bucket.
        wanted: parts of 1, growing.
    """
    total = sum(counts.values())
    if not total:
        return [None for _ in wanted]
    results: list[float | None] = []
    reached = 0
    buckets = iter(sorted(counts))
    bucket = -1
    for part in wanted:
        while reached < part * total or bucket < 0:
            bucket = next(buckets)
            reached += counts[bucket]
        results.append(_MIDDLES[bucket])
    return results


def total_milliseconds(counts: Mapping[int, int]) -> float:
    """Return about how long all requests took together."""
    return sum(_MIDDLES[bucket] * count for bucket, count in counts.items())


def cumulative(counts: Mapping[int, int]) -> list[tuple[float, int]]:
    """Return upper bounds in milliseconds, four a decade, each with the number of requests within it."""
    bounds = []
    reached, bucket = 0, 0
    for edge in _EDGE_BUCKETS:
        while bucket <= edge:
            reached += counts.get(bucket, 0)
            bucket += 1
        bounds.append((_UPPER_BOUNDS[edge], reached))
    return bounds
