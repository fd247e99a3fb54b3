"""Many clients that connect at once, each with one request, and what becomes of each."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine

_TIMEOUT = 15.0


async def storm(
    port: int,
    count: int,
    request: bytes,
    *,
    spread: float = 0.0,
    late: float = 0.0,
    tls: ssl.SSLContext | None = None,
    on_connect: Callable[[], object] = int,
) -> Counter[str]:
    """Connect ``count`` clients and count their outcomes: "answered", "refused", or the error that each met.

    Args:
        port: on loopback.
        count: how many clients.
        request: what each sends.
        spread: seconds over which they begin.
        late: seconds between the connect of a client and its request.
        tls: the clients' context; None for plain connections.
        on_connect: called for each connection once it stands, with TLS after its handshake.
    """

    async def client(begin: float) -> str:
        await asyncio.sleep(begin)
        return await _outcome(_exchange(port, request, late, tls, on_connect))

    return Counter(await asyncio.gather(*(client(number * spread / count) for number in range(count))))


async def _outcome(exchange: Coroutine[None, None, str]) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await exchange
    except ConnectionRefusedError:
        return "refused"
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__


async def _exchange(
    port: int, request: bytes, late: float, tls: ssl.SSLContext | None, on_connect: Callable[[], object]
) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        on_connect()
        await asyncio.sleep(late)
        writer.write(request)
        return "answered" if await reader.read(12) else "closed"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
