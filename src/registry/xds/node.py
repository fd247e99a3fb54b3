"""Who asks: the head of an Envoy's ``node``, without the 76 kB of extensions that follow it."""

from functools import lru_cache

import msgspec
from msgspec import Struct

from registry.core.subscriber import ANONYMOUS, Node, printable

_NODE = b'"node":{'
_EXTENSIONS = b'"extensions":['
_LONGEST_VERSION_INFO = 1024
_LONGEST_HEAD = 4096
_MOST_NODES = 4096
_LONGEST_TEXT = 255


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
    """Return who asks, as far as the request says it; a ``node`` of another shape is nobody, and never an error.

    Args:
        parts: the body, in the pieces that it came in.
    """
    body = parts[0]
    if len(parts) > 1 and len(body) < _LONGEST_VERSION_INFO + _LONGEST_HEAD:
        body = b"".join(parts)
    start = body.find(_NODE, 0, _LONGEST_VERSION_INFO) + len(_NODE) - 1
    end = body.find(_EXTENSIONS, start, start + _LONGEST_HEAD)
    if start >= len(_NODE) - 1 and end > 0:
        found = _read_head(body[start:end])
        if found is not None:
            return found
    try:
        return _node(_decode_request(b"".join(parts)).node)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ANONYMOUS


@lru_cache(_MOST_NODES)
def _read_head(head: bytes) -> Node | None:
    """Read ``{"id":…,`` up to the extensions; an Envoy writes the same with each poll, so most are known."""
    try:
        return _node(_decode_node(head.rstrip(b",") + b"}"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The extensions of something else, deeper within.
        return None


def _node(told: _Node | None) -> Node:
    if told is None:
        return ANONYMOUS
    zone = told.locality.zone if told.locality else ""
    return Node(*(printable(text[:_LONGEST_TEXT]) for text in (told.id, told.cluster, zone, _version(told))))


def _version(told: _Node) -> str:
    build = told.user_agent_build_version
    if build is None or build.version is None:
        return ""
    return f"{build.version.major_number}.{build.version.minor_number}.{build.version.patch}"
