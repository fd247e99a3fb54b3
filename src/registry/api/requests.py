"""What holds for each request that the application answers: an id for the logs, and a line in the metrics.

Polls never come here: they are answered at the door, and logged by nobody.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from registry.metrics import REQUEST_SECONDS, REQUESTS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "x-request-id"

_HEADER = HEADER.encode()
_TAKEN = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_NOWHERE = "other"
"""The route of a request that fits none: its path is anything that a client may think of."""


class Requests:
    """An ASGI application around another one, which gives each request an id and counts it."""

    def __init__(self, inner: Application) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        request_id = told if _TAKEN.fullmatch(told) else new_request_id().encode()
        code = 500
        streams = False

        async def tell(message: Message) -> None:
            nonlocal code, streams
            if message["type"] == "http.response.start":
                code = message["status"]
                streams = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
                others = [header for header in message["headers"] if header[0] != _HEADER]
                message["headers"] = [*others, (_HEADER, request_id)]
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            try:
                await self._inner(scope, receive, tell)
            finally:
                _count(scope, code, None if streams else time.perf_counter() - started)


def new_request_id() -> str:
    """Return an id for a request that brought none."""
    return secrets.token_hex(8)


def current_request_id() -> str | None:
    """Return the id of the request that is being answered, if one is."""
    found = structlog.contextvars.get_contextvars().get("request_id")
    return None if found is None else str(found)


def _count(scope: Scope, code: int, seconds: float | None) -> None:
    route = getattr(scope.get("route"), "path", _NOWHERE)
    method = scope["method"] if route != _NOWHERE else _NOWHERE
    REQUESTS.labels(method, route, str(code)).inc()
    if seconds is not None:
        REQUEST_SECONDS.labels(method, route).observe(seconds)
