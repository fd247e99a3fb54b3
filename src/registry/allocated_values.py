"""Files of shared metrics all of whose space is taken when they are made.

prometheus_client maps sparse files into memory. Where the disk (or the tmpfs at /tmp) has no page left for a write to
such memory, the kernel ends the process with SIGBUS: a full disk would end all workers.
"""

import errno
import os
from pathlib import Path

import prometheus_client.values
import structlog
from prometheus_client.mmap_dict import MmapedDict

log = structlog.get_logger()

_INITIAL_SIZE = 65_536
"""Bytes of a new file, as prometheus_client makes it."""
_CANNOT_ALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""Errors of a file system that takes no space in advance: there a file has holes, as elsewhere without this module."""


class AllocatedValues(MmapedDict):
    """The values of one file, all of whose space is taken.

    Args:
        filename: the file.

    Raises:
        OSError: there is no space; no file is left where there was none.
    """

    def __init__(self, filename: str) -> None:
        _make(Path(filename))
        super().__init__(filename)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        # Its length, the key with up to 8 bytes of padding, the value and its time.
        needed = self._used + 4 + len(key.encode()) + 8 + 16
        if needed > self._capacity:
            self._grow(max(needed, 2 * self._capacity))
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self, size: int) -> None:
        _allocate(f"/proc/self/fd/{self._f.fileno()}", size)


class WorkerValues(AllocatedValues):
    """The values of a worker: without space they are counted in memory, and others do not see them any more."""

    def __init__(self, filename: str) -> None:
        try:
            super().__init__(filename)
        except OSError as error:
            _warn(filename, error)
            self._count_in_memory(b"")

    def _grow(self, size: int) -> None:
        try:
            super()._grow(size)
        except OSError as error:
            _warn(self._fname, error)
            before = self._m[: self._capacity]
            self.close()  # type: ignore[no-untyped-call]
            file = Path(self._fname)
            if file.name.startswith("gauge_live"):
                # A gauge that stands still is worse than none; counters go on as if nothing came.
                file.unlink(missing_ok=True)
            self._count_in_memory(before)

    def _count_in_memory(self, before: bytes) -> None:
        """Go on in a file that has no name, from the content of another one."""
        descriptor = os.memfd_create("metrics")
        with open(descriptor, "wb") as unnamed:  # noqa: PTH123  # a descriptor
            unnamed.write(before)
            unnamed.flush()
            MmapedDict.__init__(self, f"/proc/self/fd/{descriptor}")  # type: ignore[no-untyped-call]


def allocate_workers_values() -> None:
    """Have prometheus_client keep the values of this worker in files of which all space is taken."""
    # It has no other place to say so.
    prometheus_client.values.MmapedDict = WorkerValues  # type: ignore[attr-defined,assignment]


def _make(file: Path) -> None:
    made = not file.exists()
    try:
        _allocate(str(file), max(_INITIAL_SIZE, 0 if made else file.stat().st_size))
    except OSError:
        if made:
            # A scrape cannot read an empty one.
            file.unlink(missing_ok=True)
        raise


def _allocate(path: str, size: int) -> None:
    # Not by a descriptor that appends or cannot read: where a file system cannot allocate, as NFS before 4.2, the C
    # library writes to each block instead, and refuses such a descriptor (posix_fallocate(3)).
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_ALLOCATE:
            raise
    finally:
        os.close(descriptor)


def _warn(filename: str, error: OSError) -> None:
    log.warning("metrics_not_shared", file=filename, reason=error.strerror)
