"""An encoded document of a list, and the representation of it that a request gets.

Entity tags are digests of the content, so that all processes agree on them and none can be of another content. They are
weak, because the compressed and the plain document share one (RFC 9110, 8.8.1).
"""

import gzip
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from typing import Any

import msgspec
from msgspec import Struct

from registry.cooperative import cooperatively
from registry.http.compression import may_compress
from registry.http.headers import Headers

IF_NONE_MATCH = b"if-none-match"
ACCEPT_ENCODING = b"accept-encoding"

_MIN_COMPRESSED = 1_400
"""Bytes below which a response is one packet anyway."""
_MAX_COMPRESSED = 1_048_576
"""Bytes above which a document is not compressed: 1 MiB holds up polls for about 5 ms."""
_LEVEL = 1
"""Level of zlib, of which 4 takes twice the time for a quarter less."""
_TAG_SIZE = 12
"""Bytes of the digest in an entity tag."""
_SLICE = 65_536
"""Bytes that are joined and digested in one piece, in about 0.1 ms."""
_MAX_READ = 256
"""Values of Accept-Encoding that are remembered as read."""
_MAX_ACCEPTED = 512
"""Bytes of a value of Accept-Encoding that is read; with a longer one the plain document is sent, which all take."""
_VARY = (b"vary", b"accept-encoding")


class Conditions(Struct, frozen=True):
    """The representation that a request takes.

    Attributes:
        if_none_match: the entity tags that the client holds, as its header has them; None: it holds none.
        gzip: whether it takes a compressed document.
    """

    if_none_match: bytes | None = None
    gzip: bool = False

    def are_met(self, etag: bytes) -> bool:
        """Return whether the client lacks the document of an entity tag, by weak comparison (RFC 9110, 13.1.2)."""
        held = self.if_none_match
        if held is None:
            return True
        if held == etag:
            return False
        opaque = etag.removeprefix(b"W/")
        tags = [tag.strip() for tag in held.split(b",")]
        return tags != [b"*"] and not any(tag.removeprefix(b"W/") == opaque for tag in tags)


class Representation(Struct, frozen=True, gc=False):
    """A response to a request for a list.

    Attributes:
        status: 200, or 304 where the client holds the document.
        headers: those that are the list's own.
        lines: the same, as they stand on the wire.
        body: empty with a 304.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    lines: bytes
    body: bytes


class Document:
    """An encoded document, which is compressed when first asked for and never changed.

    Args:
        body: its JSON.
        digest: the hexadecimal digest of the body; None: it is computed.
    """

    __slots__ = ("_compressed", "_plain", "_unchanged", "body", "etag")

    def __init__(self, body: bytes, digest: str | None = None) -> None:
        self.body = body
        self.etag = b'W/"%b"' % (digest or blake2b(body, digest_size=_TAG_SIZE).hexdigest()).encode()
        self._plain = _representation(body, self.etag)
        self._compressed: Representation | None = None
        """Made by represented_for() for the first client that takes it."""
        self._unchanged = Representation(304, *_headers(self.etag), b"")

    @property
    def size(self) -> int:
        """The bytes of memory that it takes at most, once it is compressed."""
        return 2 * len(self.body) if len(self.body) <= _MAX_COMPRESSED else len(self.body)

    def represented_for(self, conditions: Conditions) -> Representation:
        """Return the response to a request with these conditions."""
        if conditions.if_none_match is not None and not conditions.are_met(self.etag):
            return self._unchanged
        if not conditions.gzip or not _MIN_COMPRESSED <= len(self.body) <= _MAX_COMPRESSED:
            return self._plain
        if self._compressed is None:
            packed = gzip.compress(self.body, _LEVEL, mtime=0)
            self._compressed = _representation(packed, self.etag, (b"content-encoding", b"gzip"))
        return self._compressed


def document_of(view: object) -> Document:
    """Return a document that is encoded as a whole."""
    return Document(msgspec.json.encode(view))


async def joined_document(parts: Iterable[bytes]) -> Document:
    """Return the document that some parts are, one after the other.

    They are joined and digested in turns, between which the process answers polls: 40 MB take 70 ms in one piece.
    """
    joined, digest = BytesIO(), blake2b(digest_size=_TAG_SIZE)
    slices = (part[begin : begin + _SLICE] for part in parts for begin in range(0, len(part), _SLICE))
    async for piece in cooperatively(slices):
        joined.write(piece)
        digest.update(piece)
    # This makes no copy: the buffer gives its bytes away.
    return Document(joined.getvalue(), digest.hexdigest())


def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Return whether a client takes gzip, by its header of that name (RFC 9110, 12.5.3)."""
    return accept_encoding is not None and len(accept_encoding) <= _MAX_ACCEPTED and _takes_gzip(accept_encoding)


@lru_cache(maxsize=_MAX_READ)
def _takes_gzip(accept_encoding: bytes) -> bool:
    weights: dict[bytes, float] = {}
    for item in accept_encoding.lower().split(b","):
        coding, *parameters = (part.strip() for part in item.split(b";"))
        weights[coding] = _weight(parameters)
    return weights.get(b"gzip", weights.get(b"*", 0.0)) > 0


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _representation(body: bytes, etag: bytes, *more: tuple[bytes, bytes]) -> Representation:
    length = (b"content-length", b"%d" % len(body))
    return Representation(200, *_headers(etag, *more, length, (b"content-type", b"application/json")), body)


def _headers(etag: bytes, *more: tuple[bytes, bytes]) -> tuple[Any, bytes]:
    headers = ((b"etag", etag), _VARY, *more)
    return headers, b"".join(b"%b: %b\r\n" % header for header in headers)


def conditions_of(headers: Headers) -> Conditions:
    """Return the conditions of a request that the application answers."""
    held = [value for name, value in headers if name == IF_NONE_MATCH]
    accepted = b",".join(value for name, value in headers if name == ACCEPT_ENCODING)
    return Conditions(b",".join(held) if held else None, accepts_gzip(accepted) and may_compress(headers))
