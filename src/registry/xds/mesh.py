"""CDS, LDS and RDS: the mesh configuration of a node.cluster, in the bytes that were stored when it was applied."""

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet

from meshconfig.resource import Kind
from registry.cache.mesh_cache import MeshCache
from registry.cache.standing_watches import Changed
from registry.cache.watches import Watch
from registry.core.mesh import KINDS, ServedResource, ServedSet, revision_of
from registry.xds.resource_cache import Resource, ResourceCache, ResourceNames, StandingWatch
from registry.xds.resources import Api, ResourceType
from registry.xds.version_info import format_stepped, format_version_info
from wire.discovery_poll import WILDCARD
from wire.node import Node


class MeshResource(Resource):
    """One resource of a node.cluster.

    Args:
        database_id: the database whose version it has.
        resource: its name, version and bytes.
    """

    __slots__ = ("_resource", "database_id", "version")

    database_id: str
    version: int

    def __init__(self, database_id: str, resource: ServedResource) -> None:
        self.database_id = database_id
        self.version = resource.version
        self._resource = resource

    def json(self, _api: Api) -> bytes:
        """Return the bytes as they were compiled; there is no v2 of them."""
        return self._resource.body

    @property
    def version_info(self) -> str:
        """The version_info of the response to a request for this resource alone."""
        return format_stepped(self.database_id, self.version)


class ClusterWatch(StandingWatch):
    """Watches all resources of one kind of a node.cluster, whichever names its stream asks for.

    A change of the mesh configuration replaces the set of a node.cluster as a whole, and phases of a roll-out may give
    each node another one: any name may have changed.
    """

    __slots__ = ("_changed", "_watch")

    def __init__(self, cache: MeshCache, kind: Kind, cluster: str, changed: Changed) -> None:
        self._changed = changed
        self._watch = cache.standing_watch(kind, cluster, self._on_change)

    def add(self, names: Iterable[str]) -> None:
        """Do nothing: all names are watched."""

    def remove(self, names: Iterable[str]) -> None:
        """Do nothing: all names are watched."""

    def cancel(self) -> None:
        """Stop watching."""
        self._watch.cancel()

    def _on_change(self, _clusters: AbstractSet[str] | None) -> None:
        self._changed(None)


class MeshResources(ResourceCache):
    """The resources of one kind of all node.clusters.

    Args:
        resource_type: the type, which the mesh configuration names alike.
        cache: where the resources are.
    """

    def __init__(self, resource_type: ResourceType, cache: MeshCache) -> None:
        self._type = resource_type
        self._kind: Kind = next(kind for kind in KINDS if kind == resource_type.name)
        self._cache = cache
        self._names: dict[str, tuple[ServedSet, ResourceNames]] = {}
        """The names and the version of each node.cluster, kept while its set is the same object. Written by names()."""

    @property
    def database_id(self) -> str:
        """The database whose versions these are."""
        return self._cache.database_id

    def find(self, node: Node, name: str) -> MeshResource | None:
        """Return a resource of the node's cluster; None if there is none of this name.

        Raises:
            UnavailableError: this process has not read it yet; an Envoy keeps what it has.
        """
        served = self._cache.find(self._kind, node)
        resource = None if served is None else served.resources.get(name)
        return None if resource is None else MeshResource(self._cache.database_id, resource)

    def json_of_all(self, node: Node, _names: Sequence[str], _api: Api) -> list[bytes]:
        """Return all resources of the node's cluster, which are in one place, as they were compiled.

        Raises:
            UnavailableError: as ``find`` does.
        """
        served = self._cache.find(self._kind, node)
        return [] if served is None else [resource.body for resource in served.resources.values()]

    def names(self, node: Node) -> ResourceNames:
        """Return the names of all resources of the node's cluster.

        Raises:
            UnavailableError: as ``find`` does.
        """
        served = self._cache.find(self._kind, node)
        if served is None:
            return ResourceNames()
        kept = self._names.get(node.cluster)
        if kept is not None and kept[0] is served:
            return kept[1]
        version_info = format_version_info(self._cache.database_id, WILDCARD, (served.version,), self._type)
        names = ResourceNames(served.version, tuple(served.resources), version_info)
        self._names[node.cluster] = (served, names)
        return names

    def watch(self, node: Node, _names: Collection[str] | None, wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once when the resources of the node's cluster change, or this process gets ready."""
        return self._cache.watch(self._kind, node.cluster, wake)

    def standing_watch(self, node: Node, _names: Iterable[str] | None, changed: Changed) -> ClusterWatch:
        """Call ``changed`` when the resources of the node's cluster change, or this process gets ready."""
        return ClusterWatch(self._cache, self._kind, node.cluster, changed)

    def claim_ahead(self, _node: Node, _name: str, version: int) -> None:
        """Take note of a revision that a subscriber holds and this process has not read."""
        self._cache.claim_ahead(revision_of(version))
