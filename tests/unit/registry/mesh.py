"""Served nodes of the mesh configuration, for tests of what serves them."""

from collections.abc import Mapping

from meshconfig.resource import Kind
from registry.cache.mesh_cache import MeshCache
from registry.core.mesh import KINDS, ServedNode, ServedResource, ServedSet, version_of
from wire.node import Node


def resource(name: str, revision: int, body: str) -> ServedResource:
    """Return a resource of the first step of a revision."""
    return ServedResource(name, version_of(revision, 1), body.encode())


def served(
    cluster: str,
    revision: int,
    *,
    share: float = 0,
    share_version: int = 0,
    share_clusters: Mapping[str, str] | None = None,
    **kinds: Mapping[str, str],
) -> ServedNode:
    """Return a node of a revision, with the bodies of its resources by kind and name."""
    sets = {kind: _set(revision, kinds[kind]) for kind in KINDS if kind in kinds}
    share_sets: dict[Kind, ServedSet] = {}
    if share_clusters is not None:
        share_sets = {**sets, "clusters": _set(share_version, share_clusters)}
    return ServedNode(cluster, sets, share, share_sets)


def node_of(cache: MeshCache, node_id: str, kind: Kind, name: str) -> bytes:
    """Return the body of a resource that the Envoy of a node id is served."""
    found = cache.find(kind, Node(node_id, "web"))
    assert found is not None
    return found.resources[name].body


def _set(revision: int, bodies: Mapping[str, str]) -> ServedSet:
    resources = {name: resource(name, revision, body) for name, body in sorted(bodies.items())}
    return ServedSet(version_of(revision, 1), resources)
