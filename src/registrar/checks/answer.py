"""HTTP/1.1 answers, as far as a check reads them: a final head, and a bounded part of the body."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from msgspec import Struct

LARGEST_HEAD = 16 * 1024
# A check that has to read more is no check.
LARGEST_BODY = 64 * 1024
_PIECE = 4096


class Head(Struct, frozen=True):
    """The status and the fields of an answer, by their names in lower case."""

    status: int
    fields: Mapping[str, str]


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Return the first final head; anything that is not HTTP raises ValueError."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not (rest[:3].isascii() and rest[:3].isdigit()):
            raise ValueError(f"not an HTTP answer: {first[:100]}")
        # 100 Continue and 103 Early Hints come before the answer.
        if int(rest[:3]) >= 200:
            fields = (line.partition(":") for line in lines if line)
            return Head(int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in fields})


async def read_body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """Yield the body in the pieces in which it comes, without their framing, up to its end or the limit."""
    left = LARGEST_BODY
    pieces = _chunks(reader) if "chunked" in head.fields.get("transfer-encoding", "").lower() else _plain(reader, head)
    async for piece in pieces:
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


async def _plain(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    length = head.fields.get("content-length", "")
    left = int(length) if length.isascii() and length.isdigit() else LARGEST_BODY
    while left > 0 and (piece := await reader.read(min(left, _PIECE))):
        left -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while left := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        while left > 0:
            piece = await reader.read(min(left, _PIECE))
            if not piece:
                raise ValueError("the answer's body never ended")
            left -= len(piece)
            yield piece
        await reader.readexactly(2)
