"""The difference between two configurations in meaning: what changes for whom, and where that is written.

Effective values are compared, not texts. So a value that moves from a service's file to the mesh's defaults is no
difference, and a default that changes is one difference with a list of whom it concerns.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import fields

from meshconfig.block_difference import block_differences
from meshconfig.change import Change, What
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.policies import RoutePolicies
from meshconfig.definition.route import Route
from meshconfig.definition.service import Objectives
from meshconfig.effective import Caller, Configuration, Origin
from meshconfig.effective_values import leads_to
from meshconfig.literal import literal
from meshconfig.position import BUILT_IN, Position
from meshconfig.route_label import MATCH_FIELDS, TAKES_ALL, PlacedRoute, by_label

BOOTSTRAP_FIELDS = frozenset({"environment", "registry", "egress", "admin", "statistics", "tracing", "drain_time"})
"""Fields of the mesh that stand in the bootstrap: an Envoy has them from its next start on."""

_MESH_FILE = Position("mesh.yaml")
_INHERITED = frozenset(field.name for field in fields(RoutePolicies))
"""Policies that a dependency passes to its routes; they are compared there, where they take effect."""

_Document = TypeVar("_Document", bound=Struct)


class _Leaf(Struct, frozen=True):
    """A difference of one subject; ``former`` is the position of the old value."""

    what: What
    subject: str
    node: str
    field: str
    before: str
    after: str
    origin: Origin
    former: Position


def differences(
    before: Configuration, after: Configuration, served: Mapping[str, Collection[str]] | None = None
) -> list[Change]:
    """Return what differs between two configurations, in the order of files and lines.

    Args:
        before: the definitions until now.
        after: the definitions from now on.
        served: the services of each gateway and edge; None where nobody knows which of them a gateway selects.
    """
    leaves = [
        *_mesh(before, after),
        *_callers(before.callers, after.callers),
        *_fronts("gateway", before, after, before.gateways, after.gateways),
        *_fronts("edge", before, after, before.edges, after.edges),
        *_targets(before, after, served),
        *_objectives(before.objectives, after.objectives),
    ]
    return sorted(_together(leaves), key=lambda change: (change.position, change.subjects, change.field))


def _together(leaves: Iterable[_Leaf]) -> Iterator[Change]:
    """Yield one change for all subjects for which the same line changes the same value in the same way."""
    groups: dict[tuple[Any, ...], list[_Leaf]] = {}
    for leaf in leaves:
        # A subject that comes or goes as a whole stands alone.
        alone = leaf.subject if not leaf.field else ""
        key = (leaf.what, leaf.field, leaf.before, leaf.after, leaf.origin, _place(leaf), alone)
        groups.setdefault(key, []).append(leaf)
    for members in groups.values():
        leaf = members[0]
        yield Change(
            what=leaf.what,
            subjects=tuple(dict.fromkeys(member.subject for member in members)),
            nodes=tuple(dict.fromkeys(member.node for member in members if member.node)),
            field=leaf.field,
            before=leaf.before,
            after=leaf.after,
            position=_place(leaf),
            layer=leaf.origin.layer,
            bootstrap=leaf.subject == "mesh" and leaf.field.partition(".")[0] in BOOTSTRAP_FIELDS,
        )


def _place(leaf: _Leaf) -> Position:
    """Return where the new value is written; the place of the old one where it was deleted."""
    return leaf.former if leaf.origin.position == BUILT_IN else leaf.origin.position


def _mesh(before: Configuration, after: Configuration) -> Iterator[_Leaf]:
    if before == Configuration() != after:
        # Nothing was there, so that no value of the mesh was another one.
        said = f"environment {after.mesh.environment}, registries {literal(after.mesh.registry.addresses)}"
        yield _whole("added", "mesh", "", said, Origin("mesh", _MESH_FILE))
        return
    # Defaults are compared where they take effect.
    places = _Places("mesh", "mesh", "", before.origins, after.origins, Origin("mesh", _MESH_FILE))
    yield from _document(places, before.mesh, after.mesh, leave_out=frozenset({"defaults"}))


def _callers(before: Mapping[str, Caller], after: Mapping[str, Caller]) -> Iterator[_Leaf]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None:
            if (old.dependencies, old.targets) != (new.dependencies, new.targets):
                yield from _caller(old, new)
            continue
        caller = new or old or Caller(name)
        listed = ", ".join(each.name or "" for each in caller.dependencies)
        said = f"calls {listed}" if listed else "calls nothing"
        yield _whole("removed" if new is None else "added", name, name, said, _file_origin(name))


def _caller(before: Caller, after: Caller) -> Iterator[_Leaf]:
    yield from _dependencies(before, after, _by_name(before.dependencies), _by_name(after.dependencies))
    # The splits and shadows that lead to these clusters say that they come and go.
    old, new = _by_name(before.targets), _by_name(after.targets)
    kept = old.keys() & new.keys()
    yield from _dependencies(before, after, {name: old[name] for name in kept}, {name: new[name] for name in kept})


def _by_name(dependencies: Iterable[Dependency]) -> dict[str, Dependency]:
    return {dependency.name or "": dependency for dependency in dependencies}


def _dependencies(
    before: Caller, after: Caller, old: Mapping[str, Dependency], new: Mapping[str, Dependency]
) -> Iterator[_Leaf]:
    for name in sorted({*old, *new}):
        pair = _Pair(before, after, name)
        if name not in new:
            yield pair.whole("removed", "", leads_to(old[name]))
        elif name not in old:
            yield pair.whole("added", "", leads_to(new[name]))
        elif old[name] != new[name]:
            yield from _dependency(pair, old[name], new[name])


class _Pair(Struct, frozen=True):
    """Both versions of a caller, and the name of one dependency: they say where its values are written."""

    before: Caller
    after: Caller
    name: str

    def subject(self, label: str) -> str:
        """Return how people call the dependency, or its route of this label."""
        return f"{self.after.service} → {self.name} {label}".rstrip()

    def whole(self, what: What, label: str, content: str, *path: str) -> _Leaf:
        """Return that the dependency, or one of its routes, comes or goes."""
        origin = _origin(self.before if what == "removed" else self.after, (self.name, *path))
        return _whole(what, self.subject(label), self.after.service, content, origin)

    def value(self, label: str, field: str, values: tuple[str, str], *paths: tuple[str, ...]) -> _Leaf:
        """Return that a value changes; the paths say where it stood, and where it stands."""
        former, origin = (
            _origin(caller, (self.name, *path)) for caller, path in zip((self.before, self.after), paths, strict=True)
        )
        return _Leaf("changed", self.subject(label), self.after.service, field, *values, origin, former.position)


def _dependency(pair: _Pair, before: Dependency, after: Dependency) -> Iterator[_Leaf]:
    # A target of splits has no routes, and no policies of routes either.
    for field, values in block_differences(before, after, leave_out=_INHERITED | {"routes"}):
        path = tuple(field.split("."))
        yield pair.value("", field, values, path, path)
    yield from _routes(pair, before.routes, after.routes)


def _routes(pair: _Pair, before: tuple[Route, ...], after: tuple[Route, ...]) -> Iterator[_Leaf]:
    old, new = by_label(before), by_label(after)
    for label in dict.fromkeys((*new, *old)):
        if label not in new:
            yield pair.whole("removed", label, "route", _index(old[label]))
        elif label not in old:
            yield pair.whole("added", label, "route", _index(new[label]))
        elif old[label].route != new[label].route:
            yield from _route(pair, "" if label == TAKES_ALL else label, old[label], new[label])
    if [label for label in old if label in new] != [label for label in new if label in old]:
        values = (literal(tuple(old)), literal(tuple(new)))
        yield pair.value("", "order of routes", values, ("routes",), ("routes",))


def _route(pair: _Pair, label: str, before: PlacedRoute, after: PlacedRoute) -> Iterator[_Leaf]:
    for field, values in block_differences(before.route, after.route, leave_out=MATCH_FIELDS):
        paths = ((_index(each), *field.split(".")) for each in (before, after))
        yield pair.value(label, field, values, *paths)


def _index(placed: PlacedRoute) -> str:
    return f"routes[{placed.index}]"


class _Places(Struct, frozen=True):
    """A document outside of callers: its name for people, and where its values are written.

    Attributes:
        subject: its name for people.
        path: that of its values in the origins; empty where these are its own alone.
        node: the node.cluster; empty where it is none.
        before: the origins until now.
        after: the origins from now on.
        file: the origin where those have none.
    """

    subject: str
    path: str
    node: str
    before: Mapping[str, Origin]
    after: Mapping[str, Origin]
    file: Origin

    def value(self, field: str, values: tuple[str, str]) -> _Leaf:
        """Return that a value changes."""
        path = (*([self.path] if self.path else []), *field.split("."))
        former, origin = (_nearest(each, path) or self.file for each in (self.before, self.after))
        return _Leaf("changed", self.subject, self.node, field, *values, origin, former.position)


def _fronts(
    kind: str,
    before: Configuration,
    after: Configuration,
    old: Mapping[str, _Document],
    new: Mapping[str, _Document],
) -> Iterator[_Leaf]:
    """Yield the differences of gateways or edges, value by value."""
    for name in sorted({*old, *new}):
        subject, file = f"{kind} {name}", Origin(kind, Position(f"{kind}s/{name}.yaml"))
        places = _Places(subject, f"{kind}s.{name}", name, before.origins, after.origins, file)
        if name in old and name in new:
            yield from _document(places, old[name], new[name])
        else:
            what: What = "added" if name in new else "removed"
            origin = _nearest(after.origins if name in new else before.origins, (places.path,)) or file
            yield _whole(what, subject, name, kind, origin)


def _targets(
    before: Configuration, after: Configuration, served: Mapping[str, Collection[str]] | None
) -> Iterator[_Leaf]:
    """Yield the differences of policies with which gateways and edges use services that were and are there."""
    for name in sorted(before.targets.keys() & after.targets.keys()):
        kind = "gateway" if name in after.gateways else "edge"
        old, new = before.targets[name], after.targets[name]
        places_before, places_after = (each.target_origins.get(name, {}) for each in (before, after))
        for service in sorted(old.keys() & new.keys()):
            if served is not None and service not in served.get(name, ()):
                continue
            file = Origin("callee", Position(f"{kind}s/{name}.yaml"))
            origins = (places_before.get(service, {}), places_after.get(service, {}))
            places = _Places(f"{kind} {name} → {service}", "", name, *origins, file)
            yield from _document(places, old[service], new[service])


def _objectives(before: Mapping[str, Objectives], after: Mapping[str, Objectives]) -> Iterator[_Leaf]:
    for name in sorted({*before, *after}):
        places = _Places(f"{name} slo", "", "", {}, {}, _file_origin(name, "callee"))
        yield from _document(places, before.get(name, Objectives()), after.get(name, Objectives()))


def _document(
    places: _Places, before: _Document, after: _Document, leave_out: frozenset[str] = frozenset()
) -> Iterator[_Leaf]:
    for field, values in block_differences(before, after, leave_out=leave_out):
        yield places.value(field, values)


def _whole(what: What, subject: str, node: str, content: str, origin: Origin) -> _Leaf:
    before, after = ("", content) if what == "added" else (content, "")
    return _Leaf(what, subject, node, "", before, after, origin, origin.position)


def _origin(caller: Caller, path: tuple[str, ...]) -> Origin:
    """Return where a value of a caller is written; else where the nearest block around it is."""
    return _nearest(caller.origins, path) or _file_origin(caller.service)


def _nearest(origins: Mapping[str, Origin], path: tuple[str, ...]) -> Origin | None:
    for length in range(len(path), 0, -1):
        origin = origins.get(".".join(path[:length]))
        if origin is not None:
            return origin
    return None


def _file_origin(service: str, layer: str = "dependency") -> Origin:
    return Origin(layer, Position(f"services/{service}.yaml"))
