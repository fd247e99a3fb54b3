"""The content of an edge on disk, from which an Envoy starts while every registry is away.

Each name has a file: a line with the format, a checksum and a length, then a line of JSON about the content, then the
content. The checksum covers both: a file that was cut, flipped or renamed is not used. Files are replaced by renaming.
"""

import contextlib
import errno
import os
import secrets
import stat
import zlib
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from registrar.edge.entry import Key
from registrar.event_log import EventLogger

_FORMAT = b"headcount-edge 1 "
_MAX_NAME_BYTES = 180
"""Bytes of a file's name; a longer one is replaced by a checksum of it. File systems allow 255."""
_MAX_FILE_BYTES = 64 * 1024 * 1024
_MAX_FILES = 1_000
"""Files that are kept; beyond that those are removed that the registry confirmed longest ago."""
_MODE = 0o600
_DIRECTORY_MODE = 0o700
_NEW = ".new"
_SCARCITIES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing of a file: this process or its machine has no descriptor or memory left."""
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Nothing else than a file is waited for, and no link is followed."""

log = EventLogger(__name__)


class Record(Struct, frozen=True):
    """The content of a file.

    Attributes:
        key: what it is of.
        token: the registry's token.
        received: when the registry gave it or last confirmed it, by the wall clock.
        resources: the content.
    """

    key: Key
    token: str
    received: float
    resources: bytes


class _About(Struct, frozen=True):
    key: Key
    token: str
    received: float


class UnreadableNowError(OSError):
    """A file could not be opened for want of descriptors or memory; it may be read later."""


class _BadFileError(ValueError):
    """A file is not what was written."""


_decode = msgspec.json.Decoder(_About).decode


class DiskCache:
    """The files of one directory. Its methods block, and are called in one thread at a time.

    Args:
        directory: made if it does not exist.

    Attributes:
        bad_files: files that were not used because they are not what was written.
        failures: writes that failed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bad_files = 0
        self.failures = 0
        # Why the newest write of each name failed, of those whose newest one did.
        self._failing: dict[Key, str] = {}

    @property
    def problem(self) -> str | None:
        """Why a name is not written, the one that has failed for longest; None where all are."""
        return next(iter(list(self._failing.values())), None)

    def read(self, key: Key) -> Record | None:
        """Return what is on disk; None if nothing is, or nothing that can be used.

        Raises:
            UnreadableNowError: the file could not be opened for want of descriptors or memory.
        """
        path = self._path(key)
        try:
            data, touched = _read_file(path)
            return _record(data, key, touched)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _SCARCITIES:
                raise UnreadableNowError(error.errno, os.strerror(error.errno)) from error
            self._note_bad(
                path, "it is a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
            )
        except _BadFileError as error:
            self._note_bad(path, str(error))
        return None

    def write(self, record: Record) -> bool:
        """Replace a file and return True, or say why it cannot be written and return False."""
        path = self._path(record.key)
        try:
            self._write(path, record)
        except OSError as error:
            self.failures += 1
            problem = f"{path}: {error.strerror or error}"
            if not self._failing:
                log.warning(
                    "edge_not_written",
                    reason=problem,
                    meaning="Envoys are served from memory; after a restart without a registry this edge has old hosts",
                    fix="make room, let this process write there, or remove what is in the way; it tries again",
                )
            self._failing[record.key] = problem
            return False
        self.give_up(record.key)
        return True

    def give_up(self, key: Key) -> None:
        """Note that a name is written, or has to be no longer."""
        if self._failing.pop(key, None) is not None and not self._failing:
            log.info("edge_written_again", directory=str(self.directory))

    def touch(self, keys: Collection[Key]) -> None:
        """Note that the registry has confirmed what these files hold."""
        for key in keys:
            with contextlib.suppress(OSError):
                os.utime(self._path(key), follow_symlinks=False)

    def remove_unfinished(self) -> None:
        """Remove what killed processes left half written, of whatever names; nothing may be written meanwhile."""
        for file in self._files():
            if file.name.startswith(".") and file.name.endswith(_NEW) and not _lives(file.name):
                _remove(file)

    def prune(self, in_use: Collection[Key]) -> None:
        """Remove unfinished files, and files beyond the limit that are not in use."""
        self.remove_unfinished()
        kept = {self._path(key).name for key in in_use}
        whole = [file for file in self._files() if not file.name.startswith(".") and file.name not in kept]
        surplus = len(whole) + len(kept) - _MAX_FILES
        if surplus > 0:
            for file in sorted(whole, key=_written_at)[:surplus]:
                _remove(file)

    def services(self, most: int) -> list[str]:
        """Return services that are kept, those first that were written or confirmed last."""
        names = {file: unquote(file.name) for file in self._files() if "@" not in file.name and file.name[0] != "."}
        return [names[file] for file in sorted(names, key=_written_at, reverse=True)[:most]]

    def _files(self) -> list[Path]:
        try:
            return list(self.directory.iterdir())
        except OSError:
            return []

    def _write(self, path: Path, record: Record) -> None:
        self.directory.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
        about = msgspec.json.encode(_About(record.key, record.token, record.received)) + b"\n"
        checksum = zlib.crc32(record.resources, zlib.crc32(about))
        head = b"%b%08x %d\n" % (_FORMAT, checksum, len(about) + len(record.resources))
        # Two containers that share the directory have processes of one number: chance tells their files apart.
        aside = path.with_name(f".{path.name[:_MAX_NAME_BYTES]}.{secrets.token_hex(4)}.{os.getpid()}{_NEW}")
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
            with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
                file.writelines((head, about, record.resources))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise

    def _path(self, key: Key) -> Path:
        kind, name, *node = key
        parts = [name] if kind == "endpoints" else [kind, *node, name]
        # A quoted part has no @, and does not begin with a dot.
        file = "@".join(quote(part, safe="").replace(".", "%2E") for part in parts)
        if len(file) > _MAX_NAME_BYTES:
            file = f"{file[: _MAX_NAME_BYTES - 18]}@@{zlib.crc32(file.encode()):08x}{zlib.adler32(file.encode()):08x}"
        return self.directory / file

    def _note_bad(self, path: Path, reason: str) -> None:
        self.bad_files += 1
        log.warning("edge_file_not_used", file=str(path), reason=reason)


def _read_file(path: Path) -> tuple[bytes, float]:
    """Return the content of a file, and when it was written or touched.

    Raises:
        OSError: it cannot be read.
        _BadFileError: it is no file.
    """
    with open(os.open(path, _OPEN), "rb") as file:  # noqa: PTH123  # a descriptor, not a path
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _BadFileError("it is no file")
        return file.read(_MAX_FILE_BYTES + 1), status.st_mtime


def _remove(file: Path) -> None:
    """Remove a file; one that cannot be removed keeps no other one."""
    with contextlib.suppress(OSError):
        file.unlink()


def _written_at(file: Path) -> float:
    """Return when a file was written or touched; one that is gone was so longest ago."""
    try:
        return file.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _record(data: bytes, key: Key, touched: float) -> Record:
    """Return what a file holds, as of the time at which it was written or touched.

    Raises:
        _BadFileError: it is not what was written under this key.
    """
    head, newline, rest = data.partition(b"\n")
    checksum, _, length = head.removeprefix(_FORMAT).partition(b" ")
    if not newline or not head.startswith(_FORMAT):
        raise _BadFileError("it does not begin as a file of an edge")
    if length != b"%d" % len(rest):
        raise _BadFileError(
            f"it has {len(rest)} bytes behind its first line, which says {length[:20].decode('latin-1')}"
        )
    if checksum != b"%08x" % zlib.crc32(rest):
        raise _BadFileError("its checksum is wrong")
    about, _, resources = rest.partition(b"\n")
    try:
        read = _decode(about)
    except msgspec.DecodeError as error:
        raise _BadFileError(str(error)) from error
    if read.key != key:
        raise _BadFileError(f"it is of {read.key[1]}")
    return Record(key, read.token, max(read.received, touched), resources)


def _lives(name: str) -> bool:
    """Return whether another process lives that writes a file of this name.

    The number of this process is no other one's: in a container each start has the same number.
    """
    number = name.removesuffix(_NEW).rpartition(".")[2]
    return number.isascii() and number.isdigit() and int(number) != os.getpid() and Path(f"/proc/{number}").exists()
