"""Reading an Envoy's discovery request without reading its 77 kB.

Envoy sends all its extensions in ``node`` with each request. The needed fields stand at the ends: ``version_info``
first, ``resource_names`` last. When both ends look exactly as Envoy writes them they are cut out; any other body is
parsed whole.

CDS and LDS name nothing: there the end of the body is the end of ``node`` itself.
"""

import re

import msgspec
from msgspec import Struct

from registry.auth.principal import Principal
from registry.core.subscriber import ANONYMOUS, Node, Subscription
from registry.errors import InvalidError, UnreadableError
from registry.xds.resources import WILDCARD, RestPath

_MAX_NAMES = 10_000
"""Resource names of one request."""
_MAX_NAME = 1024
"""Characters of a resource name."""

_HEAD = re.compile(rb'\{"version_info":"([^"\\]*)","node":\{')
_TAIL_BEGINS = b'},"resource_names":["'
_TAIL = re.compile(_TAIL_BEGINS.replace(b"[", rb"\[") + rb'([^"\\]+)"\](?:,"type_url":"([^"\\]+)")?\}\s*\Z')
_TAIL_OF_ALL = re.compile(rb'\]\},"type_url":"([^"\\]+)"\}\s*\Z')
_EXTENSION_BEGINS = b'{"name":"'
_LAST_EXTENSION = re.compile(rb'\{"name":"[^"\\]*","category":"[^"\\]*"(?:,"type_urls":\[[^\[\]\\]*\])?\}\Z')
"""The end of ``extensions``, by which an end of ``node`` is told from that of another field."""
_TAIL_LENGTH = 1024
"""Bytes at the end of a body in which its names are looked for."""


class DiscoveryRequest(Struct):
    """A discovery request: the names that a node asks for, and the version that it holds already.

    ``subscription`` is set when the request is answered or held; it remembers the earlier ones of the same node.
    ``principal`` is its sender.
    """

    names: tuple[str, ...]
    version_info: str = ""
    node: Node = ANONYMOUS
    subscription: Subscription | None = None
    principal: Principal = Principal("")


class _Request(Struct):
    version_info: str | None = None
    version_info_camel: str | None = msgspec.field(default=None, name="versionInfo")
    resource_names: list[str] | None = None
    resource_names_camel: list[str] | None = msgspec.field(default=None, name="resourceNames")
    type_url: str | None = None
    type_url_camel: str | None = msgspec.field(default=None, name="typeUrl")


_decode = msgspec.json.Decoder(_Request).decode


def read_request(path: RestPath, *parts: bytes) -> DiscoveryRequest:
    """Read a discovery request.

    Args:
        path: the path that it was posted to.
        parts: the body, in the pieces that it came in.

    Raises:
        UnreadableError: the body is no JSON object of the right types.
        InvalidError: it asks for another resource type, or for too much.
    """
    return read_ends(path, *parts) or _parse(path, parts[0] if len(parts) == 1 else b"".join(parts))


def read_ends(path: RestPath, *parts: bytes) -> DiscoveryRequest | None:
    """Return a request that stands at the ends of a body as Envoy writes it; None for every other one.

    Args:
        path: the path that it was posted to.
        parts: the body, in the pieces that it came in.
    """
    end = parts[-1]
    if len(end) < _TAIL_LENGTH and len(parts) > 1:
        end = parts[-2][-_TAIL_LENGTH:] + end
    names = _cut_names(path, end)
    if names is None:
        return None
    head = _HEAD.match(parts[0])
    if head is None and not parts[0].startswith(b'{"node":{'):
        return None
    try:
        return DiscoveryRequest(names, head[1].decode() if head else "")
    except UnicodeDecodeError:
        return None


def _cut_names(path: RestPath, end: bytes) -> tuple[str, ...] | None:
    """Return the names at the end of a body; None where they do not stand as Envoy writes them."""
    if path.type.wildcard:
        return _cut_wildcard(path, end)
    begins = end.rfind(_TAIL_BEGINS, max(0, len(end) - _TAIL_LENGTH))
    tail = _TAIL.match(end, begins) if begins >= 0 else None
    if tail is None or (tail[2] is not None and tail[2] != path.type_url_bytes):
        return None
    try:
        return (tail[1].decode(),)
    except UnicodeDecodeError:
        return None


def names_place(path: RestPath, end: bytes) -> int:
    """Return where that part of the end of a body begins which tells the names; negative where there is none."""
    start = max(0, len(end) - _TAIL_LENGTH)
    if not path.type.wildcard:
        return end.rfind(_TAIL_BEGINS, start)
    begins = end.rfind(b"]},", start)
    return end.rfind(_EXTENSION_BEGINS, max(0, begins - _TAIL_LENGTH), begins) if begins >= 0 else -1


def _cut_wildcard(path: RestPath, end: bytes) -> tuple[str, ...] | None:
    """Return the wildcard for a body that ends with ``node``, and so names nothing."""
    begins = end.rfind(b"]},", max(0, len(end) - _TAIL_LENGTH))
    tail = _TAIL_OF_ALL.match(end, begins) if begins >= 0 else None
    if tail is None or tail[1] != path.type_url_bytes:
        return None
    last = names_place(path, end)
    return WILDCARD if last >= 0 and _LAST_EXTENSION.match(end, last, begins) else None


def _parse(path: RestPath, body: bytes) -> DiscoveryRequest:
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"no DiscoveryRequest: {error}") from None
    type_url = request.type_url or request.type_url_camel
    if type_url and type_url != path.type_url:
        raise InvalidError(f"this path serves {path.type_url}, not {type_url[:200]!r}", "$.type_url")
    names = tuple(dict.fromkeys(request.resource_names or request.resource_names_camel or ()))
    if len(names) > _MAX_NAMES:
        raise InvalidError(f"more than {_MAX_NAMES} names in one request", "$.resource_names")
    if any(len(name) > _MAX_NAME for name in names):
        raise InvalidError(f"a name is longer than {_MAX_NAME} characters", "$.resource_names")
    if not names and path.type.wildcard:
        names = WILDCARD
    return DiscoveryRequest(names, request.version_info or request.version_info_camel or "")
