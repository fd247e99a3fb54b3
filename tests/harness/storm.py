"""Many clients that connect at once, each with one request, and what becomes of each."""

import asyncio
import contextlib
import ssl
from collections import Counter

_TIMEOUT = 15.0


async def storm(
    port: int,
    count: int,
    request: bytes,
    *,
    spread: float = 0.0,
    late: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> Counter[str]:
    """Connect ``count`` clients and count their outcomes: "answered", "refused", or the error that each met.

    Args:
        port: on loopback.
        count: how many clients.
        request: what each sends.
        spread: seconds over which they begin.
        late: seconds between the connect of a client and its request.
        tls: the clients' context; None for plain connections.
    """
    clients = (_client(port, request, number * spread / count, late, tls) for number in range(count))
    return Counter(await asyncio.gather(*clients))


async def _client(port: int, request: bytes, begin: float, late: float, tls: ssl.SSLContext | None) -> str:
    await asyncio.sleep(begin)
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await _exchange(port, request, late, tls)
    except ConnectionRefusedError:
        return "refused"
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__


async def _exchange(port: int, request: bytes, late: float, tls: ssl.SSLContext | None) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        await asyncio.sleep(late)
        writer.write(request)
        return "answered" if await reader.read(12) else "closed"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
