"""The directory in which several worker processes share their metrics.

prometheus_client decides when it is imported where values are kept, so this is called before anything imports it.
"""

import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from registry.errors import BadSettingsError

if TYPE_CHECKING:
    from registry.settings import Settings

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client finds the directory."""
ENDED_WORKERS = "registry_workers_ended"
"""The counter of workers that ended; the parent of workers, which has no metrics of its own, sets it in the sums."""
ENDED_WORKERS_HELP = "Workers that ended without being told to, by reason: died or hung."
_LATEST = "gauge_mostrecent"
_KEPT = ("counter", "histogram", _LATEST)
"""Kinds of files whose values count on when their worker has ended; the rest tells of living workers."""

_PREFIX = "headcount-metrics-"
"""What the names of all directories begin with."""
_YOUNG = 60.0
"""Seconds after its last change for which a directory is not removed: it may not be locked yet."""
_ADDITION = "addition"
"""The file that names those whose values are in new sums; it is there from the decision until these are gone."""
_LONGEST_SCRAPE = 2.0
"""Seconds for which the process that adds up waits for scrapes: meanwhile no worker is started."""
_LONGEST_ADDITION = 0.5
"""Seconds for which a scrape waits, in its event loop, for what adds up."""
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
    with _directory(settings) as directory, _locked(directory):
        os.environ[VARIABLE] = directory
        yield


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold a shared lock on a directory: systemd-tmpfiles removes no unused files there (tmpfiles.d(5)).

    Forks have it too, and the program that this process becomes.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.set_inheritable(descriptor, True)  # positional alone
    try:
        with suppress(OSError):
            # There are file systems without locks.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def settled(directory: Path) -> Iterator[None]:
    """Keep files of ended workers from being added up in the middle of a scrape, and finish what was begun.

    Args:
        directory: of the metrics.

    Raises:
        TimeoutError: they are being added up, and that does not end.
    """
    with (directory / "lock").open("ab") as lock:
        _lock(lock, fcntl.LOCK_SH, _LONGEST_ADDITION)
        while (directory / _ADDITION).exists():
            # What added them up was killed after it had decided to.
            fcntl.flock(lock, fcntl.LOCK_UN)
            _lock(lock, fcntl.LOCK_EX, _LONGEST_ADDITION)
            _finish(directory)
            _lock(lock, fcntl.LOCK_SH, _LONGEST_ADDITION)
        yield


def _lock(lock: BinaryIO, kind: int, timeout: float) -> None:
    last_try = time.monotonic() + timeout
    while True:
        try:
            return fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last_try:
                raise TimeoutError(f"another process has {lock.name} for more than {timeout:g} s") from None
        time.sleep(_LOCK_INTERVAL)


def forget_process(pid: int) -> None:
    """Remove all that a process has counted which is no worker."""
    directory = os.environ.get(VARIABLE)
    if directory is not None:
        for file in Path(directory).glob(f"*_{pid}.db"):
            file.unlink(missing_ok=True)


def add_up_ended(directory: Path, living: Collection[int], ends: Mapping[str, int]) -> None:
    """Add up what ended workers have counted, and remove what they said of themselves.

    So counters never fall, and there are no more files after a thousand crashes. It may be killed at any point: either
    the files of the workers count, or the sums that have them, and never both.

    Args:
        directory: of the metrics.
        living: the process ids of all workers that run; none may be started meanwhile.
        ends: how many workers have ended so far, by reason.

    Raises:
        OSError: the sums cannot be written, or a scrape does not end; nothing is lost.
    """
    with (directory / "lock").open("ab") as lock:
        _lock(lock, fcntl.LOCK_EX, _LONGEST_SCRAPE)
        _finish(directory)
        for pattern in ("gauge_live*_*.db", "traffic_*.msgpack", "traffic_*.new", "stack_*.txt"):
            for file in directory.glob(pattern):
                if _pid_of(file) not in living:
                    file.unlink(missing_ok=True)
        for stale in directory.glob("*_ended.new"):
            stale.unlink()
        sources: list[Path] = []
        for kind in _KEPT:
            ended = [file for file in directory.glob(f"{kind}_[0-9]*.db") if _pid_of(file) not in living]
            if ended or (kind == "counter" and ends):
                _write_sums(directory / f"{kind}_ended.db", ended, ends, kind)
            sources += ended
        decision = directory / f"{_ADDITION}.new"
        decision.write_text(json.dumps([file.name for file in sources]))
        decision.replace(directory / _ADDITION)
        _finish(directory)


def _write_sums(total: Path, ended: Sequence[Path], ends: Mapping[str, int], kind: str) -> None:
    """Write new sums beside the former ones: of these and of the files; of some gauges the latest is kept."""
    # Not before the directory is chosen.
    from prometheus_client.mmap_dict import MmapedDict, mmap_key  # noqa: PLC0415

    from registry.allocated_values import AllocatedValues  # noqa: PLC0415

    values: dict[str, tuple[float, float]] = {}
    for file in (total, *ended) if total.exists() else ended:
        for key, value, at, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            before, last = values.get(key, (0.0, 0.0))
            values[key] = max((last, before), (at, value))[::-1] if kind == _LATEST else (before + value, at)
    if kind == "counter":
        for reason, count in ends.items():
            name = (ENDED_WORKERS, f"{ENDED_WORKERS}_total", ["reason"], [reason], ENDED_WORKERS_HELP)
            values[mmap_key(*name)] = (float(count), 0.0)
    written = AllocatedValues(str(total.with_suffix(".new")))
    for key, (value, at) in values.items():
        written.write_value(key, value, at)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]


def _finish(directory: Path) -> None:
    """Put new sums in the place of the files that they have, if that was decided.

    It is done again from its beginning where it was killed.
    """
    decision = directory / _ADDITION
    if not decision.exists():
        return
    for sums in directory.glob("*_ended.new"):
        sums.replace(sums.with_suffix(".db"))
    for name in json.loads(decision.read_text()):
        (directory / name).unlink(missing_ok=True)
    decision.unlink()


def _pid_of(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def remove_leftovers(parent: Path, now: float) -> None:
    """Remove the directories of programs that were killed: nobody has a lock on them.

    Args:
        parent: where they are.
        now: the time of the wall clock.
    """
    try:
        directories = list(parent.glob(f"{_PREFIX}*"))
    except OSError:
        # It cannot be looked at, and whoever needs it says so.
        return
    for directory in directories:
        # It may be gone meanwhile, another user's, or on a file system without locks, where nothing is known of it.
        with suppress(OSError):
            status = directory.lstat()
            young = now - status.st_mtime < _YOUNG
            if young or status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
                continue
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory)
            finally:
                os.close(descriptor)


def _directory(settings: "Settings") -> tempfile.TemporaryDirectory[str]:
    remove_leftovers(settings.data_dir, time.time())
    try:
        remove_leftovers(Path(tempfile.gettempdir()), time.time())
        return tempfile.TemporaryDirectory(prefix=_PREFIX)
    except OSError:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(prefix=_PREFIX, dir=settings.data_dir)
        except OSError as error:
            raise BadSettingsError(
                f"REGISTRY_WORKERS={settings.workers}: workers share their metrics in a directory, and none can be "
                f"written: {error}; mount a volume at /tmp or at REGISTRY_DATA_DIR, or set REGISTRY_WORKERS=1"
            ) from None
