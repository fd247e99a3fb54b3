"""Gateways and edges: their defaults stand where a caller's dependency stands."""

from collections.abc import Iterator, Mapping

from msgspec import structs

from meshconfig.callers import Base, route_policies, target
from meshconfig.definition import Defaults, Dependency, Edge, Gateway, Mesh, Site, SiteRoute
from meshconfig.document import Block
from meshconfig.effective import Origin
from meshconfig.merging import Layer, made, merged, origins, without, written
from meshconfig.position import Fault


def gateway_of(name: str, block: Block, mesh: Mesh, faults: list[Fault]) -> Gateway | None:
    """Return a gateway whose defaults are complete; None where it lacks what it needs."""
    own = without(block, "defaults")
    own.values["gateway"] = name
    gateway: Gateway | None = made(own, faults)
    return None if gateway is None else structs.replace(gateway, defaults=_defaults(block, mesh, faults))


def edge_of(name: str, block: Block, mesh: Mesh, targets: Mapping[str, Dependency], faults: list[Fault]) -> Edge | None:
    """Return an edge whose defaults and routes are complete; None where it lacks what it needs."""
    defaults = _defaults(block, mesh, faults)
    other = structs.replace(_EMPTY, **{field: getattr(defaults, field) for field in _POLICIES})
    sites = tuple(_sites(block, targets, other, faults))
    own = without(without(block, "defaults"), "sites")
    own.values |= {"edge": name, "sites": sites}
    edge: Edge | None = made(own, faults)
    return None if edge is None else structs.replace(edge, defaults=defaults)


def targets_of(block: Block, bases: Mapping[str, Base]) -> dict[str, Dependency]:
    """Return the use of each service that a gateway or an edge would make of it."""
    own = block.values.get("defaults")
    if own is None:
        return {service: target(service, base) for service, base in bases.items()}
    ignored: list[Fault] = []  # reported once, for the defaults themselves
    return {
        service: target(service, Base(structs.replace(base.dependency, **written(base.dependency, own, ignored))))
        for service, base in bases.items()
    }


def front_origins(block: Block, value: Gateway | Edge, mesh: Base, path: str) -> Iterator[tuple[str, Origin]]:
    """Yield where the values of a gateway or an edge come from."""
    layer = "gateway" if isinstance(value, Gateway) else "edge"
    yield path, Origin(layer, block.position())
    for field, origin in origins(value, [Layer(layer, block)], path):
        if not field.startswith(f"{path}.defaults"):
            yield field, origin
    own = block.values.get("defaults")
    layers = [*(() if own is None else (Layer(layer, own),)), *mesh.layers]
    yield from origins(value.defaults, layers, f"{path}.defaults")


_POLICIES = Defaults.__struct_fields__
_EMPTY = Dependency()


def _defaults(block: Block, mesh: Mesh, faults: list[Fault]) -> Defaults:
    own = block.values.get("defaults")
    return mesh.defaults if own is None else merged(mesh.defaults, own, faults)


def _sites(block: Block, targets: Mapping[str, Dependency], other: Dependency, faults: list[Fault]) -> Iterator[Site]:
    for site in block.blocks("sites"):
        routes = tuple(_site_routes(site, targets, other, faults))
        own = without(site, "routes")
        if "routes" in site.places:
            own.values["routes"] = routes
        value = made(own, faults)
        if value is not None:
            yield value


def _site_routes(
    site: Block, targets: Mapping[str, Dependency], other: Dependency, faults: list[Fault]
) -> Iterator[SiteRoute]:
    for route in site.blocks("routes"):
        callee = targets.get(route.values.get("service", ""), other)
        yield merged(SiteRoute(**route_policies(callee)), route, faults)
