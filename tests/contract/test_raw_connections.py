"""What a client may do on a raw connection: the fast protocol and the ASGI middleware treat it alike."""

import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness.line import Line, chunked, heartbeat, poll
from harness.process import eventually
from harness.registry import Registry

from registry.http import fast_protocol as fast
from registry.http import protocol_selftest as selftest
from registry.http import response_head
from registry.http.certificate_protocol import CertificateProtocol

LIMIT = 131_072
BY_BOTH_FRONTS = pytest.mark.parametrize("each_front", ["fast", "plain"], indirect=True)
MANY = 1000


def held(registry: Registry) -> float:
    """Return how many polls are held."""
    return figure(registry, "registry_polls_held")


def figure(registry: Registry, name: str) -> float:
    """Return one metric."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", registry.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def fill(registry: Registry, service: str) -> None:
    """Register a hundred endpoints at once."""
    beats = [
        {"service": service, "endpoint": f"10.0.0.{number}:80", "registration": {"instance_id": "i", "incarnation": 1}}
        for number in range(100)
    ]
    registry.client.post("/v1/heartbeats", json={"heartbeats": beats}).raise_for_status()


def version(registry: Registry, service: str) -> str:
    """Return the version that a poll gets now."""
    told: str = registry.poll(service).json()["version_info"]
    return told


@BY_BOTH_FRONTS
def test_pipelined_requests_are_answered_in_order(each_front: Registry, service: str) -> None:
    """A held poll keeps back what was sent behind it, whatever that is."""
    each_front.register(service, "10.0.0.1:80")
    current = version(each_front, service)
    with Line(each_front) as line:
        other = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n"
        waiting = poll(service, version=current, hold=0.8)
        line.send(poll(service) + other + waiting + heartbeat(service) + poll(service) + other)
        started = time.monotonic()
        kinds = [(status, body[:14]) for status, _, body in (line.answer() for _ in range(6))]
    assert time.monotonic() - started > 0.4
    whole = (200, b'{"version_info')
    assert kinds == [whole, (200, b"ok\n"), (304, b""), (200, b'{"service":"se'), whole, (200, b"ok\n")]


@BY_BOTH_FRONTS
def test_hundreds_of_pipelined_polls_are_answered(each_front: Registry, service: str) -> None:
    """However many come at once, from a client that reads late: each is answered, and memory is bounded by pausing."""
    fill(each_front, service)
    with Line(each_front) as line:
        small = json.dumps({"resource_names": [service]}).encode()
        one = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n%b" % (len(small), small)
        line.send(one * 700)
        time.sleep(0.2)
        assert {line.answer()[0] for _ in range(700)} == {200}
        line.send(one)
        assert line.answer()[0] == 200


@BY_BOTH_FRONTS
@pytest.mark.parametrize("size", [1, 7, 1400])
def test_slow_bodies_are_read(each_front: Registry, service: str, size: int) -> None:
    """A poll and a heartbeat may come byte by byte, announced or in chunks."""
    each_front.register(service, "10.0.0.1:80")
    with Line(each_front) as line:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps({"node": {"id": "x" * 500}, "resource_names": [service]}).encode()
        for request in (poll(service), heartbeat(service), b"".join(chunked(body, size))):
            line.send(*(request[start : start + size] for start in range(0, len(request), size)))
            assert line.answer()[0] == 200


@BY_BOTH_FRONTS
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 2_000_000])
def test_chunks_beyond_the_limit_are_413(each_front: Registry, service: str, size: int) -> None:
    """The limit is found out while the body comes, and the connection goes on to work."""
    each_front.register(service, "10.0.0.1:80")
    with Line(each_front) as line:
        line.send(*chunked(json.dumps({"resource_names": [service]}).encode().ljust(size), 30_000))
        status, headers, _ = line.answer()
        assert status == (200 if size <= LIMIT else 413)
        assert headers["content-type"] == ("application/json" if size <= LIMIT else "application/problem+json")
        line.send(poll(service))
        assert line.answer()[0] == 200


@BY_BOTH_FRONTS
@pytest.mark.parametrize(
    ("head", "protocol", "closes"),
    [("", "1.1", False), ("connection: close\r\n", "1.1", True), ("", "1.0", True)],
)
def test_a_connection_is_kept_as_its_client_wants(
    each_front: Registry, service: str, head: str, protocol: str, closes: bool
) -> None:
    """HTTP/1.1 is kept open; `connection: close` and HTTP/1.0 are closed after the answer."""
    each_front.register(service, "10.0.0.1:80")
    with Line(each_front) as line:
        line.send(poll(service, head=head, protocol=protocol))
        status, headers, body = line.answer()
        assert (status, json.loads(body)["resources"][0]["cluster_name"]) == (200, service)
        assert (headers.get("connection") == "close") == closes
        if closes:
            assert line.closed()
        else:
            line.send(poll(service))
            assert line.answer()[0] == 200


@BY_BOTH_FRONTS
def test_the_doors_send_the_same_headers(each_front: Registry, service: str) -> None:
    """Also what the server adds is there: the date, and nothing that tells of the front."""
    each_front.register(service, "10.0.0.1:80")
    current = version(each_front, service)
    with Line(each_front) as line:
        line.send(poll(service), heartbeat(service), poll(service, version=current))
        answers = [line.answer() for _ in range(3)]
    assert [list(headers) for _, headers, _ in answers] == [
        ["date", "content-length", "content-type"],
        ["date", "content-length", "content-type", "x-request-id"],
        ["date"],
    ]


@BY_BOTH_FRONTS
def test_who_waits_for_100_continue_gets_it(each_front: Registry, service: str) -> None:
    """Curl sends `expect` before long bodies."""
    each_front.register(service, "10.0.0.1:80")
    head, _, body = poll(service, head="expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with Line(each_front) as line:
        line.send(head + b"\r\n\r\n")
        assert line.answer()[0] == 100
        line.send(body)
        assert line.answer()[0] == 200


@BY_BOTH_FRONTS
@pytest.mark.parametrize(
    "garbage", [b"\0\0\0\0\r\n\r\n", b"POST /v3/discovery:endpoints\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_400(each_front: Registry, service: str, garbage: bytes) -> None:
    """And the connection is closed, also when a poll was answered on it before."""
    with Line(each_front) as line:
        line.send(poll(service))
        assert line.answer()[0] == 200
        line.send(garbage)
        assert line.answer()[0] == 400
        assert line.closed()


def reset(line: socket.socket) -> None:
    """Close without a farewell."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


HANG_UPS: dict[str, Callable[[socket.socket], None]] = {
    "closed": socket.socket.close,
    "half-closed": lambda line: line.shutdown(socket.SHUT_WR),
    "reset": reset,
}


@BY_BOTH_FRONTS
@pytest.mark.parametrize("hang_up", HANG_UPS.values(), ids=HANG_UPS)
def test_who_hangs_up_while_held_is_let_go(
    each_front: Registry, service: str, hang_up: Callable[[socket.socket], None]
) -> None:
    """Its place among the held is free at once, and nothing is logged."""
    each_front.register(service, "10.0.0.1:80")
    current = version(each_front, service)
    eventually(lambda: held(each_front) == 0, within=10)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Line(each_front)) for _ in range(20)]
        for line in lines:
            line.send(poll(service, version=current, hold=40))
        eventually(lambda: held(each_front) == 20, within=5)
        for line in lines:
            line.leave(hang_up)
        eventually(lambda: held(each_front) == 0, within=3)
    assert "Traceback" not in each_front.log.read_text()


def test_who_leaves_in_the_middle_of_a_body_leaves_nothing(shared_registry: Registry, service: str) -> None:
    """A request that never becomes whole is forgotten with its connection."""
    for request in (poll(service), heartbeat(service)):
        with Line(shared_registry) as line:
            line.send(request[:-20])
            time.sleep(0.05)
    assert shared_registry.ready()
    assert "Traceback" not in shared_registry.log.read_text()


@BY_BOTH_FRONTS
def test_a_thousand_held_polls_are_answered_by_one_change(each_front: Registry, service: str) -> None:
    """Each gets the same bytes, soon, and none is held any more."""
    fill(each_front, service)
    current = version(each_front, service)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Line(each_front)) for _ in range(MANY)]
        for line in lines:
            line.send(poll(service, version=current, hold=50))
        eventually(lambda: held(each_front) == MANY, within=20)
        each_front.register(service, "10.0.1.1:80")
        answers = {line.answer()[2] for line in lines}
        assert len(answers) == 1
        assert len(json.loads(answers.pop())["resources"][0]["endpoints"][0]["lb_endpoints"]) == 101
        assert held(each_front) == 0


@BY_BOTH_FRONTS
def test_a_heartbeat_that_merely_renews_is_answered_as_any(each_front: Registry, service: str) -> None:
    """The answers to the first, a change, a renewal by either way and a batch say the same in the same form."""
    first = each_front.register(service, "10.0.0.1:80")
    renewed = each_front.register(service, "10.0.0.1:80")
    named = each_front.client.put(
        f"/v1/services/{service}/endpoints/10.0.0.1:80",
        json={"instance_id": "i-10.0.0.1:80", "incarnation": 1},
        headers={"x-actor": "ann"},
    )
    assert first.status_code == renewed.status_code == named.status_code == 200
    assert first.content == renewed.content == named.content
    told = {"instance_id": "i-10.0.0.1:80", "incarnation": 1}
    beats = [{"service": service, "endpoint": "10.0.0.1:80", "registration": told}] * 3
    batch = each_front.client.post("/v1/heartbeats", json={"heartbeats": beats})
    assert [one["grant"] for one in batch.json()["results"]] == [first.json()] * 3


@BY_BOTH_FRONTS
def test_a_heartbeat_that_says_anything_new_is_stored(each_front: Registry, service: str) -> None:
    """Alone and beside renewals: a new detail, a spelling that is not canonical, a drain, another owner, no ttl."""
    for number in (1, 2):
        each_front.register(service, f"10.0.0.{number}:80", ttl=60)
    each_front.register(service, "[2001:db8::5]:80")
    assert each_front.register(service, "10.0.0.1:80", ttl=60, detail="well").status_code == 200
    assert each_front.endpoints(service)[0]["detail"] == "well"
    assert each_front.register(service, "[2001:DB8:0::5]:80", instance_id="i-[2001:db8::5]:80").status_code == 200
    told = {"instance_id": "i-10.0.0.1:80", "incarnation": 1, "ttl": 60, "detail": "well"}
    other = {"instance_id": "i-10.0.0.2:80", "incarnation": 1, "ttl": 60, "draining": True}
    beats = [
        {"service": service, "endpoint": "10.0.0.1:80", "registration": told},
        {"service": service, "endpoint": "10.0.0.2:80", "registration": other},
        {"service": service, "endpoint": "10.0.0.1:80", "registration": told | {"instance_id": "thief"}},
    ]
    answers = each_front.client.post("/v1/heartbeats", json={"heartbeats": beats[:2]}).json()["results"]
    assert [one["grant"]["status"] for one in answers] == ["HEALTHY", "DRAINING"]
    assert each_front.client.post("/v1/heartbeats", json={"heartbeats": beats[2:]}).json()["results"][0]["grant"]
    late = each_front.register(service, "10.0.0.1:80", ttl=60, detail="well")
    assert (late.status_code, late.headers["content-type"]) == (409, "application/problem+json")


def test_the_same_words_are_judged_by_what_is_stored_now(each_front: Registry, service: str) -> None:
    """Said before and merely renewing then, a heartbeat says something new after a change; and nothing after that."""
    plain = {"instance_id": "i-1", "incarnation": 1, "ttl": 60}
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80"
    told = [each_front.client.put(path, json=plain) for _ in range(3)]
    assert len({one.content for one in told}) == 1
    worse = each_front.client.put(path, json=plain | {"health": "UNHEALTHY"}).json()
    better = [each_front.client.put(path, json=plain).json() for _ in range(2)]
    version = told[0].json()["version"]
    assert (worse["status"], worse["version"]) == ("UNHEALTHY", version + 1)
    assert [(one["status"], one["version"]) for one in better] == [("HEALTHY", version + 2)] * 2
    assert each_front.client.delete(path, params={"instance_id": "i-1", "incarnation": 1}).status_code == 204
    assert each_front.client.put(path, json=plain).status_code == 409


@pytest.mark.parametrize(
    "spoilt",
    [
        b'{"heartbeats":[%b],"more":1}',
        b'{"heartbeats":[%b,7]}',
        b'{"heartbeats":[7],"heartbeats":[%b]}',
        rb'{"\u0068eartbeats":[7],"heartbeats":[%b]}',
        b'{"heartbeats":[%b]}}',
        b'{"heartbeats":[%b],}',
        b'{"heartbeats":[7],"beats":[%b]}',
        b'{"beats":[7],"heartbeats":[%b]}',
        b'{"beats":[7],"beats":[%b]}',
        rb'{"\u0062eats":[7],"beats":[%b]}',
        rb'{"\u0062eats":[7],"heartbeats":[%b]}',
        b'{"beats":[%b],"more":1}',
    ],
)
def test_beats_that_were_said_before_make_no_batch_valid(each_front: Registry, service: str, spoilt: bytes) -> None:
    """What stands around them is read each time."""
    beat = b'{"service":"%b","endpoint":"10.0.0.1:80","registration":{"instance_id":"i-1","incarnation":1}}'
    said = beat % service.encode()
    for _ in range(3):
        for sent, answered in ((b"heartbeats", "results"), (b"beats", "answers")):
            answer = each_front.client.post("/v1/heartbeats", content=b'{"%b":[%b]}' % (sent, said))
            assert answer.json()[answered][0]["grant"]["status"] == "HEALTHY"
    assert each_front.client.post("/v1/heartbeats", content=spoilt % said).status_code in (400, 422)


@BY_BOTH_FRONTS
def test_the_results_have_the_name_that_goes_with_the_request(each_front: Registry, service: str) -> None:
    """Registrars of the version before send `beats` and read `answers`: new, unchanged, changed, lost and refused."""
    registration: dict[str, Any] = {"instance_id": "i-1", "incarnation": 1}
    endpoint = {"service": service, "endpoint": "10.0.0.1:80"}

    def send(sent: str, answered: str, **more: Any) -> dict[str, Any]:
        batch = {sent: [endpoint | {"registration": registration | more}] * 2}
        answer = each_front.client.post("/v1/heartbeats", json=batch)
        assert (answer.status_code, list(answer.json())) == (200, [answered])
        first, second = answer.json()[answered]
        assert first == second
        result: dict[str, Any] = first
        return result

    for sent, answered in (("beats", "answers"), ("heartbeats", "results"), ("beats", "answers")):
        assert [send(sent, answered)["grant"]["status"] for _ in range(3)] == ["HEALTHY"] * 3
        assert send(sent, answered, health="UNHEALTHY")["grant"]["status"] == "UNHEALTHY"
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80"
    assert each_front.client.delete(path, params={"instance_id": "i-1", "incarnation": 1}).status_code == 204
    assert send("beats", "answers")["problem"]["status"] == 409
    assert send("heartbeats", "results")["problem"]["status"] == 409


def test_beats_of_one_endpoint_are_taken_in_their_order(each_front: Registry, service: str) -> None:
    """Who owns it renews first, and another one takes it over then; the other way round the renewal were refused."""

    def beat(number: int) -> dict[str, object]:
        told = {"instance_id": f"i-{number}", "incarnation": 1}
        return {"service": service, "endpoint": "10.0.0.1:80", "registration": told}

    each_front.client.post("/v1/heartbeats", json={"heartbeats": [beat(0)]})
    for number in range(20):
        both = each_front.client.post("/v1/heartbeats", json={"heartbeats": [beat(number), beat(number + 1)]}).json()
        assert ["grant" in answer for answer in both["results"]] == [True, True]


def test_the_fast_door_renews_without_the_application(shared_registry: Registry, service: str) -> None:
    """What the tests above compare are two ways, not one twice: only mere renewals are counted as such."""
    name = 'registry_heartbeats_total{outcome="renewed"}'
    shared_registry.register(service, "10.0.0.1:80")
    before = figure(shared_registry, name)
    with Line(shared_registry) as line:
        line.send(heartbeat(service) * 50)
        assert {line.answer()[0] for _ in range(50)} == {200}
    assert figure(shared_registry, name) - before == 50


def test_the_trial_lets_the_fast_door_in(capsys: pytest.CaptureFixture[str]) -> None:
    """With the uvicorn that is installed here both ways give the same bytes, and nothing is left to the middleware."""
    assert selftest.select_protocol("fast") is fast.FastProtocol
    assert "fast_protocol_failed" not in capsys.readouterr().out
    assert selftest.select_protocol("plain") is CertificateProtocol


@pytest.mark.parametrize("broken", ["answers otherwise", "raises", "says nothing"])
def test_a_uvicorn_that_does_not_fit_is_served_by_the_plain_door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    """Other bytes, a missing attribute or no answer: said once in the log, and the middleware goes on."""

    def fail(*_told: object) -> None:
        if broken == "raises":
            raise AttributeError("cycle")

    if broken == "answers otherwise":
        monkeypatch.setattr(response_head, "_JSON_LINE", b"content-type: text/plain\r\n")
    else:
        monkeypatch.setattr(fast.FastProtocol, "on_response_complete", fail)
        monkeypatch.setattr(selftest, "_SELFTEST_TIMEOUT", 0.2)
    assert selftest.select_protocol("fast") is None
    said = capsys.readouterr().out
    assert said.count("protocol_unfit") == 1
    assert "uvicorn's own HTTP protocol" in said
    assert "trailers become headers" in said
