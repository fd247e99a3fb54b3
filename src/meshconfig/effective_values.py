"""Every effective value of a caller, with the layer and the line that it is from."""

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import fields

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.policies import RoutePolicies
from meshconfig.definition.route import Route
from meshconfig.edge import compile_edge, service_of
from meshconfig.effective import Configuration, Origin
from meshconfig.effective_caller import EffectiveCaller, EffectiveDependency, EffectiveRoute, EffectiveValue
from meshconfig.front import use_of
from meshconfig.gateway import compile_gateway
from meshconfig.literal import durations, literal
from meshconfig.position import BUILT_IN
from meshconfig.resource import Catalog
from meshconfig.route_label import MATCH_FIELDS, by_label

_ROUTE_POLICIES = frozenset(field.name for field in fields(RoutePolicies))
_UNWRITTEN = Origin("built in", BUILT_IN)
_NOTHING = Catalog()
_SHOWN_APART = frozenset({"name", "service", "address", "group", "routes"})
"""Fields of a dependency, or of an edge's route, that say which it is and where it leads to."""


def effective_values(configuration: Configuration, name: str, catalog: Catalog = _NOTHING) -> EffectiveCaller | None:
    """Return the effective values of a service, a gateway or an edge; None if none has the name.

    Args:
        configuration: the definitions.
        name: the service, the gateway or the edge.
        catalog: the registered services that a gateway selects from.
    """
    caller = configuration.callers.get(name)
    if caller is not None:
        reached = (*caller.dependencies, *caller.targets)
        return EffectiveCaller(name, tuple(_dependency(each, caller.origins, each.name or "") for each in reached))
    if name in configuration.gateways:
        return EffectiveCaller(name, tuple(_of_gateway(configuration, name, catalog)), "gateway")
    if name in configuration.edges:
        return EffectiveCaller(name, tuple(_of_edge(configuration, name)), "edge")
    return None


def _of_gateway(configuration: Configuration, name: str, catalog: Catalog) -> Iterator[EffectiveDependency]:
    """Yield the services that a gateway serves, with the protocol that their endpoints announce."""
    gateway, described = configuration.gateways[name], configuration.targets.get(name, {})
    own = configuration.origins.get(f"gateways.{name}", _UNWRITTEN)
    hosts = configuration.origins.get(f"gateways.{name}.hosts", own)
    front = compile_gateway(gateway, configuration.mesh, described, catalog, 0.0)
    for use in sorted(front.reached, key=lambda each: each.name or ""):
        usual = use_of(use.service or "", gateway.defaults, described)
        origins = {**_uses_of(configuration, name, use), "hosts": hosts, "cluster": own}
        if use.protocol != usual.protocol:
            origins["protocol"] = Origin("catalog", BUILT_IN)
        if use.timeout != usual.timeout:
            origins["timeout"] = Origin("gateway", BUILT_IN)
        yield _dependency(use, origins, "", Origin("gateway", own.position))


def _of_edge(configuration: Configuration, name: str) -> Iterator[EffectiveDependency]:
    """Yield the services that the routes of an edge lead to."""
    edge = configuration.edges[name]
    front = compile_edge(edge, configuration.mesh, configuration.targets.get(name, {}), 0.0)
    own = configuration.origins.get(f"edges.{name}", _UNWRITTEN)
    for use in front.reached:
        yield _dependency(
            use, _uses_of(configuration, name, use), "", own, tuple(_edge_routes(configuration, name, use))
        )


def _edge_routes(configuration: Configuration, name: str, use: Dependency) -> Iterator[EffectiveRoute]:
    """Yield the routes of an edge that lead to a service, with the host where there are several sites."""
    sites = configuration.edges[name].sites
    for number, site in enumerate(sites):
        for label, placed in by_label(site.routes).items():
            if service_of(site.routes[placed.index]) == use.service:
                path = f"edges.{name}.sites[{number}].routes[{placed.index}]"
                shown = f"{site.hosts[0]} {label}" if len(sites) > 1 else label
                yield _route(shown, placed.route, path, configuration.origins)


def _uses_of(configuration: Configuration, name: str, use: Dependency) -> Mapping[str, Origin]:
    """Return where the values of a gateway's or an edge's use of a service come from."""
    uses = configuration.target_origins.get(name, {})
    return uses.get(use.service or "", uses.get("", {}))


def leads_to(dependency: Dependency) -> str:
    """Return in words what a dependency leads to."""
    target = f"service {dependency.service}" if dependency.service else f"address {dependency.address}"
    return ", ".join((target, dependency.protocol, *(["tls"] if dependency.tls else [])))


def _dependency(
    dependency: Dependency,
    origins: Mapping[str, Origin],
    path: str,
    own: Origin | None = None,
    routes: tuple[EffectiveRoute, ...] | None = None,
) -> EffectiveDependency:
    """Return a use of a service or an address.

    Args:
        dependency: its values.
        origins: where they come from.
        path: the path of the dependency in these.
        own: where it is written; None: as ``origins`` say.
        routes: its routes; None: its own ones.
    """
    if routes is None:
        labelled = by_label(dependency.routes).items()
        routes = tuple(_route(label, each.route, f"{path}.routes[{each.index}]", origins) for label, each in labelled)
    # Without routes of its own, the policies of a dependency hold for the routes that lead to it.
    left_out = _SHOWN_APART | (_ROUTE_POLICIES if routes else frozenset())
    return EffectiveDependency(
        dependency.name or "",
        leads_to(dependency),
        (own or origins.get(path, _UNWRITTEN)).position,
        tuple(_values(dependency, path, "", origins, left_out)),
        routes,
    )


def _route(label: str, route: Route, path: str, origins: Mapping[str, Origin]) -> EffectiveRoute:
    left_out = (MATCH_FIELDS if route.stat_prefix else MATCH_FIELDS | {"stat_prefix"}) | _SHOWN_APART
    values = _values(route, path, "", origins, left_out)
    return EffectiveRoute(label, tuple(values), origins.get(path, _UNWRITTEN).position)


def _values(
    block: Struct, path: str, prefix: str, origins: Mapping[str, Origin], left_out: frozenset[str] = frozenset()
) -> Iterator[EffectiveValue]:
    for field in block.__struct_fields__:
        if field in left_out:
            continue
        value = getattr(block, field)
        name, place = f"{prefix}{field}", f"{path}.{field}".removeprefix(".")
        if isinstance(value, Struct):
            yield from _values(value, place, f"{name}.", origins)
        else:
            origin = origins.get(place, _UNWRITTEN)
            text = literal(value, duration=field in durations(type(block)))
            yield EffectiveValue(name, text, origin.layer, origin.position)
