"""Definitions that are read, merged and checked on this machine."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from meshconfig.effective import Configuration
from meshconfig.position import Fault, Severity
from meshconfig.repository import read
from registryctl.errors import RejectedError
from registryctl.faults import counted
from registryctl.mesh.directory import read_directory
from registryctl.mesh.jsonnet import Evaluated, in_source


class Checked(Struct, frozen=True):
    """The definitions of a directory, whether or not they can be used.

    Attributes:
        files: the text of each file, by its path.
        configuration: what they define; None when one of the faults is an error.
        faults: everything that is wrong, warnings too, in the order of files and lines.
        evaluated: the Jsonnet files, by their paths.
    """

    files: Mapping[str, str]
    configuration: Configuration | None
    faults: Sequence[Fault]
    evaluated: Mapping[str, Evaluated] = {}


class Definitions(Struct, frozen=True):
    """The definitions of a directory or a revision, without an error.

    Attributes:
        files: the text of each file, by its path.
        configuration: what they define.
        warnings: faults that are no errors.
        evaluated: the Jsonnet files, by their paths.
    """

    files: Mapping[str, str]
    configuration: Configuration
    warnings: Sequence[Fault] = ()
    evaluated: Mapping[str, Evaluated] = {}


def check_directory(path: Path, *, strict: bool = False, registered: Collection[str] | None = None) -> Checked:
    """Return the definitions of a directory with all of their faults.

    Args:
        path: the directory.
        strict: whether warnings are errors.
        registered: the services that are registered; None where no registry was asked.

    Raises:
        UsageError: there is nothing to read.
    """
    directory = read_directory(path)
    configuration, faults = read(directory.files, registered=registered, strict=strict)
    every = sorted({*directory.faults, *in_sources(faults, directory.evaluated)})
    broken = any(fault.severity is Severity.ERROR for fault in every)
    return Checked(directory.files, None if broken else configuration, every, directory.evaluated)


def in_sources(faults: Iterable[Fault], evaluated: Mapping[str, Evaluated]) -> list[Fault]:
    """Return faults with those of evaluated Jsonnet moved to their place in the Jsonnet file."""
    return [
        in_source(fault, evaluated[fault.position.file]) if fault.position.file in evaluated else fault
        for fault in faults
    ]


def load_directory(path: Path) -> Definitions:
    """Return the definitions of a directory.

    Raises:
        UsageError: there is nothing to read.
        RejectedError: the definitions have an error; all of them are in its details.
    """
    checked = check_directory(path)
    if checked.configuration is None:
        raise RejectedError(
            f"the definitions in {path} have {counted(checked.faults)}",
            "mend the lines above; `registryctl mesh validate` checks again",
            map(str, checked.faults),
        )
    return Definitions(checked.files, checked.configuration, checked.faults, checked.evaluated)


def fault_document(fault: Fault) -> dict[str, Any]:
    """Return a fault as the API has it."""
    return {
        "file": fault.position.file,
        "line": fault.position.line,
        "column": fault.position.column,
        "severity": fault.severity.value,
        "message": fault.message,
        "fix": fault.fix,
    }
