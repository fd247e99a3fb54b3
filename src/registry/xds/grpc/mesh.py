"""CDS, LDS and RDS over streams: the mesh configuration of a node.cluster, as REST serves it, in protobuf.

Resources that it tells an Envoy to poll for come over the stream of the Envoy itself instead.
"""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from meshconfig.ads import with_ads_sources
from registry.cache.mesh_cache import MeshCache
from registry.cache.standing_watches import Changed
from registry.core.mesh import MAX_REVISIONS_AHEAD, version_of
from registry.xds.grpc.envoy_api import encode_document
from registry.xds.grpc.source import EncodedResource, Source, encode_resource, make_entry
from registry.xds.grpc.unencodable import Unencodable
from registry.xds.mesh import MeshResources
from registry.xds.resource_cache import ResourceNames, StandingWatch
from registry.xds.resources import ResourceType
from registry.xds.version_info import parse_version_info
from wire.node import Node

_MAX_ENTRIES = 16_384
"""Resources whose bytes are kept; equal ones of many callers are kept once."""
_NOT_ENCODED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Raised for a body that is no resource of Envoy's API: by msgspec, by protobuf, or where an object is expected."""


class MeshSource(Source):
    """The resources of one kind of all node.clusters.

    Args:
        resource_type: the type.
        cache: where the resources are.
    """

    def __init__(self, resource_type: ResourceType, cache: MeshCache) -> None:
        self._type = resource_type
        self._resources = MeshResources(resource_type, cache)
        self._unencodable = Unencodable("resource_not_encoded")

    @property
    def type(self) -> ResourceType:
        """Clusters, listeners or routes."""
        return self._type

    @property
    def database_id(self) -> str:
        """The database whose versions these are."""
        return self._resources.database_id

    @property
    def unknown(self) -> str:
        """The words for a resource that the mesh configuration does not define."""
        return "the mesh configuration defines no resource of this name for the node's cluster"

    def find(self, node: Node, name: str) -> EncodedResource | None:
        """Return a resource of the node's cluster; None if there is none of this name.

        Raises:
            UnavailableError: this process has not read it yet, or cannot encode it.
        """
        resource = self._resources.find(node, name)
        if resource is None:
            return None
        key, version = (node.cluster, name), resource.version_info
        self._unencodable.check(key, version)
        try:
            return _encode(self._type.type_urls["v3"], name, version, resource.json("v3"))
        except _NOT_ENCODED as error:
            words = f"{name} cannot be sent over gRPC; REST serves it"
            facts = {"type": self._type.name, "name": name, "cluster": node.cluster}
            raise self._unencodable.refuse(key, version, words, error, **facts) from error

    def names(self, node: Node) -> ResourceNames:
        """Return the names of all resources of the node's cluster.

        Raises:
            UnavailableError: this process has not read them yet.
        """
        return self._resources.names(node)

    def standing_watch(self, node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` when the resources of the node's cluster change, or this process gets ready."""
        return self._resources.standing_watch(node, names, changed)

    def is_behind(self, node: Node, name: str, version: str) -> bool:
        """Return whether a client holds a newer revision; of a name that is not known here, newer than all others."""
        held = parse_version_info(self.database_id, (name,), version, self._type)
        if held is None:
            return False
        resource = self._resources.find(node, name)
        ours = self._resources.names(node).version if resource is None else resource.version
        if not ours < held[0] <= ours + version_of(MAX_REVISIONS_AHEAD, 0):
            return False
        self._resources.claim_ahead(node, name, held[0])
        return True


class _TypedBody(msgspec.Struct, frozen=True):
    """The type of a resource in JSON."""

    type_url: str = msgspec.field(name="@type")


def encode_ahead(body: bytes) -> None:
    """Encode a resource before a stream asks for it.

    A hundred of them in one piece hold the event loop for 65 ms.
    """
    try:
        _encode_body(msgspec.json.decode(body, type=_TypedBody).type_url, body)
    except _NOT_ENCODED:
        # The stream that asks for it is told, and the log then. Other bodies are read.
        return


@lru_cache(_MAX_ENTRIES)
def _encode(type_url: str, name: str, version: str, body: bytes) -> EncodedResource:
    entry, endpoints = _encode_body(type_url, body)
    return encode_resource(name, version, entry, endpoints)


@lru_cache(_MAX_ENTRIES)
def _encode_body(type_url: str, body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a resource as an entry of an answer, and the assignments that a cluster waits for."""
    document = msgspec.json.decode(body, type=dict)
    document.pop("@type", None)
    endpoints: tuple[str, ...] = ()
    if document.get("type") == "EDS":
        endpoints = (document.get("eds_cluster_config", {}).get("service_name") or document["name"],)
    return make_entry(type_url, encode_document(type_url, with_ads_sources(document))), endpoints
