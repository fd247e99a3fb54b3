"""Bodies of HTTP/1.1 answers, as far as a check reads them: a bounded part."""

import asyncio
from collections.abc import AsyncIterator

from registrar.http1 import Head, end_chunk, read_chunk_size

# A check that has to read more is no check.
LARGEST_BODY = 64 * 1024
_PIECE = 4096


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
    while left := await read_chunk_size(reader):
        while left > 0:
            piece = await reader.read(min(left, _PIECE))
            if not piece:
                raise ValueError("the answer's body never ended")
            left -= len(piece)
            yield piece
        await end_chunk(reader)
