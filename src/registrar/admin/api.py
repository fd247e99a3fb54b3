"""The local admin API: how this process is, and what it can be asked to do."""

import re
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import unquote

import msgspec

from registrar.admin.metrics_text import CONTENT_TYPE, expose
from registrar.admin.server import Request, Response
from registrar.admin.status import RegistrarStatus, ready
from registrar.admin.target_check import mismatch
from registrar.checks.result import Outcome
from wire.problem import CONTENT_TYPE as PROBLEM
from wire.problem import Problem


class Registrar(Protocol):
    """What is behind the API."""

    def status(self) -> RegistrarStatus:
        """Return everything at this moment."""

    def start_drain(self) -> None:
        """Take every endpoint out of rotation, for good; once is enough."""

    async def drained(self) -> None:
        """Wait until a drain has come to its end."""

    def push(self, service: str, name: str, state: Outcome, detail: str) -> int:
        """Hand a state to the push checks it is for and return how many there are.

        Raises:
            ValueError: an app may not push that state.
        """


class PushedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an app says of itself."""

    state: Outcome
    detail: str = ""


Route = Callable[["AdminApi", Request, re.Match[str]], Awaitable[Response]]
_decode_push = msgspec.json.Decoder(PushedState).decode


class AdminApi:
    """Answers requests about one registrar.

    Args:
        registrar: what they are about.
        config: its file or directory; empty without.
    """

    def __init__(self, registrar: Registrar, config: str = "") -> None:
        self._registrar = registrar
        self._config = config

    async def handle(self, request: Request) -> Response:
        """Answer one request; one that is meant for another registrar is refused before anything is done."""
        wrong = mismatch(request.query, self._registrar.status(), self._config) if request.query else ""
        if wrong:
            return problem_response(421, wrong)
        found = [(method, route, match) for method, route, match in _matching(request.path)]
        if not found:
            return problem_response(404, f"there is no {request.path}; there are {', '.join(sorted(PATHS))}")
        for method, route, match in found:
            if method == request.method:
                return await route(self, request, match)
        return problem_response(405, f"{request.path} takes {' and '.join(method for method, _, _ in found)}")

    async def livez(self, _: Request, __: re.Match[str]) -> Response:
        """Answer 200 as long as the process answers at all."""
        return Response(200, b"ok\n", "text/plain")

    async def readyz(self, _: Request, __: re.Match[str]) -> Response:
        """Answer 200 while every endpoint is registered and in rotation, as far as this process knows."""
        status = self._registrar.status()
        waiting = [f"{one.service} {one.endpoint} is {one.state}" for one in status.endpoints if not ready(one.state)]
        said = "ok" if status.ready else "; ".join(waiting) or "no registration was accepted yet"
        return Response(200 if status.ready else 503, f"{said}\n".encode(), "text/plain")

    async def healthcheck(self, _: Request, __: re.Match[str]) -> Response:
        """Answer what ``registrar healthcheck`` tells the supervisor."""
        status = self._registrar.status()
        accepted = any(one.accepted for one in status.endpoints)
        waiting = (
            "registered; waiting until Envoys have heard of it" if accepted else "waiting for the first registration"
        )
        said = "ok" if status.healthy else waiting
        return Response(200 if status.healthy else 503, f"{said}\n".encode(), "text/plain")

    async def status(self, _: Request, __: re.Match[str]) -> Response:
        """Answer everything at once."""
        return Response(200, msgspec.json.encode(self._registrar.status()))

    async def metrics(self, _: Request, __: re.Match[str]) -> Response:
        """Answer in Prometheus' text format."""
        return Response(200, expose(self._registrar.status()).encode(), CONTENT_TYPE)

    async def drain(self, request: Request, _: re.Match[str]) -> Response:
        """Start the drain, and answer at its end unless ``wait=false`` asks for an answer at once."""
        self._registrar.start_drain()
        if request.query.get("wait") == "false":
            return Response(202, msgspec.json.encode(self._registrar.status()))
        await self._registrar.drained()
        status = self._registrar.status()
        if status.drain == "refused":
            refused = [f"{one.service} {one.endpoint}: {one.problem}" for one in status.endpoints if one.problem]
            return problem_response(
                502, f"the registry refused it, and the leases end by themselves; {'; '.join(refused)}"
            )
        return await self.status(request, _)

    async def push(self, request: Request, match: re.Match[str]) -> Response:
        """Take in what an app says of itself."""
        service, name = (unquote(part or "") for part in match.groups())
        try:
            said = _decode_push(request.body)
            told = self._registrar.push(service, name, said.state, said.detail)
        except ValueError as error:
            return problem_response(422, f'{error}; write it like {{"state": "passed", "detail": "all well"}}')
        if told:
            return Response(204, b"")
        return problem_response(404, f"no push check {name!r} of {service} is configured")


def problem_response(status: int, detail: str) -> Response:
    """Return a problem document."""
    titles = {
        403: "forbidden",
        404: "not found",
        405: "method not allowed",
        413: "too large",
        421: "misdirected",
        422: "not understood",
        503: "busy",
    }
    problem = Problem(titles.get(status, "bad request" if status < 500 else "failed"), status, detail)
    return Response(status, msgspec.json.encode(problem), PROBLEM)


ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/livez", AdminApi.livez),
    ("GET", "/readyz", AdminApi.readyz),
    ("GET", "/healthcheck", AdminApi.healthcheck),
    ("GET", "/status", AdminApi.status),
    ("GET", "/metrics", AdminApi.metrics),
    ("POST", "/drain", AdminApi.drain),
    ("PUT", "/checks/{service}/{name}", AdminApi.push),
)
PATHS = [path for _, path, _ in ROUTES]
# What supervisors ask: they take no answer for a process that is broken.
PROBE_PATHS = ("/livez", "/readyz", "/healthcheck")
_PATTERNS = [
    (method, re.compile(path.replace("{service}/{name}", "([^/]+)(?:/([^/]+))?")), route)
    for method, path, route in ROUTES
]


def _matching(path: str) -> list[tuple[str, Route, re.Match[str]]]:
    return [(method, route, match) for method, pattern, route in _PATTERNS if (match := pattern.fullmatch(path))]
