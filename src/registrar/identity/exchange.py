"""One HTTP request to a link-local endpoint: the ECS agent's metadata, or the EC2 instance's.

Each request has a connection of its own: there are a dozen in a process's life, and nothing would own a pool for them.
No proxy, redirect or cookie applies to a link-local address, so none can lead the request elsewhere.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from wire.http1 import Http1Connection, Request, Response

_MAX_BODY_BYTES = 4 * 1024 * 1024
"""Bytes of a response's body; a task of many containers takes some ten thousand."""


async def exchange(method: str, url: str, headers: Mapping[str, str], timeout: float) -> Response:  # noqa: ASYNC109 - a phase of its own would need a second limit
    """Send one request without a body and return its response.

    Raises:
        OSError: no response came, or not in time (TimeoutError).
        ValueError: what came is no HTTP response.
    """
    parts = urlsplit(url)
    all_headers = {"host": parts.netloc, "connection": "close", "user-agent": "headcount-registrar", **headers}
    async with asyncio.timeout(timeout):
        connection = await Http1Connection.open(parts.hostname or "", parts.port or 80)
        try:
            return await connection.exchange(Request(method, parts.path or "/", all_headers), _MAX_BODY_BYTES)
        finally:
            connection.abort()
