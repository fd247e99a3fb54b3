"""What could set the fast protocol apart from the middleware: each is answered, stored and bounded alike."""

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.line import Line, chunked, heartbeat, poll
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

LIMIT = 131_072
_LOCK = "SELECT 1 FROM services WHERE name = $1 FOR UPDATE"
BY_BOTH_FRONTS = pytest.mark.parametrize("each_front", ["fast", "plain"], indirect=True)


@BY_BOTH_FRONTS
def test_a_length_with_many_leading_zeros_is_a_length(each_front: Registry) -> None:
    """Parsers take any number of zeros; Python reads 4,300 digits at most, and would answer 500."""
    with Line(each_front) as line:
        line.send(b"GET /livez HTTP/1.1\r\nhost: test\r\ncontent-length: " + b"0" * 5000 + b"2\r\n\r\n{}")
        assert line.answer()[0] == 200


@BY_BOTH_FRONTS
@pytest.mark.parametrize("target", ["POST /v3/discovery:endpoints", "PUT /v1/services/shop/endpoints/10.0.0.1:80"])
def test_a_body_that_is_announced_as_too_long_is_not_waited_for(each_front: Registry, target: str) -> None:
    """413 comes before the first byte of it."""
    with Line(each_front) as line:
        line.send(f"{target} HTTP/1.1\r\nhost: test\r\ncontent-length: {LIMIT + 1}\r\n\r\n".encode())
        line.socket.settimeout(3)
        assert line.answer()[0] == 413


@pytest.mark.parametrize("front", ["fast", "plain"])
def test_nothing_is_done_after_the_last_answer(database: str, workplace: Path, service: str, front: str) -> None:
    """A process that stops says `connection: close`, and serves nothing behind it in secret (RFC 9112, 9.6)."""
    with registry(database, workplace, door=front, shutdown_delay="1.5s") as found, Line(found) as line:
        found.register(service, "10.0.0.1:80")
        found.process.terminate()
        eventually(lambda: not found.ready())
        line.send(poll(service) + heartbeat(service, "10.0.0.2:80") + heartbeat(service, "10.0.0.3:80"))
        assert line.answer()[0] == 200
        assert line.closed()
        time.sleep(0.3)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}


@pytest.fixture(scope="module", params=["fast", "plain"])
def door_and_database(
    request: pytest.FixtureRequest, server: Postgres, workplace: Path
) -> Iterator[tuple[Registry, str]]:
    """A registry whose database a test may spoil, if it mends it again."""
    database = server.migrated_database()
    with registry(database, workplace, door=request.param) as found:
        yield found, database


def test_a_refusal_is_answered_where_a_renewal_becomes_a_registration(
    door_and_database: tuple[Registry, str], server: Postgres, service: str
) -> None:
    """503, and soon: nobody waits for an answer that never comes."""
    found, database = door_and_database
    found.register(service, "10.0.0.1:80")
    eventually(lambda: found.statuses(service) != {})
    server.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = 'P0001'; END $$",
        url=database,
    )
    try:
        server.execute("CREATE TRIGGER refuse BEFORE INSERT ON leases EXECUTE FUNCTION refuse()", url=database)
        server.execute("DELETE FROM leases", url=database)
        with Line(found) as line:
            line.socket.settimeout(5)
            line.send(heartbeat(service))
            status, headers, body = line.answer()
            assert (status, headers["content-type"]) == (503, "application/problem+json")
            assert "retry-after" in headers
            assert json.loads(body)["request_id"] == headers["x-request-id"]
    finally:
        server.execute("DROP FUNCTION refuse CASCADE", url=database)


def test_a_heartbeat_that_says_something_new_is_counted_and_logged(
    door_and_database: tuple[Registry, str], service: str
) -> None:
    """Under its route, its status and the id of its answer, alone and in a batch, stored or refused."""
    found, _ = door_and_database
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80"
    told = {"instance_id": "i-1", "incarnation": 2}
    beats = {"heartbeats": [{"service": service, "endpoint": "10.0.0.2:80", "registration": told}]}
    route = "/v1/services/{service}/endpoints/{endpoint}"
    wanted = {
        f'registry_http_requests_total{{code="200",method="PUT",route="{route}"}}': 1,
        f'registry_http_requests_total{{code="409",method="PUT",route="{route}"}}': 1,
        f'registry_http_request_seconds_count{{method="PUT",route="{route}"}}': 2,
        'registry_http_requests_total{code="200",method="POST",route="/v1/heartbeats"}': 1,
    }
    before = {name: figure(found, name) for name in wanted}
    alone = found.client.put(path, json=told)
    refused = found.client.put(path, json=told | {"incarnation": 1})
    batch = found.client.post("/v1/heartbeats", json=beats)
    assert (alone.status_code, refused.status_code, batch.status_code) == (200, 409, 200)
    assert {name: figure(found, name) - before[name] for name in wanted} == wanted
    logged = [json.loads(line) for line in found.log.read_text().splitlines()]
    ours = [one for one in logged if one.get("service") == service and one["event"] == "registered"]
    registered = {one["request_id"]: one["actor"] for one in ours}
    assert registered == {one.headers["x-request-id"]: "127.0.0.1" for one in (alone, batch)}


@BY_BOTH_FRONTS
def test_a_request_has_no_id_of_the_one_before_it(each_front: Registry, service: str) -> None:
    """Also when it waited behind that, and is refused by the front itself: which was named, or named by us."""
    refused = b"POST /v3/discovery:endpoints HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\n{"
    with Line(each_front) as line:
        line.send(heartbeat(service, head="x-request-id: mine\r\n") + refused)
        line.send(heartbeat(service, "10.0.0.2:80") + refused)
        answers = [line.answer() for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 400, 200, 400]
    assert len({headers["x-request-id"] for _, headers, _ in answers}) == 4


def test_who_hangs_up_while_its_heartbeat_is_stored_is_registered(
    door_and_database: tuple[Registry, str], server: Postgres, service: str
) -> None:
    """What was asked for stands, also when nobody waits for the answer."""
    found, database = door_and_database
    found.register(service, "10.0.0.1:80")
    with server.holding(_LOCK, service, url=database), Line(found) as line:
        line.send(heartbeat(service, "10.0.0.2:80"))
        _wait_until_stored(server, database)
    eventually(lambda: found.statuses(service).get("10.0.0.2:80") == "HEALTHY")
    assert "Traceback" not in found.log.read_text()


@pytest.mark.parametrize("front", ["fast", "plain"])
def test_a_heartbeat_that_is_being_stored_is_answered_before_the_process_ends(
    database: str, server: Postgres, workplace: Path, service: str, front: str
) -> None:
    """200, and that nothing more is answered on its connection."""
    with registry(database, workplace, door=front, database_timeout="20s", shutdown_grace="20s") as found:
        found.register(service, "10.0.0.1:80")
        with Line(found) as line:
            with server.holding(_LOCK, service, url=database):
                line.send(heartbeat(service, "10.0.0.2:80"))
                _wait_until_stored(server, database)
                found.process.terminate()
                eventually(lambda: not found.ready())
            status, headers, body = line.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert json.loads(body)["endpoint"] == "10.0.0.2:80"
            assert line.closed()
        found.process.wait(10)
    with registry(database, workplace) as again:
        assert again.statuses(service) == {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "HEALTHY"}


def _wait_until_stored(server: Postgres, database: str) -> None:
    """Wait until a registry stands before a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    eventually(lambda: server.execute(waiting, url=database)[0][0] > 0)


def test_renewals_that_become_registrations_are_stored_together(
    door_and_database: tuple[Registry, str], server: Postgres, service: str
) -> None:
    """A host whose leases are all gone is not registered by one commit after another."""
    found, database = door_and_database
    names = [f"10.0.0.{number}:80" for number in range(1, 201)]
    told = {name: {"instance_id": f"i-{name}", "incarnation": 1} for name in names}
    beats = {"heartbeats": [{"service": service, "endpoint": name, "registration": told[name]} for name in names]}
    assert found.client.post("/v1/heartbeats", json=beats).status_code == 200
    before = commits(found)
    server.execute("DELETE FROM leases", url=database)
    answers = found.client.post("/v1/heartbeats", json=beats).json()["results"]
    assert [answer["grant"]["endpoint"] for answer in answers] == names
    assert commits(found) - before < 20


def commits(found: Registry) -> int:
    """Return how many batches of changes were stored."""
    return int(figure(found, 'registry_commit_seconds_count{kind="change"}'))


def figure(found: Registry, name: str) -> float:
    """Return what /metrics has for a name with its labels; 0 for what was never counted."""
    lines = [line for line in found.client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@BY_BOTH_FRONTS
def test_a_body_in_tiny_chunks_takes_no_more_memory_than_it_is_long(each_front: Registry, service: str) -> None:
    """Thousands of pieces are not kept as thousands of objects while a client keeps the last one back."""
    each_front.register(service, "10.0.0.1:80")
    whole = b"".join(chunked(poll(service).partition(b"\r\n\r\n")[2].ljust(LIMIT), 2))
    before = memory(each_front)
    with ExitStack() as stack:
        lines = [stack.enter_context(Line(each_front)) for _ in range(20)]
        for line in lines:
            line.send(whole[:-2])
        eventually(lambda: idle(each_front))
        assert memory(each_front) - before < 20e6
        for line in lines:
            line.send(whole[-2:])
            assert line.answer()[0] == 200


@BY_BOTH_FRONTS
def test_a_head_that_never_ends_is_refused(each_front: Registry) -> None:
    """400 before it takes memory worth mentioning; and one of 60 kB is served."""
    with Line(each_front) as line:
        line.send(b"GET /livez HTTP/1.1\r\nhost: registry\r\nx-long: " + b"y" * 60_000, b"\r\n\r\n")
        assert line.answer()[0] == 200
        line.send(b"GET /livez HTTP/1.1\r\nx-long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                line.send(b"y" * 10_000)
            pytest.fail("ten megabytes of a head were taken")


@pytest.mark.parametrize("each_front", ["plain"], indirect=True)
def test_who_hangs_up_with_a_request_behind_a_held_poll_is_let_go(each_front: Registry, service: str) -> None:
    """The place among the held is free at once, and nobody writes into the closed connection.

    Behind the fast protocol it is free when the hold ends: while a request waits behind another one nothing is read.
    """
    each_front.register(service, "10.0.0.1:80")
    current = each_front.poll(service).json()["version_info"]
    held = "registry_polls_held {}.0"
    with Line(each_front) as line:
        line.send(poll(service, version=current, hold=40) + heartbeat(service))
        eventually(lambda: held.format(1) in each_front.client.get("/metrics").text, within=5)
    eventually(lambda: held.format(0) in each_front.client.get("/metrics").text, within=3)
    assert "Traceback" not in each_front.log.read_text()


def idle(found: Registry) -> bool:
    """Tell whether a process did nothing for a moment."""
    before = spent(found)
    time.sleep(0.2)
    return spent(found) - before <= 2


def spent(found: Registry) -> int:
    """Return the hundredths of a second that a process has computed."""
    return sum(map(int, Path(f"/proc/{found.process.pid}/stat").read_text().split()[13:15]))


def memory(found: Registry) -> int:
    """Return the bytes that a process has of the machine's memory."""
    pages = int(Path(f"/proc/{found.process.pid}/statm").read_text().split()[1])
    return pages * 4096
