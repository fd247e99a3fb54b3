"""HTTP client of the registry's API: documents as they are, problems as errors, all pages of a list."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Raw, Struct

from registryctl.answer_deadline import AnswerDeadline
from registryctl.errors import ConflictError, CtlError, MissingError, RejectedError, UnreachableError, UsageError
from registryctl.faults import counted, faults_in
from registryctl.redaction import redact_text
from registryctl.refusals import advice_on_refusal
from registryctl.settings import Settings
from registryctl.tls import tls_context
from registryctl.token import AccessToken
from wire.problem import CONTENT_TYPE, Problem

Document = dict[str, Any]
"""A JSON object of the API."""

Params = Mapping[str, object]
"""Parameters of a query; those that are None or an empty list are left out."""

_UNAVAILABLE = "unavailable"
"""The field of a page with the names of what the registry could not read; most pages have none."""

NO_ANSWER = "no registry answers: "
"""Begins the text of the error when no address answers."""

_TRICKLE_TIMES = 5
"""Times of the longest wait that an answer may take besides: a proxy may send it byte by byte."""
MAX_PAGE = 1000
"""Items of a list that are asked for at once; the API gives no more."""

_NOT_THERE = "name its address with --url or REGISTRYCTL_URL; `registryctl check` says more"
_LATE = "it may wait for PostgreSQL: `registryctl check` says more, and --timeout 30s waits longer"
_PERHAPS_DONE = (
    "it may be done all the same: look before you repeat it; `registryctl check` says why it takes long, and "
    "--timeout 30s waits longer"
)
_NO_REGISTRY = "check that --url or REGISTRYCTL_URL names a registry, without a path of its API"
_NO_TIME = "no answer in time"
_MAX_SHOWN = 100
"""Characters of a content type that are shown."""
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Failures before the request was sent: it had no effect, and another address may be asked."""

_KINDS: Mapping[int, type[CtlError]] = {404: MissingError, 409: ConflictError}


class _Page(Struct, frozen=True):
    next: str | int | None


class ApiClient:
    """Client that asks the first address that answers, and stays with it.

    Args:
        settings: where to ask.
        name: the host to ask for, where the addresses are those of one of its processes; empty: as the URL has it.
    """

    def __init__(self, settings: Settings, name: str = "") -> None:
        self._settings = settings
        # The addresses, the one to ask first; the one that fails moves to the end.
        self._urls = list(settings.urls)
        # The registry's time less this process's monotonic time, as of the last answer that had a Date; None before.
        self._clock_offset: float | None = None
        self.answered = False
        """Whether something has answered a request, be it a registry or not."""
        # No proxy of the environment: it is for the internet, and the registry is inside.
        self._http = httpx.Client(
            timeout=settings.timeout,
            trust_env=False,
            verify=tls_context(settings),
            headers={"x-actor": settings.actor, "user-agent": "registryctl"} | ({"host": name} if name else {}),
        )
        self._deadline = AnswerDeadline()
        self._extensions: dict[str, Any] = {"trace": self._deadline.note}
        if name:
            self._extensions["sni_hostname"] = name.rpartition(":")[0] or name

    @property
    def url(self) -> str:
        """The address that is asked."""
        return self._urls[0]

    @property
    def shown(self) -> str:
        """The same, as it may be printed: it may have a password in it."""
        return redact_text(self.url)

    @property
    def token(self) -> AccessToken | None:
        """The token that the address gets; None: none."""
        return self._settings.tokens.get(self.url)

    @property
    def now(self) -> float:
        """The registry's time: that of its last answer, plus the monotonic time that has passed since."""
        return time.time() if self._clock_offset is None else time.monotonic() + self._clock_offset

    def ask_time(self) -> float:
        """Return the registry's time, asked now."""
        self.text("/livez")
        return self.now

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> Raw:
        """Return a document, as it came.

        Raises:
            MissingError, RejectedError, UnreachableError: the registry answers with a problem, or no registry answers.
        """
        return Raw(self.ask("GET", path, params).content)

    def text(self, path: str) -> str:
        """Return a body that is no JSON; raises as ``get`` does."""
        return self._answer("GET", path).text

    def readiness(self, *, verbose: bool = True) -> Document:
        """Return the document of /readyz, which is one also when the answer is 503."""
        response = self._send("GET", "/readyz", {"verbose": ""} if verbose else None, None)
        try:
            document = read(Raw(response.content))
        except UnreachableError:
            document = {}
        if "ready" not in document:
            raise self._problem_of(response, "GET", "/readyz")
        return document

    def ask(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        document: object = None,
        *,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Send a request and return its answer, a JSON document or nothing; raises as ``get`` does.

        Args:
            method: of the request.
            path: of the request.
            params: of its query.
            document: its body, which is sent as JSON.
            timeout: seconds to wait for the answer, where it takes longer than others; None: as the settings say.
        """
        response = self._answer(method, path, params, document, timeout)
        kind = response.headers.get("content-type", "nothing that says what it is")
        if response.content and not kind.startswith("application/json"):
            # The page of a proxy, or of a network that wants a sign-in first.
            raise UnreachableError(
                f"{method} {self.shown}{path}: {response.status_code} with {kind[:_MAX_SHOWN]} in place of JSON, which "
                "no registry answers",
                _NO_REGISTRY,
                from_registry=False,
            )
        return response

    def _answer(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        document: object = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        response = self._send(method, path, params, document, timeout)
        self._note_time(response)
        if response.is_success:
            return response
        raise self._problem_of(response, method, path)

    def pages(
        self, path: str, name: str, params: Params | None = None, limit: int | None = None, *, cursor: str = "cursor"
    ) -> Iterator[Raw]:
        """Yield the documents of a list, through all of its pages or until there are ``limit``.

        Args:
            path: of the list.
            name: the field that has the items.
            params: the filters.
            limit: items at the most; None: all.
            cursor: the parameter that takes ``next`` of the page before.
        """
        for _, items in self._pages(path, name, params, limit, cursor):
            yield from items

    def whole(
        self, path: str, name: str, params: Params | None = None, limit: int | None = None, *, cursor: str = "cursor"
    ) -> Raw:
        """Return a list as the API's document, with the items of all of its pages, or ``limit`` of them.

        So are the names of what the registry could not read, which a page has beside its items.
        """
        document: dict[str, Raw] = {}
        listed: list[Raw] = []
        unavailable: list[str] = []
        for page, items in self._pages(path, name, params, limit, cursor):
            document = page
            listed += items
            if _UNAVAILABLE in page:
                unavailable += msgspec.json.decode(page[_UNAVAILABLE], type=list[str])
        beside = {_UNAVAILABLE: unavailable} if unavailable else {}
        return Raw(msgspec.json.encode(document | {name: listed} | beside))

    def _pages(
        self, path: str, name: str, params: Params | None, limit: int | None, cursor: str
    ) -> Iterator[tuple[dict[str, Raw], list[Raw]]]:
        asked = dict(params or {}) | {"limit": MAX_PAGE if limit is None else max(1, min(limit, MAX_PAGE))}
        left = limit
        while True:
            body = self.ask("GET", path, asked).content
            page = msgspec.json.decode(body, type=dict[str, Raw])
            items = msgspec.json.decode(page[name], type=list[Raw])[:left]
            left = None if left is None else left - len(items)
            yield page, items
            following = msgspec.json.decode(body, type=_Page).next
            if following is None or left == 0:
                return
            asked[cursor] = following

    def stream(self, path: str, params: Params, headers: Mapping[str, str], read_timeout: float) -> httpx.Response:
        """Open a stream that may be silent for ``read_timeout`` seconds; the caller closes it."""
        timeout = httpx.Timeout(self._settings.timeout, read=read_timeout)
        request = self._http.build_request(
            "GET", f"{self.url}{path}", params=_given(params), headers=self._headers() | dict(headers), timeout=timeout
        )
        try:
            response = self._http.send(request, stream=True)
        except httpx.RequestError as error:
            self._urls.append(self._urls.pop(0))
            raise UnreachableError(reason_of(error)) from None
        self.answered = True
        self._note_time(response)
        if not response.is_success:
            response.read()
            response.close()
            raise self._problem_of(response, "GET", path)
        return response

    def _send(
        self, method: str, path: str, params: Params | None, document: object, timeout: float | None = None
    ) -> httpx.Response:
        read_timeout = max(self._settings.timeout, timeout or 0.0)
        # The registry gives up what waits for PostgreSQL a little earlier, and says why.
        waits = {"prefer": f"wait={int(read_timeout)}"} if read_timeout >= 1 else {}
        body = None if document is None else msgspec.json.encode(document)
        failures = []
        fix = _NOT_THERE
        for _ in range(len(self._urls)):
            headers = self._headers() | waits
            try:
                with self._deadline.within(read_timeout + _TRICKLE_TIMES * self._settings.timeout) as over:
                    response = self._http.request(
                        method,
                        f"{self.url}{path}",
                        params=_given(params),
                        content=body,
                        headers=headers,
                        timeout=httpx.Timeout(self._settings.timeout, read=read_timeout),
                        extensions=self._extensions,
                    )
                    if over.is_set():
                        # What came until then may look whole.
                        raise httpx.ReadTimeout("")  # one way out for both
            except httpx.RequestError as error:
                failures.append(f"{self.shown}: {_NO_TIME if over.is_set() else reason_of(error)}")
                if not isinstance(error, _UNSENT):
                    fix = _PERHAPS_DONE if method != "GET" else _LATE
                    if method != "GET":
                        break
            else:
                self.answered = True
                return response
            self._urls.append(self._urls.pop(0))
        raise UnreachableError(NO_ANSWER + "; ".join(failures), fix)

    def _headers(self) -> dict[str, str]:
        """Return the headers of one request: the token is that of the address, and of no other.

        Raises:
            UsageError: the address has a password in it, which would be sent instead of the token.
        """
        if self.token is None:
            return {}
        if "@" in urlsplit(self.url).netloc:
            raise UsageError(
                f"{self.shown} has a password in it, and there is a token: a request can bring only one of them",
                "leave the password out of the URL, or use no token",
            )
        return {"authorization": f"Bearer {self.token.text}"}

    def _problem_of(self, response: httpx.Response, method: str, path: str) -> CtlError:
        return problem_of(response, f"{method} {self.shown}{path}", self.token)

    def _note_time(self, response: httpx.Response) -> None:
        date = response.headers.get("date")
        # A proxy may write anything there, and a time of before is as good then.
        with suppress(ValueError, OverflowError):
            if date is not None:
                # The header is cut to seconds: half of one is the best guess of the rest.
                self._clock_offset = parsedate_to_datetime(date).timestamp() + 0.5 - time.monotonic()


def read(document: Raw) -> Document:
    """Return a JSON object of the API.

    Raises:
        UnreachableError: it is none, so that no registry has written it.
    """
    try:
        decoded: Document = msgspec.json.decode(document, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreachableError(f"an answer is no document of a registry: {error}", _NO_REGISTRY) from None
    return decoded


def problem_of(response: httpx.Response, request: str, token: AccessToken | None = None) -> CtlError:
    """Return the error of a response that is no success; ``token`` is the one that was sent."""
    status = response.status_code
    kind = _KINDS.get(status, RejectedError if status < 500 else UnreachableError)
    try:
        if CONTENT_TYPE not in response.headers.get("content-type", ""):
            raise ValueError("no problem document")  # noqa: TRY301  # one way out for both
        problem = msgspec.json.decode(response.content, type=Problem)
    except ValueError:
        fix = _NO_REGISTRY if status < 500 else ""
        return kind(f"{request}: {status} {response.reason_phrase}", fix, from_registry=False)
    fix = advice_on_refusal(problem, token) or _problem_fix(problem)
    faults = faults_in(response.content)
    if faults:
        return kind(f"{problem.title}: {counted(faults)}; nothing was stored", fix, map(str, faults))
    return kind(_problem_text(problem), fix)


def reason_of(error: httpx.RequestError) -> str:
    """Return in words why there was no answer."""
    if isinstance(error, httpx.TimeoutException):
        return _NO_TIME
    return _ERRNO.sub("", str(error)) or type(error).__name__


def _problem_text(problem: Problem) -> str:
    where = f" (at {problem.pointer})" if problem.pointer else ""
    return f"{problem.title}: {problem.detail}{where}"


def _problem_fix(problem: Problem) -> str:
    if problem.owner is not None:
        return f"it belongs to instance {problem.owner}, incarnation {problem.incarnation}"
    if problem.retry_after is not None:
        when = f"try again in {math.ceil(problem.retry_after)} s"
        return when if problem.status == 429 else f"{when}; `registryctl check` says what is wrong"
    return ""


def _given(params: Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None and value != []}
