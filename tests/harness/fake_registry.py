"""A small registry that speaks the wire documents over real HTTP, and does as a test tells it."""

import asyncio
import contextlib
import email.utils
import gzip
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self
from urllib.parse import parse_qs, urlsplit

import msgspec

from wire.edge_assignments import EDGE_PATH, EdgeQuestion
from wire.model import (
    DeprecatedHeartbeatBatch,
    DeprecatedHeartbeatResults,
    Grant,
    Health,
    Heartbeat,
    HeartbeatBatch,
    HeartbeatResult,
    HeartbeatResults,
    Report,
)
from wire.problem import CONTENT_TYPE, Problem

_ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Deregistration(msgspec.Struct, frozen=True):
    """One DELETE, in parts, and when it came."""

    at: float
    path: str
    instance_id: str
    incarnation: int


class FakeRegistry:
    """Listens on loopback while it is entered.

    Attributes:
        batches: what came, as (moment on the loop's clock, document), whatever was answered.
        accepted: those of them that were answered with results.
        deregistrations: the DELETEs.
        drains: the paths of the drains that were asked for.
        listed: what is answered to these; None for 404, as where nothing is listed.
        headers: those of the newest request, by names in lower case.
        refuse: problem for a heartbeat, or None to grant it.
        failures: answers (status, headers, body) for the next requests in place of real ones.
        lists: what the list of each batch that came was called.
        before: read and answer as a registry of the version before, which calls the lists ``beats`` and ``answers``.
        silent: swallow requests without an answer.
        closed: answer 401 to whatever carries none of ``tokens``.
        tokens: what is accepted where it is closed; each login and renewal adds its own.
        logins: the headers of each login that came, with its moment on the loop's clock.
        renewals: the tokens that were to be renewed.
        refuse_login, refuse_renewal: problem for these, or None to answer them.
        session_life: seconds that a session lives.
        clock: seconds by which its clock is ahead.
        interval, ttl, drain_wait: what is granted, in seconds.
        assignments: the token and the endpoints of each service, which edges ask for; an absent one is in doubt.
        hold: seconds for which an edge's question is held.
        questions: the questions of edges, in order.
        forbidden: services that edges may not discover.
        refuse_edges: problem for these, or None to answer them.
        refuse_nodes: nodes that edges may not ask for.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.batches: list[tuple[float, HeartbeatBatch]] = []
        self.accepted: list[tuple[float, HeartbeatBatch]] = []
        self.deregistrations: list[Deregistration] = []
        self.drains: list[str] = []
        self.listed: dict[str, object] | None = None
        self.refuse: Callable[[Heartbeat], Problem | None] = lambda _: None
        self.deregister_status = 204
        self.headers: dict[str, str] = {}
        self.failures: deque[tuple[int, dict[str, str], bytes]] = deque()
        self.lists: list[str] = []
        self.before = False
        self.silent = False
        self.interval, self.ttl, self.drain_wait = 0.2, 20.0, 0.3
        self.closed = False
        self.tokens: set[str] = set()
        self.logins: list[tuple[float, dict[str, str]]] = []
        self.renewals: list[str] = []
        self.refuse_login: Problem | None = None
        self.refuse_renewal: Problem | None = None
        self.session_life = 3600.0
        self.clock = 0.0
        self.assignments: dict[str, tuple[str, Sequence[str]]] = {}
        self.hold = 10.0
        self.questions: list[EdgeQuestion] = []
        self.forbidden: set[str] = set()
        # The refused services of each question that may be built on.
        self._announced: dict[str, list[str]] = {}
        self.refuse_edges: Problem | None = None
        self.refuse_nodes: set[str] = set()
        # The node of each question.
        self._node_of: dict[str, str] = {}
        # The tokens of each service, by the id of the question that said them last.
        self._asked: dict[str, dict[str, str]] = {}
        self._issued = 0
        self._port = port
        self._host = host
        self._news = asyncio.Condition()
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._connections):
            writer.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self._host}:{self._port}"

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """Every heartbeat that came, in order."""
        return [heartbeat for _, batch in self.batches for heartbeat in batch.heartbeats]

    @property
    def last(self) -> Heartbeat:
        """The newest heartbeat."""
        return self.heartbeats[-1]

    async def until(self, holds: Callable[[], object], limit: float = 5.0) -> None:
        """Wait for a request after which ``holds``."""
        async with asyncio.timeout(limit), self._news:
            await self._news.wait_for(holds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                await self._answer_request(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
        fields = {name.lower(): value for name, value in pairs}
        self.headers = fields
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        routes = {"/v1/login/aws": self._session, "/v1/login/renew": self._session}
        routes |= dict.fromkeys(("/v1/whoami", "/v1/authorize", "/v1/logout"), self._access)
        routes |= dict.fromkeys(("/v1/traffic", "/v1/probes"), self._aside)
        routes |= {"/readyz": self._ready}
        if target == EDGE_PATH:
            status, headers, content = await self._edge(body)
        else:
            status, headers, content = routes.get(target, self._answer)(method, target, body)
        async with self._news:
            self._news.notify_all()
        if self.silent:
            return
        lines = [f"HTTP/1.1 {status} Said"]
        # A 304 has no body, and none is announced.
        lines += [] if status == 304 else [f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()

    def _ready(self, _: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Say that it is a registry, and ready."""
        return 200, {"content-type": "application/json"}, b'{"ready":true,"parts":[]}'

    def _aside(self, _: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Take what is sent beside heartbeats."""
        return self.failures.popleft() if self.failures else (200, {"content-type": "application/json"}, b"{}")

    def _answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        now = asyncio.get_running_loop().time()
        url = urlsplit(target)
        if method == "DELETE":
            query = parse_qs(url.query)
            self.deregistrations.append(
                Deregistration(now, url.path, query["instance_id"][0], int(query["incarnation"][0]))
            )
        elif url.path.endswith("/drain"):
            self.drains.append(target)
        else:
            assert (method, url.path) == ("POST", "/v1/heartbeats")
            self.lists += msgspec.json.decode(body)
            batch = DeprecatedHeartbeatBatch if self.before else HeartbeatBatch
            try:
                self.batches.append((now, msgspec.json.decode(body, type=batch)))
            except msgspec.ValidationError as error:
                # As both versions do: "the document has no field `heartbeats`" at "$".
                message, _, path = str(error).partition(" - at `")
                problem = Problem("Invalid request", 422, message, pointer=path.rstrip("`") or "$")
                return 422, {"content-type": CONTENT_TYPE}, msgspec.json.encode(problem)
        if not self.failures and self.closed and self._bearer not in self.tokens:
            self.failures.append(_refusal(Problem("Unauthenticated", 401, "the token is not known or has expired")))
        if self.failures:
            return self.failures.popleft()
        if method == "DELETE":
            return self._deregistered()
        if url.path.endswith("/drain"):
            return self._drained()
        self.accepted.append(self.batches[-1])
        results = [self._settle(heartbeat) for heartbeat in self.batches[-1][1].heartbeats]
        answer = DeprecatedHeartbeatResults(results) if self.before else HeartbeatResults(results)
        return 200, {"content-type": "application/json"}, msgspec.json.encode(answer)

    @property
    def held_by_edge(self) -> dict[str, str]:
        """The token of each service, as the newest question and those before it said."""
        return next(reversed(self._asked.values()), {})

    async def assign(self, service: str, token: str, *endpoints: str) -> None:
        """Give a service other endpoints, and answer the questions that are held for it."""
        self.assignments[service] = token, endpoints
        async with self._news:
            self._news.notify_all()

    async def _edge(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        question = msgspec.json.decode(body, type=EdgeQuestion)
        self.questions.append(question)
        if self.refuse_edges is not None:
            return _refusal(self.refuse_edges)
        node = self._node_of[question.id] = question.node or self._node_of.get(question.after, "")
        if node in self.refuse_nodes:
            return _refusal(Problem("Forbidden", 403, f"not {node}"))
        if question.after and question.after not in self._asked:
            return _refusal(Problem("Not remembered", 412, "ask a whole question"))
        held = self._asked.pop(question.after, {}) | question.held
        self._asked[question.id] = held
        refused = [name for name in held if name in self.forbidden]
        others_are_refused = refused != self._announced.pop(question.after, [])
        self._announced[question.id] = refused

        def changed() -> dict[str, dict[str, object]]:
            return {
                name: _assignment(name, *self.assignments[name])
                for name, token in held.items()
                if name not in refused and name in self.assignments and self.assignments[name][0] != token
            } | {name: {"version_info": "db000001:0"} for name in refused if not held[name]}

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.hold), self._news:
                # The one that this one builds on ends, and whoever waits for a question looks at it.
                self._news.notify_all()
                await self._news.wait_for(lambda: others_are_refused or changed() or question.id not in self._asked)
        answer = changed()
        if not answer and not others_are_refused:
            return 304, {}, b""
        content = gzip.compress(msgspec.json.encode({"assignments": answer, "refused": refused}))
        return 200, {"content-type": "application/json", "content-encoding": "gzip"}, content

    @property
    def _bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def _session(self, _: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/v1/login/aws":
            document = msgspec.json.decode(body)
            assert list(document) == ["headers"]
            assert "authorization" not in self.headers
            self.logins.append((asyncio.get_running_loop().time(), document["headers"]))
            refusal = self.refuse_login
        else:
            self.renewals.append(self._bearer)
            refusal = self.refuse_renewal
            if self._bearer not in self.tokens:
                refusal = refusal or Problem("Unauthenticated", 401, "the session has ended")
        date = {"date": email.utils.formatdate(time.time() + self.clock, usegmt=True)}
        if refusal is not None:
            status, headers, content = _refusal(refusal)
            return status, {**headers, **date}, content
        self._issued += 1
        ends = int(time.time() + self.clock) + self.session_life
        names = {"registrar": f"hcs_registrar-{self._issued}", "envoy": f"hcs_envoy-{self._issued}"}
        self.tokens.add(names["registrar"])
        issued = {kind: {"token": token, "expires_at": ends} for kind, token in names.items()}
        answer = {"principal": "aws:111122223333:shop-task-role/task-1", **issued}
        return 200, {"content-type": "application/json", **date}, msgspec.json.encode(answer)

    def _access(self, _: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        known = self._bearer in self.tokens
        if path == "/v1/logout":
            self.tokens.discard(self._bearer)
            return 204, {}, b""
        answer: dict[str, object] = {
            "principal": "token:shop" if known else "anonymous",
            "mode": "on" if self.closed else "off",
            "problem": "the token is not known" if self._bearer and not known else None,
        }
        if path == "/v1/authorize":
            asked = msgspec.json.decode(body)
            allowed = not self.closed or (known and asked["service"] == "shop")
            reason = f"{answer['principal']} has no grant to {asked['verb']} {asked['service']}"
            answer = {"principal": answer["principal"], "allowed": allowed, "enforced": self.closed, "reason": reason}
        return 200, {"content-type": "application/json"}, msgspec.json.encode(answer)

    def _deregistered(self) -> tuple[int, dict[str, str], bytes]:
        if self.deregister_status < 400:
            return self.deregister_status, {}, b""
        problem = Problem("Refused", self.deregister_status, "not yours")
        return self.deregister_status, {"content-type": CONTENT_TYPE}, msgspec.json.encode(problem)

    def _drained(self) -> tuple[int, dict[str, str], bytes]:
        if self.listed is not None:
            return 200, {"content-type": "application/json"}, msgspec.json.encode(self.listed)
        problem = Problem("Not found", 404, "not registered")
        return 404, {"content-type": CONTENT_TYPE}, msgspec.json.encode(problem)

    def _settle(self, beat: Heartbeat) -> HeartbeatResult:
        problem = self.refuse(beat)
        if problem is not None:
            return HeartbeatResult(beat.service, beat.endpoint, problem=problem)
        said = beat.registration
        alive = said.draining and said.health is not Report.UNHEALTHY
        status = Health.DRAINING if alive else Health(said.health)
        grant = Grant(beat.service, beat.endpoint, status, len(self.batches), self.ttl, self.interval, self.drain_wait)
        return HeartbeatResult(beat.service, beat.endpoint, grant=grant)


def _assignment(service: str, token: str, endpoints: Sequence[str]) -> dict[str, object]:
    if not endpoints:
        return {"version_info": token}
    addresses = [endpoint.rpartition(":") for endpoint in endpoints]
    members = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in addresses
    ]
    document = {"@type": _ASSIGNMENT, "cluster_name": service, "endpoints": [{"lb_endpoints": members}]}
    return {"version_info": token, "assignment": document}


def _refusal(problem: Problem) -> tuple[int, dict[str, str], bytes]:
    return problem.status, {"content-type": CONTENT_TYPE}, msgspec.json.encode(problem)


def fenced(owner: str | None = None, incarnation: int | None = None) -> Problem:
    """Return the 409 that names who has the endpoint now."""
    return Problem("fenced", 409, "somebody else has it", owner=owner, incarnation=incarnation)
