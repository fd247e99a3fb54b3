"""Gateways and edges: their defaults stand where a caller's dependency stands."""

from collections.abc import Iterator, Mapping
from functools import partial

from msgspec import Struct, structs

from meshconfig.block import Block
from meshconfig.callers import Base, capped, route_policies, target
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.edge import Edge, Site, SiteRoute
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.policies import Defaults
from meshconfig.document import own_name
from meshconfig.effective import Origin
from meshconfig.merging import Layer, LazyOrigins, made, merged, origin_at, origins, without, written
from meshconfig.position import Fault


class FrontRoute(Struct, frozen=True):
    """One route of an edge, with the blocks that it comes from, the highest first."""

    path: str
    route: SiteRoute
    protocol: str
    layers: tuple[Layer, ...]


class Front(Struct, frozen=True):
    """A gateway or an edge with what it calls.

    Attributes:
        name: its name.
        block: what its file writes.
        value: what it is, complete; None where it lacks what it needs.
        base: what holds for its use of services that no file describes.
        targets: its use of each service that a file describes.
        uses: what that is merged from, by the service.
        routes: the routes of an edge.
    """

    name: str
    block: Block
    value: Gateway | Edge | None
    base: Base
    targets: Mapping[str, Dependency]
    uses: Mapping[str, Base]
    routes: tuple[FrontRoute, ...] = ()


def front_of(name: str, block: Block, bases: Mapping[str, Base], mesh: Base, faults: list[Fault]) -> Front:
    """Return a gateway or an edge, merged with the defaults of all layers."""
    layer = own_name(block.kind)
    own = block.values.get("defaults")
    ignored: list[Fault] = []  # what is missing in the defaults is missing for each service, and is reported once
    uses = {service: _over(base, own, layer, ignored) for service, base in bases.items()}
    base = _over(mesh, own, layer, faults)
    targets = {service: target(service, use) for service, use in uses.items()}
    defaults = Defaults(**{field: getattr(base.dependency, field) for field in Defaults.__struct_fields__})
    defaults = structs.replace(defaults, retry=capped(defaults, None))
    rest = without(block, "defaults")
    rest.values[layer] = name
    routes: list[FrontRoute] = []
    if block.kind is Edge and "sites" in block.values:
        rest.values["sites"] = tuple(_sites(block, uses, base, routes, faults))
    value: Gateway | Edge | None = made(rest, faults)
    complete = None if value is None else structs.replace(value, defaults=defaults)
    return Front(name, block, complete, base, targets, uses, tuple(routes))


def front_origins(front: Front) -> Iterator[tuple[str, Origin]]:
    """Yield where the values of a gateway or an edge come from."""
    if front.value is None:
        return
    layer = own_name(front.block.kind)
    path = f"{layer}s.{front.name}"
    yield path, Origin(layer, front.block.position())
    own = [Layer(layer, front.block)]
    yield from (pair for pair in origins(front.value, own, path) if not pair[0].startswith(f"{path}.defaults"))
    yield from origins(front.value.defaults, list(front.base.layers), f"{path}.defaults")
    for each in front.routes:
        yield f"{path}.{each.path}", Origin("route", each.layers[0].block.position())
        yield from origins(each.route, list(each.layers), f"{path}.{each.path}")


def target_origins(front: Front) -> Mapping[str, Mapping[str, Origin]]:
    """Return where the values of a gateway's or an edge's uses of services come from, by the service."""
    bases = {**front.uses, "": front.base}
    return {
        service: LazyOrigins(partial(_use_origins, base), partial(_use_origin, base)) for service, base in bases.items()
    }


def _use_origins(base: Base) -> Mapping[str, Origin]:
    return {path.removeprefix("."): origin for path, origin in origins(base.dependency, list(base.layers), "")}


def _use_origin(base: Base, path: str) -> Origin | None:
    return origin_at(base.dependency, list(base.layers), path.split("."))


def _over(base: Base, own: Block | None, layer: str, faults: list[Fault]) -> Base:
    if own is None:
        return base
    dependency = structs.replace(base.dependency, **written(base.dependency, own, faults))
    return Base(dependency, (Layer(layer, own), *base.layers))


def _sites(
    block: Block, uses: Mapping[str, Base], other: Base, routes: list[FrontRoute], faults: list[Fault]
) -> Iterator[Site]:
    """Yield the sites of an edge, and put their routes into a list."""
    for index, site in enumerate(block.blocks("sites")):
        first = len(routes)
        for position, route in enumerate(site.blocks("routes")):
            base = uses.get(route.text("service"), other)
            value = merged(SiteRoute(**route_policies(base.dependency)), route, faults)
            value = structs.replace(value, retry=capped(value, route))
            path = f"sites[{index}].routes[{position}]"
            protocol = base.dependency.protocol
            routes.append(FrontRoute(path, value, protocol, (Layer("route", route), *base.layers)))
        rest = without(site, "routes")
        if "routes" in site.values:
            rest.values["routes"] = tuple(each.route for each in routes[first:])
        value = made(rest, faults)
        if value is not None:
            yield value
