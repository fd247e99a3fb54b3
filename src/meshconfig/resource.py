"""Compiled resources: the bytes that Envoys are served, and the facts about them that roll-outs need."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec import Struct

Kind = Literal["clusters", "routes", "listeners"]
"""A type of xDS resource, as its REST path names it."""

TYPE_URLS: Mapping[Kind, str] = {
    "clusters": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "routes": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "listeners": "type.googleapis.com/envoy.config.listener.v3.Listener",
}


class Resource(Struct, frozen=True, gc=False):
    """One compiled resource.

    Attributes:
        kind: its type.
        name: its name in Envoy.
        body: the resource in JSON with its ``@type``: the bytes that are served and hashed.
        sha256: the digest of the body, in hexadecimal digits. Equal resources of many callers are kept once.
        uses: of routes and listeners, the clusters that they send requests to.
        eds_service: of a cluster, the service whose endpoints it asks for; empty for DNS.
        settle: of a cluster, seconds until it serves after Envoy knows it, where nothing tells (DNS, active checks).
    """

    kind: Kind
    name: str
    body: bytes
    sha256: str
    uses: tuple[str, ...] = ()
    eds_service: str = ""
    settle: float = 0.0


NodeResources = Mapping[Kind, Mapping[str, Resource]]
"""What the Envoys of one node.cluster are served: the resources of each kind, by name."""


class Catalog(Struct, frozen=True):
    """The registered services that gateways select from.

    Attributes:
        metadata: for each service, the values of each metadata key that its endpoints have.
        grpc_services: for each service, the full names of the gRPC services that its endpoints announce.
        endpoints: for each service, the number of its endpoints, which nothing that is compiled depends on.
    """

    metadata: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
    grpc_services: Mapping[str, tuple[str, ...]] = {}
    endpoints: Mapping[str, int] = {}


class Snapshot(Struct, frozen=True):
    """Everything that a repository of definitions compiles to, by node.cluster."""

    nodes: Mapping[str, NodeResources]


def make_resource(
    kind: Kind, document: Mapping[str, Any], *, uses: tuple[str, ...] = (), eds_service: str = "", settle: float = 0.0
) -> Resource:
    """Return a document of Envoy's API with its bytes, which do not depend on the order of its keys."""
    body = msgspec.json.encode({"@type": TYPE_URLS[kind], **document}, order="sorted")
    return Resource(kind, document["name"], body, sha256(body).hexdigest(), uses, eds_service, settle)
