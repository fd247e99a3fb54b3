"""Callers: the dependencies of a service's file, merged with the defaults of all layers."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from msgspec import Struct, structs

from meshconfig.block import Block
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.policies import Defaults, RoutePolicies
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import Route
from meshconfig.effective import Caller, Origin
from meshconfig.merging import Layer, LazyOrigins, merged, origin_at, origins, without, written
from meshconfig.position import Fault, Position

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
        reference: where the caller's own file names it: itself, or the group that it comes from.
        base: what it is merged onto.
        follows: paths, within the dependency, of values that follow from other values, with the paths of those.
    """

    dependency: Dependency
    block: Block
    reference: Position
    base: Base
    follows: Mapping[str, str] = {}


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


def use_of(block: Block, reference: Position, base: Base, faults: list[Fault]) -> Use:
    """Return a caller's dependency: what its block writes over what holds without it."""
    values = written(base.dependency, without(block, "routes"), faults)
    name = values.get("name") or values.get("service") or ""
    values["name"] = name
    values["cluster"] = values.get("cluster") or name
    values["hosts"] = values.get("hosts") or (name,)
    dependency = structs.replace(base.dependency, **values)
    blocks = block.blocks("routes")
    blank = Route(**route_policies(dependency))
    routes = [merged(blank, each, faults) for each in blocks] or [structs.replace(blank, prefix="/")]
    follows: dict[str, str] = {}
    for index, route in enumerate(routes):
        own = blocks[index] if blocks else None
        routes[index] = _settled_route(route, own, f"routes[{index}].", follows)
    dependency = structs.replace(dependency, retry=_settled_retry(dependency, block, "", follows), routes=tuple(routes))
    return Use(dependency, block, reference, base, follows)


def is_capped(policies: RoutePolicies, own: Block | None) -> bool:
    """Tell whether a timeout leaves no room for the inherited timeout of each try, which then is left out."""
    retry = policies.retry
    if retry is None or retry.per_try_timeout is None or not 0 < policies.timeout <= retry.per_try_timeout:
        return False
    return own is None or own.place("retry.per_try_timeout") is None


def capped(policies: RoutePolicies, own: Block | None) -> Retry | None:
    """Return the retries of policies, without a timeout of each try where the timeout of all is not longer."""
    retry = policies.retry
    return structs.replace(retry, per_try_timeout=None) if retry and is_capped(policies, own) else retry


def _settled_retry(policies: RoutePolicies, own: Block | None, path: str, follows: dict[str, str]) -> Retry | None:
    if is_capped(policies, own):
        follows[f"{path}retry.per_try_timeout"] = f"{path}timeout"
    return capped(policies, own)


def _settled_route(route: Route, own: Block | None, path: str, follows: dict[str, str]) -> Route:
    """Return a route with what follows from its values: it has no inherited retries where it injects faults."""
    if own is not None and own.values.get("fault") is not None and route.retry is not None:
        follows[f"{path}retry"] = f"{path}fault"
        return structs.replace(route, retry=None)
    retry = _settled_retry(route, own, path, follows)
    return route if retry is route.retry else structs.replace(route, retry=retry)


def caller(service: str, uses: Iterable[Use], bases: Mapping[str, Base], mesh: Base) -> Caller:
    """Return a caller with the dependencies that it has, and clusters for the services that those only refer to."""
    ordered = sorted(uses, key=lambda use: use.dependency.name or "")
    named = {use.dependency.service for use in ordered}
    referred = {name for use in ordered for route in use.dependency.routes for name in referred_services(route)}
    targets = tuple(target(name, bases.get(name, mesh)) for name in sorted(referred - named))
    origins_of_values = LazyOrigins(partial(_origins, ordered), partial(_origin, ordered))
    return Caller(service, tuple(use.dependency for use in ordered), targets, origins_of_values)


def target(service: str, base: Base) -> Dependency:
    """Return a use of a service that no dependency describes."""
    retry = capped(base.dependency, None)
    return structs.replace(base.dependency, retry=retry, name=service, service=service, cluster=service)


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


def _origins(uses: Iterable[Use]) -> dict[str, Origin]:
    by_path: dict[str, Origin] = {}
    for use in uses:
        name = use.dependency.name
        by_path |= _origins_of(use)
        by_path |= {f"{name}.{path}": by_path[f"{name}.{cause}"] for path, cause in use.follows.items()}
    return by_path


def _origin(uses: Iterable[Use], path: str) -> Origin | None:
    """Return the origin of one value; None where the path leads to none."""
    # Names may have dots, so that one name may begin like another; the longest is meant.
    named = {use.dependency.name or "": use for use in uses}
    fitting = [name for name in named if path == name or path.startswith(f"{name}.")]
    if not fitting:
        return None
    name = max(fitting, key=len)
    return _origin_within(named[name], path[len(name) + 1 :])


def _origin_within(use: Use, path: str) -> Origin | None:
    path = use.follows.get(path, path)
    layers = [Layer("dependency", use.block), *use.base.layers]
    first, _, rest = path.partition(".")
    if not path:
        return Origin("dependency", use.block.position())
    if not first.startswith("routes["):
        return origin_at(use.dependency, layers, path.split("."))
    index = int(first.removeprefix("routes[").removesuffix("]"))
    if index >= len(use.dependency.routes):
        return None
    blocks = use.block.blocks("routes")
    if not rest:
        return Origin("route", blocks[index].position()) if blocks else Origin("dependency", use.block.position())
    own = [Layer("route", blocks[index])] if blocks else []
    return origin_at(use.dependency.routes[index], [*own, *layers], rest.split("."))


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
