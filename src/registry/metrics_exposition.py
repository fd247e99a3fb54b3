"""The metrics of all worker processes, whichever of them is asked."""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_ONE_IS_LEAST = ("process_start_time_seconds", "process_max_fds")


def expose() -> bytes:
    """Return everything in Prometheus' text format."""
    directory = os.environ.get(_DIRECTORY)
    if directory is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]  # published without types
    registry.register(Workers(Path(directory)))
    return generate_latest(registry)


class Workers(Collector):
    """The ``process_…`` metrics of several workers as one program's: sums, and the oldest start.

    Args:
        cache: where each living worker has the files of its gauges.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once."""
        totals: dict[str, Metric] = {}
        for metric in (metric for pid in sorted(self._living()) for metric in _of_process(pid)):
            known = totals.setdefault(metric.name, metric)
            if known is metric:
                continue
            (mine,), (theirs,) = known.samples, metric.samples
            join = min if mine.name in _ONE_IS_LEAST else _sum
            known.samples = [mine._replace(value=join(mine.value, theirs.value))]
        yield from totals.values()

    def _living(self) -> set[int]:
        # The parent removes these files when a worker ended.
        return {int(path.stem.rpartition("_")[2]) for path in self._directory.glob("gauge_live*_*.db")}


def _of_process(pid: int) -> Iterator[Metric]:
    yield from ProcessCollector(pid=lambda: pid, registry=None).collect()


def _sum(one: float, other: float) -> float:
    return one + other
