"""The head of an HTTP/1.1 answer and the sizes of its chunks, as all readers of this program take them.

Lines may end with a bare LF (RFC 9112, 2.2): shell scripts and old CGI programs write no others.
"""

import asyncio
import re
from collections.abc import Mapping

from msgspec import Struct

# Envoy and nginx take heads of about that size, too.
LARGEST_HEAD = 64 * 1024
_BEGIN = b"HTTP/"
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([0-9]{3})(?![0-9])")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r?\n", re.DOTALL)


class Head(Struct, frozen=True):
    """The status and the fields of an answer, by their names in lower case."""

    status: int
    fields: Mapping[str, str]


class HungUpError(ValueError):
    """The server closed the connection before its answer began."""


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Return the first final head; the reader's limit has to be ``LARGEST_HEAD``.

    Raises:
        ValueError: what came is no HTTP/1.1, or broke off; says what it looks like.
    """
    while True:
        first, *lines = await _lines(reader)
        match = _STATUS_LINE.match(first)
        if match is None:
            raise ValueError(f"not an HTTP answer: {first[:100]}")
        # 100 Continue and 103 Early Hints come before the answer.
        if int(match[1]) >= 200:
            fields = (line.partition(":") for line in lines)
            return Head(int(match[1]), {name.strip().lower(): value.strip() for name, _, value in fields})


async def read_chunk_size(reader: asyncio.StreamReader) -> int:
    """Return the size of the next chunk.

    Raises:
        ValueError: what came is none.
    """
    line = await reader.readuntil(b"\n")
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise ValueError(f"{line[:20]!r} is no size of a chunk")
    return int(match[1], 16)


async def end_chunk(reader: asyncio.StreamReader) -> None:
    """Read the end of the line behind a chunk."""
    if (await reader.readuntil(b"\n")).strip(b"\r\n"):
        raise ValueError("a chunk is longer than its size")


async def _lines(reader: asyncio.StreamReader) -> list[str]:
    """Return the lines of a head without their ends and without the empty one that closes it."""
    try:
        begin = await reader.readexactly(len(_BEGIN))
    except asyncio.IncompleteReadError as error:
        if meaning := _meaning(error.partial):
            raise ValueError(meaning) from error
        raise HungUpError("the server hung up without an answer") from error
    if begin != _BEGIN:
        raise ValueError(_meaning(begin) or f"not an HTTP answer: {(begin + await _rest(reader)).decode('latin-1')}")
    head = bytearray(begin)
    try:
        while not head.endswith((b"\n\n", b"\n\r\n")):
            head += await reader.readuntil(b"\n")
            if len(head) > LARGEST_HEAD:
                raise ValueError(f"the answer's head is longer than {LARGEST_HEAD} bytes")
    except asyncio.IncompleteReadError as error:
        raise ValueError("the answer's head never ended") from error
    except asyncio.LimitOverrunError as error:
        raise ValueError(f"the answer's head is longer than {LARGEST_HEAD} bytes") from error
    return head.decode("latin-1").replace("\r\n", "\n").rstrip("\n").split("\n")


def _meaning(begin: bytes) -> str:
    """Return what else a server speaks that begins so, or nothing."""
    if begin[:1] == b"\0" and begin[3:4] == b"\x04":
        return "the server speaks HTTP/2 alone: use a grpc check, or a port that speaks HTTP/1.1"
    if begin[:2] == b"\x15\x03":
        return "the server speaks TLS: set tls"
    return ""


async def _rest(reader: asyncio.StreamReader) -> bytes:
    return (await reader.read(95)).partition(b"\n")[0].rstrip(b"\r")
