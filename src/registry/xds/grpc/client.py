"""The client of a stream: what its node says of it, in the first request alone."""

from google.protobuf.message import DecodeError
from msgspec import Struct

from registry.xds.grpc import messages_pb2 as messages
from wire.node import ANONYMOUS, Node, printable

_MAX_TEXT = 255
"""Characters that are kept of an id, a cluster, a zone or a version."""
_GRPC = "gRPC"
"""How the user agent of a gRPC library begins: "gRPC C-core", "gRPC Go", "gRPC Java"."""


class Client(Struct, frozen=True):
    """The client of a stream.

    Attributes:
        node: its id, cluster, zone and version.
        user_agent: its kind, like ``envoy`` or ``gRPC Go``.
        is_grpc: whether it is a gRPC library, which balances load without an Envoy.
    """

    node: Node = ANONYMOUS
    user_agent: str = ""
    is_grpc: bool = False


def read_client(node: bytes) -> Client:
    """Return the client of a request's node; a node that cannot be read is anonymous, and never an error."""
    try:
        message = messages.Node.FromString(node)
    except DecodeError:
        return Client()
    text = _version(message)
    node_of_client = Node(*(_short(part) for part in (message.id, message.cluster, message.locality.zone, text)))
    return Client(node_of_client, _short(message.user_agent_name), message.user_agent_name.startswith(_GRPC))


def _version(node: messages.Node) -> str:
    if not node.HasField("user_agent_build_version"):
        return node.user_agent_version
    version = node.user_agent_build_version.version
    return f"{version.major_number}.{version.minor_number}.{version.patch}"


def _short(text: str) -> str:
    return printable(text[:_MAX_TEXT])
