"""The answer to a discovery request over REST, and its bytes."""

from collections.abc import Iterable
from functools import cache

import msgspec
from msgspec import Struct


class DiscoveryResponse(Struct, frozen=True):
    """An HTTP answer: 200 with a body and the version in it, or 304 with neither."""

    status: int
    body: bytes = b""
    version_info: str = ""


def encode_response(type_url: str, version_info: str, resources: Iterable[bytes]) -> bytes:
    """Return a DiscoveryResponse in JSON, of resources that are encoded already."""
    return b"".join((opening(version_info), b",".join(resources), closing(type_url)))


def opening(version_info: str) -> bytes:
    """Return the bytes of a DiscoveryResponse before its resources."""
    return b'{"version_info":%b,"resources":[' % msgspec.json.encode(version_info)


@cache
def closing(type_url: str) -> bytes:
    """Return the bytes of a DiscoveryResponse behind its resources."""
    return b'],"type_url":%b}' % msgspec.json.encode(type_url)
