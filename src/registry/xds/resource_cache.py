"""The protocol between discovery and the resource types that it serves: where the resources of a type come from."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from registry.cache.standing_watches import Changed
from registry.xds.discovery_response import DiscoveryResponse, encode_response
from registry.xds.resources import Api, ResourceType, RestPath
from registry.xds.version_info import format_version
from wire.node import Node


class Watch(Protocol):
    """Waits for one change."""

    def cancel(self) -> None:
        """Stop waiting; harmless when the watch has called back already."""


class StandingWatch(Protocol):
    """Waits for all changes of a set of names, or of everything of a node."""

    def add(self, names: Iterable[str]) -> None:
        """Watch further names; their changes so far are not called back."""

    def remove(self, names: Iterable[str]) -> None:
        """Stop watching names; a change of them that was not called back yet is not called back any more."""

    def cancel(self) -> None:
        """Stop watching: it is not called back any more, not even for changes before this."""


class Resource(Protocol):
    """One resource at one version. Its encodings are made when they are first asked for."""

    @property
    def database_id(self) -> str:
        """The database whose version this is."""

    @property
    def version(self) -> int:
        """Its version: above 0, grows with each change, and equal in all processes for equal content."""

    @property
    def version_info(self) -> str:
        """The version_info of the response to a request for this resource alone."""
        return format_version(self.database_id, self.version)

    def json(self, api: Api) -> bytes:
        """Return the resource in JSON, with its `@type`."""

    def response(self, path: RestPath) -> DiscoveryResponse:
        """Return the whole response to a request for this resource alone."""
        version_info = self.version_info
        body = encode_response(path.type_url, version_info, (self.json(path.api),))
        return DiscoveryResponse(200, body, version_info)


class ResourceNames(Struct, frozen=True):
    """The names of all resources of a node, and the version of the whole.

    Attributes:
        version: grows when a resource is added, changed or removed; 0 if none was ever defined for the node.
        names: the names, in the order of the response.
        version_info: the text of the version, where it is kept: to compare it is all that most polls need.
    """

    version: int = 0
    names: Sequence[str] = ()
    version_info: str = ""


class ResourceCache(Protocol):
    """The resources of one type, in memory.

    A node is its id, cluster and zone. A cache looks at as much of it as its resources depend on: EDS at nothing, CDS
    and LDS at the cluster, RDS at the cluster beside the name. Every method answers at once and from memory.
    """

    @property
    def database_id(self) -> str:
        """The database whose versions these are; versions of two databases are not compared."""

    def find(self, node: Node, name: str) -> Resource | None:
        """Return the newest resource of a name; None if it was never known, or was forgotten.

        Raises:
            UnavailableError: this process is not sure, because it has not read the database yet. Nothing is concluded
                then: a poll is answered 503, and a poll that is held waits on. It is raised for every name, also for
                the empty one, which is asked for when a poll names nothing.
        """

    def names(self, node: Node) -> ResourceNames:  # noqa: ARG002  # for types that a wildcard can ask for
        """Return the names of all resources of a node, for a wildcard; a type without wildcards has none.

        Raises:
            UnavailableError: as ``find`` does.
        """
        return ResourceNames()

    def json_of_all(self, node: Node, names: Sequence[str], api: Api) -> Sequence[bytes]:
        """Return the resources of these names, as ``names`` has just returned them, in JSON.

        Raises:
            UnavailableError: as ``find`` does.
        """
        resources = (self.find(node, name) for name in names)
        return [resource.json(api) for resource in resources if resource is not None]

    def watch(self, node: Node, names: Collection[str] | None, wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once, in a later turn of the event loop, when one of the resources changes.

        It is also called when this process becomes sure: what a poll was woken for before could not be answered.

        Args:
            node: the node that asks.
            names: the names to watch; None for all of the node, the set of names included.
            wake: called unless the watch is cancelled before.
        """

    def standing_watch(self, node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of one of the resources, in a later turn of the event loop.

        It is called with the names that have changed; a type of which one change may concern all resources of a node
        calls it with None, for any of them. So does every type when this process becomes sure, or its database is
        replaced. A change that the watcher has read meanwhile is named all the same.

        Args:
            node: the node that asks.
            names: the names to watch at first; None for all of the node, the set of names included.
            changed: called until the watch is cancelled.
        """

    def absent(self, api: Api, name: str) -> bytes | None:  # noqa: ARG002  # most types leave such a name out
        """Return what stands for a name that was never known, to a subscriber that holds nothing; None: nothing."""
        return None

    def claim_ahead(self, node: Node, name: str, version: int) -> None:
        """Take note that a subscriber holds a version that this process has not read yet; "*" is its wildcard's."""

    def change_age(self, name: str, version: int, now: float) -> float | None:  # noqa: ARG002  # where it is known
        """Return the age of the oldest change that a holder of this version lacks; None if it is not known.

        Args:
            name: the name of the resource.
            version: what a subscriber holds.
            now: the process's monotonic time.
        """
        return None


class ServedType(Struct, frozen=True):
    """A resource type that this process serves.

    Attributes:
        type: the type.
        cache: where its resources come from.
    """

    type: ResourceType
    cache: ResourceCache
