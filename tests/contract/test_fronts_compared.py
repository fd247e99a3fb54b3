"""The fast protocol and the ASGI middleware, given the same bytes in the same pieces: the same answers and state."""

import contextlib
import json
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from harness.line import Line
from harness.postgres import Postgres
from harness.registry import Registry, registry
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.xds.resources import CLUSTERS, ENDPOINTS

LIMIT = 131_072
SERVICE = "shop"
NETWORK = "10.0.0."
CONVERSED = int(os.environ.get("HEADCOUNT_CONVERSATIONS", "25"))
IDENTITY = "database"
PLACES = ["10.0.0.1:80", "10.0.0.2:80"]
LAST = b"GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
NO_HTTP = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain"
COUNTED = re.compile(
    r"^(registry_(?:polls|heartbeats|requests_refused|edge_questions)_(?:total|held).*) (\S+)$", re.MULTILINE
)
OWN = [
    (re.compile(rb"\r\ndate: [^\r]*"), b""),
    (re.compile(rb"\r\nx-request-id: [0-9a-f]{10}-[0-9]+"), b"\r\nx-request-id: its own"),
    (re.compile(rb'"request_id":"[0-9a-f]{10}-[0-9]+"'), b""),
    (re.compile(rb'"version_info":"[^"]*"'), b""),
    (re.compile(rb'"version":[0-9]*'), b""),
    (re.compile(rb"\r\ncontent-length: [^\r]*"), b""),
]
"""What two answers that are alike may differ in: the moment, the request, and how many commits a batch was."""


@dataclass(frozen=True, repr=False)
class Conversation:
    """What is sent on one connection, and where it is cut; names stand for others of the same length.

    Each request is sent so often, and ``apart``: in a piece of its own, so that a head which is repeated is recognized.
    """

    requests: list[bytes]
    cuts: list[int]
    times: int = 1
    apart: bool = False

    def __repr__(self) -> str:
        requests = [re.sub(rb" {20,}", b" ... ", one) for one in self.requests]
        return f"Conversation({requests}, {self.cuts}, {self.times}, {self.apart})"

    def pieces(self, names: dict[bytes, bytes]) -> Iterator[bytes]:
        """Return all requests and the last one, cut anew."""
        requests = [*(request for request in self.requests for _ in range(self.times)), LAST]
        ends = set(accumulate(map(len, requests))) if self.apart else set()
        whole = b"".join(requests)
        for stands, name in names.items():
            assert len(stands) == len(name)
            whole = whole.replace(stands, name)
        places = sorted({cut % (len(whole) + 1) for cut in self.cuts} | {0, len(whole)} | ends)
        return (whole[start:end] for start, end in pairwise(places))


def framed(line: str, headers: list[str], body: bytes, framing: str, host: str = "host: test") -> bytes:
    """Return a request with its body announced, in chunks (with an extension or trailers), both or neither."""
    head = [line, *([host] if host else []), *headers]
    if framing in ("length", "both"):
        head.append(f"content-length: {len(body)}")
    if framing in ("chunks", "both", *AROUND_BODY):
        head.append("transfer-encoding: chunked")
        extension, trailers = AROUND_BODY.get(framing, (b"", b""))
        body = b"%x%b\r\n%b\r\n" % (len(body), extension, body) if body else b""
        body += b"0\r\n%b\r\n" % trailers
    return "\r\n".join([*head, "", ""]).encode() + (body if framing != "none" else b"")


AROUND_BODY = {
    "extension": (b";name=value", b""),
    "trailers": (b"", b"X-Actor: mallory\r\nx-forwarded-for: 10.7.7.7\r\nx-request-id: forged\r\n"),
    "closing trailer": (b"", b"connection: close\r\n"),
}
"""What stands beside a body in chunks: an extension of the first one, and trailers."""
TOLD = [
    "x-actor: ann",
    "x-actor: a\tb<",
    "x-actor:",
    "X-Request-Id: mine",
    "x-request-id: not one of ours!",
    "origin: http://elsewhere",
    "Origin: http://test",
    "sec-fetch-site: cross-site",
    "x-forwarded-for: 10.9.9.9, 10.8.8.8",
    "x-envoy-expected-rq-timeout-ms: 270",
    "x-envoy-expected-rq-timeout-ms: -1",
    "content-type: application/x-www-form-urlencoded",
    "connection: keep-alive",
    "expect: 100-continue",
    "accept-encoding: gzip",
    "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "upgrade: h2c",
    "accept-language: de",
    "user-agent: Mozilla/5.0",
    "user-agent: curl/8",
    "x-forwarded-for: 10.9.9.9\r\nx-forwarded-for: 10.8.8.8",
]
HOST = [
    "host: registry.mesh.internal",
    "host: 10.1.1.1:80",
    "Host: LOCALHOST.",
    "host: evil.example\r\nAccept-Language: de",
    "host: evil.example\r\nuser-agent: Mozilla/5.0",
    "host: test\r\nhost: evil.example",
    "host:",
    "",
]
ENDING = [
    "content-length: 7",
    "connection: close",
    "x-a : b",
]
"""After these nothing more is answered on a connection."""
HEADERS = st.lists(st.sampled_from([*TOLD, *TOLD, *ENDING]), max_size=2)
FRAMING = st.sampled_from(["length"] * 12 + ["chunks"] * 3 + ["both", "none", *AROUND_BODY])
HOSTS = st.sampled_from(["host: test"] * 25 + HOST)
PROTOCOL = st.sampled_from(["1.1"] * 25 + ["1.0", "2.0"])
METHOD = {
    "poll": st.sampled_from(["POST"] * 25 + ["GET", "PUT", "HEAD", "PO ST"]),
    "beat": st.sampled_from(["PUT"] * 25 + ["POST", "PATCH", "HEAD"]),
    "batch": st.sampled_from(["POST"] * 25 + ["PUT", "GET"]),
    "question": st.sampled_from(["POST"] * 25 + ["GET", "HEAD", "OPTIONS", "PUT"]),
}
MANGLED = st.sampled_from(
    [lambda body: body] * 40
    + [
        lambda body: body[:-1],
        lambda body: body + b" \n",
        lambda body: body + b"}",
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.replace(b"shop", b"\xff"),
        lambda body: body.replace(b"shop", b"\\u0073hop"),
        lambda body: body.replace(b":", b" : "),
        lambda body: body.replace(b"{", b'{"unknown":1,', 1),
        lambda body: body.ljust(LIMIT),
        lambda body: body.ljust(LIMIT + 1),
        lambda _body: b"",
        lambda _body: b"[]",
    ]
)
PATHS = ["/v3/discovery:endpoints"] * 6 + ["/v2/discovery:endpoints", "/v3/discovery%3Aendpoints"]
WRITTEN = [*PLACES * 12, "[10.0.0.1]:80", "10.0.0.1:080", "10.0.0.3:80", "x", "10.0.0.1%3A80"]
SUFFIX = st.sampled_from([""] * 40 + ["?", "?a=b", "#a", "/", "%20"])


@st.composite
def polls(draw: st.DrawFn) -> bytes:
    """Return a poll that an Envoy could send, or nearly."""
    version = draw(st.sampled_from(["", *[f"{IDENTITY}:{number}" for number in (2, 2, 1, 0, "2.2")], "other:1", "é"]))
    told: dict[str, Any] = {"version_info": version} if version else {}
    told["node"] = {"id": draw(st.sampled_from(["a", "ü", "x" * 3000])), "cluster": "c", "extensions": []}
    names = draw(st.lists(st.sampled_from([SERVICE, SERVICE, "unknown", "ü", ""]), max_size=3))
    told |= {draw(st.sampled_from(["resource_names", "resource_names", "resourceNames"])): names}
    if draw(st.booleans()):
        told["type_url"] = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    if draw(st.booleans()):
        told = dict(reversed(told.items()))
    path = draw(st.sampled_from(PATHS))
    path = draw(st.sampled_from(["", "", "", "http://test"])) + path + draw(SUFFIX)
    return _sent(draw, "poll", path, told)


@st.composite
def beats(draw: st.DrawFn) -> bytes:
    """Return a heartbeat that a registrar could send, or nearly."""
    place = draw(
        st.sampled_from(
            [*PLACES, *PLACES, *PLACES, "[10.0.0.1]:80", "10.0.0.1:080", "10.0.0.3:80", "x", "10.0.0.1%3A80"]
        )
    )
    service = draw(st.sampled_from([SERVICE] * 25 + ["%73hop", "Shop", "a%2Fb", "a b"]))
    return _sent(draw, "beat", f"/v1/services/{service}/endpoints/{place}{draw(SUFFIX)}", draw(_told(place)))


LISTS = st.sampled_from([["heartbeats"]] * 16 + [["beats"]] * 8 + [["heartbeats", "beats"], []])
"""Names of the list in a batch: the current one, the deprecated one, both, or none."""


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Return a batch of such heartbeats."""
    services = st.sampled_from([SERVICE] * 20 + ["", "é"])
    places = draw(st.lists(st.sampled_from([*PLACES * 8, "10.0.0.4:80", "x"]), max_size=3))
    told = [{"service": draw(services), "endpoint": place, "registration": draw(_told(place))} for place in places]
    return _sent(draw, "batch", f"/v1/heartbeats{draw(SUFFIX)}", dict.fromkeys(draw(LISTS), told))


@st.composite
def _told(draw: st.DrawFn, place: str) -> dict[str, Any]:
    told: dict[str, Any] = {"instance_id": f"i-{place}", "incarnation": 1}
    return told | draw(
        st.sampled_from(
            [
                *[{}] * 30,
                {"ttl": None},
                {"ttl": 20},
                {"ttl": 0},
                {"ttl": 60},
                {"draining": False},
                {"draining": True},
                {"health": "UNHEALTHY"},
                {"health": "TIMEOUT"},
                {"incarnation": 2},
                {"incarnation": 1.0},
                {"incarnation": 0},
                {"instance_id": "thief"},
                {"metadata": {}},
                {"metadata": {"a": True}},
                {"weight": 1},
                {"detail": "ü"},
                {"detail": "\x00"},
                {"unknown": 1},
            ]
        )
    )


@st.composite
def questions(draw: st.DrawFn) -> bytes:
    """Return a question that an edge could send, or nearly; one that is up to date would be held for too long."""
    held = draw(st.dictionaries(st.sampled_from([SERVICE, SERVICE, "unknown", "ü", ""]), st.just(""), max_size=3))
    held |= draw(st.sampled_from([{"behind": ""}] * 8 + [{SERVICE: f"{IDENTITY}:1"}, {SERVICE: "other:1"}]))
    told: dict[str, Any] = {"held": held}
    told |= draw(
        st.sampled_from(
            [
                *[{"node": "a", "cluster": "web"}] * 12,
                *[{"node": "a", "id": "one"}] * 6,
                *[{"after": "one", "id": "two"}] * 6,
                {"after": "two"},
                {"after": "x" * 65},
                {"node": 7},
                {"node": "a", "resources": {ENDPOINTS.type_urls["v3"]: {SERVICE: ""}}},
                {"node": "a", "resources": {CLUSTERS.type_urls["v3"]: {"*": ""}}},
                {"node": "a", "held": {f"s{number}": "" for number in range(1_001)}},
                {},
            ]
        )
    )
    if draw(st.booleans()):
        told["taken"] = [{"node": "envoy", "service": SERVICE, "version": f"{IDENTITY}:1"}]
    return _sent(draw, "question", f"/v1/edge/assignments{draw(SUFFIX)}", told)


def _sent(draw: st.DrawFn, kind: str, path: str, told: dict[str, Any]) -> bytes:
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    body = json.dumps(told, separators=separators, ensure_ascii=draw(st.booleans())).encode()
    line = f"{draw(METHOD[kind])} {path} HTTP/{draw(PROTOCOL)}"
    return framed(line, draw(HEADERS), draw(MANGLED)(body), draw(FRAMING), draw(HOSTS))


OTHERS = st.sampled_from(
    [
        b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nhost: test\r\n\r\n",
        b"GET /v1/prometheus/targets?service=shop HTTP/1.1\r\nhost: test\r\n\r\n",
        b"HEAD /v1/prometheus/targets?service=shop HTTP/1.1\r\nhost: test\r\nif-none-match: *\r\n\r\n",
        b"GET /v1/services/nowhere HTTP/1.1\r\nhost: test\r\n\r\n",
        b"DELETE /v1/services/shop/endpoints/10.0.0.2:80?instance_id=i-10.0.0.2:80 HTTP/1.1\r\nhost: test\r\n\r\n",
        b"\r\n",
        b"garbage\r\n\r\n",
        b"0\r\n\r\n",
    ]
)
CONVERSATIONS = st.builds(
    Conversation,
    st.lists(st.one_of(polls(), polls(), beats(), beats(), batches(), questions(), OTHERS), min_size=1, max_size=8),
    st.lists(st.integers(0, 2**20), max_size=4),
    st.sampled_from([1, 1, 3]),
    st.booleans(),
)

RENEWED = json.dumps({"instance_id": f"i-{PLACES[0]}", "incarnation": 1}).encode()
ORDINARY = [
    (f"PUT /v1/services/{SERVICE}/endpoints/{PLACES[0]} HTTP/1.1", RENEWED),
    (
        "POST /v1/heartbeats HTTP/1.1",
        b'{"heartbeats":[{"service":"%b","endpoint":"%b","registration":%b}]}'
        % (SERVICE.encode(), PLACES[0].encode(), RENEWED),
    ),
    ("POST /v3/discovery:endpoints HTTP/1.1", b'{"resource_names":["%b"]}' % SERVICE.encode()),
    (f"GET /v1/prometheus/targets?service={SERVICE} HTTP/1.1", b""),
    ("POST /v1/edge/assignments HTTP/1.1", b'{"node":"a","held":{"%b":""}}' % SERVICE.encode()),
]
REPEATED = [framed(line, [], body, "length") for line, body in ORDINARY]
REPEATED.append(framed(ORDINARY[-2][0], [], ORDINARY[-2][1].ljust(9000), "length"))
EACH_HEADER = [framed(line, [header], body, "length") for header in TOLD for line, body in ORDINARY]
EACH_HOST = [framed(line, [], body, "length", host) for host in HOST for line, body in ORDINARY]
UPGRADE = "connection: upgrade\r\nupgrade: h2c"
EACH_FRAMING = [framed(line, [], body, framing) for framing in ("extension", "trailers") for line, body in ORDINARY]
EACH_FRAMING += [
    framed(line, [UPGRADE], body, framing) for framing in ("chunks", "trailers") for line, body in ORDINARY
]


class Twins:
    """A registry behind each front, in the same state."""

    def __init__(self, *registries: Registry) -> None:
        self._registries = registries
        self._threads = ThreadPoolExecutor(len(registries))
        self._played = 0

    def play(self, conversation: Conversation, patience: float) -> tuple[list[bytes], list[Any]]:
        """Return what each answered, and what each was like afterwards; neither is waited for longer than patience."""
        number = self._played = self._played + 1
        names = {
            SERVICE.encode(): f"{number:04d}".encode(),
            NETWORK.encode(): f"{number // 100 % 90 + 10}.{number // 10 % 10}.{number % 10}.".encode(),
        }
        told = [self._threads.submit(_play, found, conversation, names, patience) for found in self._registries]
        both = [one.result() for one in told]
        return [answers for answers, _ in both], [state for _, state in both]


def _play(found: Registry, conversation: Conversation, names: dict[bytes, bytes], patience: float) -> tuple[bytes, Any]:
    service = names[SERVICE.encode()].decode()
    for place in PLACES:
        found.register(service, place.replace(NETWORK, names[NETWORK.encode()].decode()))
    identity = found.poll(service).json()["version_info"].partition(":")[0].encode()
    before = _counted(found)
    with Line(found) as line:
        answers = _all_answers(line.socket, conversation.pieces({**names, IDENTITY.encode(): identity}), patience)
    for pattern, instead in OWN:
        answers = pattern.sub(instead, answers)
    return answers, (_counted(found) - before, *_state(found, service))


def _all_answers(line: socket.socket, pieces: Iterator[bytes], patience: float) -> bytes:
    """Send piece by piece, and return all that comes until the other end closes, or is silent for so many seconds."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.settimeout(patience)
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        for piece in pieces:
            line.sendall(piece)
            time.sleep(0.001)
    with contextlib.suppress(TimeoutError):
        while piece := _received(line):
            received += piece
        received += b"(closed)"
    return received


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(1 << 20)
    except ConnectionError:
        # Closed all the same, while something was on its way.
        return b""


def _state(found: Registry, service: str) -> Any:
    events = found.client.get("/v1/events", params={"service": service}).json()
    listed = [{key: value for key, value in one.items() if not key.endswith("_at")} for one in found.endpoints(service)]
    told = sorted((one["kind"], one["actor"], str(one.get("endpoint"))) for one in events["events"])
    return listed, told


def _counted(found: Registry) -> Counter[str]:
    counted = COUNTED.findall(found.client.get("/metrics").text)
    return Counter({name: int(float(number)) for name, number in counted})


@pytest.fixture(scope="module")
def twins(server: Postgres, workplace: Path) -> Iterator[Twins]:
    """Two registries that differ by their front alone."""
    with ExitStack() as stack:
        fronts = ("fast", "plain")
        yield Twins(
            *(
                stack.enter_context(registry(server.migrated_database(), workplace, door=front, max_body=LIMIT))
                for front in fronts
            )
        )


@settings(max_examples=CONVERSED, deadline=None, database=None, derandomize=True)
@given(conversation=CONVERSATIONS)
@example(conversation=Conversation(EACH_HEADER, []))
@example(conversation=Conversation(EACH_HOST, []))
@example(conversation=Conversation(EACH_FRAMING, []))
@example(conversation=Conversation(EACH_FRAMING, [*range(50, 5000, 50)]))
@example(conversation=Conversation(REPEATED, [], 4, apart=True))
@example(conversation=Conversation(REPEATED, [*range(150, 40_000, 150)], 4, apart=True))
def test_the_doors_answer_and_store_alike(twins: Twins, conversation: Conversation) -> None:
    """Whatever comes, in whatever pieces; but what is no HTTP may outrun answers that are not written yet."""
    try:
        compare(*twins.play(conversation, 0.4))
    except AssertionError:
        # One that waits for more looks as one that is slow does, on a machine that is busy.
        compare(*twins.play(conversation, 4))


def compare(answers: list[bytes], states: list[Any]) -> None:
    """Fail unless both registries answered and stored alike."""
    fast, plain = answers
    if NO_HTTP in fast + plain:
        one, other = sorted((answers.partition(NO_HTTP)[0] for answers in (fast, plain)), key=len)
        assert other.startswith(one)
        assert (NO_HTTP in fast) == (NO_HTTP in plain)
    else:
        assert fast == plain
        assert states[0] == states[1]
