"""Gateways: services of the catalog through one Envoy, each by its host, gRPC services also by their path."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import cast, get_args

from msgspec.structs import replace

from meshconfig.authentication import Guards
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.mesh import Mesh
from meshconfig.field_types import HOST, RESERVED_CLUSTERS, Protocol
from meshconfig.front import Front, guards_of, other_services, use_of, way_to
from meshconfig.gateway_selection import PROTOCOL_KEY, GatewaySelection
from meshconfig.listener import front_manager, internal_addresses
from meshconfig.position import Fault, Position, Severity
from meshconfig.proto_json import Document, socket_address
from meshconfig.quotation import clipped
from meshconfig.resource import Catalog, make_resource
from meshconfig.route import (
    ROUTES,
    Way,
    answer,
    other_hosts,
    own_routes,
    route_list,
    route_table,
    routes_of,
    served_routes,
    uses,
    virtual_host,
)

_SERVICE = "{service}"
"""The placeholder of a service's name in the hosts of a gateway."""
_GRPC_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
"""The full name of a service in the language of Protocol Buffers."""
_EVERYWHERE = "grpc."
"""The package of reflection and health, which every server has: they can be told apart by host only."""


_NOTHING_SELECTED = "No service of the catalog has what the gateway selects by."
_RENAME = "Register it under another name."
_RESERVED = ("its name is that of a cluster of the bootstrap, to which Envoy would send its requests", _RENAME)
"""Why a service with such a name is not served, and what to do."""


def selection_of(gateway: Gateway) -> GatewaySelection:
    """Return what a gateway selects from the catalog."""
    return GatewaySelection(gateway.select.metadata, frozenset(gateway.select.services), gateway.paths)


def selected(gateway: Gateway, catalog: Catalog) -> list[str]:
    """Return the services that a gateway serves, by name: the listed ones and those with the wanted metadata."""
    matching = _matching(gateway, catalog)
    return sorted(matching - _unservable(gateway, matching).keys())


def owners(gateway: Gateway, catalog: Catalog) -> Iterator[tuple[str, list[str]]]:
    """Yield each gRPC service that a gateway serves by path, with the services that announce it, by name."""
    claims: dict[str, list[str]] = {}
    for service in selected(gateway, catalog):
        for grpc_service in catalog.grpc_services.get(service, ()):
            if _GRPC_SERVICE.fullmatch(grpc_service) and not grpc_service.startswith(_EVERYWHERE):
                claims.setdefault(grpc_service, []).append(service)
    for grpc_service, services in sorted(claims.items()):
        yield grpc_service, list(dict.fromkeys(services))


def without_services(gateway: Gateway, catalog: Catalog, services: Collection[str]) -> tuple[Gateway, Catalog]:
    """Return a gateway, and the catalog that it selects from, without some services."""
    listed = tuple(service for service in gateway.select.services if service not in services)
    rest = {service: values for service, values in catalog.metadata.items() if service not in services}
    remaining = Catalog(rest, {service: catalog.grpc_services.get(service, ()) for service in rest})
    return replace(gateway, select=replace(gateway.select, services=listed)), remaining


def findings(gateway: Gateway, catalog: Catalog) -> list[Fault]:
    """Return warnings of what a gateway cannot serve as the catalog announces it."""
    position = Position(f"gateways/{gateway.gateway}.yaml")
    matching = _matching(gateway, catalog)
    if not matching:
        return [Fault(position, _NOTHING_SELECTED, "Compare it with the metadata of endpoints.", Severity.WARNING)]
    unservable = [
        Fault(position, f"The gateway does not serve {clipped(service)}: {reason}.", fix, Severity.WARNING)
        for service, (reason, fix) in sorted(_unservable(gateway, matching).items())
    ]
    if not gateway.paths:
        return unservable
    return [*unservable, *_misnamed(gateway, catalog, position), *_shared_claims(gateway, catalog, position)]


def _matching(gateway: Gateway, catalog: Catalog) -> set[str]:
    """Return the services that a gateway selects, whether it can serve them or not."""
    selection = selection_of(gateway)
    matching = {service for service, metadata in catalog.metadata.items() if selection.matches(service, metadata)}
    return matching.union(selection.services)


def _unservable(gateway: Gateway, matching: Collection[str]) -> Mapping[str, tuple[str, str]]:
    """Return the services that a gateway cannot serve, with the reason and what to do.

    Anybody who may register chooses their names, so that one of them may not keep the others from being served.
    """
    reasons: dict[str, tuple[str, str]] = {}
    taken: dict[str, str] = {}

    def precedence(service: str) -> tuple[bool, bool, str]:
        return (service not in gateway.select.services, service != service.lower(), service)

    for service in sorted(matching, key=precedence):
        host = _host_of(gateway, service)
        if service in RESERVED_CLUSTERS:
            reasons[service] = _RESERVED
        elif not HOST.fullmatch(host):
            reasons[service] = (f"{clipped(host)} is no host", _RENAME)
        elif _has_own_hosts(gateway) and (first := taken.setdefault(host.lower(), service)) != service:
            reasons[service] = (f"{clipped(first)} has the same host, letters' case aside", _RENAME)
    return reasons


def _has_own_hosts(gateway: Gateway) -> bool:
    """Tell whether each service has a host of its own; without, they are told apart by path alone."""
    return _SERVICE in gateway.hosts


def _host_of(gateway: Gateway, service: str) -> str:
    return gateway.hosts.replace(_SERVICE, service)


def _misnamed(gateway: Gateway, catalog: Catalog, position: Position) -> Iterator[Fault]:
    """Yield warnings of announced gRPC services that have no path, because no such service can exist."""
    for service in selected(gateway, catalog):
        names = [name for name in catalog.grpc_services.get(service, ()) if not _GRPC_SERVICE.fullmatch(name)]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            message = f"{clipped(service)} announces {clipped(names[0])}{more}, which is no name of a gRPC service."
            yield Fault(
                position, message, "Write it in the metadata grpc_services like shop.v1.Shop.", Severity.WARNING
            )


def _shared_claims(gateway: Gateway, catalog: Catalog, position: Position) -> list[Fault]:
    """Return warnings of gRPC services that several services announce."""
    return [
        Fault(
            position,
            f"{' and '.join(services)} announce the gRPC service {grpc_service}; by path it leads to {services[0]}.",
            "Call the others by host, or take the gRPC service from their metadata grpc_services.",
            Severity.WARNING,
        )
        for grpc_service, services in owners(gateway, catalog)
        if len(services) > 1
    ]


def compile_gateway(
    gateway: Gateway,
    mesh: Mesh,
    described: Mapping[str, Dependency],
    catalog: Catalog,
    initial_fetch_timeout: float,
) -> Front:
    """Return what a gateway compiles to.

    Args:
        gateway: its definition.
        mesh: the settings that all share.
        described: its use of each service that a file describes.
        catalog: the registered services.
        initial_fetch_timeout: seconds for which its listener waits for the registries, 0 for ever.
    """
    served = {
        service: _served(gateway, use_of(service, gateway.defaults, described), _protocol(service, gateway, catalog))
        for service in selected(gateway, catalog)
    }
    routes = [route for use in served.values() for route in routes_of(use)]
    others = sorted(other_services(routes) - set(served))
    reached = (*served.values(), *(use_of(service, gateway.defaults, described) for service in others))
    guarding = guards_of(routes, reached)
    ways = {service: way_to(use, reached, guarding) for service, use in served.items()}
    nowhere = answer(404, f"{gateway.gateway} serves no service by this host or path", guarding)
    by_path = _by_path(gateway, ways, catalog) if gateway.paths else []
    own_hosts = map(virtual_host, ways.values()) if _has_own_hosts(gateway) else ()
    hosts = [*own_hosts, other_hosts(*by_path, nowhere)]
    used = uses(pair for way in ways.values() for pair in own_routes(way))
    listener = _listener(gateway, mesh, guarding, initial_fetch_timeout)
    return Front(
        (make_resource("listeners", listener, uses=guarding.uses),),
        (route_table(ROUTES, hosts, used),),
        reached,
    )


def _protocol(service: str, gateway: Gateway, catalog: Catalog) -> Protocol | None:
    """Return the protocol that the endpoints of a service announce, by which the gateway may have selected them."""
    announced = catalog.metadata.get(service, {}).get(PROTOCOL_KEY, ())
    wanted = gateway.select.metadata.get(PROTOCOL_KEY)
    if wanted in announced:
        announced = (wanted,)
    if not announced and catalog.grpc_services.get(service):
        return "grpc"
    return cast("Protocol", announced[0]) if len(announced) == 1 and announced[0] in get_args(Protocol) else None


def _served(gateway: Gateway, use: Dependency, protocol: Protocol | None) -> Dependency:
    protocol = protocol or use.protocol
    return replace(
        use,
        cluster=use.cluster or use.service,
        hosts=(_host_of(gateway, use.service or ""),),
        protocol=protocol,
        # The deadline of a gRPC call is its client's affair; a stream may have none.
        timeout=0.0 if protocol == "grpc" else use.timeout,
    )


def _by_path(gateway: Gateway, ways: Mapping[str, Way], catalog: Catalog) -> list[Document]:
    pairs = [
        (ways[services[0]], replace(route, prefix=f"/{grpc_service}/", methods=("POST",), upgrade=None))
        for grpc_service, services in owners(gateway, catalog)
        for _, route in own_routes(ways[services[0]])
    ]
    documents = route_list(pairs)
    for document in documents:
        document["match"]["grpc"] = {}
    return documents


def _listener(gateway: Gateway, mesh: Mesh, guarding: Guards, initial_fetch_timeout: float) -> Document:
    listen = gateway.listen
    manager = front_manager(
        mesh,
        gateway.gateway,
        protocol=listen.protocol,
        routes={"rds": served_routes(mesh, ROUTES, initial_fetch_timeout)},
        guards=guarding,
        fields={
            **internal_addresses(mesh),
            # A stream may be silent for long; clients that are gone are found by pings.
            "stream_idle_timeout": "0s",
            "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}},
            "preserve_external_request_id": True,
        },
    )
    return {
        "name": gateway.gateway,
        "address": socket_address(listen.address, listen.port),
        "traffic_direction": "INBOUND",
        "filter_chains": [{"filters": [manager]}],
    }
