"""Compile a checked configuration to the resources of every node.cluster: a function of its arguments alone."""

from collections.abc import Collection, Mapping

import msgspec
from msgspec import Struct

from meshconfig.cluster import cluster, cluster_names
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.mesh import Mesh
from meshconfig.edge import BUFFER_LIMIT, compile_edge
from meshconfig.effective import Caller, Configuration
from meshconfig.ejection import ejection_findings
from meshconfig.front import Front
from meshconfig.gateway import compile_gateway, findings, without_services
from meshconfig.position import Fault
from meshconfig.resource import Catalog, NodeResources, Resource, Snapshot
from meshconfig.route import (
    ROUTES,
    Way,
    answer,
    named_services,
    other_hosts,
    own_routes,
    route_table,
    routes_of,
    uses,
    version_keys,
    virtual_host,
)


def compile_mesh(
    configuration: Configuration,
    catalog: Catalog,
    *,
    left_out: Mapping[str, Collection[str]] = {},
    initial_fetch_timeout: float = 0.0,
) -> Snapshot:
    """Return the resources of every caller, gateway and edge, by node.cluster.

    Args:
        configuration: the checked and merged definitions.
        catalog: the registered services that gateways select from.
        left_out: services that a gateway does not serve, by the gateway.
        initial_fetch_timeout: seconds for which a cluster or a listener waits for the registries, 0 for ever; where
            the resources are served from files, a starting Envoy must not wait for registries that are away.
    """
    mesh, compiler = configuration.mesh, _Compiler(configuration.mesh, initial_fetch_timeout)
    nodes = {name: compiler.caller(caller) for name, caller in configuration.callers.items()}
    for name, gateway in configuration.gateways.items():
        described = configuration.targets.get(name, {})
        own, selected_from = (
            without_services(gateway, catalog, left_out[name]) if name in left_out else (gateway, catalog)
        )
        nodes[name] = compiler.front(compile_gateway(own, mesh, described, selected_from, initial_fetch_timeout))
    for name, edge in configuration.edges.items():
        described = configuration.targets.get(name, {})
        front = compile_edge(edge, mesh, described, initial_fetch_timeout)
        nodes[name] = compiler.front(front, buffer_limit=BUFFER_LIMIT)
    return Snapshot(dict(sorted(nodes.items())))


def compile_gateways(configuration: Configuration, catalog: Catalog, *, initial_fetch_timeout: float = 0.0) -> Snapshot:
    """Return the resources of the gateways alone, which also a change of the catalog changes."""
    gateways = Configuration(mesh=configuration.mesh, gateways=configuration.gateways, targets=configuration.targets)
    return compile_mesh(gateways, catalog, initial_fetch_timeout=initial_fetch_timeout)


def catalog_findings(configuration: Configuration, catalog: Catalog) -> list[Fault]:
    """Return warnings that change with the catalog: of what gateways cannot serve, and what cannot be ejected."""
    of_gateways = [fault for _, each in sorted(configuration.gateways.items()) for fault in findings(each, catalog)]
    return [*of_gateways, *ejection_findings(configuration, catalog)]


class _CompiledHost(Struct, frozen=True):
    """A virtual host and the clusters of its routes."""

    body: msgspec.Raw
    uses: frozenset[str]


class _Compiler:
    """Compiles callers, and each dependency that several have in common once."""

    def __init__(self, mesh: Mesh, initial_fetch_timeout: float) -> None:
        self._mesh = mesh
        self._initial_fetch_timeout = initial_fetch_timeout
        # Clusters and virtual hosts by the encoded arguments that they were made of.
        self._clusters: dict[tuple[bytes, bool], tuple[Resource, ...]] = {}
        self._hosts: dict[tuple[bytes, tuple[tuple[str, str], ...]], _CompiledHost] = {}
        self._encode = msgspec.msgpack.Encoder().encode

    def caller(self, caller: Caller) -> NodeResources:
        """Return the resources of a caller's Envoys; their listener stands in the bootstrap."""
        reached = (*caller.dependencies, *caller.targets)
        by_service = cluster_names(reached)
        zone_aware = any(dependency.zones for dependency in reached)
        keys = [self._encode(dependency) for dependency in reached]
        clusters = {
            resource.name: resource
            for key, dependency in zip(keys, reached, strict=True)
            for resource in self._clusters_of(key, dependency, zone_aware)
        }
        hosts = [
            self._host_of(key, dependency, by_service)
            for key, dependency in zip(keys, caller.dependencies, strict=False)
        ]
        unknown = other_hosts(answer(404, f"{caller.service} has no dependency of this name"))
        used = frozenset[str]().union(*(host.uses for host in hosts))
        routes = route_table(ROUTES, [*(host.body for host in hosts), unknown], used)
        return {"clusters": dict(sorted(clusters.items())), "routes": {ROUTES: routes}, "listeners": {}}

    def front(self, front: Front, *, buffer_limit: int | None = None) -> NodeResources:
        """Return the resources of a gateway's or an edge's Envoys."""
        zone_aware = any(use.zones for use in front.reached)
        clusters = {
            resource.name: resource
            for use in front.reached
            for resource in self._make_clusters(use, zone_aware, buffer_limit)
        }
        return {
            "clusters": dict(sorted(clusters.items())),
            "routes": {table.name: table for table in sorted(front.routes, key=_name)},
            "listeners": {listener.name: listener for listener in sorted(front.listeners, key=_name)},
        }

    def _clusters_of(self, key: bytes, dependency: Dependency, zone_aware: bool) -> tuple[Resource, ...]:
        known = self._clusters.get((key, zone_aware))
        if known is None:
            known = self._clusters[key, zone_aware] = self._make_clusters(dependency, zone_aware)
        return known

    def _make_clusters(
        self, dependency: Dependency, zone_aware: bool, buffer_limit: int | None = None
    ) -> tuple[Resource, ...]:
        versions = version_keys(dependency.routes)
        return tuple(
            cluster(
                dependency,
                self._mesh,
                versions=keys,
                zone_aware=zone_aware,
                buffer_limit=buffer_limit,
                initial_fetch_timeout=self._initial_fetch_timeout,
            )
            for keys in ((), versions)[: 2 if versions else 1]
        )

    def _host_of(self, key: bytes, dependency: Dependency, by_service: Mapping[str, str]) -> _CompiledHost:
        named = {service: by_service[service] for service in sorted(named_services(routes_of(dependency)))}
        known = self._hosts.get((key, tuple(named.items())))
        if known is None:
            way = Way(dependency, named)
            body = msgspec.json.encode(virtual_host(way), order="sorted")
            known = _CompiledHost(msgspec.Raw(body), uses(own_routes(way)))
            self._hosts[key, tuple(named.items())] = known
        return known


def _name(resource: Resource) -> str:
    return resource.name
