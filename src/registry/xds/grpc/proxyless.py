"""Listeners and clusters for gRPC libraries, which balance load without an Envoy: `xds:///shop` (gRFC A27).

Such a client asks for the listener of its target, then for the cluster that the listener's route names, and for the
assignment of that. Both are made of the name of a service, and stay while the service is known: to leave one out cuts
the RPCs of its clients, whereas an assignment without endpoints does not.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from meshconfig.proto_json import extension, typed
from registry.cache.snapshot_cache import SnapshotCache
from registry.cache.standing_watches import Changed
from registry.errors import UnavailableError
from registry.xds.grpc.envoy_api import encode_document
from registry.xds.grpc.source import EncodedResource, Source, encode_resource, make_entry
from registry.xds.resource_cache import ResourceNames, StandingWatch
from registry.xds.resources import CLUSTERS, LISTENERS, ResourceType
from registry.xds.version_info import format_version
from wire.node import Node

_OF_SERVICES = {"wildcard": False, "keyed_by_cluster": False, "stepped": False, "offered_once": False}
"""How these types differ from those of mesh configuration: a name is that of a service, and the same for all nodes."""
SERVICE_LISTENERS = replace(LISTENERS, **_OF_SERVICES)
SERVICE_CLUSTERS = replace(CLUSTERS, **_OF_SERVICES)

_MAX_ENTRIES = 16_384
"""Services whose listeners and clusters are kept."""
_FORM = 1
"""The version of these resources. It grows when what is made of a name changes."""


class ServiceSource(Source):
    """The listeners or the clusters of all services that are known.

    Args:
        resource_type: SERVICE_LISTENERS or SERVICE_CLUSTERS.
        cache: where the services are.
    """

    def __init__(self, resource_type: ResourceType, cache: SnapshotCache) -> None:
        self._type = resource_type
        self._cache = cache

    @property
    def type(self) -> ResourceType:
        """Listeners or clusters."""
        return self._type

    @property
    def database_id(self) -> str:
        """The database of the services."""
        return self._cache.database_id

    @property
    def unknown(self) -> str:
        """The words for a service that never had an endpoint."""
        return "no service of this name is registered"

    def find(self, _node: Node, name: str) -> EncodedResource | None:
        """Return what is made of a service; None if it never had an endpoint, or was forgotten.

        Raises:
            UnavailableError: this process has not read the database yet.
        """
        if not self._cache.ready:
            raise UnavailableError("this process has not read the registry's state yet")
        # Of a service that cannot be read it is known that it exists, and this is made of its name alone.
        if name not in self._cache.unsure and not self._cache.knows(name):
            return None
        return _encode(self._type.name, format_version(self._cache.database_id, _FORM), name)

    def names(self, _node: Node) -> ResourceNames:
        """Return nothing: a client names its target."""
        return ResourceNames()

    def standing_watch(self, _node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Call ``changed`` when a service may have come to be known, and when this process gets ready."""
        return self._cache.standing_watch(names, changed)

    def is_behind(self, _node: Node, _name: str, _version: str) -> bool:
        """Return False: what is made of a name is the same on all replicas."""
        return False


@lru_cache(_MAX_ENTRIES)
def _encode(kind: str, version: str, name: str) -> EncodedResource:
    resource_type = SERVICE_LISTENERS if kind == SERVICE_LISTENERS.name else SERVICE_CLUSTERS
    document = service_listener(name) if resource_type is SERVICE_LISTENERS else service_cluster(name)
    type_url = resource_type.type_urls["v3"]
    return encode_resource(name, version, make_entry(type_url, encode_document(type_url, document)))


def service_listener(name: str) -> Mapping[str, Any]:
    """Return the listener of a service: one route for everything, to the cluster of the same name."""
    route = {"match": {"prefix": ""}, "route": {"cluster": name}}
    fields = {
        "stat_prefix": name,
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")],
    }
    manager = typed("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", fields)
    return {"name": name, "api_listener": {"api_listener": manager}}


def service_cluster(name: str) -> Mapping[str, Any]:
    """Return the cluster of a service, whose endpoints come over the same stream."""
    config = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
    return {"name": name, "type": "EDS", "eds_cluster_config": config, "lb_policy": "ROUND_ROBIN"}
