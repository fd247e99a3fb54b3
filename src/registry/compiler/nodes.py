"""The resources of node.clusters on their way to the compiler's process and back: a document for each.

Five hundred node.clusters in one document take the event loop 20 ms to read; one by one, polls are answered in between.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from meshconfig.resource import Kind, NodeResources, Resource
from registry.cooperative import cooperatively

NodeDigests = Mapping[Kind, Mapping[str, str]]
"""The digests of a node.cluster's resources, by kind and name."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[Kind, dict[str, Resource]])


class CompiledNodes(Struct, frozen=True):
    """The resources that were compiled.

    Attributes:
        contents: their digests, by node.cluster.
        bodies: those that are not stored yet.
    """

    contents: Mapping[str, NodeDigests]
    bodies: list[Resource]


def encode_node(resources: NodeResources) -> Raw:
    """Return the resources of a node.cluster as a document."""
    return Raw(_encoder.encode(resources))


def decode_node(document: Raw) -> NodeResources:
    """Return the resources of a node.cluster from their document."""
    return _decoder.decode(document)


async def read_nodes(resources: Mapping[str, Raw]) -> CompiledNodes:
    """Return the resources that were compiled, and yield to the event loop in between."""
    contents: dict[str, NodeDigests] = {}
    bodies: list[Resource] = []
    async for node, document in cooperatively(resources.items()):
        kinds = decode_node(document)
        contents[node] = {kind: {name: each.sha256 for name, each in named.items()} for kind, named in kinds.items()}
        bodies += [each for named in kinds.values() for each in named.values() if each.body]
    return CompiledNodes(contents, bodies)
