"""The directory in which several worker processes share their metrics.

prometheus_client decides when it is imported where values are kept, so this is called before anything imports it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import BadSettingsError
from registry.settings import Settings

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client finds the directory."""


@contextmanager
def worker_metrics(settings: Settings) -> Iterator[None]:
    """Have the metrics of several workers kept in a new directory for the length of the block.

    Raises:
        BadSettingsError: nothing can be written, as where the root is read-only and no volume is mounted.
    """
    if settings.workers == 1:
        yield
        return
    with _directory(settings) as directory:
        os.environ[VARIABLE] = directory
        yield


def forget_worker(pid: int, *, everything: bool = False) -> None:
    """Remove what a process that is no worker any more counted as living, or all of its files."""
    directory = os.environ.get(VARIABLE)
    if directory is not None:
        for file in Path(directory).glob(f"{'' if everything else 'gauge_live'}*_{pid}.db"):
            file.unlink(missing_ok=True)
        if everything:
            (Path(directory) / f"traffic_{pid}.msgpack").unlink(missing_ok=True)


def _directory(settings: Settings) -> tempfile.TemporaryDirectory[str]:
    prefix = "headcount-metrics-"
    try:
        return tempfile.TemporaryDirectory(prefix=prefix)
    except OSError:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(prefix=prefix, dir=settings.data_dir)
        except OSError as error:
            raise BadSettingsError(
                f"REGISTRY_WORKERS={settings.workers}: workers share their metrics in a directory, and none can be "
                f"written: {error}; mount a volume at /tmp or at REGISTRY_DATA_DIR, or set REGISTRY_WORKERS=1"
            ) from None
