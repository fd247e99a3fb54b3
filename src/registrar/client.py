"""HTTP to the registry: the only module that knows httpx."""

import asyncio
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx
import msgspec

from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.targets import RegistryUrls, Targets
from wire.model import Beat, BeatAnswer, Heartbeats, HeartbeatsAnswer
from wire.problem import Problem

ATTEMPT_TIMEOUT = 3.0
_CONNECT_TIMEOUT = 2.0
_OVERLOADED = frozenset({408, 425, 429})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_decode_answers = msgspec.json.Decoder(HeartbeatsAnswer).decode
_decode_problem = msgspec.json.Decoder(Problem).decode


class Client:
    """One attempt at one registry for each call; after a failure the next call goes to the next registry.

    It does not repeat by itself: the caller builds each attempt anew from the state of that moment.

    Args:
        urls: base URLs of the registries.
        timeout: seconds for one attempt, from connecting to the last byte.
    """

    def __init__(self, urls: RegistryUrls, timeout: float = ATTEMPT_TIMEOUT) -> None:
        self._targets = Targets(urls)
        self._timeout = timeout
        encrypted = any(url.startswith("https:") for url in urls.urls)
        self._http = httpx.AsyncClient(
            # Loading the certificate authorities costs megabytes that plain http does not need.
            verify=ssl.create_default_context() if encrypted else False,
            trust_env=False,
            timeout=httpx.Timeout(timeout, connect=min(_CONNECT_TIMEOUT, timeout)),
            headers={"user-agent": "headcount-registrar"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @property
    def registry(self) -> str:
        """The base URL that the next request goes to."""
        return self._targets.current

    async def heartbeats(self, beats: Sequence[Beat]) -> list[BeatAnswer]:
        """Send one batch and return its answers in order.

        Raises:
            RegistryUnavailable: no answer, or none that can be used.
            RegistryRefused: the batch as a whole was refused.
        """
        content = msgspec.json.encode(Heartbeats(list(beats)))
        response = await self._attempt("POST", "/v1/heartbeats", content)
        try:
            answers = _decode_answers(response.content).answers
        except msgspec.DecodeError as error:
            raise self._unavailable(f"answer not understood: {error}") from error
        if [(one.service, one.endpoint) for one in answers] != [(one.service, one.endpoint) for one in beats]:
            raise self._unavailable("the answers do not match the heartbeats")
        return answers

    async def deregister(self, beat: Beat) -> bool:
        """Give an endpoint's lease back; False when there was nothing left to give back.

        Raises:
            RegistryUnavailable: no answer, or none that can be used.
            RegistryRefused: for another reason than 404 or 409.
        """
        mine = beat.registration
        path = (
            f"/v1/services/{quote(beat.service, safe='')}/endpoints/{quote(beat.endpoint, safe=':')}"
            f"?instance_id={quote(mine.instance_id, safe='')}&incarnation={mine.incarnation}"
        )
        try:
            await self._attempt("DELETE", path)
        except RegistryRefused as error:
            if error.problem.status in (404, 409):
                return False
            raise
        return True

    async def _attempt(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        headers = {"content-type": "application/json"} if content is not None else {}
        try:
            # httpx limits each phase; only together do they have to end.
            async with asyncio.timeout(self._timeout):
                response = await self._http.request(method, self.registry + path, content=content, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unavailable(
                f"{type(error).__name__} {error}".strip(), perhaps_stored=not isinstance(error, _NEVER_SENT)
            ) from error
        if response.is_success:
            return response
        problem = _problem(response)
        if overloaded(response.status_code):
            reason = f"{problem.status} {problem.title}: {problem.detail}"
            raise self._unavailable(reason, retry_after=_retry_after(response, problem))
        self._targets.advance()
        raise RegistryRefused(problem)

    def _unavailable(
        self, reason: str, *, perhaps_stored: bool = True, retry_after: float | None = None
    ) -> RegistryUnavailable:
        self._targets.advance()
        return RegistryUnavailable(reason, retry_after=retry_after, perhaps_stored=perhaps_stored)


def overloaded(status: int) -> bool:
    """Tell whether a status asks for another attempt rather than for another request."""
    return status in _OVERLOADED or status >= 500


def _problem(response: httpx.Response) -> Problem:
    try:
        return _decode_problem(response.content)
    except msgspec.DecodeError:
        # A proxy in between answers in its own words.
        return Problem(response.reason_phrase or "error", response.status_code, response.text[:200])


def _retry_after(response: httpx.Response, problem: Problem) -> float | None:
    """Return the seconds that the registry asked for; a date in the header is ignored, clocks differ."""
    header = response.headers.get("retry-after", "")
    if header.isascii() and header.isdigit():
        return float(header[:9])
    return problem.retry_after
