"""Files of a repository to one checked configuration, or to everything that is wrong with them."""

import re
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct, structs

from meshconfig.callers import Base, callee_base, caller, mesh_base, use_of
from meshconfig.definition import Edge, Gateway, Group, Mesh, Service
from meshconfig.document import Block
from meshconfig.document import read as read_block
from meshconfig.effective import Caller, Configuration
from meshconfig.fronts import edge_of, gateway_of, targets_of
from meshconfig.merging import made, merged
from meshconfig.position import Fault, Position, Severity
from meshconfig.source import clipped, parse
from wire.model import SERVICE_PATTERN
from wire.spelling import spelling_hint

MAX_FAULTS = 200
"""Faults of one file that are reported; more of them help nobody."""

_FOLDERS: Mapping[str, type[Struct]] = {"services": Service, "groups": Group, "gateways": Gateway, "edges": Edge}
_SUFFIXES = (".yaml", ".yml", ".json", ".jsonnet")
"""Suffixes of definitions; JSON is YAML, and Jsonnet has been evaluated by the client."""
_NAME = re.compile(SERVICE_PATTERN)


class Document(Struct, frozen=True):
    """One file of the repository.

    Attributes:
        file: its path.
        kind: what it defines.
        name: the name of what it defines.
        block: what it writes; None where it cannot be read.
        faults: what is wrong with it, whatever the other files say.
    """

    file: str
    kind: type[Struct]
    name: str
    block: Block | None
    faults: tuple[Fault, ...]


class Cache:
    """Files that have been read before, for programs that read a repository again and again."""

    def __init__(self) -> None:
        # By path: the text, and what was made of it. Replaced whole by each reading, so that nothing old stays.
        self.documents: dict[str, tuple[str, Document]] = {}


def read(
    files: Mapping[str, str],
    *,
    registered: Collection[str] | None = None,
    strict: bool = False,
    cache: Cache | None = None,
) -> tuple[Configuration | None, list[Fault]]:
    """Return the configuration that files define, and all faults; None in its place where one of them is an error.

    Args:
        files: the text of each file, by its path in the repository.
        registered: the services of the catalog; without it nothing is said of services that are not registered.
        strict: make errors of warnings.
        cache: files that were read before.
    """
    repository = _Repository(registered)
    configuration = repository.read(files, cache or Cache())
    faults = sorted(set(repository.faults))
    if strict:
        faults = [structs.replace(fault, severity=Severity.ERROR) for fault in faults]
    broken = any(fault.severity is Severity.ERROR for fault in faults)
    return (None if broken else configuration), faults


def document_of(file: str, text: str) -> Document | Fault | None:
    """Return the definition in a file; a fault where files are not read, None where it is no definition."""
    folder, _, base = file.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    if f".{suffix}" not in _SUFFIXES or not dot or file.startswith(".") or "/." in file:
        return None
    kind = Mesh if file.rpartition(".")[0] == "mesh" else _FOLDERS.get(folder)
    if kind is None:
        places = ["mesh.yaml", *(f"{name}/" for name in _FOLDERS)]
        message = f"Nothing is read from {clipped(file)}: it is in no place of definitions."
        hint = spelling_hint(folder or stem, _FOLDERS, otherwise="move it, or leave it")
        fix = f"They are {', '.join(places)}; {hint}"
        return Fault(Position(file, 0, 0), message, fix, Severity.WARNING)
    faults: list[Fault] = []
    if kind is not Mesh and not _NAME.match(stem):
        message = f"The name {clipped(stem)} of the file is no name of a {kind.__name__.lower()}."
        fix = "Use letters, digits and . _ : @ ~ -, with a letter or digit at the beginning, 255 at most."
        faults.append(Fault(Position(file, 0, 0), message, fix))
    node, syntax = parse(file, text)
    faults += syntax
    block, wrong = read_block(kind, file, node)
    faults += wrong
    own = kind.__name__.lower()
    if block is not None and block.values.get(own, stem) != stem and kind is not Mesh:
        message = f"{own} is {clipped(block.values[own])}, and the file is called {clipped(stem)}."
        faults.append(Fault(block.position(own), message, f"Write {stem}, or rename the file."))
    return Document(file, kind, stem, block, tuple(faults[:MAX_FAULTS]))


class _Repository:
    """One reading of all files."""

    def __init__(self, registered: Collection[str] | None) -> None:
        self.faults: list[Fault] = []
        self._registered = None if registered is None else frozenset(registered)
        self._documents: dict[type[Struct], dict[str, Document]] = {
            Mesh: {},
            **{kind: {} for kind in _FOLDERS.values()},
        }

    def read(self, files: Mapping[str, str], cache: Cache) -> Configuration:
        self._read_documents(files, cache)
        mesh_block = self._block(Mesh, "mesh")
        mesh = Mesh() if mesh_block is None else merged(Mesh(), mesh_block, self.faults)
        defaults = None if mesh_block is None else mesh_block.values.get("defaults")
        base = mesh_base(mesh.defaults, defaults)
        provides = {name: self._provides(name) for name in self._documents[Service]}
        bases = {name: callee_base(base, block, self.faults) for name, block in provides.items()}
        callers = {name: self._caller(name, bases, base) for name in sorted(self._documents[Service])}
        fronts = {
            name: document.block
            for kind in (Gateway, Edge)
            for name, document in sorted(self._documents[kind].items())
            if document.block is not None
        }
        targets = {name: targets_of(block, bases) for name, block in fronts.items()}
        gateways: dict[str, Gateway] = {}
        edges: dict[str, Edge] = {}
        for name, block in fronts.items():
            if block.kind is Gateway:
                gateway = gateway_of(name, block, mesh, self.faults)
                gateways |= {} if gateway is None else {name: gateway}
            else:
                edge = edge_of(name, block, mesh, targets[name], self.faults)
                edges |= {} if edge is None else {name: edge}
        return Configuration(
            mesh=mesh,
            callers=callers,
            gateways=gateways,
            edges=edges,
            targets=targets,
            objectives={
                name: made(block.values["slo"], self.faults)
                for name, block in sorted(provides.items())
                if block is not None and block.values.get("slo") is not None
            },
        )

    def _read_documents(self, files: Mapping[str, str], cache: Cache) -> None:
        fresh: dict[str, tuple[str, Document]] = {}
        for file in sorted(files):
            text = files[file]
            kept = cache.documents.get(file)
            document = kept[1] if kept is not None and kept[0] == text else document_of(file, text)
            if document is None:
                continue
            if isinstance(document, Fault):
                self.faults.append(document)
                continue
            fresh[file] = text, document
            self.faults += document.faults
            self._add(document)
        cache.documents = fresh

    def _add(self, document: Document) -> None:
        same = self._documents[document.kind]
        other = same.get(document.name)
        if other is None:
            same[document.name] = document
            return
        own = document.kind.__name__.lower()
        message = f"The {own} {clipped(document.name)} is defined here and in {other.file}."
        self.faults.append(Fault(Position(document.file, 0, 0), message, "Remove one of the files."))

    def _block(self, kind: type[Struct], name: str) -> Block | None:
        document = self._documents[kind].get(name)
        return None if document is None else document.block

    def _provides(self, service: str) -> Block | None:
        block = self._block(Service, service)
        return None if block is None else block.values.get("provides")

    def _caller(self, service: str, bases: Mapping[str, Base], mesh: Base) -> Caller:
        block = self._block(Service, service)
        uses = []
        for each in () if block is None else self._dependencies(block, ()):
            callee = each.values.get("service", "")
            uses.append(use_of(each, bases.get(callee, mesh), self.faults))
        return caller(service, uses, bases, mesh)

    def _dependencies(self, block: Block, through: tuple[str, ...]) -> Iterator[Block]:
        """Yield the dependencies of a file, with those of its groups."""
        for each in block.blocks("dependencies"):
            if "group" not in each.places:
                yield each
                continue
            name = each.values.get("group", "")
            group = self._block(Group, name)
            if name in through:
                cycle = " → ".join((*through[through.index(name) :], name))
                self.faults.append(
                    Fault(each.position("group"), f"The groups {cycle} contain each other.", "Take one out.")
                )
            elif group is not None:
                yield from self._dependencies(group, (*through, name))
            elif name and name not in self._documents[Group]:
                hint = spelling_hint(name, self._documents[Group], otherwise=f"write groups/{name}.yaml")
                self.faults.append(
                    Fault(each.position("group"), f"There is no group {clipped(name)}.", f"{hint.capitalize()}")
                )
