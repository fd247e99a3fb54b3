"""What stands around a request's body or changes the protocol: trailers, chunk extensions and upgrades."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness.line import Line, chunked, heartbeat, poll
from harness.process import eventually
from harness.registry import Registry

ENDPOINT = "10.0.0.1:80"
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n"
MUCH = 4_000_000
CHUNKED = "transfer-encoding: chunked\r\n"
UPGRADE = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
FORGED = [
    b"x-actor: mallory",
    b"X-Actor: mallory",
    b"x-request-id: forged",
    b"x-forwarded-for: 10.66.66.66",
    b"authorization: Bearer forged",
    b"origin: http://elsewhere.example",
    b"expect: 100-continue",
    b"host: elsewhere.example",
    b"upgrade: h2c\r\nconnection: upgrade",
    b"connection: keep-alive",
]


def with_trailers(request: bytes, *trailers: bytes) -> bytes:
    """Return a request whose announced body is sent in one chunk, with trailers behind it."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    pieces = [*lines, b"transfer-encoding: chunked", b"", b"%x" % len(body), body, b"0", *trailers, b"", b""]
    return b"\r\n".join(pieces)


def drain(service: str, head: str = "") -> bytes:
    """Return an operator's drain, whose actor the history keeps."""
    return f"POST /v1/services/{service}/endpoints/{ENDPOINT}/drain HTTP/1.1\r\nhost: test\r\n{head}\r\n".encode()


def actors(registry: Registry, service: str) -> set[str]:
    """Return who did what is in the history of a service."""
    events = registry.client.get("/v1/events", params={"service": service}).json()["events"]
    return {event["actor"] for event in events}


@pytest.mark.parametrize("trailer", FORGED, ids=repr)
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_trailers_are_no_headers(each_front: Registry, service: str, trailer: bytes, apart: bool) -> None:
    """RFC 9110, 6.5.1: whatever a trailer names, the request is answered and stored as if it had none."""
    with Line(each_front) as line:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in (heartbeat(service), poll(service), drain(service, CHUNKED) + b"0\r\n\r\n"):
            whole = (
                with_trailers(request, trailer)
                if request[-5:] != b"0\r\n\r\n"
                else request[:-2] + trailer + b"\r\n\r\n"
            )
            end = whole.rindex(b"0\r\n" + trailer) + 3 if apart else len(whole)
            line.send(whole[:end])
            if apart:
                time.sleep(0.05)
                line.send(whole[end:])
            status, headers, _ = line.answer()
            assert status == 200
            assert headers.get("x-request-id") != "forged"
    assert actors(each_front, service) == {"127.0.0.1"}


@pytest.mark.parametrize("start", [poll("x"), heartbeat("x"), drain("x")], ids=["poll", "heartbeat", "drain"])
@pytest.mark.parametrize(
    "piece", [b"a: b\r\n", b"a" * 1000, b"a: " + b"b" * 30_000 + b"\r\n"], ids=["lines", "one", "long"]
)
def test_trailers_that_never_end_are_cut_off(each_front: Registry, start: bytes, piece: bytes) -> None:
    """The connection is closed before they take memory worth mentioning, and other clients are served."""
    begun = with_trailers(start)[:-2]
    _refused(each_front, begun, piece)


@pytest.mark.parametrize("start", [poll("x"), heartbeat("x"), drain("x")], ids=["poll", "heartbeat", "drain"])
@pytest.mark.parametrize(
    "begun", [b"1;a=", b"0;a=", b"0", b"1;a\r\nx\r\n1;"], ids=["of a chunk", "of the last", "zeros", "of a second"]
)
def test_a_chunk_line_that_never_ends_is_cut_off(each_front: Registry, start: bytes, begun: bytes) -> None:
    """Neither an extension nor a size with more and more zeros in front is read for ever."""
    head = with_trailers(start).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    _refused(each_front, head + begun, b"0" * 1000)


@pytest.mark.parametrize("start", [poll("x"), heartbeat("x"), drain("x")], ids=["poll", "heartbeat", "drain"])
def test_extensions_of_many_chunks_are_counted_together(each_front: Registry, start: bytes) -> None:
    """One byte of a body may not carry a kilobyte beside it each time."""
    head = with_trailers(start).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    _refused(each_front, head, b"1;" + b"a" * 1000 + b"\r\nx\r\n")


def _refused(registry: Registry, begun: bytes, piece: bytes) -> None:
    """Send a piece again and again, and see that it is not taken for long."""
    before = memory(registry)
    with Line(registry) as line, contextlib.suppress(ConnectionError):
        line.socket.settimeout(5)
        line.send(begun)
        for _ in range(MUCH // len(piece)):
            line.send(piece)
        # What was sent may still be in buffers on the way.
        answer = line.rest()
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert b"extensions and trailers" in answer
    assert memory(registry) - before < 5e6
    assert registry.client.get("/livez").text == "ok\n"


def memory(registry: Registry) -> int:
    """Return the bytes that a process has of the machine's memory."""
    return int(Path(f"/proc/{registry.process.pid}/statm").read_text().split()[1]) * 4096


def test_ordinary_trailers_and_extensions_are_read_over(each_front: Registry, service: str) -> None:
    """Of some kilobytes, and a body in the smallest chunks there are: 200, and the connection goes on to work."""
    each_front.register(service, ENDPOINT)
    body = json.dumps({"resource_names": [service]}).encode().ljust(100_000)
    with Line(each_front) as line:
        line.send(with_trailers(poll(service), *[b"x-trailer: " + b"y" * 1000] * 40))
        assert line.answer()[0] == 200
        line.send(b"".join(chunked(body, 1)))
        assert line.answer()[0] == 200
        line.send(b"".join(chunked(body, 1000)).replace(b"3e8\r\n", b"3e8;name=value\r\n"))
        assert line.answer()[0] == 200
        line.send(LIVEZ)
        assert line.answer()[0] == 200


@pytest.mark.parametrize(
    "head", [UPGRADE, UPGRADE.replace("h2c", "websocket"), "Connection: upgrade\r\nUpgrade: TLS/1.3, h2c\r\n"]
)
@pytest.mark.parametrize("apart", [0, 1, 7, 2000], ids="in pieces of {}".format)
def test_an_upgrade_that_is_not_spoken_is_read_over(each_front: Registry, service: str, head: str, apart: int) -> None:
    """RFC 9110, 7.8: the request counts with its body, and so does what is sent behind it."""
    requests = [
        heartbeat(service, head=head),
        poll(service, head=head),
        with_trailers(heartbeat(service, "10.0.0.2:80", head=head), b"x-actor: mallory"),
        LIVEZ.replace(b"\r\n\r\n", b"\r\n" + head.encode() + b"\r\n"),
        heartbeat(service, "10.0.0.3:80"),
        drain(service, head),
        LIVEZ,
    ]
    whole = b"".join(requests)
    step = apart or len(whole)
    with Line(each_front) as line:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.send(*(whole[start : start + step] for start in range(0, len(whole), step)))
        assert [line.answer()[0] for _ in requests] == [200] * len(requests)
    assert each_front.statuses(service) == {ENDPOINT: "DRAINING", "10.0.0.2:80": "HEALTHY", "10.0.0.3:80": "HEALTHY"}
    assert actors(each_front, service) == {"127.0.0.1"}


def test_what_is_said_beside_an_upgrade_counts(each_front: Registry, service: str) -> None:
    """A name, a page elsewhere, `connection: close`, HTTP/1.0 and a long body are what they are elsewhere."""
    each_front.register(service, ENDPOINT)
    with Line(each_front) as line:
        line.send(drain(service, UPGRADE + "x-actor: ann\r\n"))
        assert line.answer()[0] == 200
        line.send(drain(service, UPGRADE + "origin: http://elsewhere.example\r\n"))
        assert line.answer()[0] == 403
        line.send(heartbeat(service, head=UPGRADE + "expect: 100-continue\r\n"))
        assert [line.answer()[0] for _ in range(2)] == [100, 200]
        line.send(poll(service, head=UPGRADE + "connection: close\r\n"))
        assert line.answer()[0] == 200
        assert line.closed()
    with Line(each_front) as line:
        line.send(poll(service, head=UPGRADE, protocol="1.0"))
        assert line.answer()[0] == 200
        assert line.closed()
    assert actors(each_front, service) == {"127.0.0.1", "ann from 127.0.0.1"}


@pytest.mark.parametrize("target", [b"test:80", b"/v1/services", b"http://test/livez"])
def test_a_tunnel_is_refused(each_front: Registry, target: bytes) -> None:
    """CONNECT is no upgrade that could be read over: 400 and closed."""
    with Line(each_front) as line:
        line.send(b"CONNECT %b HTTP/1.1\r\nhost: test\r\n\r\n" % target + LIVEZ)
        assert line.answer()[0] == 400
        assert line.closed()
    assert "Traceback" not in each_front.log.read_text()


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_a_close_among_the_trailers_closes_after_the_answer(each_front: Registry, service: str, apart: bool) -> None:
    """The parser reads nothing behind it, so nobody has to wait for an answer that never comes."""
    each_front.register(service, ENDPOINT)
    trailer = b"connection: close"
    for request in (poll(service), heartbeat(service), poll("x").replace(b"{", b" " * 150_000 + b"{", 1)):
        whole = with_trailers(request, trailer)
        end = whole.rindex(trailer) if apart else len(whole)
        with Line(each_front) as line:
            line.send(whole[:end])
            if apart:
                time.sleep(0.05)
                line.send(whole[end:])
            assert line.answer()[0] in (200, 413)
            assert line.closed()


def test_many_upgrades_at_once_are_answered_in_order(each_front: Registry, service: str) -> None:
    """Pipelined in one piece, as any other requests."""
    each_front.register(service, ENDPOINT)
    with Line(each_front) as line:
        line.send((poll(service, head=UPGRADE) + LIVEZ) * 50)
        bodies = [line.answer()[2][:14] for _ in range(100)]
    assert bodies == [b'{"version_info', b"ok\n"] * 50


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_http2_registers(each_front: Registry, service: str) -> None:
    """The client that people have at hand asks for h2c by `--http2`."""
    told = json.dumps({"instance_id": "i-1", "incarnation": 1})
    url = f"{each_front.url}/v1/services/{service}/endpoints/{ENDPOINT}"
    command = ["curl", "-sv", "--http2", "-X", "PUT", "--data", told, url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if "HTTP2" not in subprocess.check_output(["curl", "--version"], text=True):
        pytest.skip("this curl was built without HTTP/2")
    assert "> Upgrade: h2c" in run.stderr
    assert json.loads(run.stdout)["endpoint"] == ENDPOINT
    eventually(lambda: each_front.statuses(service) == {ENDPOINT: "HEALTHY"})
