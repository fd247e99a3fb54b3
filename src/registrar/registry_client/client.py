"""Requests to the registry: heartbeats, drains and deregistrations."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from registrar import jitter
from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client.endpoint_ref import EndpointRef
from registrar.registry_client.heartbeat_wording import CURRENT, Wording, Wordings, not_understood
from registrar.registry_client.http_client import ConnectError, HttpClient, describe, tls_context
from registrar.registry_client.registries import REFRESH, Registries, RegistryAddress, RegistryUrls
from wire.http1 import Request, Response
from wire.model import Health, Heartbeat, HeartbeatResult, Report
from wire.problem import CONTENT_TYPE, Problem

ATTEMPT_TIMEOUT = 3.0
"""Seconds for one attempt, from connecting to the last byte."""
CONNECTION_AGE = 300.0
"""Seconds that a connection is used; a registry that was added gets no load until another one fails, else."""
_CONNECTION_AGE_SPREAD = 0.2
_CONNECT_TIMEOUT = 2.0
_HEARTBEATS = "/v1/heartbeats"
_OVERLOADED = frozenset({408, 425, 429})
# What a request without a usable response raises.
NO_RESPONSE = (OSError, ValueError)


class Listed(Struct, frozen=True):
    """What the registry lists of an endpoint.

    Attributes:
        status: what Envoys are told.
        health: what its instance last said.
        detail: and why.
        leaving_at: since when it is deregistered, or None.
    """

    status: Health
    health: Report
    detail: str = ""
    leaving_at: float | None = None


_decode_listed = msgspec.json.Decoder(Listed).decode
_decode_problem = msgspec.json.Decoder(Problem).decode


class RegistryClient:
    """One attempt at one registry for each call; after a failure the next call goes to the next registry.

    It does not repeat by itself: the caller builds each attempt anew from the state of that moment. Names are
    looked up again before each new connection and every 30 s, and a connection is given up after five minutes.

    Args:
        urls: base URLs of the registries.
        timeout: seconds for one attempt, from connecting to the last byte.
        token: sent as a bearer token if there is one.
        connection_age: seconds after which a connection is exchanged for one to the next registry.
    """

    def __init__(
        self,
        urls: RegistryUrls,
        timeout: float = ATTEMPT_TIMEOUT,
        *,
        token: str = "",
        connection_age: float = CONNECTION_AGE,
    ) -> None:
        self._registries = Registries(urls)
        self._wordings = Wordings()
        self._timeout = timeout
        self._age = connection_age
        self._loop = asyncio.get_running_loop()
        self._born: float | None = None
        self._dies = self._resolved = 0.0
        # Loading the certificate authorities costs megabytes that plain http does not need.
        context = tls_context() if any(url.startswith("https:") for url in urls.urls) else None
        self._http = HttpClient(context, min(_CONNECT_TIMEOUT, timeout))
        self._token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    @property
    def registry(self) -> str:
        """The base URL that the next request goes to."""
        return self._registries.current.url

    def use_token(self, token: str) -> None:
        """Send another bearer token from the next request on, or none."""
        self._token = token

    async def heartbeats(self, heartbeats: Sequence[Heartbeat]) -> list[HeartbeatResult]:
        """Send one batch and return its results in order.

        Raises:
            RegistryUnavailable: no answer, or none that can be used.
            RegistryRefused: the batch as a whole was refused.
        """
        wording = CURRENT

        async def send(target: RegistryAddress) -> Response:
            nonlocal wording
            wording, response = await self._send_batch(target, list(heartbeats))
            return response

        target, response = await self._attempt(send)
        try:
            results = wording.results.decode(response.body).results
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answer not understood: {error}", target) from error
        if [(each.service, each.endpoint) for each in results] != [
            (each.service, each.endpoint) for each in heartbeats
        ]:
            raise self._unavailable("the results in the answer do not match the heartbeats", target)
        self._registries.answered(target)
        return results

    async def drain(self, ref: EndpointRef) -> Listed | None:
        """Drain what is listed of an endpoint, whichever start of its instance put it there.

        Returns what it is then, or None when nothing of the instance is listed.

        Raises:
            RegistryUnavailable: no answer, or none that can be used.
            RegistryRefused: for another reason than the registry's own 404 or 409.
        """
        try:
            target, response = await self._attempt(lambda target: self._send(target, "POST", ref.path("/drain")))
        except RegistryRefused as error:
            if error.from_registry and error.problem.status in (404, 409):
                return None
            raise
        try:
            listed = _decode_listed(response.body)
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answer not understood: {error}", target) from error
        return listed if listed.leaving_at is None else None

    async def deregister(self, ref: EndpointRef) -> bool:
        """Give an endpoint's lease back; False when there was nothing left to give back.

        Raises:
            RegistryUnavailable: no answer, or none that can be used.
            RegistryUnavailable: no answer, or the 404 or 409 of a program that is no registry.
            RegistryRefused: for another reason.
        """
        try:
            await self._attempt(lambda target: self._send(target, "DELETE", ref.path()))
        except RegistryRefused as error:
            if error.problem.status not in (404, 409):
                raise
            if error.from_registry:
                return False
            # It knows nothing of the endpoint, which may be listed still.
            raise RegistryUnavailable(f"no registry's answer: {error}", perhaps_stored=False) from error
        return True

    async def _attempt(
        self, send: Callable[[RegistryAddress], Awaitable[Response]]
    ) -> tuple[RegistryAddress, Response]:
        target = self._registries.current
        try:
            async with asyncio.timeout(self._timeout):
                target = await self._target()
                aged = self._loop.time() >= self._dies
                response = await send(target)
                if aged:
                    self._turn()
        except TimeoutError as error:
            raise self._unavailable(f"TimeoutError no answer within {self._timeout:g}s", target) from error
        except NO_RESPONSE as error:
            sent = not isinstance(error, ConnectError)
            raise self._unavailable(describe(error), target, perhaps_stored=sent) from error
        if _successful(response):
            return target, response
        problem = _problem(response)
        if overloaded(response.status):
            reason = f"{problem.status} {problem.title}: {problem.detail}"
            raise self._unavailable(reason, target, retry_after=_retry_after(response, problem))
        own = response.headers.get("content-type", "").startswith(CONTENT_TYPE)
        if own:
            self._registries.answered(target)
            self._turn()
        else:
            self._fail(target)
        raise RegistryRefused(problem, from_registry=own)

    async def _target(self) -> RegistryAddress:
        """Return where to send; a new connection goes to the addresses that the names have now."""
        now = self._loop.time()
        if self._born is None:
            await self._registries.refresh()
            self._born = self._resolved = now
            self._dies = now + jitter.around(self._age, _CONNECTION_AGE_SPREAD)
        elif now - self._resolved >= REFRESH:
            self._resolved = now
            self._registries.refresh_soon()
        if not self._registries.current.resolved:
            target = self._registries.current
            raise self._unavailable(f"{target.name} has no address", target, perhaps_stored=False)
        return self._registries.current

    async def _send_batch(self, target: RegistryAddress, heartbeats: list[Heartbeat]) -> tuple[Wording, Response]:
        """Send a batch as its registry names it; after a refusal that may be about the names, once in the others."""
        now = self._loop.time()
        wording = self._wordings.first(target, now)
        response = await self._send(target, "POST", _HEARTBEATS, msgspec.json.encode(wording.batch(heartbeats)))
        if _successful(response):
            return wording, response
        refusal = _problem(response)
        other = self._wordings.second(target, wording, refusal, now)
        if other is None:
            return wording, response
        second = await self._send(target, "POST", _HEARTBEATS, msgspec.json.encode(other.batch(heartbeats)))
        if not _successful(second) and not_understood(_problem(second)):
            self._wordings.futile(target, refusal, now)
            return wording, response
        if not overloaded(second.status):
            self._wordings.understood(target, other, now)
        return other, second

    async def _send(self, target: RegistryAddress, method: str, path: str, content: bytes = b"") -> Response:
        headers = {"host": target.host, "user-agent": "headcount-registrar", "accept-encoding": "identity"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        if content:
            headers["content-type"] = "application/json"
        elif method == "POST":
            headers["content-length"] = "0"
        if self._loop.time() >= self._dies:
            headers["connection"] = "close"
        return await self._http.request(target.origin, Request(method, target.target(path), headers, content))

    def _turn(self) -> None:
        """Let the next request open a connection to the next registry."""
        self._registries.advance()
        self._born = None

    def _fail(self, target: RegistryAddress) -> None:
        """Let the next request open a connection to a registry that answers."""
        self._registries.failed(target)
        self._born = None

    def _unavailable(
        self, reason: str, target: RegistryAddress, *, perhaps_stored: bool = True, retry_after: float | None = None
    ) -> RegistryUnavailable:
        self._fail(target)
        return RegistryUnavailable(reason, retry_after=retry_after, perhaps_stored=perhaps_stored)


def overloaded(status: int) -> bool:
    """Tell whether a status asks for another attempt rather than for another request."""
    return status in _OVERLOADED or status >= 500


def _successful(response: Response) -> bool:
    return 200 <= response.status < 300


def _problem(response: Response) -> Problem:
    try:
        return _decode_problem(response.body)
    except msgspec.DecodeError:
        # A proxy in between answers in its own words.
        return Problem(response.reason or "error", response.status, response.text[:200])


def _retry_after(response: Response, problem: Problem) -> float | None:
    """Return the seconds that the registry asked for; a date in the header is ignored, clocks differ."""
    header = response.headers.get("retry-after", "")
    if header.isascii() and header.isdigit():
        return float(header[:9])
    return problem.retry_after
