"""The resources of one type as streams send them: where they come from, and what is kept of their encodings.

A source wraps a `ResourceCache`, which REST answers from, and adds the encoding in protobuf. The protocol knows nothing
else, so any world of names and versions can be put behind it.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from registry.cache.standing_watches import Changed
from registry.xds.grpc.wire_format import field, key, text
from registry.xds.resource_cache import ResourceNames, StandingWatch
from registry.xds.resources import ResourceType
from wire.node import Node

_VERSION_INFO = 1
"""The field of `DiscoveryResponse` with its version."""
_RESOURCES = 2
"""The field of both responses with their resources, and that of `Resource` with the resource itself."""
_RESOURCE_VERSION, _RESOURCE_NAME = 1, 3
"""Fields of `Resource`."""
_TYPE_URL, _VALUE = 1, 2
"""Fields of `google.protobuf.Any`."""


class EncodedResource(Struct, frozen=True, gc=False):
    """One resource at one version, in the parts that all answers with it share.

    Attributes:
        name: its name.
        version: its version as clients are told it: equal texts mean equal content, on all replicas.
        entry: the resource as a `google.protobuf.Any`, with the key of field 2 before it.
        sotw_head: the version of a `DiscoveryResponse` with this resource alone.
        delta_head: what stands before ``entry`` in a `DeltaDiscoveryResponse`.
        endpoints: the names of the assignments that this resource waits for, if it is a cluster.
    """

    name: str
    version: str
    entry: bytes
    sotw_head: bytes
    delta_head: bytes
    endpoints: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Its bytes in an answer."""
        return len(self.delta_head) + len(self.entry)


def make_entry(type_url: str, *value: bytes | memoryview) -> bytes:
    """Return a message of a type, given in parts, as a `google.protobuf.Any` with the key of field 2 before it."""
    opening = text(_TYPE_URL, type_url) + key(_VALUE, sum(map(len, value)))
    return b"".join((key(_RESOURCES, len(opening) + sum(map(len, value))), opening, *value))


def encode_resource(name: str, version: str, entry: bytes, endpoints: tuple[str, ...] = ()) -> EncodedResource:
    """Return a resource with what stands around it in answers."""
    inner = text(_RESOURCE_VERSION, version) + text(_RESOURCE_NAME, name)
    delta_head = key(_RESOURCES, len(inner) + len(entry)) + inner
    return EncodedResource(name, version, entry, encode_version(version), delta_head, endpoints)


def encode_version(version_info: str) -> bytes:
    """Return the version of a `DiscoveryResponse`."""
    return field(_VERSION_INFO, version_info.encode())


class Source(Protocol):
    """The resources of one type for the streams of one kind of client, in memory. Nothing here waits."""

    @property
    def type(self) -> ResourceType:
        """The type."""

    @property
    def database_id(self) -> str:
        """The database whose versions these are."""

    @property
    def unknown(self) -> str:
        """The words for a name that was never known."""
        return "no resource of this name is known"

    def find(self, node: Node, name: str) -> EncodedResource | None:
        """Return the newest resource of a name; None if it was never known, or was forgotten.

        Raises:
            UnavailableError: this process is not sure, and nothing is concluded.
        """

    def names(self, node: Node) -> ResourceNames:
        """Return the names of all resources of a node, for a wildcard.

        Raises:
            UnavailableError: as ``find`` does.
        """

    def standing_watch(self, node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of one of the names, or of all, as `ResourceCache` has it."""

    def is_behind(self, node: Node, name: str, version: str) -> bool:
        """Return whether a client holds a newer version than this process has read; it is looked into then.

        Args:
            node: the client.
            name: the name of a resource.
            version: the version that the client holds, perhaps from another replica.
        """

    def absent(self, name: str) -> EncodedResource | None:  # noqa: ARG002  # most types leave such a name out
        """Return what stands for a name that was never known, to a client that holds nothing; None: nothing."""
        return None


def sources_by_url(*sources: Source) -> Mapping[str, Source]:
    """Return sources by their type URL, as `Discoverable` has them."""
    return {source.type.type_urls["v3"]: source for source in sources}
