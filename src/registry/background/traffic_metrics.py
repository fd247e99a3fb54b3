"""The traffic of pairs in Prometheus' text format: what this process has counted since it knows each pair.

A sum over processes is right, since each digest reaches one of them. The series of a pair end when it is forgotten, so
that no counter ever falls; for the same reason each zone of callers has its own, and so has each worker. They are
written here and not by prometheus_client, which would take 1.6 s for 5,000 pairs, in one piece.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from registry.cooperative import cooperatively
from registry.core.latency_buckets import cumulative, total_milliseconds
from registry.core.traffic_totals import FAILURE_REASONS, PairTotals
from registry.worker_metrics import VARIABLE

log = structlog.get_logger()

PairSource = Callable[[], Iterable[PairTotals]]


class Family(Struct, frozen=True):
    """A metric: its name, its type, the meaning of a value, and the labels of its series."""

    name: str
    type: str
    documentation: str
    labels: Sequence[str] = ("caller", "callee", "location", "worker")


REQUESTS = Family("headcount_traffic_requests_total", "counter", "Completed requests of a caller to a callee.")
FAILURES = Family(
    "headcount_traffic_failures_total",
    "counter",
    "The failed ones, each by one reason: timeout, none_healthy, overflow (a breaker), connect_failure or other.",
    (*REQUESTS.labels, "reason"),
)
MILLISECONDS = Family(
    "headcount_traffic_milliseconds",
    "histogram",
    "Milliseconds to the response; of no request that timed out or reached no endpoint.",
)
FAMILIES = (REQUESTS, FAILURES, MILLISECONDS)

_PART = 50
"""Pairs in one part of a family's text."""
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_encode = msgspec.msgpack.Encoder().encode
_chunks = msgspec.msgpack.Decoder(list[bytes])
_decoder = msgspec.msgpack.Decoder(list[PairTotals])


class TrafficMetrics:
    """The metrics of the pairs that a source returns, or of those of all workers."""

    def __init__(self) -> None:
        self._source: PairSource = tuple
        """Returns the pairs of this process. Set once, when the process is built."""
        self._shared = True
        """Whether the totals could be written when that was last tried, so that one line tells of a full disk."""

    def set_source(self, source: PairSource) -> None:
        """Expose the pairs that a function returns."""
        self._source = source

    async def share(self) -> None:
        """Write the totals of a worker to where the worker that is scraped finds them."""
        directory = os.environ.get(VARIABLE)
        if directory is not None:
            path = Path(directory) / f"traffic_{os.getpid()}.msgpack"
            written = path.with_suffix(".new")
            pairs = [pair async for pair in cooperatively(self._source())]
            chunks = [
                _encode(pairs[start : start + _PART]) async for start in cooperatively(range(0, len(pairs), _PART))
            ]
            try:
                written.write_bytes(_encode(chunks))
                written.replace(path)
            except OSError as error:
                # What was written before stays; the space is better left to others.
                written.unlink(missing_ok=True)
                if self._shared:
                    log.warning("metrics_not_shared", file=str(path), reason=error.strerror)
                self._shared = False
            else:
                self._shared = True

    async def text(self, shows: Callable[[str], bool] = lambda _: True) -> list[bytes]:
        """Return the series of this moment in parts, with others served in between: 5,000 pairs have 16 MB.

        Args:
            shows: whether the pairs of a service are shown; a pair is shown with its caller or its callee.
        """
        directory = os.environ.get(VARIABLE)
        if directory is not None:
            await self.share()
        parts: dict[Family, list[bytes]] = {family: [_head(family)] for family in FAMILIES}
        async for labels, pair in cooperatively(self._pairs(directory)):
            if not (shows(pair.caller) or shows(pair.callee)):
                continue
            parts[REQUESTS].append(f"{REQUESTS.name}{{{labels}}} {pair.requests}\n".encode())
            parts[FAILURES].append(_failures(labels, pair).encode())
            parts[MILLISECONDS].append(_latencies(labels, pair).encode())
        return [
            b"".join(parts[family][start : start + _PART])
            async for family, start in cooperatively(
                (family, start) for family in FAMILIES for start in range(0, len(parts[family]), _PART)
            )
        ]

    def _pairs(self, directory: str | None) -> Iterator[tuple[str, PairTotals]]:
        if directory is None:
            yield from ((_labels(pair), pair) for pair in self._source())
            return
        for path in sorted(Path(directory).glob("traffic_*.msgpack")):
            try:
                chunks = _chunks.decode(path.read_bytes())
            except FileNotFoundError:
                # Its worker has ended: the series end with it.
                continue
            worker = path.stem.partition("_")[2]
            for chunk in chunks:
                for pair in _decoder.decode(chunk):
                    yield f'{_labels(pair)},worker="{worker}"', pair


def _head(family: Family) -> bytes:
    return f"# HELP {family.name} {family.documentation}\n# TYPE {family.name} {family.type}\n".encode()


def _labels(pair: PairTotals) -> str:
    location = pair.location.translate(_ESCAPES)
    return f'caller="{pair.caller}",callee="{pair.callee}",location="{location}"'


def _failures(labels: str, pair: PairTotals) -> str:
    reasons = zip(FAILURE_REASONS, pair.failures, strict=True)
    return "".join(f'{FAILURES.name}{{{labels},reason="{reason}"}} {count}\n' for reason, count in reasons)


def _latencies(labels: str, pair: PairTotals) -> str:
    name = MILLISECONDS.name
    bucket = f'{name}_bucket{{{labels},le="'
    total = sum(pair.buckets.values())
    lines = [f'{bucket}{bound:.4g}"}} {count}\n' for bound, count in cumulative(pair.buckets)]
    milliseconds = total_milliseconds(pair.buckets)
    return (
        f'{"".join(lines)}{bucket}+Inf"}} {total}\n'
        f"{name}_sum{{{labels}}} {milliseconds:.1f}\n{name}_count{{{labels}}} {total}\n"
    )


TRAFFIC = TrafficMetrics()
"""The metrics of this process, by the table that it was built with."""
