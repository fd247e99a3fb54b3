"""The registry over HTTP: its documents as they are, its problems as errors, all pages of a list."""

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec
from msgspec import Raw, Struct

from registryctl.errors import CtlError, MissingError, RefusedError, UnreachableError
from registryctl.redaction import redact_text
from registryctl.settings import Settings
from wire.problem import CONTENT_TYPE, Problem

Document = dict[str, Any]
"""A JSON object of the API."""

Params = Mapping[str, object]

NOBODY = "no registry answers: "

_PAGE = 1000
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
# Failures before the request was sent: whatever it asks for was not done, and another address may be asked.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class _Page(Struct, frozen=True):
    next: str | None


class Client:
    """Asks the first address that answers, and stays with it.

    Args:
        settings: where to ask.
        name: the host to ask for, where the addresses are those of one of its processes; empty: as the URL has it.
    """

    def __init__(self, settings: Settings, name: str = "") -> None:
        self._settings = settings
        self._urls = list(settings.urls)
        self._ahead = 0.0
        # Straight to the registry: a proxy of the environment is for the internet.
        self._http = httpx.Client(
            timeout=settings.timeout,
            trust_env=False,
            verify=ssl.create_default_context(),
            headers={"x-actor": settings.actor, "user-agent": "registryctl"} | ({"host": name} if name else {}),
        )
        self._extensions = {"sni_hostname": name.rpartition(":")[0] or name} if name else {}

    @property
    def url(self) -> str:
        """The address that is asked."""
        return self._urls[0]

    @property
    def shown(self) -> str:
        """The same, as it may be printed: it may have a password in it."""
        return redact_text(self.url)

    @property
    def now(self) -> float:
        """The registry's time, as its last answer told it: ages are right also where this machine's clock is not."""
        return time.time() + self._ahead

    def ask_time(self) -> float:
        """Return the registry's time, asked now."""
        self.ask("GET", "/livez")
        return self.now

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> Raw:
        """Return a document, as it came.

        Raises:
            MissingError, RefusedError, UnreachableError: what the registry answers instead, or that none does.
        """
        return Raw(self.ask("GET", path, params).content)

    def text(self, path: str) -> str:
        """Return what is no JSON."""
        return self.ask("GET", path).text

    def readiness(self) -> Document:
        """Return the document of /readyz, which is one also when the answer is 503."""
        answer = self._send("GET", "/readyz", {"verbose": ""}, None)
        try:
            return read(Raw(answer.content))
        except ValueError:
            raise problem_of(answer, f"GET {self.shown}/readyz") from None

    def ask(self, method: str, path: str, params: Params | None = None, document: object = None) -> httpx.Response:
        """Ask for something, or have it done; raises as ``get`` does."""
        answer = self._send(method, path, params, document)
        self._note_time(answer)
        if answer.is_success:
            return answer
        raise problem_of(answer, f"{method} {self.shown}{path}")

    def pages(self, path: str, name: str, params: Params | None = None, most: int | None = None) -> Iterator[Raw]:
        """Yield the documents of a list, through all of its pages or until there are ``most``."""
        for _, items in self._pages(path, name, params, most):
            yield from items

    def whole(self, path: str, name: str, params: Params | None = None, most: int | None = None) -> Raw:
        """Return a list as the API's document, with the items of all of its pages, or ``most`` of them, in it."""
        document: dict[str, Raw] = {}
        found: list[Raw] = []
        for page, items in self._pages(path, name, params, most):
            document = page
            found += items
        return Raw(msgspec.json.encode(document | {name: found}))

    def _pages(
        self, path: str, name: str, params: Params | None, most: int | None
    ) -> Iterator[tuple[dict[str, Raw], list[Raw]]]:
        asked = dict(params or {}) | {"limit": _PAGE if most is None else max(1, min(most, _PAGE))}
        left = most
        while True:
            body = self.ask("GET", path, asked).content
            page = msgspec.json.decode(body, type=dict[str, Raw])
            items = msgspec.json.decode(page[name], type=list[Raw])[:left]
            left = None if left is None else left - len(items)
            yield page, items
            following = msgspec.json.decode(body, type=_Page).next
            if following is None or left == 0:
                return
            asked["cursor"] = following

    def stream(self, path: str, params: Params, headers: Mapping[str, str], silence: float) -> httpx.Response:
        """Open a stream that may be silent for so many seconds; the caller closes it."""
        timeout = httpx.Timeout(self._settings.timeout, read=silence)
        request = self._http.build_request(
            "GET", f"{self.url}{path}", params=_given(params), headers=dict(headers), timeout=timeout
        )
        try:
            answer = self._http.send(request, stream=True)
        except httpx.TransportError as error:
            self._urls.append(self._urls.pop(0))
            raise UnreachableError(told(error)) from None
        self._note_time(answer)
        if not answer.is_success:
            answer.read()
            answer.close()
            raise problem_of(answer, f"GET {self.shown}{path}")
        return answer

    def _send(self, method: str, path: str, params: Params | None, document: object) -> httpx.Response:
        body = None if document is None else msgspec.json.encode(document)
        failures = []
        for _ in range(len(self._urls)):
            try:
                return self._http.request(
                    method, f"{self.url}{path}", params=_given(params), content=body, extensions=self._extensions
                )
            except httpx.TransportError as error:
                failures.append(f"{self.shown}: {told(error)}")
                if method != "GET" and not isinstance(error, _UNSENT):
                    break
            self._urls.append(self._urls.pop(0))
        raise UnreachableError(
            NOBODY + "; ".join(failures),
            "name its address with --url or REGISTRYCTL_URL; `registryctl check` says more",
        )

    def _note_time(self, answer: httpx.Response) -> None:
        told = answer.headers.get("date")
        if told is not None:
            # It is cut to seconds: half of one is the best guess of the rest.
            self._ahead = parsedate_to_datetime(told).timestamp() + 0.5 - time.time()


def read(document: Raw) -> Document:
    """Return a JSON object of the API."""
    found: Document = msgspec.json.decode(document, type=Document)
    return found


def problem_of(answer: httpx.Response, what: str) -> CtlError:
    """Return the error that an answer which is no success amounts to."""
    status = answer.status_code
    kind = MissingError if status == 404 else RefusedError if status < 500 else UnreachableError
    try:
        if CONTENT_TYPE not in answer.headers.get("content-type", ""):
            raise ValueError("no problem document")  # noqa: TRY301  # one way out for both
        problem = msgspec.json.decode(answer.content, type=Problem)
    except ValueError:
        return kind(f"{what}: {status} {answer.reason_phrase}", "is that a registry?" if status < 500 else "")
    return kind(_problem_text(problem), _problem_mend(problem))


def _problem_text(problem: Problem) -> str:
    where = f" (at {problem.pointer})" if problem.pointer else ""
    return f"{problem.title}: {problem.detail}{where}"


def _problem_mend(problem: Problem) -> str:
    if problem.owner is not None:
        return f"it belongs to instance {problem.owner}, incarnation {problem.incarnation}"
    if problem.retry_after is not None:
        return f"try again in {problem.retry_after:g} s; `registryctl check` says what is wrong"
    return ""


def _given(params: Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None and value != []}


def told(error: httpx.TransportError) -> str:
    """Return in words why there was no answer."""
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return _ERRNO.sub("", str(error)) or type(error).__name__
