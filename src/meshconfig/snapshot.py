"""Compile a checked configuration to the resources of every node.cluster: a function of its arguments alone."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from meshconfig.cluster import cluster, cluster_names
from meshconfig.definition import Dependency, Mesh
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog, NodeResources, Resource, Snapshot, make_resource
from meshconfig.route import ROUTES, Way, named_services, routes_of, unknown_host, uses, version_keys, virtual_host


def compile_mesh(
    configuration: Configuration,
    catalog: Catalog,  # noqa: ARG001  # gateways and edges follow
    *,
    initial_fetch_timeout: float = 0.0,
) -> Snapshot:
    """Return the resources of every caller, gateway and edge, by node.cluster.

    Args:
        configuration: the checked and merged definitions.
        catalog: the registered services that gateways select from.
        initial_fetch_timeout: seconds for which a cluster or a listener waits for the registries, 0 for ever; where
            the resources are served from files, a starting Envoy must not wait for registries that are away.
    """
    compiler = _Compiler(configuration.mesh, initial_fetch_timeout)
    return Snapshot({name: compiler.caller(caller) for name, caller in sorted(configuration.callers.items())})


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
        routes = _route_configuration(caller.service, hosts)
        return {"clusters": dict(sorted(clusters.items())), "routes": {ROUTES: routes}, "listeners": {}}

    def _clusters_of(self, key: bytes, dependency: Dependency, zone_aware: bool) -> tuple[Resource, ...]:
        known = self._clusters.get((key, zone_aware))
        if known is None:
            known = self._clusters[key, zone_aware] = self._make_clusters(dependency, zone_aware)
        return known

    def _make_clusters(self, dependency: Dependency, zone_aware: bool) -> tuple[Resource, ...]:
        versions = version_keys(dependency.routes)
        return tuple(
            cluster(
                dependency,
                self._mesh,
                versions=keys,
                zone_aware=zone_aware,
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
            known = _CompiledHost(msgspec.Raw(body), uses(way))
            self._hosts[key, tuple(named.items())] = known
        return known


def _route_configuration(service: str, hosts: list[_CompiledHost]) -> Resource:
    document = {
        "name": ROUTES,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [*(host.body for host in hosts), unknown_host(f"{service} has no dependency of this name")],
    }
    return make_resource("routes", document, uses=tuple(sorted(frozenset[str]().union(*(host.uses for host in hosts)))))
