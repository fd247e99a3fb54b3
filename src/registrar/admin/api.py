"""The routes of the local admin API: probes, status, metrics, drain and pushed states."""

import re
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import unquote

import msgspec

from registrar.admin.metrics_text import CONTENT_TYPE, expose
from registrar.admin.server import AdminRequest, AdminResponse
from registrar.admin.status import RegistrarStatus, envoy_warning, ready, startup_wait
from registrar.admin.target_check import mismatch
from registrar.checks.result import Outcome
from wire.problem import CONTENT_TYPE as PROBLEM
from wire.problem import Problem


class Registrar(Protocol):
    """The part of the running registrar that the API needs; Sidecar implements it."""

    def status(self) -> RegistrarStatus:
        """Return the status document of this moment."""

    def start_drain(self) -> None:
        """Start the drain of every endpoint; later calls do nothing."""

    async def drained(self) -> None:
        """Wait until the drain is over."""

    def push(self, service: str, name: str, state: Outcome, detail: str) -> int:
        """Pass a pushed state to its push checks and return their number.

        Raises:
            ValueError: the state is not one that apps may push.
        """


class PushedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /checks/{service}/{name}: the state that an app reports about itself."""

    state: Outcome
    detail: str = ""


Route = Callable[["AdminApi", AdminRequest, re.Match[str]], Awaitable[AdminResponse]]
_decode_push = msgspec.json.Decoder(PushedState).decode


class AdminApi:
    """Handles the requests of the admin API.

    Args:
        registrar: the running registrar.
        config: the path of its file or directory of settings; empty if it has none.
    """

    def __init__(self, registrar: Registrar, config: str = "") -> None:
        self._registrar = registrar
        self._config = config

    async def handle(self, request: AdminRequest) -> AdminResponse:
        """Handle a request; a request that names another registrar is refused with 421."""
        fault = mismatch(request.query, self._registrar.status(), self._config) if request.query else ""
        if fault:
            return problem_response(421, fault)
        routes = _matching(request.path)
        if not routes:
            return problem_response(404, f"no route {request.path}; the routes are {', '.join(sorted(PATHS))}")
        # The server sends the head of a response to HEAD alone.
        asked = "GET" if request.method == "HEAD" else request.method
        for method, route, match in routes:
            if method == asked:
                return await route(self, request, match)
        allowed = " and ".join(method for method, _, _ in routes)
        return problem_response(405, f"{request.path} allows {allowed}, not {request.method}")

    async def livez(self, _: AdminRequest, __: re.Match[str]) -> AdminResponse:
        """Respond with 200: the process is alive."""
        return AdminResponse(200, b"ok\n", "text/plain")

    async def readyz(self, _: AdminRequest, __: re.Match[str]) -> AdminResponse:
        """Respond with 200 while every endpoint is registered and in rotation, otherwise with 503."""
        status = self._registrar.status()
        waiting = [
            f"{endpoint.service} {endpoint.endpoint} is {endpoint.state}"
            for endpoint in status.endpoints
            if not ready(endpoint.state)
        ]
        text = "ok" if status.ready else "; ".join(waiting) or "the registry has not accepted every registration yet"
        return AdminResponse(200 if status.ready else 503, f"{text}\n".encode(), "text/plain")

    async def healthcheck(self, _: AdminRequest, __: re.Match[str]) -> AdminResponse:
        """Respond with the state that ``registrar healthcheck`` reports to the supervisor."""
        status = self._registrar.status()
        if status.healthy:
            # Latched: a registry or AWS that is away must not make a supervisor replace the fleet.
            envoy = envoy_warning(status)
            text = f"ok; {envoy}" if envoy else "ok"
        else:
            text = startup_wait(status)
        return AdminResponse(200 if status.healthy else 503, f"{text}\n".encode(), "text/plain")

    async def status(self, _: AdminRequest, __: re.Match[str]) -> AdminResponse:
        """Respond with the whole status document."""
        return AdminResponse(200, msgspec.json.encode(self._registrar.status()))

    async def metrics(self, _: AdminRequest, __: re.Match[str]) -> AdminResponse:
        """Respond with the metrics in Prometheus' text format."""
        return AdminResponse(200, expose(self._registrar.status()).encode(), CONTENT_TYPE)

    async def drain(self, request: AdminRequest, _: re.Match[str]) -> AdminResponse:
        """Start the drain and respond when it is over, or at once with ``wait=false``."""
        self._registrar.start_drain()
        if request.query.get("wait") == "false":
            return AdminResponse(202, msgspec.json.encode(self._registrar.status()))
        await self._registrar.drained()
        status = self._registrar.status()
        if status.drain == "refused":
            refused = [
                f"{endpoint.service} {endpoint.endpoint}: {endpoint.problem}"
                for endpoint in status.endpoints
                if endpoint.problem
            ]
            return problem_response(
                502, f"the registry refused the drain; the leases expire by themselves: {'; '.join(refused)}"
            )
        return await self.status(request, _)

    async def push(self, request: AdminRequest, match: re.Match[str]) -> AdminResponse:
        """Record the state that an app pushes."""
        service, name = (unquote(part or "") for part in match.groups())
        try:
            pushed = _decode_push(request.body)
            receivers = self._registrar.push(service, name, pushed.state, pushed.detail)
        except ValueError as error:
            return problem_response(422, f'{error}; write it like {{"state": "passed", "detail": "all well"}}')
        if receivers:
            return AdminResponse(204, b"")
        return problem_response(404, f"service {service} has no push check named {name!r}; add one to its checks")


def problem_response(status: int, detail: str) -> AdminResponse:
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
    return AdminResponse(status, msgspec.json.encode(problem), PROBLEM)


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
# The paths of supervisors' probes: a missing response counts as a broken process.
PROBE_PATHS = ("/livez", "/readyz", "/healthcheck")
_PATTERNS = [
    (method, re.compile(path.replace("{service}/{name}", "([^/]+)(?:/([^/]+))?")), route)
    for method, path, route in ROUTES
]


def _matching(path: str) -> list[tuple[str, Route, re.Match[str]]]:
    return [(method, route, match) for method, pattern, route in _PATTERNS if (match := pattern.fullmatch(path))]
