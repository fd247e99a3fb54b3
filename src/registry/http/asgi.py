"""The HTTP front in ASGI, which any server can run: middleware around the application.

It refuses what pages of other sites send, bounds every body, and answers discovery polls before the application does.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NoReturn

from registry.auth.certificate import certificate_names, certificate_of
from registry.auth.origin import OriginPolicy
from registry.auth.principal import AUTHORIZATION, peer_of
from registry.errors import RegistryError, TooLargeError, UnauthenticatedError
from registry.http.browser_session import session_of, statements_of
from registry.http.disconnection import unless_disconnected
from registry.http.headers import EXPECTED_TIMEOUT, FORWARDED_FOR, JSON, header
from registry.http.lists.lists import Lists
from registry.http.parameters import subscriber_address
from registry.http.problems import problem_for, problem_response
from registry.http.request_head import HeadReader
from registry.http.v1.edge import EdgeQuestions
from registry.settings import Settings
from registry.usecases.authentication import Authentication
from registry.usecases.drop_in import DropInHosts
from registry.usecases.heartbeat import Heartbeats
from registry.usecases.traffic import Traffic
from registry.xds.discovery import REFUSED, Discovery, ServedPath
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.discovery_response import DiscoveryResponse
from wire.x509 import show_time

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REPOSITORY_PATH = "/v1/mesh/revisions"
"""The path whose body is a whole repository of definitions."""
MAX_REPOSITORY = 16_777_216
"""Bytes of a repository of definitions, whose route reads it only for principals that may configure something."""
_MAX_DIGITS = 18
"""Digits of a Content-Length that is read; a longer one is larger than any limit."""


class DiscoveryMiddleware:
    """ASGI middleware that answers discovery polls, and passes everything else on within its limits.

    Args:
        inner: the application that answers everything but polls.
        discovery: answers the polls.
        heartbeats: takes heartbeats, for the fast protocol in front.
        hosts: answers requests of v1 SDS, for the fast protocol in front.
        lists: answers requests for services, endpoints and targets, for the fast protocol in front.
        authentication: makes the principals of requests.
        settings: which requests are refused, and whether polls are answered here.
        traffic: takes digests of traffic, for the fast protocol in front.
        edges: reads the questions of edges, for the fast protocol in front.
    """

    def __init__(  # noqa: PLR0913  # what the fronts call
        self,
        inner: Application,
        discovery: Discovery,
        heartbeats: Heartbeats,
        hosts: DropInHosts,
        lists: Lists,
        authentication: Authentication,
        settings: Settings,
        traffic: Traffic,
        edges: EdgeQuestions,
    ) -> None:
        self.discovery = discovery
        self.authentication = authentication
        self.heartbeats = heartbeats
        self.hosts = hosts
        self.lists = lists
        self.traffic = traffic
        self.edges = edges
        self.max_body = settings.max_body
        """The largest body of a request, in bytes."""
        self.connection_age = settings.connection_age
        """Seconds for which a connection with a client certificate is used."""
        self.polls = {} if settings.door == "route" else dict(discovery.paths)
        """The paths whose polls are answered before the application, by their URL."""
        self.heads = HeadReader({url.encode(): path for url, path in self.polls.items()}, self.is_too_long)
        """Reads the heads of the requests that the fast protocol in front answers."""
        self._inner = inner
        self._origins = OriginPolicy(settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        try:
            _check_certificate(scope)
            self._origins.check(scope["method"], scope["http_version"], scope["headers"])
            limit = MAX_REPOSITORY if scope["path"] == REPOSITORY_PATH else self.max_body
            if _announces_more(header(scope["headers"], b"content-length"), limit):
                _refuse(limit)
            path = self.polls.get(scope["path"])
            if path is not None and scope["method"] == "POST":
                await self._poll(path, scope, receive, send)
            else:
                await self._inner(scope, _bounded(receive, limit), send)
        except RegistryError as error:
            await problem_response(problem_for(error))(scope, receive, send)

    def is_too_long(self, announced: bytes | None) -> bool:
        """Return whether a request's Content-Length announces a longer body than there may be."""
        return _announces_more(announced, self.max_body)

    async def _poll(self, path: ServedPath, scope: Scope, receive: Receive, send: Send) -> None:
        request = await self._read(path, scope, receive)
        if request is None:
            return
        peer = peer_address(header(scope["headers"], FORWARDED_FOR), scope.get("client"))
        try:
            response = self.discovery.now(path, request, peer) or await self._hold(path, request, peer, scope, receive)
        except REFUSED:
            timeout = expected_timeout(header(scope["headers"], EXPECTED_TIMEOUT))
            delay = self.discovery.held_polls.delay_refusal(peer_of(scope.get("client")), timeout)
            if await unless_disconnected(delay, receive) is None:
                return
            raise
        if response is None:
            return
        headers = [(b"content-length", b"%d" % len(response.body)), JSON] if response.status == 200 else []
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _hold(
        self, path: ServedPath, request: DiscoveryRequest, peer: str, scope: Scope, receive: Receive
    ) -> DiscoveryResponse | None:
        """Return the response when there is one; None if the client disconnects first."""
        timeout = expected_timeout(header(scope["headers"], EXPECTED_TIMEOUT))
        return await unless_disconnected(self.discovery.later(path, request, peer, timeout), receive)

    async def _read(self, path: ServedPath, scope: Scope, receive: Receive) -> DiscoveryRequest | None:
        """Return the discovery request, or None if the client disconnected."""
        receive = _bounded(receive, self.max_body)
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        authorization = header(scope["headers"], AUTHORIZATION)
        names = certificate_names(certificate_of(scope))
        principal = await self.authentication.principal(
            peer_of(scope.get("client")),
            authorization,
            names,
            cookie=session_of(scope),
            statements=statements_of(scope),
        )
        return self.discovery.read(path, principal, *parts)


def _announces_more(announced: bytes | None, limit: int) -> bool:
    """Return whether a request's Content-Length announces more than a number of bytes."""
    if announced is None or not announced.isdigit():
        return False
    # Python refuses to read more than 4,300 digits, and parsers take any number of leading zeros.
    digits = announced.lstrip(b"0")
    return len(digits) > _MAX_DIGITS or int(digits or b"0") > limit


def _bounded(receive: Receive, limit: int) -> Receive:
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            _refuse(limit)
        return message

    return bounded


def _refuse(limit: int) -> NoReturn:
    setting = "" if limit == MAX_REPOSITORY else " (REGISTRY_MAX_BODY)"
    raise TooLargeError(f"the body is larger than {limit} bytes{setting}")


def _check_certificate(scope: Scope) -> None:
    """Refuse a request over a connection whose client certificate has expired, as a new handshake would."""
    certificate = certificate_of(scope)
    if certificate is not None and certificate.has_expired(time.time()):
        raise UnauthenticatedError(
            f"the client certificate of this connection has expired at {show_time(certificate.not_after)}; connect "
            "again with a new one"
        )


def peer_address(forwarded_for: bytes | None, client: Sequence[Any] | None) -> str:
    """Return the address of a subscriber, by its header x-forwarded-for and its connection."""
    return subscriber_address(forwarded_for.decode("latin-1") if forwarded_for else None, client)


def expected_timeout(milliseconds: bytes | None) -> str | None:
    """Return how long an Envoy says that it waits for a response, by the header of that name."""
    return milliseconds.decode("latin-1") if milliseconds else None
