"""Reading an Envoy's discovery poll without reading its 77 kB.

Envoy sends all its extensions in ``node`` with each request. The needed fields stand at the ends: ``version_info``
first, ``resource_names`` last. When both ends look exactly as Envoy writes them they are cut out; any other body is
parsed whole. `wire.node` reads the node.

CDS and LDS name nothing: there the end of the body is the end of ``node`` itself.
"""

import re
from typing import Protocol

import msgspec
from msgspec import Struct

WILDCARD = ("*",)
"""The resource names of a request for all resources of a node, as xDS writes them."""
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


class PolledType(Protocol):
    """The type of resource that a path serves, as far as reading its polls needs it."""

    @property
    def type_url(self) -> str:
        """The type URL of the resources."""

    @property
    def type_url_bytes(self) -> bytes:
        """The same, as it stands in a request."""

    @property
    def wildcard(self) -> bool:
        """Whether a request without resource names asks for all resources of its node."""


class InvalidPollError(ValueError):
    """A poll asks for another resource type, or for too much.

    Attributes:
        pointer: the place in its body.
    """

    def __init__(self, reason: str, pointer: str) -> None:
        super().__init__(reason)
        self.pointer = pointer


class UnreadablePollError(ValueError):
    """A poll is no JSON object of the right types."""


class _Request(Struct):
    version_info: str | None = None
    version_info_camel: str | None = msgspec.field(default=None, name="versionInfo")
    resource_names: list[str] | None = None
    resource_names_camel: list[str] | None = msgspec.field(default=None, name="resourceNames")
    type_url: str | None = None
    type_url_camel: str | None = msgspec.field(default=None, name="typeUrl")


_decode = msgspec.json.Decoder(_Request).decode


def read_ends(polled: PolledType, *parts: bytes) -> tuple[tuple[str, ...], str] | None:
    """Return the names and the version of a body as Envoy writes it; None for every other one.

    Args:
        polled: what the path serves that it was posted to.
        parts: the body, in the pieces that it came in.
    """
    end = parts[-1]
    if len(end) < _TAIL_LENGTH and len(parts) > 1:
        end = parts[-2][-_TAIL_LENGTH:] + end
    names = _cut_names(polled, end)
    if names is None:
        return None
    head = _HEAD.match(parts[0])
    if head is None and not parts[0].startswith(b'{"node":{'):
        return None
    try:
        return names, head[1].decode() if head else ""
    except UnicodeDecodeError:
        return None


def names_place(polled: PolledType, end: bytes) -> int:
    """Return where that part of the end of a body begins which tells the names; negative where there is none."""
    start = max(0, len(end) - _TAIL_LENGTH)
    if not polled.wildcard:
        return end.rfind(_TAIL_BEGINS, start)
    begins = end.rfind(b"]},", start)
    return end.rfind(_EXTENSION_BEGINS, max(0, begins - _TAIL_LENGTH), begins) if begins >= 0 else -1


def parse(polled: PolledType, body: bytes) -> tuple[tuple[str, ...], str]:
    """Return the names and the version of a body of any form.

    Raises:
        UnreadablePollError: the body is no JSON object of the right types.
        InvalidPollError: it asks for another resource type, or for too much.
    """
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadablePollError(f"no DiscoveryRequest: {error}") from None
    type_url = request.type_url or request.type_url_camel
    if type_url and type_url != polled.type_url:
        raise InvalidPollError(f"this path serves {polled.type_url}, not {type_url[:200]!r}", "$.type_url")
    names = tuple(dict.fromkeys(request.resource_names or request.resource_names_camel or ()))
    if len(names) > _MAX_NAMES:
        raise InvalidPollError(f"more than {_MAX_NAMES} names in one request", "$.resource_names")
    if any(len(name) > _MAX_NAME for name in names):
        raise InvalidPollError(f"a name is longer than {_MAX_NAME} characters", "$.resource_names")
    if not names and polled.wildcard:
        names = WILDCARD
    return names, request.version_info or request.version_info_camel or ""


def _cut_names(polled: PolledType, end: bytes) -> tuple[str, ...] | None:
    """Return the names at the end of a body; None where they do not stand as Envoy writes them."""
    if polled.wildcard:
        return _cut_wildcard(polled, end)
    begins = end.rfind(_TAIL_BEGINS, max(0, len(end) - _TAIL_LENGTH))
    tail = _TAIL.match(end, begins) if begins >= 0 else None
    if tail is None or (tail[2] is not None and tail[2] != polled.type_url_bytes):
        return None
    try:
        return (tail[1].decode(),)
    except UnicodeDecodeError:
        return None


def _cut_wildcard(polled: PolledType, end: bytes) -> tuple[str, ...] | None:
    """Return the wildcard for a body that ends with ``node``, and so names nothing."""
    begins = end.rfind(b"]},", max(0, len(end) - _TAIL_LENGTH))
    tail = _TAIL_OF_ALL.match(end, begins) if begins >= 0 else None
    if tail is None or tail[1] != polled.type_url_bytes:
        return None
    last = names_place(polled, end)
    return WILDCARD if last >= 0 and _LAST_EXTENSION.match(end, last, begins) else None
