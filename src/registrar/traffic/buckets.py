"""The buckets of a digest's latencies, from the bins of Envoy's histograms.

Envoy counts in bins of two significant digits (circllhist). A bin that reaches over the end of a bucket is divided, as
if its requests were spread evenly over it, which is what Envoy's own percentiles take them to be.
"""

import math

from wire.traffic_digest import BUCKETS_A_DECADE, LAST_BUCKET

Counts = dict[int, int]
"""Requests by bucket."""
_MAX_BINS = 2_000
"""Bins whose buckets are remembered; Envoy has 90 for each power of ten."""


def bucket_of(milliseconds: float) -> int:
    """Return the bucket of a latency."""
    if milliseconds < 1:
        return 0
    return min(LAST_BUCKET, max(1, math.ceil(BUCKETS_A_DECADE * math.log10(milliseconds))))


class BinReader:
    """Reads bins as the admin interface writes them, and divides them among buckets."""

    def __init__(self) -> None:
        # By the text of a bin: the buckets of its lower and of its upper part, and the size of the lower one.
        self._divisions: dict[bytes, tuple[int, int, float]] = {}

    def read(self, text: bytes) -> Counts:
        """Return the requests by bucket of bins like ``14,1:1, 300,10:4``: lower end, width and count.

        Raises:
            ValueError: these are no bins.
        """
        counts: Counts = {}
        for each in text.split(b", ") if text else ():
            place, _, number = each.rpartition(b":")
            lower, upper, part = self._divisions.get(place) or self._divide(place)
            count = int(number)
            below = round(count * part)
            counts[lower] = counts.get(lower, 0) + below
            if below < count:
                counts[upper] = counts.get(upper, 0) + count - below
        return counts

    def _divide(self, place: bytes) -> tuple[int, int, float]:
        begin, _, wide = place.partition(b",")
        start, width = float(begin), float(wide)
        first, last = bucket_of(start + width * 1e-6), bucket_of(start + width * (1 - 1e-6))
        part = 1.0
        if first < last:
            # A bin is at most 10 % wide, and so reaches over one end of a bucket at most.
            part = min(1.0, max(0.0, (10 ** (first / BUCKETS_A_DECADE) - start) / width))
        if len(self._divisions) >= _MAX_BINS:
            self._divisions.clear()
        division = self._divisions[place] = (first, last, part)
        return division
