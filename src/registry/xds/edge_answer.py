"""The answers to edges: their bytes, which most edges get alike, and those compressed."""

import gzip
from collections.abc import Sequence

import msgspec

from registry.xds.discovery_response import DiscoveryResponse, closing, opening
from registry.xds.resources import ENDPOINTS

ENDPOINTS_URL = ENDPOINTS.type_urls["v3"]
"""The type URL of assignments, which stand apart from the other resources in an answer."""
_MIN_COMPRESSED = 1_400
"""Bytes below which an answer is one packet anyway."""
_LEVEL = 1
"""Level of zlib: 2 MB of 10,000 endpoints become 75 kB in 5 ms."""
_MAX_KEPT_BODIES = 16_777_216
"""Bytes of answers that are kept: a change is answered to all edges in the same words."""

Place = tuple[str, str]
"""A type URL and a name: what an edge holds one token for."""
Part = tuple[Place, DiscoveryResponse]
"""A place, and the response to a poll for it."""
_Words = tuple[tuple[Place, str], ...]
"""The places and versions in an answer, which say what it is; and the names that are refused."""


class EdgeBody:
    """The body of an answer, which is compressed when an edge first takes it so."""

    __slots__ = ("_packed", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._packed: bytes | None = None
        """Made by packed()."""

    def packed(self) -> bytes | None:
        """Return the body as gzip has it; None where that saves nothing."""
        if len(self.plain) < _MIN_COMPRESSED:
            return None
        if self._packed is None:
            self._packed = gzip.compress(self.plain, _LEVEL, mtime=0)
        return self._packed


class EdgeResponse(DiscoveryResponse, frozen=True):
    """An answer with something new."""

    encoded: EdgeBody = EdgeBody(b"")


class EdgeAnswers:
    """Makes answers, and keeps the latest ones that have assignments alone: their versions say what they are.

    Args:
        types: the type URLs that there are, in the order in which Envoy wants their resources.
    """

    def __init__(self, types: Sequence[str]) -> None:
        self._types = types
        self._kept: dict[_Words, EdgeBody] = {}
        """The bodies of answers by what they say, the oldest first. Written by _keep()."""
        self._size = 0
        """Bytes of all of them, uncompressed. Written by _keep()."""

    def answer(self, parts: Sequence[Part], refused: Sequence[str]) -> EdgeResponse:
        """Return the answer of the resources in some responses, and of the names that are refused."""
        said = []
        for place, response in parts:
            if place[0] != ENDPOINTS_URL:
                # Versions of the mesh configuration are those of a node's cluster, or of the node alone.
                unlike = EdgeBody(_encode(self._types, parts, refused))
                return EdgeResponse(200, unlike.plain, encoded=unlike)
            said.append((place, response.version_info))
        said += [(("", name), "") for name in refused]
        words = tuple(said)
        body = self._kept.get(words)
        if body is None:
            body = EdgeBody(_encode(self._types, parts, refused))
            self._keep(words, body)
        return EdgeResponse(200, body.plain, encoded=body)

    def _keep(self, words: _Words, body: EdgeBody) -> None:
        """Keep a body in place of the oldest ones; one that is too large is not kept."""
        if len(body.plain) > _MAX_KEPT_BODIES:
            return
        self._kept[words] = body
        self._size += len(body.plain)
        while self._size > _MAX_KEPT_BODIES:
            oldest = next(iter(self._kept))
            self._size -= len(self._kept.pop(oldest).plain)


def _encode(types: Sequence[str], parts: Sequence[Part], refused: Sequence[str]) -> bytes:
    """Return the answer in JSON, of the resources in the responses."""
    text = msgspec.json.encode
    by_type: dict[str, list[bytes]] = {}
    for (type_url, name), response in parts:
        version_info = text(response.version_info)
        begin, end = len(opening(response.version_info)), len(closing(type_url))
        resources = response.body[begin:-end]
        if type_url != ENDPOINTS_URL:
            entry = b'%b:{"version_info":%b,"resources":[%b]}' % (text(name), version_info, resources)
        elif resources:
            entry = b'%b:{"version_info":%b,"assignment":%b}' % (text(name), version_info, resources)
        else:
            entry = b'%b:{"version_info":%b}' % (text(name), version_info)
        by_type.setdefault(type_url, []).append(entry)
    fields: list[bytes] = []
    assignments = by_type.pop(ENDPOINTS_URL, None)
    if assignments:
        fields.append(b'"assignments":{%b}' % b",".join(assignments))
    if by_type:
        # In the order in which Envoy wants them.
        listed = (b"%b:{%b}" % (text(url), b",".join(by_type[url])) for url in types if url in by_type)
        fields.append(b'"resources":{%b}' % b",".join(listed))
    if refused:
        fields.append(b'"refused":%b' % text(refused))
    return b"{%b}" % b",".join(fields)
