"""How long the client of a request waits; before, it gets an answer even if PostgreSQL gives none.

A client says it by ``Prefer: wait=SECONDS`` (RFC 7240, 4.3), as ``registryctl`` does by its own timeout. The HTTP front
notes it; whatever waits for PostgreSQL on behalf of the request gives up in time to say so. Work of other tasks, which
a request may have begun, goes on.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from msgspec import Struct

from registry.errors import UnavailableError

MAX_WAIT = 3_600
"""Seconds that a client waits at most; a greater number counts as this one."""
_MARGIN = 1.0
"""Seconds that are left to make the answer and to bring it to the client; at most half of its time."""
_WAIT = re.compile(rb'(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,9})(?![0-9])', re.IGNORECASE)


class _Deadline(Struct, frozen=True):
    """The end of a request.

    Attributes:
        task: the task that answers it. Others that it starts have the same context, and serve other requests too.
        at: the time of the loop until which it waits for PostgreSQL.
        seconds: those from its beginning until then.
    """

    task: "asyncio.Task[Any] | None"
    at: float
    seconds: float


_DEADLINE: ContextVar[_Deadline | None] = ContextVar("client_deadline", default=None)


def note_client_wait(prefer: bytes | None) -> None:
    """Note how long the client of the present task's request waits, by its header ``Prefer``; None: it has none."""
    match = None if prefer is None else _WAIT.search(prefer)
    if match is None:
        _DEADLINE.set(None)
        return
    wait = float(min(max(1, int(match[1])), MAX_WAIT))
    seconds = wait - min(_MARGIN, wait / 2)
    _DEADLINE.set(_Deadline(asyncio.current_task(), asyncio.get_running_loop().time() + seconds, seconds))


@asynccontextmanager
async def in_time_for_client(otherwise: float | None = None, *, stores: bool = False) -> AsyncIterator[None]:
    """Cancel a block that waits for PostgreSQL when the client of the present request is to hear of it.

    Args:
        otherwise: seconds that the block may take where nobody knows how long the client waits; None: without limit.
        stores: whether the block stores something, which PostgreSQL may have taken when the time is over.

    Raises:
        UnavailableError: the time is over.
    """
    deadline = _DEADLINE.get()
    now = asyncio.get_running_loop().time()
    if deadline is not None and deadline.task is asyncio.current_task():
        seconds, at = deadline.seconds, deadline.at
    elif otherwise is not None:
        seconds, at = otherwise, now + otherwise
    else:
        yield
        return
    limit = asyncio.timeout_at(at)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        perhaps = ". The change may be stored all the same: look before you repeat it" if stores else ""
        raise UnavailableError(
            f"PostgreSQL has not answered within {seconds:g} s: it hangs, or another session holds a lock; discovery "
            f"and heartbeats go on{perhaps}"
        ) from None
