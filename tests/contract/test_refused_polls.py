"""Refused polls over real connections, through every front: what they get, when, and that they are bounded."""

import contextlib
import json
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import refusing_registry
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.auth.verbs import Verb
from registry.xds.held_refusals import MAX_HELD_REFUSALS_OF_PEER

ENDPOINT = "10.0.0.1:80"
FRONTS = ["fast", "plain", "route"]


@contextlib.contextmanager
def refusing_polls(server: Postgres, directory: Path, front: str) -> Iterator[tuple[Registry, Path]]:
    """Run a registry with a service ``shop`` whose policy reads what it refuses from a file."""
    refusals = directory / f"refused-{front}"
    refusals.write_text("")
    file = Path(refusing_registry.__file__)
    env = {refusing_registry.REFUSALS: str(refusals)}
    with registry(server.migrated_database(), directory, file=file, env=env, door=front) as started:
        started.register("shop", ENDPOINT, ttl=600)
        refusals.write_text(Verb.DISCOVER)
        yield started, refusals


@pytest.fixture(scope="module", params=FRONTS)
def refusing(request: pytest.FixtureRequest, server: Postgres, workplace: Path) -> Iterator[tuple[Registry, Path, str]]:
    """A registry that refuses every poll, by one of the fronts."""
    with refusing_polls(server, workplace, request.param) as (started, refusals):
        yield started, refusals, request.param


def timed(started: Registry, *, version: str | None, hold: float | None) -> tuple[httpx.Response, float]:
    """Poll for the service; return the response, and the seconds until it came."""
    begun = time.monotonic()
    return started.poll("shop", version=version, hold=hold), time.monotonic() - begun


def test_a_refused_poll_is_held_for_as_long_as_its_sender_waits(refusing: tuple[Registry, Path, str]) -> None:
    """One to two seconds for an Envoy with a long timeout, less for a short one, at once for a client without it."""
    started, _, _ = refusing
    for hold, least, most in ((10.0, 1.0, 2.0), (0.6, 0.3, 0.4), (None, 0.0, 0.1)):
        answer, seconds = timed(started, version="5f0c1a9e:7", hold=hold)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        # The machine may be busy; the client's own timeout is the harder bound.
        assert least <= seconds < most + 1.0


def test_a_refused_first_poll_lets_an_envoy_start(refusing: tuple[Registry, Path, str]) -> None:
    """It is answered at once, without resources and counted as refused; after a grant its version gets the endpoint."""
    started, refusals, _ = refusing
    answer, seconds = timed(started, version=None, hold=10.0)
    assert (answer.status_code, answer.json()["resources"]) == (200, [])
    assert seconds < 0.9
    version = answer.json()["version_info"]
    assert started.poll("shop", version=version).status_code == 403
    refusals.write_text("")
    try:
        assert ENDPOINT.partition(":")[0] in started.poll("shop", version=version).text
    finally:
        refusals.write_text(Verb.DISCOVER)
    metrics = started.client.get("/metrics").text
    assert 'registry_polls_total{api="v3",code="403"}' in metrics


def test_v1_hosts_are_refused_and_never_empty(refusing: tuple[Registry, Path, str]) -> None:
    """A v1 client would take an empty list as one; it takes 403, as any status but 200, for a failure."""
    started, _, _ = refusing
    answer = started.client.get("/v1/registration/shop")
    assert (answer.status_code, answer.content) == (403, b"")


def refused_poll(version: str = "5f0c1a9e:7") -> bytes:
    """Return the bytes of a poll with a timeout of 20 s."""
    body = json.dumps({"version_info": version, "node": {"id": "t"}, "resource_names": ["shop"]}).encode()
    head = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: t\r\nx-envoy-expected-rq-timeout-ms: 20000\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


@contextlib.contextmanager
def connections(started: Registry, number: int, peer: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Open connections from an address of this machine, each with a refused poll under way."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", started.port), 10, source_address=(peer, 0))
            opened.append(stack.enter_context(connection))
            opened[-1].sendall(refused_poll())
        yield opened


def answered(opened: list[socket.socket], seconds: float, expected: int | None = None) -> int:
    """Return how many of the connections have a response within some time, or as soon as that many are expected."""
    with selectors.DefaultSelector() as selector:
        for connection in opened:
            selector.register(connection, selectors.EVENT_READ)
        readable = set()
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            readable |= {key.fd for key, _ in selector.select(left)}
            for descriptor in readable & set(selector.get_map()):
                selector.unregister(descriptor)
            if len(readable) >= (len(opened) if expected is None else expected) or not left:
                return len(readable)


def answered_at_once(started: Registry, number: int, peer: str = "127.0.0.1") -> int:
    """Return how many of so many refused polls are not held, where a hold is longer than this takes."""
    beyond = number - MAX_HELD_REFUSALS_OF_PEER
    with connections(started, number, peer) as opened:
        # However long a busy machine takes for these, and a moment for those that ought to be held.
        answered(opened, 15.0, beyond)
        return answered(opened, 0.2)


def test_a_peer_has_a_limit_of_held_refusals(refusing: tuple[Registry, Path, str]) -> None:
    """Those beyond it are answered at once, and it makes room when a client disconnects and when a hold ends."""
    started, refusals, front = refusing
    more = 20
    number = MAX_HELD_REFUSALS_OF_PEER + more
    # As long as the polls say that they wait, which is 20 s.
    refusals.write_text(f"{Verb.DISCOVER}\n60")
    assert answered_at_once(started, number) == more
    if front != "route":
        # FastAPI does not tell a route that its client has disconnected.
        eventually(lambda: answered_at_once(started, number) == more)
    refusals.write_text(f"{Verb.DISCOVER}\n0.5")
    with connections(started, number, "127.0.0.2") as opened:
        assert answered(opened, 15.0) == number
    refusals.write_text(f"{Verb.DISCOVER}\n60")
    assert answered_at_once(started, number, "127.0.0.2") == more
    refusals.write_text(Verb.DISCOVER)
    assert "Traceback" not in started.log.read_text()


@pytest.mark.parametrize("front", FRONTS)
def test_held_refusals_are_answered_when_the_process_stops(server: Postgres, workplace: Path, front: str) -> None:
    """SIGTERM ends them, as it ends the polls that are held."""
    with refusing_polls(server, workplace, front) as (started, _), connections(started, 10) as opened:
        assert answered(opened, 0.3) == 0
        started.process.send_signal(signal.SIGTERM)
        assert answered(opened, 0.6) == 10
        assert all(b" 403 " in connection.recv(100) for connection in opened)
