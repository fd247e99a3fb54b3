"""Definitions on disk: the files of a directory that are definitions, as text, and what cannot be read.

Only the known folders are looked into. A file that looks like a definition and stands where none is read is a warning:
nobody else would say that it has no effect.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from msgspec import Struct

from meshconfig.position import Fault, Position, Severity
from meshconfig.source import MAX_BYTES
from registryctl.errors import UsageError
from registryctl.mesh.jsonnet import Evaluated, JsonnetError, evaluate
from wire.spelling import spelling_hint

FOLDERS = ("services", "groups", "gateways", "edges")
"""Folders of definitions, one file a service, group, gateway or edge."""
MESH = "mesh"
"""The name, without its suffix, of the file that all share; it stands beside the folders."""
SUFFIXES = (".yaml", ".yml", ".json", ".jsonnet")
"""Suffixes of definitions; JSON is YAML, and Jsonnet is evaluated here: the registry gets the result."""


class Directory(Struct, frozen=True):
    """The definitions of a directory.

    Attributes:
        files: the text of each file by its path in the directory, with ``/``; Jsonnet is evaluated.
        evaluated: the Jsonnet files, by the same path.
        faults: what cannot be read, and warnings.
    """

    files: Mapping[str, str]
    evaluated: Mapping[str, Evaluated] = {}
    faults: tuple[Fault, ...] = ()


def read_directory(path: Path) -> Directory:
    """Return the definitions of a directory.

    Raises:
        UsageError: there is no such directory, or nothing in it is a definition.
    """
    try:
        root = path.resolve(strict=True)
        names = sorted(entry.name for entry in os.scandir(root))
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}", "name the directory that has mesh.yaml and services/") from None
    reader = _Reader(root)
    reader.read(names)
    if not reader.files and not any(fault.severity is Severity.ERROR for fault in reader.faults):
        raise UsageError(
            f"{path}: no definitions here: there is neither {MESH}.yaml nor a file in {', '.join(FOLDERS)}",
            f"name their directory, or begin with `registryctl mesh init {path}`",
        )
    return Directory(reader.files, reader.evaluated, tuple(sorted(reader.faults)))


class _UnreadableError(Exception):
    """A file or folder cannot be read; the fault says why."""

    def __init__(self, file: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(Position(file), message, fix)


class _Reader:
    """The files of one directory, as they are read.

    Attributes:
        files: text by path.
        evaluated: Jsonnet files by path.
        faults: everything that is wrong so far.
    """

    def __init__(self, root: Path) -> None:
        self.files: dict[str, str] = {}
        self.evaluated: dict[str, Evaluated] = {}
        self.faults: list[Fault] = []
        self._root = root

    def read(self, names: Iterable[str]) -> None:
        """Read the files and folders of these names at the root."""
        paths: list[str] = []
        for name in names:
            if name in FOLDERS:
                paths += self._folder(name)
            elif Path(name).stem == MESH and Path(name).suffix in SUFFIXES:
                paths.append(name)
            else:
                self._note_unread(name)
        for path in self._without_duplicates(paths):
            try:
                self._file(path)
            except _UnreadableError as error:
                self.faults.append(error.fault)

    def _folder(self, folder: str) -> Iterator[str]:
        try:
            self._check_inside(folder)
            names = sorted(entry.name for entry in os.scandir(self._root / folder))
        except _UnreadableError as error:
            self.faults.append(error.fault)
            return
        except OSError as error:
            self.faults.append(Fault(Position(folder), f"The folder cannot be read: {_reason(error)}."))
            return
        for name in names:
            path = f"{folder}/{name}"
            if name.startswith("."):
                continue
            if Path(name).suffix in SUFFIXES:
                yield path
            elif (self._root / path).is_dir():
                self.faults += self._unread_folder(path)
            elif Path(name).suffix.lower() in SUFFIXES:
                self._warn(path, "This file is not read.", f"Definitions end in {', '.join(SUFFIXES)}.")

    def _unread_folder(self, path: str) -> Iterator[Fault]:
        """Yield a fault for a folder within a folder that has definitions, since their author expects an effect."""
        inside = _definitions_in(self._root / path)
        if inside:
            folder = path.partition("/")[0]
            message = f"Folders within {folder} are not read, and this one has {inside[0]}."
            yield Fault(Position(path), message, f"Move its files to {folder}; the file's name is the service's.")

    def _note_unread(self, name: str) -> None:
        """Warn about something beside the known folders that looks like definitions."""
        if name.startswith("."):
            return
        path = self._root / name
        if path.is_dir():
            hint = spelling_hint(name, FOLDERS, otherwise="-")
            if hint != "-" and _definitions_in(path):
                self._warn(name, "This folder is not read.", f"{hint[0].upper()}{hint[1:]}")
        elif path.suffix.lower() in SUFFIXES:
            where = f"{MESH}.yaml" if path.stem.lower() == MESH else f"one of {', '.join(FOLDERS)}"
            self._warn(name, "This file is not read.", f"Did you mean {where}?")

    def _warn(self, path: str, message: str, fix: str) -> None:
        self.faults.append(Fault(Position(path), message, fix, Severity.WARNING))

    def _without_duplicates(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the first path of each name; a second one, also in another case or suffix, is a fault."""
        seen: dict[str, str] = {}
        for path in paths:
            name = str(PurePosixPath(path).with_suffix("")).casefold()
            first = seen.setdefault(name, path)
            if first == path:
                yield path
            else:
                message = f"{first} is of the same name, and some file systems and hosts do not tell case apart."
                if PurePosixPath(path).stem == PurePosixPath(first).stem:
                    message = f"{first} is of the same name; which of them would count?"
                self.faults.append(Fault(Position(path), message, "Remove or rename one of them."))

    def _file(self, path: str) -> None:
        content = self._content(path)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            fault = Fault(Position(path, line, 1), "The file is not UTF-8 in this line.", "Save it as UTF-8.")
            self.faults.append(fault)
            return
        if not path.endswith(".jsonnet"):
            self.files[path] = text
            return
        try:
            evaluated = evaluate(self._root, path, text)
        except JsonnetError as error:
            self.faults.append(error.fault)
        else:
            self.files[path] = evaluated.text
            self.evaluated[path] = evaluated

    def _content(self, path: str) -> bytes:
        """Return the bytes of a regular file inside of the directory.

        Raises:
            _UnreadableError: it is none, it is too large, or it cannot be read.
        """
        self._check_inside(path)
        try:
            # Without O_NONBLOCK the opening of a pipe would wait for a writer for ever.
            descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
                    raise _UnreadableError(path, f"This is {kind}, and a file is expected.")
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    content = file.read(MAX_BYTES + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _UnreadableError(path, f"The file cannot be read: {_reason(error)}.") from None
        if len(content) > MAX_BYTES:
            message = (
                f"The file has {max(status.st_size, len(content)):,} bytes, and at most {MAX_BYTES:,} are allowed."
            )
            raise _UnreadableError(path, message, "Split it, or move what many share into a group.")
        return content

    def _check_inside(self, path: str) -> None:
        """Check that a path leads to something in the directory.

        Raises:
            _UnreadableError: a symbolic link leads out of it, to nothing, or to itself.
        """
        try:
            target = (self._root / path).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            reason = _reason(error) if isinstance(error, OSError) else "its links lead to each other"
            raise _UnreadableError(path, f"The file cannot be read: {reason}.") from None
        if not target.is_relative_to(self._root):
            message = f"The link leads out of the directory, to {target}, which no review of the directory covers."
            raise _UnreadableError(path, message, "Put a copy in its place.")


def _definitions_in(folder: Path) -> list[str]:
    """Return the names of files in a folder that look like definitions; of one that cannot be read, none."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix in SUFFIXES)
    except OSError:
        return []


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its links lead to each other"
    return (error.strerror or str(error)).lower()
