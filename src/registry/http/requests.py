"""Each request that the application answers gets an id for the logs, and is counted in the metrics.

Polls do not come here: the fronts answer them, and nothing logs them.
"""

import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from itertools import count as numbered
from typing import Any

from prometheus_client import Counter, Histogram

from registry.event_log import REQUEST_ID
from registry.metrics import REQUEST_SECONDS, REQUESTS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "x-request-id"
HELD = "headcount.held"
"""The key of a request's scope whose true value says that it was held, so that its time says nothing."""

_HEADER = HEADER.encode()
_VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_numbers = numbered(1)
_NO_ROUTE = "other"
"""The route of a request that fits none; its path is not a label, because a client may send any path."""


class Requests:
    """An ASGI application around another one, which gives each request an id and counts it."""

    def __init__(self, inner: Application) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request_id = request_id_of(next((value for name, value in scope["headers"] if name == _HEADER), b""))
        code = 500
        streams = False

        async def send_with_id(message: Message) -> None:
            nonlocal code, streams
            if message["type"] == "http.response.start":
                code = message["status"]
                streams = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
                others = [header for header in message["headers"] if header[0] != _HEADER]
                message["headers"] = [*others, (_HEADER, request_id)]
            await send(message)

        started = time.perf_counter()
        token = REQUEST_ID.set(request_id.decode())
        try:
            await self._inner(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(token)
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            method = scope["method"] if route != _NO_ROUTE else _NO_ROUTE
            untimed = streams or scope.get(HELD, False)
            count(method, route, code, None if untimed else time.perf_counter() - started)


def request_id_of(header: bytes) -> bytes:
    """Return the id that a request brings in its header, or a new one when that is none."""
    return header if _VALID_ID.fullmatch(header) else new_request_id().encode()


def new_request_id() -> str:
    """Return an id for a request that brought none: the process's own part, and a number."""
    return f"{_process()}-{next(_numbers)}"


@cache
def _process() -> str:
    """Return the part of all ids that is this process's own."""
    return secrets.token_hex(5)


os.register_at_fork(after_in_child=_process.cache_clear)


def count(method: str, route: str, code: int, seconds: float | None) -> None:
    """Count a request, and how long it took unless that says nothing."""
    _requests(method, route, code).inc()
    if seconds is not None:
        _seconds(method, route).observe(seconds)


# Heartbeats are counted here, and to look a label up takes longer than to count.
@cache
def _requests(method: str, route: str, code: int) -> Counter:
    return REQUESTS.labels(method, route, str(code))


@cache
def _seconds(method: str, route: str) -> Histogram:
    return REQUEST_SECONDS.labels(method, route)
