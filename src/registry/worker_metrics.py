"""The directory in which several worker processes share their metrics.

prometheus_client decides when it is imported where values are kept, so this is called before anything imports it.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from registry.errors import BadSettingsError

if TYPE_CHECKING:
    from registry.settings import Settings

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client finds the directory."""
_LATEST = "gauge_mostrecent"
_KEPT = ("counter", "histogram", _LATEST)
"""Kinds of files whose values count on when their worker has ended; the rest tells of living workers."""

_LONGEST_SCRAPE = 2.0
"""Seconds for which the parent of workers waits for scrapes: meanwhile it starts no worker, and stops none."""
_LOCK_INTERVAL = 0.01
"""Seconds between two tries to have the metrics alone."""


@contextmanager
def worker_metrics(settings: "Settings") -> Iterator[None]:
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


@contextmanager
def settled(directory: Path, *, changing: bool = False) -> Iterator[None]:
    """Keep files of ended workers from being added up in the middle of a scrape.

    Args:
        directory: of the metrics.
        changing: whether the block is what adds them up.

    Raises:
        TimeoutError: files are to be added up, and a scrape does not end, like that of a worker that was stopped.
    """
    with (directory / "lock").open("ab") as lock:
        if changing:
            _lock_alone(lock)
        else:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _lock_alone(lock: BinaryIO) -> None:
    last_try = time.monotonic() + _LONGEST_SCRAPE
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last_try:
                raise TimeoutError(f"a scrape of {lock.name} has not ended for {_LONGEST_SCRAPE:g} s") from None
        time.sleep(_LOCK_INTERVAL)


def forget_process(pid: int) -> None:
    """Remove all that a process has counted which is no worker."""
    directory = os.environ.get(VARIABLE)
    if directory is not None:
        for file in Path(directory).glob(f"*_{pid}.db"):
            file.unlink(missing_ok=True)


def add_up_ended(directory: Path, living: Collection[int]) -> None:
    """Add up what ended workers have counted, and remove what they said of themselves.

    So counters never fall, and there are no more files after a thousand crashes.

    Args:
        directory: of the metrics.
        living: the process ids of all workers that run; none may be started meanwhile.

    Raises:
        OSError: the sums cannot be written, or a scrape does not end; nothing is lost.
    """
    with settled(directory, changing=True):
        for file in (*directory.glob("gauge_live*_*.db"), *directory.glob("traffic_*.msgpack")):
            if _pid_of(file) not in living:
                file.unlink(missing_ok=True)
        for kind in _KEPT:
            ended = [file for file in directory.glob(f"{kind}_[0-9]*.db") if _pid_of(file) not in living]
            if ended:
                _add_to(directory / f"{kind}_ended.db", ended, latest=kind == _LATEST)


def _add_to(total: Path, ended: Sequence[Path], *, latest: bool) -> None:
    """Add the values of some files to those of another, or keep the latest of them."""
    from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415  # not before the directory is chosen

    values: dict[str, tuple[float, float]] = {}
    for file in (total, *ended) if total.exists() else ended:
        for key, value, at, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            before, last = values.get(key, (0.0, 0.0))
            values[key] = max((last, before), (at, value))[::-1] if latest else (before + value, at)
    fresh = total.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    written = MmapedDict(str(fresh))  # type: ignore[no-untyped-call]
    for key, (value, at) in values.items():
        written.write_value(key, value, at)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    fresh.replace(total)
    for file in ended:
        file.unlink()


def _pid_of(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def _directory(settings: "Settings") -> tempfile.TemporaryDirectory[str]:
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
