"""Files that are replaced at once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wire.atomic_file import PRIVATE, PUBLIC, replace_file


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture(autouse=True, params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the umask for a test."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [PRIVATE, 0o640, PUBLIC])
def test_a_file_has_the_mode_whatever_the_umask_is(tmp_path: Path, mode: int) -> None:
    """A token is its owner's alone, and an Envoy of another user reads its bootstrap."""
    file = tmp_path / "file"
    file.write_bytes(b"former")
    file.chmod(0o666)
    replace_file(file, b"new", mode)
    assert (file.read_bytes(), _mode(file), list(tmp_path.iterdir())) == (b"new", mode, [file])


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Whoever can write in the directory leads the content nowhere else."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"untouched")
    link = tmp_path / "file"
    link.symlink_to(elsewhere)
    replace_file(link, b"new")
    assert (elsewhere.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"untouched", b"new", False)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    """A directory of the name stays, and no unfinished file takes room beside it."""
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as raised:
        replace_file(tmp_path / "file", b"new")
    assert (raised.value.filename, raised.value.strerror) == (str(tmp_path / "file"), "Is a directory")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_reader_keeps_what_it_has_opened(tmp_path: Path) -> None:
    """It reads the former content to its end, since the file is another one."""
    file = tmp_path / "file"
    replace_file(file, b"former")
    with file.open("rb") as reader:
        replace_file(file, b"new")
        assert (reader.read(), file.read_bytes()) == (b"former", b"new")
