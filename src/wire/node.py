"""The node of a discovery request: the head of ``node``, without the 76 kB of extensions that follow it."""

from functools import lru_cache

import msgspec
from msgspec import Struct

_NODE = b'"node":{'
_EXTENSIONS = b'"extensions":['
_MAX_VERSION_INFO = 1024
"""Bytes of a body in which ``node`` has to begin."""
_MAX_HEAD = 4096
"""Bytes of ``node`` in which its extensions have to begin."""
_MAX_NODES = 4096
"""Heads whose nodes are kept; an Envoy sends the same with each request."""
MAX_NODE_TEXT = 255
"""Characters that are kept of an id, a cluster or a zone."""


class Node(Struct, frozen=True, gc=False):
    """The node of a discovery request, as far as it is read; ``version`` is Envoy's own."""

    id: str = ""
    cluster: str = ""
    zone: str = ""
    version: str = ""


ANONYMOUS = Node()
"""The node of a request that names none."""


class _Locality(Struct):
    region: str = ""
    zone: str = ""


class _Semantic(Struct):
    major_number: int = 0
    minor_number: int = 0
    patch: int = 0


class _Build(Struct):
    version: _Semantic | None = None


class _Node(Struct):
    id: str = ""
    cluster: str = ""
    locality: _Locality | None = None
    user_agent_build_version: _Build | None = None


class _Request(Struct):
    node: _Node | None = None


_decode_node = msgspec.json.Decoder(_Node).decode
_decode_request = msgspec.json.Decoder(_Request).decode


def read_node(*parts: bytes) -> Node:
    """Return the node of a request; a ``node`` of another shape is anonymous, and never an error.

    Args:
        parts: the body, in the pieces that it came in.
    """
    body = parts[0]
    if len(parts) > 1 and len(body) < _MAX_VERSION_INFO + _MAX_HEAD:
        body = b"".join(parts)
    start, end = _head(body)
    if end > 0:
        node = _read_head(body[start:end])
        if node is not None:
            return node
    try:
        return _node(_decode_request(b"".join(parts)).node)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ANONYMOUS


def head_end(body: bytes) -> int | None:
    """Return how many bytes at the beginning of a body tell the node; None where more are needed."""
    start, end = _head(body)
    return end + len(_EXTENSIONS) if end > 0 and _read_head(body[start:end]) is not None else None


def _head(body: bytes) -> tuple[int, int]:
    """Return where the head of ``node`` begins and ends; (0, -1) where it has none."""
    start = body.find(_NODE, 0, _MAX_VERSION_INFO)
    if start < 0:
        return 0, -1
    start += len(_NODE) - 1
    return start, body.find(_EXTENSIONS, start, start + _MAX_HEAD)


@lru_cache(_MAX_NODES)
def _read_head(head: bytes) -> Node | None:
    """Read ``{"id":…,`` up to the extensions; None if those are of something deeper within."""
    try:
        return _node(_decode_node(head.rstrip(b",") + b"}"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _node(node: _Node | None) -> Node:
    if node is None:
        return ANONYMOUS
    zone = node.locality.zone if node.locality else ""
    return Node(*(printable(text[:MAX_NODE_TEXT]) for text in (node.id, node.cluster, zone, _version(node))))


def _version(node: _Node) -> str:
    build = node.user_agent_build_version
    if build is None or build.version is None:
        return ""
    return f"{build.version.major_number}.{build.version.minor_number}.{build.version.patch}"


def printable(text: str) -> str:
    """Return a subscriber's text without the characters that PostgreSQL and terminals do not take."""
    return text if text.isprintable() else "".join(letter for letter in text if letter.isprintable())
