"""One file of a repository: its place says what it defines, and its text what it says."""

import re
from collections.abc import Mapping

from msgspec import Struct

from meshconfig.block import Block, read
from meshconfig.definition.edge import Edge
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.group import Group
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.service import Service
from meshconfig.position import Fault, Position, Severity
from meshconfig.quotation import clipped
from meshconfig.rules.file import file_faults
from meshconfig.rules.references import Reference, references
from meshconfig.source import parse
from wire.model import SERVICE_PATTERN
from wire.spelling import spelling_hint

FOLDERS: Mapping[str, type[Struct]] = {"services": Service, "groups": Group, "gateways": Gateway, "edges": Edge}
"""The folders of definitions, and what their files define."""

_SUFFIXES = ("yaml", "yml", "json", "jsonnet")
"""Suffixes of definitions; JSON is YAML, and Jsonnet has been evaluated by the client."""
_NAME = re.compile(SERVICE_PATTERN)


class Document(Struct, frozen=True):
    """The definition in one file.

    Attributes:
        file: its path.
        kind: what it defines.
        name: the name of what it defines, which is the file's.
        block: what it writes; None where nothing of it can be read.
        references: the services that it names.
        faults: what is wrong with it, whatever the other files say.
    """

    file: str
    kind: type[Struct]
    name: str
    block: Block | None
    references: tuple[Reference, ...]
    faults: tuple[Fault, ...]


def own_name(kind: type[Struct]) -> str:
    """Return the key under which files of a kind repeat their name: ``service`` in those of services."""
    return kind.__name__.lower()


def place_of(file: str) -> tuple[str, str]:
    """Return the folder of a file, and the name of what it defines."""
    folder, _, name = file.rpartition(".")[0].rpartition("/")
    return folder, name


def document_of(file: str, text: str) -> Document | Fault | None:
    """Return the definition in a file; a fault where files are not read, None where it is no definition."""
    path, dot, suffix = file.rpartition(".")
    folder, name = place_of(file)
    if not dot or suffix not in _SUFFIXES or file.startswith(".") or "/." in file:
        return None
    kind = Mesh if path == "mesh" else FOLDERS.get(folder)
    if kind is None:
        return _unread(file, folder)
    faults: list[Fault] = []
    if kind is not Mesh and not _NAME.match(name):
        message = f"The file is called {clipped(name)}, which is no name of a {own_name(kind)}."
        fix = "Use letters, digits and . _ : @ ~ -, with a letter or digit at the beginning, 255 at most."
        faults.append(Fault(Position(file), message, fix))
    node, syntax = parse(file, text)
    block, wrong = (None, []) if node is None else read(kind, file, node)
    faults += (*syntax, *wrong)
    if block is not None:
        faults += file_faults(block)
        own = own_name(kind)
        if kind is not Mesh and block.values.get(own, name) != name:
            message = f"{own} is {clipped(block.values[own])}, and the file is called {clipped(name)}."
            faults.append(Fault(block.position(own), message, f"Write {name}, or rename the file."))
    return Document(file, kind, name, block, tuple(references(block)) if block is not None else (), tuple(faults))


def _unread(file: str, folder: str) -> Fault:
    hint = (
        spelling_hint(folder, FOLDERS, otherwise="move it there, or leave it.")
        if folder
        else "move it there, or leave it."
    )
    message = "Nothing is read from this file: it is in no place of definitions."
    places = ", ".join(f"{name}/" for name in FOLDERS)
    return Fault(Position(file), message, f"They are mesh.yaml, {places}; {hint}", Severity.WARNING)
