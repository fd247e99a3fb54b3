"""Requests that are answered before the parser sees them, because their head is the one of the request before."""

import asyncio
import json
import re
import time
from itertools import pairwise

import pytest
from harness.memory_front import DATABASE_ID, Connection, MemoryFront, poll
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.http import intercepting_protocol as intercepting
from registry.xds.discovery import Discovery

SERVICE = "shop"
LONG = {"node": {"id": "envoy", "cluster": "web", "extensions": [{"name": "x" * 20_000}]}, "resource_names": [SERVICE]}
BODIES = {
    "a poll": json.dumps(LONG, separators=(",", ":")).encode(),
    "the same poll, written otherwise": json.dumps(LONG).encode(),
    "a short poll": b'{"resource_names":["shop"]}',
    "a poll that is up to date": b'{"version_info":"%b:1","resource_names":["shop"]}' % DATABASE_ID.encode(),
    "no JSON": b"{" * 9000,
    "nothing": b"",
}
REQUESTS = {
    **{name: poll(body) for name, body in BODIES.items()},
    "hosts": b"GET /v1/registration/shop HTTP/1.1\r\nhost: registry\r\n\r\n",
    "no hosts": b"HEAD /v1/registration/nothing HTTP/1.1\r\nhost: registry\r\n\r\n",
    "with a body": b"GET /v1/registration/shop HTTP/1.1\r\nhost: registry\r\ncontent-length: 4\r\n\r\n\r\n\r\n",
    "a heartbeat": poll(b"{}", url="/v1/services/shop/endpoints/10.0.1.1:8080", method=b"PUT"),
    "a heartbeat of another": poll(b"[]", url="/v1/services/shop/endpoints/[fe80::1]:8080", method=b"PUT"),
    "one without a plain address": poll(b"{}", url="/v1/services/sh%6fp/endpoints/10.0.1.1:8080", method=b"PUT"),
    "one with a query": poll(b"{}", url="/v1/services/shop/endpoints/10.0.1.1:8080?a=b", method=b"PUT"),
    "a service": poll(b"{}", url="/v1/services/shop", method=b"PUT"),
    "one of HTTP/1.0": poll(b"{}", url="/v1/services/shop/endpoints/10.0.1.1:8080", method=b"PUT", version=b"HTTP/1.0"),
    "a long address": poll(b"{}", url="/v1/services/shop/endpoints/" + "1" * 2000, method=b"PUT"),
    "a batch": poll(b'{"heartbeats":[]}', url="/v1/heartbeats"),
    "chunks": poll(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    + b"1b\r\n"
    + BODIES["a short poll"]
    + b"\r\n0\r\n\r\n",
    "another path": b"GET /livez HTTP/1.1\r\nhost: registry\r\n\r\n",
    "leading zeros": poll(b"").replace(b"content-length: 0", b"content-length: " + b"0" * 5000 + b"2") + b"{}",
}
_OWN = re.compile(rb"x-request-id: \S+|\"request_id\":\"[^\"]*\"|content-length: \d+")
"""Parts of an answer in which the id of its request shows."""


async def ask(front: MemoryFront, connection: Connection, *pieces: bytes) -> bytes:
    """Send a request in pieces, with those of other connections between them, and return its whole response."""
    before = front.answered
    for piece in pieces:
        assert front.answered == before
        connection.wire.receive(piece)
        connection.wire.overwrite()
    for _ in range(1000):
        if front.answered > before or connection.wire.closed:
            break
        await asyncio.sleep(0)
    return _OWN.sub(b"", connection.answer())


def cut(request: bytes, cuts: list[int]) -> list[bytes]:
    """Return a request in pieces, which are cut at shares of it."""
    places = sorted({share * len(request) // 1000 for share in cuts} | {0, len(request)})
    return [request[start:end] for start, end in pairwise(places)]


@pytest.fixture(scope="module")
def front() -> MemoryFront:
    """Return a front, which takes longer to build than a test takes."""
    return MemoryFront({SERVICE: 3})


SENT = st.lists(
    st.tuples(st.sampled_from(list(REQUESTS)), st.lists(st.integers(0, 1000), max_size=3)), min_size=2, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(sent=SENT)
@example(sent=[(name, []) for name in REQUESTS for _ in range(3)])
@example(sent=[(name, cuts) for name in REQUESTS for cuts in ([], [500], [10, 600, 999])])
@example(sent=[("a poll", list(range(1, 1000))), *[("a poll", list(range(0, 1000, 2)))] * 2])
def test_a_request_is_answered_as_over_a_new_connection(front: MemoryFront, sent: list[tuple[str, list[int]]]) -> None:
    """Whatever came before it and in whatever pieces it comes, and whatever other connections receive meanwhile."""

    async def converse() -> None:
        connection = front.connect()
        for name, cuts in sent:
            fresh = await ask(front, front.connect(), REQUESTS[name])
            assert fresh.startswith(b"HTTP/1.1 ")
            if connection.wire.closed:
                connection = front.connect()
            assert await ask(front, connection, *cut(REQUESTS[name], cuts)) == fresh

    asyncio.run(converse())


def _parsed(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list of what the parser of a connection gets from now on."""
    seen: list[bytes] = []
    parser = connection.protocol.parser

    class Parser:
        def feed_data(self, data: bytes) -> None:
            seen.append(bytes(data))
            parser.feed_data(data)

        def __getattr__(self, name: str) -> object:
            return getattr(parser, name)

    monkeypatch.setattr(connection.protocol, "parser", Parser())
    return seen


@pytest.mark.parametrize("cuts", [[], [500], [3, 500, 990]])
@pytest.mark.parametrize("name", ["a poll", "a short poll", "a poll that is up to date", "hosts", "a batch"])
async def test_the_parser_sees_a_repeated_request_only_where_its_head_is_cut(
    front: MemoryFront, monkeypatch: pytest.MonkeyPatch, name: str, cuts: list[int]
) -> None:
    """Otherwise the tests here prove nothing."""
    connection = front.connect()
    for _ in range(2):
        await ask(front, connection, REQUESTS[name])
    seen = _parsed(connection, monkeypatch)
    first, *_ = pieces = cut(REQUESTS[name], cuts)
    await ask(front, connection, *pieces)
    head_is_whole = b"\r\n\r\n" in first
    # A batch of nothing is one that the application has to refuse.
    assert bool(seen) == (not head_is_whole or name == "a batch")


async def test_a_piece_with_more_than_the_request_is_answered_in_order(front: MemoryFront) -> None:
    """What follows a request in its last piece is the next request."""
    connection = front.connect()
    request = REQUESTS["a poll"]
    response = await ask(front, connection, request)
    connection.wire.receive(request[:9000])
    connection.wire.receive(request[9000:] + request + request[:50])
    assert _OWN.sub(b"", connection.answer()) == response * 2
    connection.wire.receive(request[50:])
    assert _OWN.sub(b"", connection.answer()) == response


async def test_the_application_gets_what_cannot_be_answered(
    front: MemoryFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll whose answer is a defect is parsed after all, and answered by the application with all its bytes."""
    connection = front.connect()
    request = REQUESTS["a poll"]
    expected = await ask(front, connection, request)
    monkeypatch.setattr(connection.protocol, "_discovery", None)
    assert await ask(front, connection, request) == expected
    assert await ask(front, connection, request[:5000], request[5000:]) == expected
    monkeypatch.undo()
    assert await ask(front, connection, request) == expected


async def test_a_held_poll_keeps_no_body(front: MemoryFront, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its own 77 kB nor a view of the buffer, which belongs to the next connection then."""
    monkeypatch.setattr(Discovery, "hold", lambda *_: lambda: None)
    connection = front.connect()
    request = poll(BODIES["a poll that is up to date"].ljust(20_000), b"x-envoy-expected-rq-timeout-ms: 9000")
    for pieces in ([request], [request], [request[:10_000], request[10_000:]]):
        for piece in pieces:
            connection.wire.receive(piece)
        exchange = connection.protocol.cycle
        assert isinstance(exchange, intercepting.Exchange)
        assert not exchange.response_complete
        assert exchange.parts == []
        assert connection.protocol.timeout_keep_alive_task is None
        exchange.response_complete = True
        connection.protocol.on_response_complete()


async def test_an_idle_connection_ends_after_its_last_response(front: MemoryFront) -> None:
    """The timer of a repeated request is not set again, so it has to look when the last response was."""
    connection = front.connect()
    protocol = connection.protocol
    protocol.timeout_keep_alive = 0.5  # type: ignore[assignment]  # whole seconds, for uvicorn
    request = REQUESTS["a poll"]
    await ask(front, connection, request)
    timer, first = protocol.timeout_keep_alive_task, time.monotonic()
    assert timer is not None
    await asyncio.sleep(0.3)
    await ask(front, connection, request)
    assert protocol.timeout_keep_alive_task is timer
    while not connection.wire.closed:
        await asyncio.sleep(0.02)
    assert time.monotonic() - first > 0.75


async def test_a_request_that_stays_incomplete_has_its_deadline(front: MemoryFront) -> None:
    """Also where the parser does not see it."""
    connection = front.connect()
    request = REQUESTS["a poll"]
    await ask(front, connection, request)
    connection.wire.receive(request[:9000])
    assert connection.protocol._late is not None
    connection.protocol.shutdown()
    assert not connection.wire.closed
    connection.protocol._on_late()
    assert connection.wire.closed


async def test_connections_with_the_same_head_keep_it_once(front: MemoryFront) -> None:
    """A thousand Envoys of one configuration send the same bytes; a head that no connection repeats is forgotten."""
    one, other = front.connect(), front.connect()
    request = poll(BODIES["a poll"], b"x-forwarded-proto: of this test")
    for connection in (one, other):
        await ask(front, connection, request)
    kept = one.protocol._kept
    assert kept is not None
    assert other.protocol._kept is kept
    heads, raw = one.protocol._heads._kept, kept.raw
    del kept
    assert raw in heads
    for connection in (one, other):
        await ask(front, connection, REQUESTS["a short poll"])
    del connection
    assert raw not in heads
