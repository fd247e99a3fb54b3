"""The types of xDS resources, as data: their names in each API version, and their REST paths.

A further type is one more `ResourceType` in `TYPES`, a `ResourceCache` that its resources come from
(`registry.xds.resource_cache`), and a `ServedType` of both in `registry.process`. It is then served.
`/v1/subscribers`, the console and the metrics of subscribers show endpoints (EDS) alone.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from meshconfig.resource import TYPE_URLS

Api = Literal["v2", "v3"]
"""A version of Envoy's discovery API. It says nothing about the type of a resource."""


class ResourceType(Struct, frozen=True):
    """One type of xDS resource.

    Attributes:
        name: how REST paths name it, such as `endpoints` in `/v3/discovery:endpoints`.
        order: place among the types of one update, which Envoy wants in the order clusters (1), endpoints (2),
            listeners (3), routes (4): xDS protocol, "Eventual consistency considerations".
        type_urls: its type URL in each API version that serves it.
        wildcard: whether a request without resource names asks for all resources of its node; xDS allows that for
            clusters and listeners alone.
        keyed_by_cluster: whether its resources are those of the node's cluster, which access is decided by; otherwise
            they are the same for all nodes, and access is decided by their names.
        full_sets: whether what an answer for the state of the world leaves out does not exist, as the xDS protocol has
            it for clusters and listeners.
        stepped: whether a version is a revision and a step (`registry.core.mesh`), written as `7.2`.
        offered_once: whether an answer that a subscriber has refused is not repeated until there is a newer one.
        descriptions: what its path answers in each of these versions, for the OpenAPI document.
        example: one resource, without its `@type`, for the same document.
    """

    name: str
    order: int
    type_urls: Mapping[Api, str]
    wildcard: bool = False
    keyed_by_cluster: bool = False
    full_sets: bool = False
    stepped: bool = False
    offered_once: bool = False
    descriptions: Mapping[Api, str] = {}
    example: Mapping[str, Any] = {}


class RestPath:
    """The REST path that serves one resource type in one API version.

    Attributes:
        type: the resource type.
        api: the API version.
        url: where Envoy posts its discovery requests.
        type_url: the type URL of the resources in this API version.
        type_url_bytes: the same, as it stands in a request.
        wildcard: whether a request without resource names asks for all resources of its node.
    """

    __slots__ = ("api", "type", "type_url", "type_url_bytes", "url", "wildcard")

    def __init__(self, resource_type: ResourceType, api: Api) -> None:
        self.type = resource_type
        self.api = api
        self.url = f"/{api}/discovery:{resource_type.name}"
        self.type_url = resource_type.type_urls[api]
        self.type_url_bytes = self.type_url.encode()
        self.wildcard = resource_type.wildcard


def rest_paths(resource_type: ResourceType) -> list[RestPath]:
    """Return the REST paths that serve a resource type, one for each API version."""
    return [RestPath(resource_type, api) for api in resource_type.type_urls]


ENDPOINTS = ResourceType(
    "endpoints",
    order=2,
    type_urls={
        "v2": "type.googleapis.com/envoy.api.v2.ClusterLoadAssignment",
        "v3": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    },
    descriptions={
        "v2": "Return v2 ClusterLoadAssignments, one for each name in order.",
        "v3": "Return v3 ClusterLoadAssignments; a service that never had an endpoint is left out.",
    },
    example={"cluster_name": "shop", "endpoints": []},
)
"""EDS: a resource is the ClusterLoadAssignment of a service."""

CLUSTERS = ResourceType(
    "clusters",
    order=1,
    type_urls={"v3": TYPE_URLS["clusters"]},
    wildcard=True,
    keyed_by_cluster=True,
    full_sets=True,
    stepped=True,
    offered_once=True,
    descriptions={
        "v3": "Return the clusters of the node's `cluster`, as the mesh configuration defines them; a node of which "
        "nothing was ever defined gets none."
    },
    example={"name": "user", "type": "EDS"},
)
"""CDS: the clusters of everything that the service `node.cluster` calls."""

LISTENERS = ResourceType(
    "listeners",
    order=3,
    type_urls={"v3": TYPE_URLS["listeners"]},
    wildcard=True,
    keyed_by_cluster=True,
    full_sets=True,
    stepped=True,
    offered_once=True,
    descriptions={
        "v3": "Return the listeners of the gateway or edge that the node's `cluster` names; a service has none."
    },
    example={"name": "www"},
)
"""LDS: the listeners of a gateway or an edge; services have theirs in the bootstrap."""

ROUTES = ResourceType(
    "routes",
    order=4,
    type_urls={"v3": TYPE_URLS["routes"]},
    keyed_by_cluster=True,
    stepped=True,
    offered_once=True,
    descriptions={"v3": "Return the route configurations of these names that are defined for the node's `cluster`."},
    example={"name": "default", "virtual_hosts": []},
)
"""RDS: the route configurations of the node's cluster, asked for by name."""

MESH_TYPES = (CLUSTERS, LISTENERS, ROUTES)
"""The types of the mesh configuration."""

TYPES = (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES)
"""The resource types that every process serves, and that the OpenAPI document describes."""
