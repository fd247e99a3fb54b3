"""Waiting on behalf of a client that may disconnect meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

Result = TypeVar("Result")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def unless_disconnected(waiting: Coroutine[Any, Any, Result], receive: Receive) -> Result | None:
    """Return what comes of waiting; None if the client disconnects first. The body has to be read before."""
    later = asyncio.ensure_future(waiting)
    disconnected = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((later, disconnected), return_when=asyncio.FIRST_COMPLETED)
        return later.result() if later.done() else None
    finally:
        later.cancel()
        disconnected.cancel()
