"""Requests to the registry: heartbeats, drains, deregistrations and logins."""

import zlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from registrar.errors import RegistryAnswerTooLong, RegistryRefused, RegistryUnavailable
from registrar.registry_client.credential import Credential
from registrar.registry_client.endpoint_ref import EndpointRef
from registrar.registry_client.heartbeat_wording import CURRENT, Wording, Wordings, not_understood
from registrar.registry_client.login_answer import LoginAnswer, registry_time
from registrar.registry_client.registries import RegistryAddress, RegistryUrls
from registrar.registry_client.response import from_registry, overloaded, problem_of, successful, unpacked
from registrar.registry_client.tls import RegistryTls
from registrar.registry_client.transport import Transport
from wire.edge_assignments import EDGE_PATH, EdgeAnswer, EdgeQuestion
from wire.http1 import Response, TooLongError
from wire.model import Health, Heartbeat, HeartbeatResult, Report
from wire.probe_report import ProbeReport
from wire.traffic_digest import DigestAnswer

ATTEMPT_TIMEOUT = 3.0
"""Seconds for one attempt, from connecting to the last byte."""
CONNECTION_AGE = 300.0
"""Seconds that a connection is used, so that a registry that was added gets its share of the load."""
_HEARTBEATS = "/v1/heartbeats"
_PROBES = "/v1/probes"
_ERRANDS = "/v1/errands"
_MAX_RETRY_AFTER = 120.0
"""Seconds that a registry may ask for between two requests for errands."""
_TRAFFIC = "/v1/traffic"
_LOGIN = "/v1/login/aws"
_RENEW = "/v1/login/renew"
_MAX_EDGE_BYTES = 64 * 1024 * 1024
"""Bytes of an answer to an edge's question, unpacked; 10,000 endpoints take two million."""


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


_decode_listed = msgspec.json.Decoder(Listed).decode
_decode_edge = msgspec.json.Decoder(EdgeAnswer).decode
_decode_next_errand = msgspec.json.Decoder(_NextErrand).decode
_decode_digest_answer = msgspec.json.Decoder(DigestAnswer).decode
_decode_login = msgspec.json.Decoder(LoginAnswer).decode


class RegistryClient:
    """A client that makes one attempt at one registry for each call; after a failure another registry is next.

    It does not repeat failed attempts: the caller builds the next one from the state of that moment.

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
        self._transport = Transport(urls, timeout, credential=credential, tls=tls, connection_age=connection_age)
        self._wordings = Wordings()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    @property
    def registry(self) -> str:
        """The base URL that the next request goes to."""
        return self._transport.registry.url

    async def heartbeats(self, heartbeats: Sequence[Heartbeat]) -> list[HeartbeatResult]:
        """Send one batch and return its results in order.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the batch as a whole was refused.
        """
        wording = CURRENT
        bearer = self._transport.credential.bearer

        async def send(registry: RegistryAddress) -> Response:
            nonlocal wording
            wording, response = await self._send_batch(registry, list(heartbeats))
            return response

        registry, response = await self._transport.attempt(send)
        results = self._transport.decode(wording.results.decode, registry, response).results
        if [(each.service, each.endpoint) for each in results] != [
            (each.service, each.endpoint) for each in heartbeats
        ]:
            raise self._transport.not_understood("its results do not match the heartbeats", registry)
        self._transport.answered(registry)
        if any(result.problem is not None and result.problem.status == 401 for result in results):
            self._transport.credential.refused(bearer)
        return results

    async def report_probes(self, report: ProbeReport) -> None:
        """Send the results of probes.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused them.
        """
        await self._transport.post_aside(_PROBES, msgspec.json.encode(report))

    async def next_errand(self, instance_id: str, endpoints: Sequence[str]) -> tuple[TakenErrand | None, float]:
        """Return the next errand when there is one, and the seconds to wait before the next request.

        The registry holds the request for up to `MAX_HOLD` seconds, for which a client of its own needs to wait.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused.
        """
        query = "&".join(f"endpoint={quote(each, safe='')}" for each in endpoints)
        path = f"{_ERRANDS}/next?instance={quote(instance_id, safe='')}&{query}"
        registry, response = await self._transport.request("GET", path)
        answer = self._transport.decode(_decode_next_errand, registry, response)
        self._transport.answered(registry)
        return answer.errand, max(0.0, min(answer.retry_after, _MAX_RETRY_AFTER))

    async def answer_errand(self, instance_id: str, endpoint: str, errand_id: str, result: bytes) -> None:
        """Send the result of an errand.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused it.
        """
        query = f"instance={quote(instance_id, safe='')}&endpoint={quote(endpoint, safe='')}"
        path = f"{_ERRANDS}/{quote(errand_id, safe='')}/result?{query}"
        registry, _ = await self._transport.request("POST", path, result)
        self._transport.answered(registry)

    async def report_traffic(self, digest: bytes) -> DigestAnswer:
        """Send an encoded digest of Envoy's statistics, and return what the next one is to have.

        Raises:
            RegistryUnavailable: there was no response, or an invalid one.
            RegistryRefused: the registry refused it, or does not know digests.
        """
        response = await self._transport.post_aside(_TRAFFIC, digest)
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
        registry, response = await self._transport.attempt(
            lambda registry: self._transport.exchange(registry, "POST", path, content, bearer)
        )
        answer = self._transport.decode(_decode_login, registry, response)
        self._transport.answered(registry)
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
            registry, response = await self._transport.request("POST", EDGE_PATH, content, {"accept-encoding": "gzip"})
        except RegistryUnavailable as error:
            if isinstance(error.__cause__, TooLongError):
                raise RegistryAnswerTooLong(str(error.__cause__)) from error
            raise
        try:
            answer = None if response.status == 304 else _decode_edge(unpacked(response, _MAX_EDGE_BYTES))
        except TooLongError as error:
            raise RegistryAnswerTooLong(str(error)) from error
        except (msgspec.DecodeError, ValueError, zlib.error) as error:
            raise self._transport.not_understood(str(error), registry) from error
        self._transport.answered(registry)
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
            registry, response = await self._transport.request("POST", ref.path("/drain"))
        except RegistryRefused as error:
            if error.from_registry and error.problem.status in (404, 409):
                return None
            raise
        listed = self._transport.decode(_decode_listed, registry, response)
        return listed if listed.leaving_at is None else None

    async def deregister(self, ref: EndpointRef) -> bool:
        """Deregister an endpoint; False when the registry has none that this instance owns.

        Raises:
            RegistryUnavailable: there was no response, or the 404 or 409 of a program that is no registry.
            RegistryRefused: the registry refused for another reason.
        """
        try:
            await self._transport.request("DELETE", ref.path())
        except RegistryRefused as error:
            if error.problem.status not in (404, 409):
                raise
            if error.from_registry:
                return False
            # The program in between does not know the endpoint, which may still be listed.
            raise RegistryUnavailable(f"no registry's answer: {error}", perhaps_stored=False) from error
        return True

    async def _send_batch(self, registry: RegistryAddress, heartbeats: list[Heartbeat]) -> tuple[Wording, Response]:
        """Send a batch in the registry's wording; after a refusal that may be about it, once in the other."""
        now = self._transport.now()
        wording = self._wordings.first(registry, now)
        response = await self._transport.send(
            registry, "POST", _HEARTBEATS, msgspec.json.encode(wording.batch(heartbeats))
        )
        if successful(response):
            return wording, response
        refusal = problem_of(response)
        other = self._wordings.second(registry, wording, refusal, now)
        if other is None:
            return wording, response
        content = msgspec.json.encode(other.batch(heartbeats))
        second = await self._transport.send(registry, "POST", _HEARTBEATS, content)
        if not successful(second) and not_understood(problem_of(second)):
            # Anything else, like the 404 of a proxy, says nothing of what this registry reads.
            if from_registry(response) and from_registry(second) and second.status == response.status:
                self._wordings.futile(registry, refusal, now)
            return wording, response
        if successful(second) or (from_registry(second) and not overloaded(second.status)):
            self._wordings.understood(registry, other, now)
        return other, second
