"""The metrics of all worker processes in Prometheus' text format, whichever worker is scraped."""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from registry.metrics import SILENT_ENDPOINTS, SILENT_SECONDS
from registry.worker_metrics import VARIABLE, settled

CONTENT_TYPE = CONTENT_TYPE_LATEST

_MINIMA = ("process_start_time_seconds", "process_max_fds")


def expose() -> bytes:
    """Return all metrics in Prometheus' text format."""
    directory = os.environ.get(VARIABLE)
    if directory is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    with settled(Path(directory)):
        MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]  # published without types
        registry.register(Workers(Path(directory)))
        for gauge in (SILENT_ENDPOINTS, SILENT_SECONDS):
            registry.register(gauge)
        return generate_latest(registry)


class Workers(Collector):
    """The ``process_…`` metrics of all workers together: sums, and the start of the oldest worker.

    Args:
        directory: the directory in which each living worker has the files of its gauges.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once, for all workers."""
        totals: dict[str, Metric] = {}
        for metric in (metric for pid in sorted(self._living()) for metric in _of_process(pid)):
            total = totals.setdefault(metric.name, metric)
            if total is metric:
                continue
            (sum_so_far,), (added,) = total.samples, metric.samples
            join = min if sum_so_far.name in _MINIMA else _sum
            total.samples = [sum_so_far._replace(value=join(sum_so_far.value, added.value))]
        yield from totals.values()

    def _living(self) -> set[int]:
        # The parent process removes these files when a worker ends.
        return {int(path.stem.rpartition("_")[2]) for path in self._directory.glob("gauge_live*_*.db")}


def _of_process(pid: int) -> Iterator[Metric]:
    yield from ProcessCollector(pid=lambda: pid, registry=None).collect()


def _sum(value: float, other: float) -> float:
    return value + other
