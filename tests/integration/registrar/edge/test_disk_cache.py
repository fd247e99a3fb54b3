"""The files of an edge: whatever happens to them, what is read is what was written, or nothing."""

import os
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registrar.edge.disk_cache import DiskCache, Record, UnreadableNowError
from registrar.edge.entry import Key

SHOP: Key = ("endpoints", "shop", "", "")
RECORD = Record(SHOP, "db000001:5", 1_700_000_000.5, b'{"cluster_name":"shop","endpoints":[]}')

NAMES = st.text(min_size=1, max_size=300)
KEYS = st.one_of(
    st.builds(lambda name: ("endpoints", name, "", ""), NAMES),
    st.builds(lambda name, node, cluster: ("clusters", name, node, cluster), NAMES, NAMES, NAMES),
)


@pytest.fixture
def disk(tmp_path: Path) -> DiskCache:
    """A cache in a directory that does not exist yet."""
    return DiskCache(tmp_path / "state" / "edge")


def only_file(disk: DiskCache) -> Path:
    """Return the path of its only file."""
    (path,) = disk.directory.iterdir()
    return path


def test_what_was_written_is_read(disk: DiskCache) -> None:
    """By another process too; others may not read it."""
    assert disk.read(SHOP) is None
    assert disk.write(RECORD)
    os.utime(only_file(disk), (0, 0))
    assert DiskCache(disk.directory).read(SHOP) == RECORD
    assert only_file(disk).name == "shop"
    assert only_file(disk).stat().st_mode & 0o777 == 0o600
    assert disk.directory.stat().st_mode & 0o777 == 0o700
    assert (disk.bad_files, disk.failures, disk.problem) == (0, 0, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(KEYS, KEYS)
def test_any_names(tmp_path: Path, one: Key, other: Key) -> None:
    """Names are not paths, two of them have two files, and a long one fits."""
    disk = DiskCache(tmp_path / "edge")
    for key in (one, other):
        assert disk.write(Record(key, str(key), 1.0, b"x"))
    for key in (one, other):
        record = disk.read(key)
        assert record is not None
        assert (record.key, record.token) == (key, str(key))
    assert list(tmp_path.iterdir()) == [disk.directory]
    disk.prune(())


def test_every_cut_and_every_flip_is_noticed(disk: DiskCache) -> None:
    """No file that is shorter, or in which one bit is another, is read as something else."""
    disk.write(RECORD)
    path = only_file(disk)
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index])
        assert disk.read(SHOP) is None, index
        # Each bit has its turn; the checksum knows no difference between them.
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << index % 8]) + whole[index + 1 :])
        assert disk.read(SHOP) is None, index
    assert disk.bad_files == 2 * len(whole)
    path.write_bytes(whole)
    assert disk.read(SHOP) is not None


def test_a_renamed_file_serves_no_other_service(disk: DiskCache) -> None:
    """An operator who copies files about gives no service another one's hosts."""
    disk.write(RECORD)
    only_file(disk).rename(disk.directory / "user")
    assert disk.read(("endpoints", "user", "", "")) is None
    assert disk.bad_files == 1


def _link(path: Path) -> None:
    DiskCache(path.parent.parent / "other").write(RECORD)
    path.symlink_to(path.parent.parent / "other" / "shop")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind(str(path))


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a fifo": os.mkfifo,
    "a link to a good file": _link,
    "a link to itself": lambda path: path.symlink_to(path),
    "a socket": _socket,
    "an empty file": Path.touch,
    "an endless file": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("put", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_no_file_of_an_edge_is_neither_used_nor_waited_for(
    disk: DiskCache, put: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """It costs no other name anything, and is replaced, but for a directory: that is said, once, until it is gone."""
    caplog.set_level("INFO")
    other: Key = ("endpoints", "user", "", "")
    assert disk.write(Record(other, "db:1", 1.0, b"x"))
    path = disk.directory / "shop"
    put(path)
    assert disk.read(SHOP) is None
    assert disk.bad_files == 1
    assert disk.read(other) is not None
    if not path.is_dir():
        assert disk.write(RECORD)
        assert (disk.read(SHOP), path.stat(follow_symlinks=False).st_mode & 0o777) == (as_read(path), 0o600)
        return
    for _ in range(3):
        assert not disk.write(RECORD)
        assert disk.write(Record(other, "db:2", 1.0, b"y"))
    assert (disk.failures, disk.problem) == (3, f"{path}: Is a directory")
    path.rmdir()
    assert disk.write(RECORD)
    assert disk.problem is None
    said = [record.message for record in caplog.records if "written" in record.message]
    assert said == ["edge_not_written", "edge_written_again"]


def as_read(path: Path) -> Record:
    """Return the record as it is read from a file that was just written."""
    return Record(RECORD.key, RECORD.token, path.stat().st_mtime, RECORD.resources)


def test_a_want_of_descriptors_says_nothing_of_a_file(disk: DiskCache) -> None:
    """It is not counted as a bad one, and is read as soon as there are some."""
    disk.write(RECORD)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(UnreadableNowError):
            disk.read(SHOP)
        assert not disk.write(RECORD)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert disk.bad_files == 0
    assert disk.read(SHOP) is not None


def test_a_name_that_is_forgotten_is_no_problem_any_more(disk: DiskCache) -> None:
    """Nobody will write it again."""
    disk.directory.mkdir(parents=True)
    (disk.directory / "shop").mkdir()
    assert not disk.write(RECORD)
    disk.give_up(SHOP)
    assert disk.problem is None


def test_two_writers_of_one_number(disk: DiskCache) -> None:
    """Two containers share a directory, and each one's process is number 1: every file that is read is whole."""
    disk.write(RECORD)
    other = DiskCache(disk.directory)
    records = [Record(SHOP, f"db:{number}", 1.0, b"x" * 200_000 * number) for number in (1, 2)]
    stop = threading.Event()

    def write(cache: DiskCache, record: Record) -> None:
        while not stop.is_set():
            cache.write(record)

    threads = [threading.Thread(target=write, args=each) for each in zip((disk, other), records, strict=True)]
    for thread in threads:
        thread.start()
    reader = DiskCache(disk.directory)
    try:
        assert all(reader.read(SHOP) is not None for _ in range(150))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (reader.bad_files, disk.failures, other.failures) == (0, 0, 0)


def test_a_directory_that_cannot_be_written_is_said_once(disk: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is in the way; when it is gone, that is said too."""
    caplog.set_level("INFO")
    disk.directory.parent.mkdir()
    disk.directory.write_text("in the way")
    assert not disk.write(RECORD)
    assert not disk.write(RECORD)
    assert (disk.failures, disk.problem is not None) == (2, True)
    assert disk.read(SHOP) is None
    disk.directory.unlink()
    assert disk.write(RECORD)
    assert disk.problem is None
    said = [record.message for record in caplog.records if record.message.startswith("edge_")]
    assert [word for word in said if "written" in word] == ["edge_not_written", "edge_written_again"]


def test_what_the_registry_confirmed_is_as_old_as_that(disk: DiskCache) -> None:
    """Also after the clock was set back, and where the file is gone."""
    disk.write(RECORD)
    path = only_file(disk)
    os.utime(path, (1.0, 1.0))
    assert disk.read(SHOP) == RECORD
    disk.touch([SHOP, ("endpoints", "gone", "", "")])
    record = disk.read(SHOP)
    assert record is not None
    assert record.received == path.stat().st_mtime > RECORD.received


def test_the_oldest_files_are_removed(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """But none that is in use, however old it is."""
    monkeypatch.setattr("registrar.edge.disk_cache._MAX_FILES", 3)
    keys: list[Key] = [("endpoints", f"s{number}", "", "") for number in range(6)]
    for number, key in enumerate(keys):
        disk.write(Record(key, "db:1", 1.0, b"x"))
        os.utime(disk.directory / f"s{number}", (number, number))
    disk.prune(keys[:1])
    assert sorted(path.name for path in disk.directory.iterdir()) == ["s0", "s4", "s5"]


def test_what_killed_processes_left_is_removed(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not what another one is writing now, and at the start no whole file, however many there are."""
    monkeypatch.setattr("registrar.edge.disk_cache._MAX_FILES", 0)
    disk.write(RECORD)
    # One that cannot be removed keeps no other one.
    (disk.directory / ".aaa.99999999.new").mkdir()
    left = disk.directory / ".shop.99999999.new"
    # In a container the process before this one had its number.
    left_of_same_number = disk.directory / f".gone.{os.getpid()}.new"
    writing = disk.directory / ".shop.1.new"
    for path in (left, left_of_same_number, writing):
        path.write_bytes(b"half")
    disk.remove_unfinished()
    assert sorted(path.name for path in disk.directory.iterdir()) == [".aaa.99999999.new", writing.name, "shop"]
    assert disk.read(SHOP) is not None
