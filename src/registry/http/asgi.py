"""The door in ASGI, which any server can run.

It refuses what pages of other sites send, bounds every body, and answers polls before the application does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from registry.auth.origin import OriginPolicy
from registry.errors import RegistryError, TooLargeError
from registry.http.parameters import subscriber_address
from registry.http.problems import problem_for, problem_response
from registry.settings import Settings
from registry.usecases.heartbeat import Heartbeats
from registry.xds.discovery import Discovery, DiscoveryResponse
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.eds import Api

Headers = Iterable[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLLS: dict[str, Api] = {"/v2/discovery:endpoints": "v2", "/v3/discovery:endpoints": "v3"}
JSON = (b"content-type", b"application/json")

_MAX_DIGITS = 18
"""Digits of a Content-Length that is read; a longer one is larger than any limit."""
_TIMEOUT_HEADER = b"x-envoy-expected-rq-timeout-ms"


class DiscoveryMiddleware:
    """An ASGI application around another one.

    Args:
        inner: what answers everything but polls.
        discovery: what answers polls.
        heartbeats: what takes heartbeats, for the fast protocol in front.
        settings: which requests are refused, and whether polls are answered here.
    """

    def __init__(self, inner: Application, discovery: Discovery, heartbeats: Heartbeats, settings: Settings) -> None:
        self.discovery = discovery
        self.heartbeats = heartbeats
        self.max_body = settings.max_body
        """The largest body of a request, in bytes."""
        self._inner = inner
        self._origins = OriginPolicy(settings.hosts)
        self._polls = {} if settings.door == "route" else POLLS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        try:
            self._origins.check(scope["method"], scope["http_version"], scope["headers"])
            if self.is_too_long(header(scope["headers"], b"content-length")):
                self._refuse()
            api = self._polls.get(scope["path"])
            if api is not None and scope["method"] == "POST":
                await self._poll(api, scope, receive, send)
            else:
                await self._inner(scope, self._bounded(receive), send)
        except RegistryError as error:
            await problem_response(problem_for(error))(scope, receive, send)

    def is_too_long(self, announced: bytes | None) -> bool:
        """Tell whether a request's Content-Length is that of a longer body than there may be."""
        if announced is None or not announced.isdigit():
            return False
        # Python refuses to read more than 4,300 digits, and parsers take any number of leading zeros.
        digits = announced.lstrip(b"0")
        return len(digits) > _MAX_DIGITS or int(digits or b"0") > self.max_body

    def _refuse(self) -> None:
        raise TooLargeError(f"the body is larger than {self.max_body} bytes (REGISTRY_MAX_BODY)")

    def _bounded(self, receive: Receive) -> Receive:
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_body:
                self._refuse()
            return message

        return bounded

    async def _poll(self, api: Api, scope: Scope, receive: Receive, send: Send) -> None:
        discovery = self.discovery
        poll = await self._read(api, receive)
        if poll is None:
            return
        peer = subscriber(scope["headers"], scope.get("client"))
        answer = discovery.now(api, poll, peer) or await self._hold(api, poll, peer, scope, receive)
        if answer is None:
            return
        headers = [(b"content-length", b"%d" % len(answer.body)), JSON] if answer.status == 200 else []
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _hold(
        self, api: Api, poll: DiscoveryRequest, peer: str, scope: Scope, receive: Receive
    ) -> DiscoveryResponse | None:
        """Return the answer when there is one; None when the subscriber hung up first."""
        told = patience(scope["headers"])
        later = asyncio.ensure_future(self.discovery.later(api, poll, peer, told))
        # Nothing but a hang-up can come now: the body was read.
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((later, gone), return_when=asyncio.FIRST_COMPLETED)
            return later.result() if later.done() else None
        finally:
            later.cancel()
            gone.cancel()

    async def _read(self, api: Api, receive: Receive) -> DiscoveryRequest | None:
        """Return what is asked for, or None when the subscriber hung up."""
        receive = self._bounded(receive)
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return self.discovery.read(api, *parts)


def header(headers: Headers, wanted: bytes) -> bytes | None:
    """Return the first header of a name in small letters."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def subscriber(headers: Headers, client: Sequence[Any] | None) -> str:
    """Return the address of who polls."""
    told = header(headers, b"x-forwarded-for")
    return subscriber_address(told.decode("latin-1") if told else None, client)


def patience(headers: Headers) -> str | None:
    """Return how long an Envoy says that it waits."""
    told = header(headers, _TIMEOUT_HEADER)
    return told.decode("latin-1") if told else None
