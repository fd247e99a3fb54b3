"""Edges: TLS and hosts in front of services, with the settings that Envoy recommends towards strangers."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from meshconfig.authentication import Guards
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.edge import Certificate, Edge, Site, SiteRoute
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.field_types import Protocol
from meshconfig.front import Front, guards_of, other_services, use_of, way_to
from meshconfig.listener import connection_manager, front_manager
from meshconfig.proto_json import Document, duration, extension, socket_address
from meshconfig.resource import Resource, make_resource
from meshconfig.route import answer, other_hosts, route_list, route_table, served_routes, takes_all, uses

BUFFER_LIMIT = 32 * 1024
"""Bytes that Envoy buffers of one connection, as its guide to edges recommends."""

_TLS_INSPECTOR = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
_TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_ALPN: Mapping[Protocol, Sequence[str]] = {
    "http1": ["http/1.1"],
    "http2": ["h2"],
    "grpc": ["h2"],
    "same": ["h2", "http/1.1"],
}
_REQUEST_TIMEOUT = 300.0
"""Seconds in which a request has to be there as a whole, unless a route may take longer."""
_MISDIRECTED = 421
"""The status that tells a client to ask by another connection: this one was made for other hosts."""


def compile_edge(edge: Edge, mesh: Mesh, described: Mapping[str, Dependency], initial_fetch_timeout: float) -> Front:
    """Return what an edge compiles to.

    Args:
        edge: its definition.
        mesh: the settings that all share.
        described: its use of each service that a file describes.
        initial_fetch_timeout: seconds for which its listener waits for the registries, 0 for ever.
    """
    routes = [route for site in edge.sites for route in site.routes]
    services = sorted({service_of(route) for route in routes} | other_services(routes))
    reached = tuple(
        replace(
            use_of(service, edge.defaults, described),
            routes=tuple(route for route in routes if service_of(route) == service),
        )
        for service in services
    )
    guarding = guards_of(routes, reached)
    tables = tuple(_table(sites, reached, guarding) for sites in _site_groups(edge))
    listeners = [_listener(edge, mesh, guarding, initial_fetch_timeout)]
    if edge.listen.redirect_from is not None:
        listeners.append(make_resource("listeners", _redirect(edge, mesh, edge.listen.redirect_from)))
    return Front(tuple(listeners), tables, reached)


def table_name(site: Site) -> str:
    """Return the name of a site's RouteConfiguration: its first host."""
    return site.hosts[0]


def _site_groups(edge: Edge) -> Sequence[Sequence[Site]]:
    """Return the sites that share a filter chain and a RouteConfiguration.

    With TLS each site has its own, by the name that the client asks for. Without it nothing but the Host of a request
    tells sites apart, and any connection may carry requests for all of them.
    """
    if any(site.certificate is not None for site in edge.sites):
        return [(site,) for site in edge.sites]
    return [edge.sites]


def service_of(route: SiteRoute) -> str:
    """Return the service of a route; of a split the first, whose timeouts and protocol hold for all."""
    return route.service or min(route.split or ("",))


def _table(sites: Sequence[Site], reached: Iterable[Dependency], guarding: Guards) -> Resource:
    """Return the routes of sites, where hosts of all others are answered with 421.

    One table for sites with certificates of their own would serve a host to whoever holds a connection for another one.
    """
    ways = {use.service: way_to(use, reached, guarding, separated=True) for use in reached}
    hosts: list[Document] = []
    used: set[str] = set()
    for site in sites:
        pairs = [(ways[service_of(route)], route) for route in site.routes]
        documents = route_list(pairs)
        if not any(takes_all(route) for route in site.routes):
            documents.append(answer(404, f"{table_name(site)} has no route for this path, method or header", guarding))
        hosts.append({"name": table_name(site), "domains": list(site.hosts), "routes": documents})
        used.update(uses(pairs))
    if not any("*" in site.hosts for site in sites):
        served = ", ".join(table_name(site) for site in sites)
        hosts.append(other_hosts(answer(_MISDIRECTED, f"this host is not one of {served}", guarding)))
    return route_table(table_name(sites[0]), hosts, used)


def _listener(edge: Edge, mesh: Mesh, guarding: Guards, initial_fetch_timeout: float) -> Resource:
    encrypted = any(site.certificate is not None for site in edge.sites)
    chains = [
        _chain(edge, sites[0], mesh, guarding, initial_fetch_timeout, encrypted=encrypted)
        for sites in _site_groups(edge)
    ]
    document = {
        "name": edge.edge,
        "address": socket_address(edge.listen.address, edge.listen.port),
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": BUFFER_LIMIT,
        "filter_chains": chains,
    }
    if encrypted:
        document["listener_filters"] = [extension("envoy.filters.listener.tls_inspector", _TLS_INSPECTOR)]
    return make_resource("listeners", document, uses=guarding.uses)


def _chain(
    edge: Edge, site: Site, mesh: Mesh, guarding: Guards, initial_fetch_timeout: float, *, encrypted: bool
) -> Document:
    routes = [route for each in edge.sites for route in each.routes]
    manager = front_manager(
        mesh,
        edge.edge,
        protocol=edge.listen.protocol,
        routes={"rds": served_routes(mesh, table_name(site), initial_fetch_timeout)},
        guards=guarding,
        fields=_hardening(routes),
    )
    chain: Document = {"name": table_name(site), "filters": [manager]}
    if site.certificate is not None:
        chain["transport_socket"] = _transport_socket(site.certificate, edge.listen)
    match = _chain_match(site, encrypted=encrypted)
    return {**chain, "filter_chain_match": match} if match else chain


def _chain_match(site: Site, *, encrypted: bool) -> Document:
    """Return the connections of a site: those whose client asks for one of its hosts, or that have no TLS."""
    if not encrypted:
        return {}
    if site.certificate is None:
        return {"transport_protocol": "raw_buffer"}
    return {"server_names": list(site.hosts)}


def _hardening(routes: Iterable[SiteRoute]) -> Document:
    timeouts = [route.timeout for route in routes]
    request_timeout = 0.0 if 0.0 in timeouts else max([_REQUEST_TIMEOUT, *timeouts])
    return {
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "request_timeout": duration(request_timeout),
        "request_headers_timeout": "10s",
    }


def _transport_socket(certificate: Certificate, listen: GatewayListen) -> Document:
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {"certificate_chain": {"filename": certificate.chain}, "private_key": {"filename": certificate.key}}
        ],
        "alpn_protocols": list(_ALPN[listen.protocol]),
    }
    return extension("envoy.transport_sockets.tls", _TLS_CONTEXT, {"common_tls_context": common})


def _redirect(edge: Edge, mesh: Mesh, port: int) -> Document:
    """Return the listener that sends clients without TLS to the same address with it."""
    name = f"{edge.edge}-redirect"
    target: Document = {"https_redirect": True}
    if edge.listen.port != 443:
        target["port_redirect"] = edge.listen.port
    hosts = [host for site in edge.sites if site.certificate is not None for host in site.hosts]
    redirecting = {"name": name, "domains": hosts, "routes": [{"match": {"prefix": "/"}, "redirect": target}]}
    unknown = other_hosts(answer(_MISDIRECTED, f"{edge.edge} does not serve this host"))
    table = {"name": name, "ignore_port_in_host_matching": True, "virtual_hosts": [redirecting, unknown]}
    manager = connection_manager(
        mesh,
        edge.edge,
        stat_prefix=name,
        protocol="http1",
        routes={"route_config": table},
        filters=(),
        fields=_hardening(()),
    )
    return {
        "name": name,
        "address": socket_address(edge.listen.address, port),
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": BUFFER_LIMIT,
        "filter_chains": [{"filters": [manager]}],
    }
