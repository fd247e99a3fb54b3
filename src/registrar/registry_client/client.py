"""Requests to the registry: heartbeats, drains, deregistrations and logins."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from registrar import jitter
from registrar.errors import RegistryAnswerTooLong, RegistryRefused, RegistryUnavailable
from registrar.registry_client.credential import Credential, NoCredential
from registrar.registry_client.endpoint_ref import EndpointRef
from registrar.registry_client.heartbeat_wording import CURRENT, Wording, Wordings, not_understood
from registrar.registry_client.http_client import ConnectError, HttpClient, describe
from registrar.registry_client.login_answer import LoginAnswer, registry_time
from registrar.registry_client.registries import RESOLVE_INTERVAL, Registries, RegistryAddress, RegistryUrls
from registrar.registry_client.tls import RegistryTls
from wire.edge_assignments import EDGE_PATH, EdgeAnswer, EdgeQuestion
from wire.http1 import Request, Response, TooLongError
from wire.model import Health, Heartbeat, HeartbeatResult, Report
from wire.probe_report import ProbeReport
from wire.problem import CONTENT_TYPE, Problem
from wire.traffic_digest import DigestAnswer

ATTEMPT_TIMEOUT = 3.0
"""Seconds for one attempt, from connecting to the last byte."""
CONNECTION_AGE = 300.0
"""Seconds that a connection is used, so that a registry that was added gets its share of the load."""
_CONNECTION_AGE_SPREAD = 0.2
_CONNECT_TIMEOUT = 2.0
_HEARTBEATS = "/v1/heartbeats"
_PROBES = "/v1/probes"
_ERRANDS = "/v1/errands"
_MAX_RETRY_AFTER = 120.0
"""Seconds that a registry may ask for between two requests for errands."""
_TRAFFIC = "/v1/traffic"
_LOGIN = "/v1/login/aws"
_RENEW = "/v1/login/renew"
_GZIP = 16 + zlib.MAX_WBITS
_MAX_EDGE_BYTES = 64 * 1024 * 1024
"""Bytes of an answer to an edge's question, unpacked; 10,000 endpoints take two million."""
_OVERLOADED = frozenset({408, 425, 429})
# The errors of a request that got no valid response.
NO_RESPONSE = (OSError, ValueError)
NO_HEADERS: Mapping[str, str] = {}
"""What most requests add to the headers of all."""


class Listed(Struct, frozen=True):
    """An endpoint as the registry lists it.

    Attributes:
        status: the health status that Envoys get.
        health: the health that its instance reported last.
        detail: the reason that its instance gave.
        leaving_at: the time of its deregistration, or None.
    """

    status: Health
    health: Report
    detail: str = ""
    leaving_at: float | None = None


class TakenErrand(Struct, frozen=True):
    """An errand as the registry hands it out, before its verb is looked at: a newer registry may have others."""

    id: str
    service: str
    endpoint: str
    arguments: Raw
    seconds: float = 15.0
    callee: str = ""


class _NextErrand(Struct, frozen=True):
    errand: TakenErrand | None = None
    retry_after: float = 0.0


class _UnauthenticatedError(Exception):
    """A registry refused the token of a request, and another token is there or expected."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")


_decode_listed = msgspec.json.Decoder(Listed).decode
_decode_problem = msgspec.json.Decoder(Problem).decode
_decode_edge = msgspec.json.Decoder(EdgeAnswer).decode
_decode_next_errand = msgspec.json.Decoder(_NextErrand).decode
_decode_digest_answer = msgspec.json.Decoder(DigestAnswer).decode
_decode_login = msgspec.json.Decoder(LoginAnswer).decode


class RegistryClient:
    """A client that makes one attempt at one registry for each call; after a failure another registry is next.

    It does not repeat failed attempts: the caller builds the next one from the state of that moment. Names are looked
    up again before each new connection and every 30 s, and a connection is replaced after five minutes.

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
        timeout: float = ATTEMPT_TIMEOUT,
        *,
        credential: Credential | None = None,
        tls: RegistryTls | None = None,
        connection_age: float = CONNECTION_AGE,
    ) -> None:
        self._registries = Registries(urls)
        self._wordings = Wordings()
        self._timeout = timeout
        self._age = connection_age
        self._loop = asyncio.get_running_loop()
        # Loop time at which the current connection was planned; None: the next request needs another one.
        self._connected_at: float | None = None
        # Loop time after which the current connection is replaced.
        self._replace_at = 0.0
        # Loop time of the last lookup of the names.
        self._resolved_at = 0.0
        self._http = HttpClient(tls or RegistryTls(), min(_CONNECT_TIMEOUT, timeout))
        self._credential = credential or NoCredential()

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

    async def heartbeats(self, heartbeats: Sequence[Heartbeat]) -> list[HeartbeatResult]:
        """Send one batch and return its results in order.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the batch as a whole was refused.
        """
        wording = CURRENT
        bearer = self._credential.bearer

        async def send(registry: RegistryAddress) -> Response:
            nonlocal wording
            wording, response = await self._send_batch(registry, list(heartbeats))
            return response

        registry, response = await self._attempt(send)
        try:
            results = wording.results.decode(response.body).results
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answer not understood: {error}", registry) from error
        if [(each.service, each.endpoint) for each in results] != [
            (each.service, each.endpoint) for each in heartbeats
        ]:
            raise self._unavailable("the results in the answer do not match the heartbeats", registry)
        self._registries.answered(registry)
        if any(result.problem is not None and result.problem.status == 401 for result in results):
            self._credential.refused(bearer)
        return results

    async def report_probes(self, report: ProbeReport) -> None:
        """Send the results of probes.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused them.
        """
        await self._send_aside(_PROBES, msgspec.json.encode(report))

    async def next_errand(self, instance_id: str, endpoints: Sequence[str]) -> tuple[TakenErrand | None, float]:
        """Return the next errand when there is one, and the seconds to wait before the next request.

        The registry holds the request for up to `MAX_HOLD` seconds, for which a client of its own needs to wait.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused.
        """
        query = "&".join(f"endpoint={quote(each, safe='')}" for each in endpoints)
        path = f"{_ERRANDS}/next?instance={quote(instance_id, safe='')}&{query}"
        registry, response = await self._attempt(lambda registry: self._send(registry, "GET", path))
        try:
            answer = _decode_next_errand(response.body)
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answer not understood: {error}", registry) from error
        self._registries.answered(registry)
        return answer.errand, max(0.0, min(answer.retry_after, _MAX_RETRY_AFTER))

    async def answer_errand(self, instance_id: str, endpoint: str, errand_id: str, result: bytes) -> None:
        """Send the result of an errand.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused it.
        """
        query = f"instance={quote(instance_id, safe='')}&endpoint={quote(endpoint, safe='')}"
        path = f"{_ERRANDS}/{quote(errand_id, safe='')}/result?{query}"
        registry, _ = await self._attempt(lambda registry: self._send(registry, "POST", path, result))
        self._registries.answered(registry)

    async def report_traffic(self, digest: bytes) -> DigestAnswer:
        """Send an encoded digest of Envoy's statistics, and return what the next one is to have.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused it, or does not know digests.
        """
        response = await self._send_aside(_TRAFFIC, digest)
        try:
            return _decode_digest_answer(response.body)
        except msgspec.DecodeError as error:
            raise RegistryUnavailable(f"answer not understood: {error}") from error

    async def login(self, headers: Mapping[str, str]) -> tuple[LoginAnswer, float | None]:
        """Log in with the headers of a signed identity request; return the answer and the registry's time.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused the login.
        """
        return await self._session(_LOGIN, msgspec.json.encode({"headers": headers}), "")

    async def renew(self, bearer: str) -> tuple[LoginAnswer, float | None]:
        """Renew the session of a token; return the answer and the registry's time.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused the renewal.
        """
        return await self._session(_RENEW, b"", bearer)

    async def _session(self, path: str, content: bytes, bearer: str) -> tuple[LoginAnswer, float | None]:
        registry, response = await self._attempt(
            lambda registry: self._exchange(registry, "POST", path, content, bearer)
        )
        try:
            answer = _decode_login(response.body)
        except msgspec.DecodeError as error:
            # The error names a place and a rule, and no value.
            raise self._unavailable(f"answer not understood: {error}", registry) from error
        self._registries.answered(registry)
        return answer, registry_time(response)

    async def ask_edge(self, question: EdgeQuestion) -> EdgeAnswer | None:
        """Ask what is newer than what an edge holds; None if nothing is.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused the question.
            RegistryAnswerTooLong: its answer is longer than an edge takes.
        """
        content = msgspec.json.encode(question)
        try:
            registry, response = await self._attempt(
                lambda registry: self._send(registry, "POST", EDGE_PATH, content, {"accept-encoding": "gzip"})
            )
        except RegistryUnavailable as error:
            if isinstance(error.__cause__, TooLongError):
                raise RegistryAnswerTooLong(str(error.__cause__)) from error
            raise
        try:
            answer = None if response.status == 304 else _decode_edge(_unpacked(response))
        except TooLongError as error:
            raise RegistryAnswerTooLong(str(error)) from error
        except (msgspec.DecodeError, ValueError, zlib.error) as error:
            raise self._unavailable(f"answer not understood: {error}", registry) from error
        self._registries.answered(registry)
        return answer

    async def drain(self, ref: EndpointRef) -> Listed | None:
        """Drain the instance's listed endpoint, whichever of its incarnations registered it.

        Returns:
            The endpoint as it is listed then, or None when nothing of the instance is listed.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused for another reason than its own 404 or 409.
        """
        try:
            registry, response = await self._attempt(lambda registry: self._send(registry, "POST", ref.path("/drain")))
        except RegistryRefused as error:
            if error.from_registry and error.problem.status in (404, 409):
                return None
            raise
        try:
            listed = _decode_listed(response.body)
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answer not understood: {error}", registry) from error
        return listed if listed.leaving_at is None else None

    async def deregister(self, ref: EndpointRef) -> bool:
        """Deregister an endpoint; False when the registry has none that this instance owns.

        Raises:
            RegistryUnavailable: there was no response, or the 404 or 409 of a program that is no registry.
            RegistryRefused: the registry refused for another reason.
        """
        try:
            await self._attempt(lambda registry: self._send(registry, "DELETE", ref.path()))
        except RegistryRefused as error:
            if error.problem.status not in (404, 409):
                raise
            if error.from_registry:
                return False
            # The program in between does not know the endpoint, which may still be listed.
            raise RegistryUnavailable(f"no registry's answer: {error}", perhaps_stored=False) from error
        return True

    async def _attempt(
        self, send: Callable[[RegistryAddress], Awaitable[Response]]
    ) -> tuple[RegistryAddress, Response]:
        registry = self._registries.current
        try:
            async with asyncio.timeout(self._timeout):
                registry = await self._next_registry()
                aged = self._loop.time() >= self._replace_at
                response = await send(registry)
                if aged:
                    self._turn()
        except _UnauthenticatedError as error:
            self._registries.answered(registry)
            # One registry of several may not know a session that the others know.
            self._turn()
            raise RegistryUnavailable(str(error), perhaps_stored=False, unauthenticated=True) from error
        except TimeoutError as error:
            raise self._unavailable(f"TimeoutError no answer within {self._timeout:g}s", registry) from error
        except NO_RESPONSE as error:
            sent = not isinstance(error, ConnectError)
            raise self._unavailable(describe(error), registry, perhaps_stored=sent) from error
        if _successful(response):
            return registry, response
        problem = _problem(response)
        if overloaded(response.status):
            reason = f"{problem.status} {problem.title}: {problem.detail}"
            limited = response.status == 429
            raise self._unavailable(reason, registry, retry_after=_retry_after(response, problem), limited=limited)
        from_registry = _from_registry(response)
        if from_registry:
            self._registries.answered(registry)
            self._turn()
        else:
            self._fail(registry)
        raise RegistryRefused(problem, from_registry=from_registry, registry_time=registry_time(response))

    async def _send_aside(self, path: str, content: bytes) -> Response:
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
                response = await self._send(registry, "POST", path, content)
        except _UnauthenticatedError as error:
            raise RegistryUnavailable(str(error), perhaps_stored=False, unauthenticated=True) from error
        except TimeoutError as error:
            raise RegistryUnavailable(f"TimeoutError no answer within {self._timeout:g}s") from error
        except NO_RESPONSE as error:
            raise RegistryUnavailable(describe(error), perhaps_stored=not isinstance(error, ConnectError)) from error
        if not _successful(response):
            problem = _problem(response)
            if overloaded(response.status):
                raise RegistryUnavailable(
                    f"{problem.status} {problem.title}: {problem.detail}",
                    retry_after=_retry_after(response, problem),
                    limited=response.status == 429,
                )
            raise RegistryRefused(
                problem, from_registry=_from_registry(response), registry_time=registry_time(response)
            )
        return response

    async def _next_registry(self) -> RegistryAddress:
        """Return the registry to send to; names are looked up again before a new connection."""
        now = self._loop.time()
        if self._connected_at is None:
            await self._registries.refresh()
            self._connected_at = self._resolved_at = now
            self._replace_at = now + jitter.around(self._age, _CONNECTION_AGE_SPREAD)
        elif now - self._resolved_at >= RESOLVE_INTERVAL:
            self._resolved_at = now
            self._registries.refresh_soon()
        if not self._registries.current.resolved:
            registry = self._registries.current
            raise self._unavailable(f"{registry.name} has no address", registry, perhaps_stored=False)
        return self._registries.current

    async def _send_batch(self, registry: RegistryAddress, heartbeats: list[Heartbeat]) -> tuple[Wording, Response]:
        """Send a batch in the registry's wording; after a refusal that may be about it, once in the other."""
        now = self._loop.time()
        wording = self._wordings.first(registry, now)
        response = await self._send(registry, "POST", _HEARTBEATS, msgspec.json.encode(wording.batch(heartbeats)))
        if _successful(response):
            return wording, response
        refusal = _problem(response)
        other = self._wordings.second(registry, wording, refusal, now)
        if other is None:
            return wording, response
        second = await self._send(registry, "POST", _HEARTBEATS, msgspec.json.encode(other.batch(heartbeats)))
        if not _successful(second) and not_understood(_problem(second)):
            # Anything else, like the 404 of a proxy, says nothing of what this registry reads.
            if _from_registry(response) and _from_registry(second) and second.status == response.status:
                self._wordings.futile(registry, refusal, now)
            return wording, response
        if _successful(second) or (_from_registry(second) and not overloaded(second.status)):
            self._wordings.understood(registry, other, now)
        return other, second

    async def _send(
        self,
        registry: RegistryAddress,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Response:
        """Send a request with the credential, and tell the credential what became of it.

        Raises:
            _UnauthenticatedError: the token was refused, and the request may be repeated with another one.
        """
        bearer = self._credential.bearer
        response = await self._exchange(registry, method, path, content, bearer, headers)
        if _successful(response):
            self._credential.accepted(bearer)
        elif response.status == 401 and _from_registry(response) and self._credential.refused(bearer):
            raise _UnauthenticatedError(_problem(response))
        return response

    async def _exchange(
        self,
        registry: RegistryAddress,
        method: str,
        path: str,
        content: bytes,
        bearer: str,
        more: Mapping[str, str] = NO_HEADERS,
    ) -> Response:
        headers = {"host": registry.host, "user-agent": "headcount-registrar", "accept-encoding": "identity", **more}
        if bearer:
            headers["authorization"] = f"Bearer {bearer}"
        if content:
            headers["content-type"] = "application/json"
        elif method == "POST":
            headers["content-length"] = "0"
        if self._loop.time() >= self._replace_at:
            headers["connection"] = "close"
        return await self._http.request(registry.origin, Request(method, registry.target(path), headers, content))

    def _turn(self) -> None:
        """Let the next request open a connection to the next registry."""
        self._registries.advance()
        self._connected_at = None

    def _fail(self, registry: RegistryAddress) -> None:
        """Let the next request open a connection to a registry that answers."""
        self._registries.failed(registry)
        self._connected_at = None

    def _unavailable(
        self,
        reason: str,
        registry: RegistryAddress,
        *,
        perhaps_stored: bool = True,
        retry_after: float | None = None,
        limited: bool = False,
    ) -> RegistryUnavailable:
        self._fail(registry)
        return RegistryUnavailable(reason, retry_after=retry_after, perhaps_stored=perhaps_stored, limited=limited)


def overloaded(status: int) -> bool:
    """Return whether a status asks to repeat the request later, and not to change it."""
    return status in _OVERLOADED or status >= 500


def _successful(response: Response) -> bool:
    return 200 <= response.status < 300 or response.status == 304


def _unpacked(response: Response) -> bytes:
    """Return the body of a response.

    Raises:
        TooLongError: it is longer than an edge takes.
        ValueError: it is packed in another way than asked for, or cut.
        zlib.error: it is not what its header says.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return response.body
    if encoding != "gzip":
        raise ValueError(f"content-encoding {encoding!r}, where gzip was asked for")
    unpacker = zlib.decompressobj(_GZIP)
    body = unpacker.decompress(response.body, _MAX_EDGE_BYTES)
    if len(body) >= _MAX_EDGE_BYTES:
        raise TooLongError(f"the answer is longer than {_MAX_EDGE_BYTES} bytes")
    if not unpacker.eof:
        raise ValueError("the answer is cut")
    return body


def _from_registry(response: Response) -> bool:
    """Return whether a refusal is a registry's own: a proxy between the two sends no problem document."""
    return response.headers.get("content-type", "").startswith(CONTENT_TYPE)


def _problem(response: Response) -> Problem:
    try:
        return _decode_problem(response.body)
    except msgspec.DecodeError:
        return Problem(response.reason or "error", response.status, response.text[:200])


def _retry_after(response: Response, problem: Problem) -> float | None:
    """Return the seconds that the registry asked to wait; a date in the header is ignored, because clocks differ."""
    header = response.headers.get("retry-after", "")
    if header.isascii() and header.isdigit():
        return float(header[:9])
    return problem.retry_after
