"""One HTTP request to an endpoint on this machine's own link: the ECS agent's or the EC2 instance's metadata.

Spoken over a plain socket, as the http check is: a client library's pool would have to be owned and closed by
somebody for the sake of a dozen requests in a process's life, and its parser costs more than the whole exchange.
No proxy, redirect or cookie applies to a link-local address, so none can lead the request elsewhere.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from registrar.http1 import LARGEST_HEAD, end_chunk, read_chunk_size, read_head

_LARGEST_BODY = 4 * 1024 * 1024


class Reply(Struct, frozen=True):
    """A status and a whole body."""

    status: int
    body: bytes


async def exchange(method: str, url: str, headers: Mapping[str, str], timeout: float) -> Reply:  # noqa: ASYNC109 - a phase of its own would need a second limit
    """Send one request without a body and return what came.

    Raises:
        OSError: nobody answered, or not in time (TimeoutError).
        ValueError: the answer is no HTTP.
    """
    parts = urlsplit(url)
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=LARGEST_HEAD)
        try:
            fields = {"host": parts.netloc, "connection": "close", "user-agent": "headcount-registrar", **headers}
            target = parts.path or "/"
            lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
            await writer.drain()
            return await _reply(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ValueError("the answer broke off") from error
        finally:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> Reply:
    head = await read_head(reader)
    return Reply(head.status, await _body(reader, head.fields))


async def _body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> bytes:
    # Go's server sends what is larger than its buffer, as a task of several containers is, in chunks.
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    if "content-length" in fields:
        return await reader.readexactly(_bounded(int(fields["content-length"])))
    return await reader.read(_LARGEST_BODY)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := await read_chunk_size(reader):
        body += await reader.readexactly(_bounded(size + len(body)) - len(body))
        await end_chunk(reader)
    return bytes(body)


def _bounded(size: int) -> int:
    if not 0 <= size <= _LARGEST_BODY:
        raise ValueError(f"a body of {size} bytes")
    return size
