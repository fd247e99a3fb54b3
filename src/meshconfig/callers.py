"""Callers: the dependencies of a service's file, merged with the defaults of all layers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, structs

from meshconfig.definition import Defaults, Dependency, Route, RoutePolicies
from meshconfig.document import Block
from meshconfig.effective import Caller, Origin
from meshconfig.merging import Layer, merged, origins, without, written
from meshconfig.position import Fault

_POLICIES = Defaults.__struct_fields__
_ROUTE_POLICIES = RoutePolicies.__struct_fields__


class Base(Struct, frozen=True):
    """The values that hold for a use of a service before the caller says anything.

    Attributes:
        dependency: the callee's defaults over the mesh's over the built-in ones.
        layers: the blocks that it comes from, the highest first.
    """

    dependency: Dependency
    layers: tuple[Layer, ...] = ()


class Use(Struct, frozen=True):
    """One dependency as a caller has it, with the blocks that it comes from.

    Attributes:
        dependency: the merged one.
        block: what the file of the caller, or of a group, writes.
        base: what it is merged onto.
        adjusted: origins of values that follow from others, by their path within the dependency.
    """

    dependency: Dependency
    block: Block
    base: Base
    adjusted: Mapping[str, Origin] = {}


class Origins(Mapping[str, Origin]):
    """The origins of a caller's values; they are looked for when somebody asks first, as compiling does not."""

    def __init__(self, uses: Iterable[Use]) -> None:
        self._uses = tuple(uses)
        self._origins: dict[str, Origin] | None = None

    def __getitem__(self, path: str) -> Origin:
        """Return the origin of a value by its path."""
        return self._all()[path]

    def __iter__(self) -> Iterator[str]:
        """Yield the path of each value."""
        return iter(self._all())

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._all())

    def _all(self) -> dict[str, Origin]:
        if self._origins is None:
            self._origins = {path: origin for use in self._uses for path, origin in _origins_of(use)}
        return self._origins


def mesh_base(defaults: Defaults, block: Block | None) -> Base:
    """Return what holds for every use of every service: the mesh's defaults."""
    layers = () if block is None else (Layer("mesh", block),)
    return Base(Dependency(**{name: getattr(defaults, name) for name in _POLICIES}), layers)


def callee_base(mesh: Base, provides: Block | None, faults: list[Fault]) -> Base:
    """Return what holds for every use of a service: the facts and defaults of its file over the mesh's."""
    if provides is None:
        return mesh
    layers = mesh.layers
    dependency = mesh.dependency
    facts = {name: provides.values[name] for name in ("protocol",) if name in provides.values}
    if facts:
        dependency = structs.replace(dependency, **facts)
        block = Block(Defaults, provides.file, provides.line, provides.column, facts, provides.places)
        layers = (Layer("callee", block), *layers)
    defaults = provides.values.get("defaults")
    if defaults is not None:
        dependency = structs.replace(dependency, **written(dependency, defaults, faults))
        layers = (Layer("callee", defaults), *layers)
    return Base(dependency, layers)


def use_of(block: Block, base: Base, faults: list[Fault]) -> Use:
    """Return a caller's dependency: what its block writes over what holds without it."""
    values = written(base.dependency, without(block, "routes"), faults)
    name = values.get("name") or values.get("service") or ""
    values["name"] = name
    values.setdefault("cluster", name)
    if not values.get("hosts"):
        values["hosts"] = (name,)
    dependency = structs.replace(base.dependency, **values)
    policies = route_policies(dependency)
    blocks = block.blocks("routes")
    if not blocks:
        routes: tuple[Route, ...] = (Route(prefix="/", **policies),)
    else:
        blank = Route(**policies)
        routes = tuple(merged(blank, each, faults) for each in blocks)
    return Use(structs.replace(dependency, routes=routes), block, base)


def caller(service: str, uses: Iterable[Use], bases: Mapping[str, Base], mesh: Base) -> Caller:
    """Return a caller with the dependencies that it has, and clusters for the services that those only refer to."""
    ordered = sorted(uses, key=lambda use: use.dependency.name or "")
    named = {use.dependency.service for use in ordered}
    referred = {name for use in ordered for route in use.dependency.routes for name in referred_services(route)}
    targets = tuple(target(name, bases.get(name, mesh)) for name in sorted(referred - named))
    return Caller(service, tuple(use.dependency for use in ordered), targets, Origins(ordered))


def target(service: str, base: Base) -> Dependency:
    """Return a use of a service that no dependency describes."""
    return structs.replace(base.dependency, name=service, service=service, cluster=service)


def route_policies(policies: RoutePolicies) -> dict[str, Any]:
    """Return the policies that routes inherit."""
    return {name: getattr(policies, name) for name in _ROUTE_POLICIES}


def referred_services(route: RoutePolicies) -> Iterator[str]:
    """Yield the services that a route leads to by its split, its shadow and its external authorization."""
    if isinstance(route, Route) and route.split:
        yield from route.split
    if route.shadow is not None:
        yield route.shadow.service
    if route.auth is not None and route.auth.external is not None:
        yield route.auth.external.service


def _origins_of(use: Use) -> Iterator[tuple[str, Origin]]:
    dependency = use.dependency
    name = dependency.name or ""
    layers = [Layer("dependency", use.block), *use.base.layers]
    yield name, Origin("dependency", use.block.position())
    yield from origins(dependency, layers, name)
    blocks = use.block.blocks("routes")
    for index, route in enumerate(dependency.routes):
        path = f"{name}.routes[{index}]"
        own = [Layer("route", blocks[index])] if blocks else []
        yield path, Origin("route", blocks[index].position()) if blocks else Origin("dependency", use.block.position())
        yield from origins(route, [*own, *layers], path)
    yield from ((f"{name}.{path}", origin) for path, origin in use.adjusted.items())
