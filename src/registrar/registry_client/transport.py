"""Transport of requests to the registries: which one is asked, with which credential, and how failures are told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from registrar import jitter
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client.credential import Credential, NoCredential
from registrar.registry_client.http_client import NO_RESPONSE, ConnectError, HttpClient, describe
from registrar.registry_client.registries import RESOLVE_INTERVAL, Registries, RegistryAddress, RegistryUrls
from registrar.registry_client.response import error_of, from_registry, problem_of, successful
from registrar.registry_client.tls import RegistryTls
from wire.http1 import Request, Response
from wire.problem import Problem

_Document = TypeVar("_Document")

_NO_HEADERS: Mapping[str, str] = {}
"""What most requests add to the headers of all."""
_CONNECTION_AGE_SPREAD = 0.2
_CONNECT_TIMEOUT = 2.0


class _UnauthenticatedError(Exception):
    """A registry refused the token of a request, and another token is there or expected."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")


class Transport:
    """Sends each request to one registry; after a failure another registry is next.

    It does not repeat failed attempts: the caller builds the next one from the state of that moment. Names are looked
    up again before each new connection and every 30 s, and a connection is replaced after some minutes.

    Args:
        urls: base URLs of the registries.
        timeout: seconds for one attempt, from connecting to the last byte.
        credential: has the bearer token of each request, and hears whether it was accepted.
        tls: verifies registries with https; None: by the system's authorities.
        connection_age: seconds after which a connection is replaced by one to the next registry.
    """

    def __init__(
        self,
        urls: RegistryUrls,
        timeout: float,
        *,
        credential: Credential | None,
        tls: RegistryTls | None,
        connection_age: float,
    ) -> None:
        self._registries = Registries(urls)
        self._timeout = timeout
        self._age = connection_age
        self._loop = asyncio.get_running_loop()
        self._connected_at: float | None = None
        """Loop time at which the current connection was planned; None: the next request needs another one."""
        self._replace_at = 0.0
        """Loop time after which the current connection is replaced."""
        self._resolved_at = 0.0
        """Loop time of the last lookup of the names."""
        self._http = HttpClient(tls or RegistryTls(), min(_CONNECT_TIMEOUT, timeout))
        self.credential = credential or NoCredential()
        """Has the bearer token of each request."""

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._http.close()

    @property
    def registry(self) -> RegistryAddress:
        """The registry that the next request goes to."""
        return self._registries.current

    def now(self) -> float:
        """Return the time of the event loop."""
        return self._loop.time()

    async def request(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] = _NO_HEADERS
    ) -> tuple[RegistryAddress, Response]:
        """Make one attempt to send a request with the credential; return the registry and its response.

        Raises:
            RegistryUnavailable: as ``attempt``.
            RegistryRefused: as ``attempt``.
        """
        return await self.attempt(lambda registry: self.send(registry, method, path, content, headers))

    async def attempt(self, send: Callable[[RegistryAddress], Awaitable[Response]]) -> tuple[RegistryAddress, Response]:
        """Make one attempt at one registry; return the registry and its response, which is a success.

        Args:
            send: sends the request, by ``send`` or ``exchange``.

        Raises:
            RegistryUnavailable: there was no response, or one that asks to come later; another registry is next.
            RegistryRefused: the registry refused.
        """
        registry = self._registries.current
        try:
            async with asyncio.timeout(self._timeout):
                registry = await self._next_registry()
                aged = self.now() >= self._replace_at
                response = await send(registry)
                if aged:
                    self._turn()
        except _UnauthenticatedError as error:
            self._registries.answered(registry)
            # One registry of several may not know a session that the others know.
            self._turn()
            raise _unauthenticated(error) from error
        except NO_RESPONSE as error:
            self._fail(registry)
            raise self._no_response(error) from error
        if successful(response):
            return registry, response
        refusal = error_of(response)
        if isinstance(refusal, RegistryRefused) and refusal.from_registry:
            self._registries.answered(registry)
            self._turn()
        else:
            self._fail(registry)
        raise refusal

    async def post_aside(self, path: str, content: bytes) -> Response:
        """Send a request to the registry that heartbeats go to, whose choice does not hear what becomes of it.

        A registry may refuse a digest, or be too busy for it, and renew leases as ever; or take it and renew none.

        Raises:
            RegistryUnavailable: there was no response, or one that asks to come later.
            RegistryRefused: the registry refused.
        """
        registry = self._registries.current
        if not registry.resolved:
            raise RegistryUnavailable(f"{registry.name} has no address", perhaps_stored=False)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self.send(registry, "POST", path, content)
        except _UnauthenticatedError as error:
            raise _unauthenticated(error) from error
        except NO_RESPONSE as error:
            raise self._no_response(error) from error
        if not successful(response):
            raise error_of(response)
        return response

    async def send(
        self,
        registry: RegistryAddress,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Response:
        """Send a request with the credential within an attempt, and tell the credential what became of it."""
        bearer = self.credential.bearer
        response = await self.exchange(registry, method, path, content, bearer, headers)
        if successful(response):
            self.credential.accepted(bearer)
        elif response.status == 401 and from_registry(response) and self.credential.refused(bearer):
            # The request may be repeated with another token.
            raise _UnauthenticatedError(problem_of(response))
        return response

    async def exchange(
        self,
        registry: RegistryAddress,
        method: str,
        path: str,
        content: bytes,
        bearer: str,
        more: Mapping[str, str] = _NO_HEADERS,
    ) -> Response:
        """Send a request with a token of the caller's, or none, within an attempt."""
        headers = {"host": registry.host, "user-agent": "headcount-registrar", "accept-encoding": "identity", **more}
        if bearer:
            headers["authorization"] = f"Bearer {bearer}"
        if content:
            headers["content-type"] = "application/json"
        elif method == "POST":
            headers["content-length"] = "0"
        if self.now() >= self._replace_at:
            headers["connection"] = "close"
        return await self._http.request(registry.origin, Request(method, registry.target(path), headers, content))

    def decode(self, decode: Callable[[bytes], _Document], registry: RegistryAddress, response: Response) -> _Document:
        """Return the document of a response.

        Raises:
            RegistryUnavailable: it is not understood; another registry is next.
        """
        try:
            return decode(response.body)
        except msgspec.DecodeError as error:
            # The error names a place and a rule, and no value.
            raise self.not_understood(str(error), registry) from error

    def not_understood(self, reason: str, registry: RegistryAddress) -> RegistryUnavailable:
        """Return the error for an answer that makes no sense, and let another registry be next."""
        self._fail(registry)
        return RegistryUnavailable(f"answer not understood: {reason}")

    def answered(self, registry: RegistryAddress) -> None:
        """Take note that a registry has given a valid answer."""
        self._registries.answered(registry)

    async def _next_registry(self) -> RegistryAddress:
        """Return the registry to send to; names are looked up again before a new connection."""
        now = self.now()
        if self._connected_at is None:
            await self._registries.refresh()
            self._connected_at = self._resolved_at = now
            self._replace_at = now + jitter.around(self._age, _CONNECTION_AGE_SPREAD)
        elif now - self._resolved_at >= RESOLVE_INTERVAL:
            self._resolved_at = now
            self._registries.refresh_soon()
        registry = self._registries.current
        if not registry.resolved:
            self._fail(registry)
            raise RegistryUnavailable(f"{registry.name} has no address", perhaps_stored=False)
        return registry

    def _turn(self) -> None:
        """Let the next request open a connection to the next registry."""
        self._registries.advance()
        self._connected_at = None

    def _fail(self, registry: RegistryAddress) -> None:
        """Let the next request open a connection to a registry that answers."""
        self._registries.failed(registry)
        self._connected_at = None

    def _no_response(self, error: Exception) -> RegistryUnavailable:
        if isinstance(error, TimeoutError):
            return RegistryUnavailable(f"TimeoutError no answer within {self._timeout:g}s")
        return RegistryUnavailable(describe(error), perhaps_stored=not isinstance(error, ConnectError))


def _unauthenticated(error: _UnauthenticatedError) -> RegistryUnavailable:
    return RegistryUnavailable(str(error), perhaps_stored=False, unauthenticated=True)
