"""Files of shared metrics on a disk that is full."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from registry.allocated_values import AllocatedValues, WorkerValues

SIZE = 65_536


def key(number: int) -> str:
    """Return a key of a series."""
    name = ("a", "a_total", ["route"], [f"/{number}{'x' * 200}"], "A number.")
    return mmap_key(*name)


def values_of(file: Path) -> dict[str, float]:
    """Return what a scrape reads."""
    read = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    return {name: value for name, value, _, _ in read}


@pytest.fixture
def full_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the disk refuse files from a size on, the one element of the list."""
    sizes = [10 * SIZE]
    allocate = os.posix_fallocate

    def allocated(descriptor: int, offset: int, length: int) -> None:
        if offset + length >= sizes[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", allocated)
    return sizes


def test_all_space_of_a_file_is_taken(tmp_path: Path) -> None:
    """At its making and when it grows: no write to its memory finds a hole."""
    values = WorkerValues(str(file := tmp_path / "counter_1.db"))
    for number in range(1_000):
        values.write_value(key(number), number, 0.0)  # type: ignore[no-untyped-call]
        assert file.stat().st_blocks * 512 >= file.stat().st_size >= SIZE
    assert file.stat().st_size > 2 * SIZE
    assert values_of(file) == {key(number): float(number) for number in range(1_000)}
    values.close()  # type: ignore[no-untyped-call]
    again = WorkerValues(str(file))
    assert again.read_value(key(999))[0] == 999.0  # type: ignore[no-untyped-call]
    again.close()  # type: ignore[no-untyped-call]


def test_without_space_a_worker_counts_in_memory(tmp_path: Path, full_from: list[int]) -> None:
    """The file has what it had, which scrapes can read; a file that could not be made is not left empty."""
    values = WorkerValues(str(file := tmp_path / "counter_1.db"))
    values.write_value(key(0), 5.0, 0.0)  # type: ignore[no-untyped-call]
    full_from[0] = SIZE
    for number in range(1_000):
        values.write_value(key(number), number + 7.0, 0.0)  # type: ignore[no-untyped-call]
    assert [values.read_value(key(number))[0] for number in (0, 999)] == [7.0, 1_006.0]  # type: ignore[no-untyped-call]
    assert 0 < len(values_of(file)) < 1_000
    other = WorkerValues(str(tmp_path / "counter_2.db"))
    other.write_value(key(1), 1.0, 0.0)  # type: ignore[no-untyped-call]
    assert other.read_value(key(1))[0] == 1.0  # type: ignore[no-untyped-call]
    with pytest.raises(OSError, match="No space left"):
        AllocatedValues(str(tmp_path / "counter_ended.new"))
    assert [path.name for path in tmp_path.iterdir()] == ["counter_1.db"]
    full_from[0] = 10 * SIZE
    gauge = WorkerValues(str(file := tmp_path / "gauge_livesum_1.db"))
    full_from[0] = SIZE
    for number in range(1_000):
        gauge.write_value(key(number), number, 0.0)  # type: ignore[no-untyped-call]
    # Its values would stand still for all to see.
    assert not file.exists()
    assert gauge.read_value(key(999))[0] == 999.0  # type: ignore[no-untyped-call]
    gauge.close()  # type: ignore[no-untyped-call]
    for each in (values, other):
        each.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("refusal", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_no_space_can_be_taken_in_advance_others_still_see_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    """As on NFS before 4.2, where the C library writes to each block, and needs a descriptor that can do so."""

    def allocated(descriptor: int, _offset: int, length: int) -> None:
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_APPEND or flags & os.O_ACCMODE != os.O_RDWR:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if os.fstat(descriptor).st_size < length:
            os.truncate(descriptor, length)

    monkeypatch.setattr(os, "posix_fallocate", allocated)
    values = WorkerValues(str(file := tmp_path / "counter_1.db"))
    for number in range(1_000):
        values.write_value(key(number), number, 0.0)  # type: ignore[no-untyped-call]
    values.close()  # type: ignore[no-untyped-call]
    assert values_of(file) == {key(number): float(number) for number in range(1_000)}
