"""Reading an Envoy's discovery request without reading its 77 kB.

Envoy sends all its extensions in ``node`` with each poll. What is wanted stands at the ends: ``version_info`` first,
``resource_names`` last. When both ends look exactly as Envoy writes them they are cut out; any other body
is parsed whole.
"""

import re

import msgspec
from msgspec import Struct

from registry.core.subscriber import ANONYMOUS, Node, Subscription
from registry.errors import InvalidError, UnreadableError
from registry.xds.eds import TYPE_URL, Api

_MOST_NAMES = 10_000
_LONGEST_NAME = 1024

_HEAD = re.compile(rb'\{"version_info":"([^"\\]*)","node":\{')
_TAIL_BEGINS = b'},"resource_names":["'
_TAIL = re.compile(_TAIL_BEGINS.replace(b"[", rb"\[") + rb'([^"\\]+)"\](?:,"type_url":"([^"\\]+)")?\}\s*\Z')
_TAIL_LENGTH = 1024
_TYPES: dict[Api, tuple[bytes | None, ...]] = {api: (url.encode(), None) for api, url in TYPE_URL.items()}


class DiscoveryRequest(Struct):
    """What an Envoy asks for, and what it holds already; and who it is.

    ``subscription`` is set when the poll is answered or held: what is remembered of those before it.
    """

    names: tuple[str, ...]
    version_info: str = ""
    node: Node = ANONYMOUS
    subscription: Subscription | None = None


class _Request(Struct):
    version_info: str | None = None
    version_info_camel: str | None = msgspec.field(default=None, name="versionInfo")
    resource_names: list[str] | None = None
    resource_names_camel: list[str] | None = msgspec.field(default=None, name="resourceNames")
    type_url: str | None = None
    type_url_camel: str | None = msgspec.field(default=None, name="typeUrl")


_decode = msgspec.json.Decoder(_Request).decode


def read_request(api: Api, *parts: bytes) -> DiscoveryRequest:
    """Return what a DiscoveryRequest asks for.

    Args:
        api: of the path that was asked.
        parts: the body, in the pieces that it came in.

    Raises:
        UnreadableError: the body is no JSON object of the right types.
        InvalidError: it asks for another resource type, or for too much.
    """
    return _cut(api, *parts) or _parse(api, parts[0] if len(parts) == 1 else b"".join(parts))


def _cut(api: Api, *parts: bytes) -> DiscoveryRequest | None:
    end = parts[-1]
    if len(end) < _TAIL_LENGTH and len(parts) > 1:
        end = parts[-2][-_TAIL_LENGTH:] + end
    begins = end.rfind(_TAIL_BEGINS, max(0, len(end) - _TAIL_LENGTH))
    tail = _TAIL.match(end, begins) if begins >= 0 else None
    if tail is None or tail[2] not in _TYPES[api]:
        return None
    head = _HEAD.match(parts[0])
    if head is None and not parts[0].startswith(b'{"node":{'):
        return None
    try:
        return DiscoveryRequest((tail[1].decode(),), head[1].decode() if head else "")
    except UnicodeDecodeError:
        return None


def _parse(api: Api, body: bytes) -> DiscoveryRequest:
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableError(f"no DiscoveryRequest: {error}") from None
    type_url = request.type_url or request.type_url_camel
    if type_url and type_url != TYPE_URL[api]:
        raise InvalidError(f"this path serves {TYPE_URL[api]}, not {type_url[:200]!r}", "$.type_url")
    names = tuple(dict.fromkeys(request.resource_names or request.resource_names_camel or ()))
    if len(names) > _MOST_NAMES:
        raise InvalidError(f"more than {_MOST_NAMES} names in one request", "$.resource_names")
    if any(len(name) > _LONGEST_NAME for name in names):
        raise InvalidError(f"a name is longer than {_LONGEST_NAME} characters", "$.resource_names")
    return DiscoveryRequest(names, request.version_info or request.version_info_camel or "")
