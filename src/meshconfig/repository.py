"""Files of a repository to one checked configuration, or to everything that is wrong with them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct, structs

from meshconfig.block import Block
from meshconfig.callers import Base, callee_base, caller, mesh_base, use_of
from meshconfig.definition.edge import Edge
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.group import Group
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.service import Objectives, Service
from meshconfig.document import FOLDERS, Document, document_of, own_name
from meshconfig.effective import Caller, Configuration, Origin
from meshconfig.field_types import Protocol
from meshconfig.fronts import Front, front_of, front_origins, target_origins
from meshconfig.groups import Groups
from meshconfig.merging import Layer, LazyOrigins, made, merged, origins
from meshconfig.position import Fault, Position, Severity
from meshconfig.quotation import clipped
from meshconfig.rules.caller import caller_faults
from meshconfig.rules.front import front_faults
from meshconfig.rules.policy import policy_faults
from meshconfig.rules.references import unknown_services
from meshconfig.rules.websocket import caller_websockets, front_websockets, unlimited_websockets

MAX_FAULTS = 200
"""Faults of one file that are listed; more of them help nobody."""

MAX_DEPENDENCIES = 200_000
"""Dependencies of all services together. Few lines make very many of them where many services name a large group."""

_Made = TypeVar("_Made")


class Cache:
    """Results of the last reading, for programs that read a repository again and again.

    A reading takes from it what was made of the very same inputs, and leaves there what it has used itself.
    """

    def __init__(self) -> None:
        # By what was made, and the name of it: the inputs, what was made of them, and the faults of that.
        self.entries: dict[tuple[str, str], tuple[tuple[Any, ...], Any, tuple[Fault, ...]]] = {}


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
        strict: make errors of warnings that an edit can mend.
        cache: the results of the last reading.
    """
    repository = _Repository(cache or Cache())
    configuration = repository.read(files, None if registered is None else frozenset(registered))
    faults = repository.faults
    if strict:
        faults = [fault if fault.inherent else structs.replace(fault, severity=Severity.ERROR) for fault in faults]
    broken = any(fault.severity is Severity.ERROR for fault in faults)
    return (None if broken else configuration), _listed(faults)


def _listed(faults: Iterable[Fault]) -> list[Fault]:
    """Return each fault once, in the order of files and lines; of a file with very many, the errors first."""
    by_file: dict[str, set[Fault]] = {}
    for fault in faults:
        by_file.setdefault(fault.position.file, set()).add(fault)
    listed: list[Fault] = []
    for file, of_file in by_file.items():
        by_weight = sorted(of_file, key=lambda fault: (fault.severity is not Severity.ERROR, fault))
        listed += by_weight[:MAX_FAULTS]
        left_out = by_weight[MAX_FAULTS:]
        if left_out:
            message = f"The file has {len(left_out):,} more faults than are listed."
            listed.append(Fault(Position(file), message, "Mend some of them first.", by_weight[0].severity))
    return sorted(listed)


class _Repository:
    """One reading of all files.

    Attributes:
        faults: all faults so far.
    """

    def __init__(self, cache: Cache) -> None:
        self.faults: list[Fault] = []
        self._dependencies = 0  # of all callers so far
        self._former = cache.entries
        self._kept: dict[tuple[str, str], tuple[tuple[Any, ...], Any, tuple[Fault, ...]]] = {}
        cache.entries = self._kept
        self._documents: dict[type[Struct], dict[str, Document]] = {Mesh: {}, **{kind: {} for kind in FOLDERS.values()}}

    def read(self, files: Mapping[str, str], registered: frozenset[str] | None) -> Configuration:
        """Return the configuration; it is of no use where there are errors."""
        self._read_documents(files)
        self._check_names()
        self._groups = Groups(self._documents[Group])
        self.faults += self._groups.faults((*self._documents[Service].values(), *self._documents[Group].values()))
        block = self._block(Mesh, "mesh")
        mesh, base = self._keep("mesh", "", (block,), partial(_mesh, block))
        services = sorted(self._documents[Service])
        bases = {name: self._base(name, base) for name in services}
        callers = {name: self._caller(name, bases, base, mesh) for name in services}
        fronts = list(self._fronts(mesh, bases, base))
        if registered is not None:
            self._check_registered(registered, callers)
        return Configuration(
            mesh=mesh,
            callers=callers,
            gateways={front.name: front.value for front in fronts if isinstance(front.value, Gateway)},
            edges={front.name: front.value for front in fronts if isinstance(front.value, Edge)},
            targets={front.name: front.targets for front in fronts},
            target_origins={front.name: target_origins(front) for front in fronts},
            objectives=dict(self._objectives(services)),
            origins=LazyOrigins(partial(_shared_origins, mesh, block, fronts)),
        )

    def _keep(self, what: str, name: str, inputs: tuple[Any, ...], make: Callable[[list[Fault]], _Made]) -> _Made:
        """Return what is made of inputs, of the cache where they are the very same, and take its faults."""
        entry = self._former.get((what, name))
        if entry is None or not _are_same(entry[0], inputs):
            faults: list[Fault] = []
            result = make(faults)
            entry = inputs, result, tuple(faults)
        self._kept[what, name] = entry
        self.faults += entry[2]
        kept: _Made = entry[1]
        return kept

    def _read_documents(self, files: Mapping[str, str]) -> None:
        for file in sorted(files):
            text = files[file]
            document = self._keep("document", file, (text,), lambda _: document_of(file, text))  # noqa: B023  # called at once
            if isinstance(document, Fault):
                self.faults.append(document)
            elif document is not None:
                self.faults += document.faults
                self._add(document)

    def _add(self, document: Document) -> None:
        other = self._documents[document.kind].setdefault(document.name, document)
        if other is not document:
            message = f"The {own_name(document.kind)} {clipped(document.name)} is defined here and in {other.file}."
            self.faults.append(Fault(Position(document.file), message, "Remove one of the files."))

    def _check_names(self) -> None:
        """Refuse names that two kinds of Envoys share: a name is Envoy's node.cluster."""
        taken: dict[str, Document] = {}
        for kind in (Service, Gateway, Edge):
            for name, document in self._documents[kind].items():
                other = taken.setdefault(name, document)
                if other is not document:
                    message = f"{clipped(name)} is the name of this {own_name(kind)}, and {other.file} has it too."
                    fix = "Rename one of them: it is Envoy's node.cluster, by which Envoys are served."
                    self.faults.append(Fault(Position(document.file), message, fix))

    def _check_registered(self, registered: frozenset[str], callers: Mapping[str, Caller]) -> None:
        for name, of in callers.items():
            zoned = next((dependency for dependency in of.dependencies if dependency.zones), None)
            if zoned is not None and name not in registered:
                position = of.origins[f"{zoned.name}.zones"].position
                message = f"zones needs the zones of {name} itself, which was never registered."
                self.faults.append(Fault(position, message, "Register it, or write zones: false.", Severity.WARNING))
        defined = self._documents[Service]
        for documents in self._documents.values():
            for document in documents.values():
                self.faults += unknown_services(document.references, defined, registered)

    def _block(self, kind: type[Struct], name: str) -> Block | None:
        document = self._documents[kind].get(name)
        return None if document is None else document.block

    def _provides(self, service: str) -> Block | None:
        block = self._block(Service, service)
        return None if block is None else block.values.get("provides")

    def _base(self, service: str, mesh: Base) -> Base:
        provides = self._provides(service)
        return self._keep("base", service, (provides, mesh), partial(_callee, provides, mesh))

    def _objectives(self, services: Iterable[str]) -> Iterator[tuple[str, Objectives]]:
        for name in services:
            provides = self._provides(name)
            block = None if provides is None else provides.values.get("slo")
            if block is not None:
                yield name, made(block, self.faults)

    def _caller(self, service: str, bases: Mapping[str, Base], mesh: Base, settings: Mesh) -> Caller:
        document = self._documents[Service][service]
        block = document.block
        if block is None:
            return Caller(service)
        dependencies, groups = self._groups.dependencies(block, self.faults)
        self._dependencies += len(dependencies)
        if self._dependencies > MAX_DEPENDENCIES:
            if self._dependencies - len(dependencies) <= MAX_DEPENDENCIES:
                message = f"All services together have more than {MAX_DEPENDENCIES:,} dependencies from here on."
                self.faults.append(Fault(Position(document.file), message, "List what each service calls alone."))
            return Caller(service)
        used = {each.service for of in (document, *groups) for each in of.references}
        known = {name: bases[name] for name in sorted(used) if name in bases}
        inputs = (mesh, bases[service], *(each for each, _ in dependencies), None, *known.values(), block)
        return self._keep(
            "caller",
            service,
            inputs,
            partial(_caller, service, dependencies, bases[service], known, mesh, settings.egress.protocol),
        )

    def _fronts(self, mesh: Mesh, bases: Mapping[str, Base], base: Base) -> Iterator[Front]:
        for kind in (Gateway, Edge):
            for name, document in sorted(self._documents[kind].items()):
                if document.block is None:
                    continue
                self.faults += front_faults(document.block, mesh)
                front = front_of(name, document.block, bases, base, self.faults)
                own = document.block.values.get("defaults")
                if own is not None:
                    self.faults += policy_faults(front.base.dependency, own, front.base.dependency.protocol)
                for each in front.routes:
                    self.faults += policy_faults(each.route, each.layers[0].block, each.protocol)
                routes = [(each.route, each.layers) for each in front.routes]
                self.faults += front_websockets(document.block, front.base, front.uses, routes)
                yield front


def _are_same(former: tuple[Any, ...], inputs: tuple[Any, ...]) -> bool:
    """Tell whether inputs are the very same objects, or equal texts."""
    return len(former) == len(inputs) and all(
        old is new or (type(old) is str and old == new) for old, new in zip(former, inputs, strict=True)
    )


def _mesh(block: Block | None, faults: list[Fault]) -> tuple[Mesh, Base]:
    mesh = Mesh() if block is None else merged(Mesh(), block, faults)
    own = None if block is None else block.values.get("defaults")
    if own is not None:
        faults += policy_faults(mesh.defaults, own, mesh.defaults.protocol)
        faults += unlimited_websockets(own, [Layer("mesh", own)])
    return mesh, mesh_base(mesh.defaults, own)


def _callee(provides: Block | None, mesh: Base, faults: list[Fault]) -> Base:
    base = callee_base(mesh, provides, faults)
    own = None if provides is None else provides.values.get("defaults")
    if own is not None:
        faults += policy_faults(base.dependency, own, base.dependency.protocol)
        faults += unlimited_websockets(own, base.layers)
    return base


def _caller(
    service: str,
    dependencies: Iterable[tuple[Block, Position]],
    own: Base,
    bases: Mapping[str, Base],
    mesh: Base,
    listener: Protocol,
    faults: list[Fault],
) -> Caller:
    uses = []
    for block, reference in dependencies:
        use = use_of(block, reference, bases.get(block.text("service"), mesh), faults)
        uses.append(use)
        protocol = use.dependency.protocol
        faults += policy_faults(use.dependency, block, protocol)
        for route, written in zip(use.dependency.routes, block.blocks("routes"), strict=False):
            faults += policy_faults(route, written, protocol)
    faults += caller_faults(uses, own, bases, mesh)
    faults += caller_websockets(uses, bases, mesh, listener)
    return caller(service, uses, bases, mesh)


def _shared_origins(mesh: Mesh, block: Block | None, fronts: Iterable[Front]) -> dict[str, Origin]:
    layers = [] if block is None else [Layer("mesh", block)]
    by_path = dict(origins(mesh, layers, "mesh"))
    for front in fronts:
        by_path |= front_origins(front)
    return by_path
