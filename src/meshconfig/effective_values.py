"""Every effective value of a caller, with the layer and the line that it is from."""

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import fields

from meshconfig.definition import Dependency, Route, RoutePolicies
from meshconfig.effective import Configuration, Origin
from meshconfig.literal import durations, literal
from meshconfig.position import BUILT_IN, Position
from meshconfig.route_label import MATCH_FIELDS, by_label

_ROUTE_POLICIES = frozenset(field.name for field in fields(RoutePolicies))
_SHOWN_APART = frozenset({"name", "service", "address", "group", "routes"})
"""Fields of a dependency that say which it is and where it leads to."""


class EffectiveValue(Struct, frozen=True):
    """One value, as files write it, and where it is from.

    Attributes:
        field: its path in the dependency or the route, as ``retry.attempts``.
        value: as files write it; ``off`` for null.
        layer: ``route``, ``dependency``, ``callee``, ``mesh`` or ``built in``.
        position: the place in a file; ``built in`` where no file writes it.
    """

    field: str
    value: str
    layer: str
    position: Position


class EffectiveRoute(Struct, frozen=True):
    """One route.

    Attributes:
        matches: the requests that it takes, as ``GET /api/*``.
        values: the policies of these requests.
        position: where it is written; the dependency's place for a route that no file writes.
    """

    matches: str
    values: tuple[EffectiveValue, ...]
    position: Position


class EffectiveDependency(Struct, frozen=True):
    """One use of a service or an address.

    Attributes:
        name: its name.
        leads_to: the service or the address, in words.
        position: where it is written.
        values: what holds for all of its requests.
        routes: its routes in order; none where only splits, shadows or a gateway's selection lead to it.
    """

    name: str
    leads_to: str
    position: Position
    values: tuple[EffectiveValue, ...]
    routes: tuple[EffectiveRoute, ...] = ()


CallerKind = Literal["service", "gateway", "edge"]
"""The folders of files that define Envoys."""


class EffectiveCaller(Struct, frozen=True):
    """A service, a gateway or an edge with everything that it uses.

    Attributes:
        name: its name.
        dependencies: what it uses.
        kind: which of the three it is.
    """

    name: str
    dependencies: tuple[EffectiveDependency, ...]
    kind: CallerKind = "service"


def effective_values(configuration: Configuration, name: str) -> EffectiveCaller | None:
    """Return the effective values of a service, a gateway or an edge; None if none has the name."""
    caller = configuration.callers.get(name)
    if caller is not None:
        reached = (*caller.dependencies, *caller.targets)
        return EffectiveCaller(name, tuple(_dependency(each, caller.origins) for each in reached))
    if name in configuration.gateways or name in configuration.edges:
        targets = configuration.targets.get(name, {})
        kind: CallerKind = "gateway" if name in configuration.gateways else "edge"
        return EffectiveCaller(name, tuple(_dependency(targets[each], {}) for each in sorted(targets)), kind)
    return None


def leads_to(dependency: Dependency) -> str:
    """Return in words what a dependency leads to."""
    target = f"service {dependency.service}" if dependency.service else f"address {dependency.address}"
    return ", ".join((target, dependency.protocol, *(["tls"] if dependency.tls else [])))


def _dependency(dependency: Dependency, origins: Mapping[str, Origin]) -> EffectiveDependency:
    name = dependency.name or ""
    # Without routes of its own, the policies of a dependency hold for the routes that lead to it.
    left_out = _SHOWN_APART | (_ROUTE_POLICIES if dependency.routes else frozenset())
    return EffectiveDependency(
        name,
        leads_to(dependency),
        origins.get(name, _UNWRITTEN).position,
        tuple(_values(dependency, name, "", origins, left_out)),
        tuple(
            _route(label, placed.route, f"{name}.routes[{placed.index}]", origins)
            for label, placed in by_label(dependency.routes).items()
        ),
    )


def _route(label: str, route: Route, path: str, origins: Mapping[str, Origin]) -> EffectiveRoute:
    left_out = MATCH_FIELDS if route.stat_prefix else MATCH_FIELDS | {"stat_prefix"}
    values = _values(route, path, "", origins, left_out)
    return EffectiveRoute(label, tuple(values), origins.get(path, _UNWRITTEN).position)


def _values(
    block: Struct, path: str, prefix: str, origins: Mapping[str, Origin], left_out: frozenset[str] = frozenset()
) -> Iterator[EffectiveValue]:
    for field in block.__struct_fields__:
        if field in left_out:
            continue
        value = getattr(block, field)
        name, place = f"{prefix}{field}", f"{path}.{field}"
        if isinstance(value, Struct):
            yield from _values(value, place, f"{name}.", origins)
        else:
            origin = origins.get(place, _UNWRITTEN)
            text = literal(value, duration=field in durations(type(block)))
            yield EffectiveValue(name, text, origin.layer, origin.position)


_UNWRITTEN = Origin("built in", BUILT_IN)
