"""Digests of Envoys' statistics and the figures that they come to, against real registries and a real PostgreSQL."""

import itertools
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry
from hypothesis import given, settings
from hypothesis import strategies as st

_sequence = itertools.count(1)


def digest(caller: str, callee: str = "payments", node: str = "i-1", **fields: Any) -> dict[str, Any]:
    """Return a digest as a registrar sends it."""
    return {
        "caller": caller,
        "node": node,
        "zone": "a",
        "seconds": 10.0,
        "sequence": next(_sequence),
        "edges": [[callee, [240, 1, 3, 2, 0, 0, 0, 4, 5, 5, 6], [0, 12, 9, 31, 17, 8]]],
    } | fields


def send(process: Registry, document: Any, **headers: str) -> httpx.Response:
    """Send a digest."""
    return process.client.post("/v1/traffic", json=document, headers=headers)


def pairs(process: Registry, **filters: str) -> list[dict[str, Any]]:
    """Return pairs."""
    answer = process.client.get("/v1/traffic", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["pairs"]
    return found


def test_a_digest_becomes_figures(shared_registry: Registry, service: str) -> None:
    """Requests, success, latency and reasons of the pair; the caller has two instances, and one of them reports."""
    for endpoint in ("10.0.0.1:80", "10.0.0.2:80"):
        shared_registry.register(service, endpoint, ttl=600)
    # Registrars of before send a route once for each virtual host that has it.
    routes = [["payments", "refund", [30, 0, 10], [17, 30]], ["payments", "refund", [10], [17, 10]]]
    answer = send(shared_registry, digest(service, routes=routes))
    assert (answer.status_code, answer.json()) == (200, {})
    eventually(lambda: pairs(shared_registry, caller=service) != [], within=10)
    (pair,) = pairs(shared_registry, caller=service)
    assert pair["age"] < 60
    del pair["age"]
    assert pair == {
        "caller": service,
        "callee": "payments",
        "location": "",
        "requests": 240,
        "requests_per_second": pytest.approx(24, rel=0.2),
        "failures": 3,
        "success": 0.9875,
        "p50_ms": 3.4,
        "p95_ms": 10.7,
        "p99_ms": 10.7,
        "reasons": {
            "timeouts": 2,
            "connect_failures": 0,
            "none_healthy": 0,
            "overflows": 0,
            "retries": 4,
            "client_errors": 1,
        },
        "active": pytest.approx(5, abs=1),
        "healthy": 5,
        "total": 6,
        "reporting": {"reported": 1, "expected": 2},
    }
    found = shared_registry.client.get("/v1/traffic/routes", params={"callee": "payments", "caller": service}).json()
    assert [(each["route"], each["success"]) for each in found["routes"]] == [("refund", 0.75)]
    (pair,) = pairs(shared_registry, caller=service, by="location", window="1h")
    assert pair["location"] == "a"


BAD: list[tuple[dict[str, Any], int]] = [
    ({"caller": "no name"}, 422),
    ({"node": ""}, 422),
    ({"node": "a\nb"}, 422),
    ({"seconds": 0}, 422),
    ({"seconds": 1e9}, 422),
    ({"seconds": -1}, 422),
    ({"sequence": 2**60}, 422),
    ({"more": 1}, 422),
    ({"edges": [["payments", [-1]]]}, 422),
    ({"edges": [["payments", [2**53 + 1]]]}, 422),
    ({"edges": [["payments", [1.5]]]}, 422),
    ({"edges": [["payments", [1] * 12]]}, 422),
    ({"edges": [["pay|ments", [1]]]}, 422),
    ({"edges": [["payments", [1], [1]]]}, 422),
    ({"edges": [["payments", [1], [98, 1]]]}, 422),
    ({"edges": [["payments", [1], [1, -1]]]}, 422),
    ({"edges": [["payments", [0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 5]]]}, 422),
    ({"edges": [["payments", [1], [], [["10.0.0.5", [1, 0]]]]]}, 422),
    ({"edges": [["payments", [1], [], [["10.0.0.5:80", [1, 2]]]]]}, 422),
    ({"edges": [["payments", [1], [], [["10.0.0.5:80", [1, 0]]] * 201]]}, 422),
    ({"edges": [["payments", [1]], ["shop", [1]], ["payments", [1]]]}, 422),
    ({"edges": [["payments", [1], [], [["10.0.0.5:80", [1, 0]]] * 2]]}, 422),
    ({"sender": "a\nb"}, 422),
    ({"edges": [["payments", [1]]] * 201}, 413),
    ({"routes": [["payments", "r", [1]]] * 201}, 413),
    ({"routes": [["payments", "", [1]]]}, 422),
    ({"routes": [["payments", "r", [1] * 4]]}, 422),
    ({"zone": "z" * 70_000}, 413),
]


@pytest.mark.parametrize(("fields", "status"), BAD, ids=lambda value: str(value)[:60])
def test_a_digest_that_breaks_a_rule_is_refused_whole(
    shared_registry: Registry, service: str, fields: dict[str, Any], status: int
) -> None:
    """With the reason, and nothing of it is counted, also not what is right in it; the metric tells of it."""
    before = refused_digests(shared_registry)
    answer = send(shared_registry, digest(service) | fields)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert pairs(shared_registry, caller=service) == []
    assert refused_digests(shared_registry) == before + 1


def refused_digests(process: Registry) -> float:
    """Return how many digests a registry has refused."""
    name = 'registry_traffic_digests_total{outcome="refused"} '
    lines = process.client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
numbers = st.integers(0, 1_000) | st.sampled_from([-1, 2**53, 2**53 + 1, 2**64])
rows = st.lists(numbers, max_size=12)
names = st.sampled_from(["payments", "a.b_c-d", "x|y", "", "s" * 255, "s" * 256]) | st.text(max_size=8)
addresses = st.sampled_from(["10.0.0.5:80", "[::1]:80", "10.0.0.5", "10.0.0.5:0", "shop:80"])
attempts = st.lists(st.tuples(addresses, st.tuples(numbers, numbers)), max_size=2)
near: dict[str, st.SearchStrategy[Any]] = {
    "caller": names,
    "node": names,
    "sender": names,
    "zone": names,
    "region": names,
    "seconds": st.floats(-1, 4_000) | numbers,
    "sequence": numbers,
    "edges": st.lists(st.tuples(names, rows) | st.tuples(names, rows, rows, attempts), max_size=3),
    "routes": st.lists(st.tuples(names, names, rows) | st.tuples(names, names, rows, rows), max_size=3),
    "unknown": numbers,
}
fields = st.sampled_from(sorted(near)).flatmap(lambda name: st.tuples(st.just(name), near[name] | anything))


def test_garbage_is_refused_and_changes_nothing(shared_registry: Registry) -> None:
    """Whatever stands in a field, whole or in a part of it: taken, or refused whole; never an error of the registry."""
    callers: dict[bool, set[str]] = {True: set(), False: set()}
    before, refused = refused_digests(shared_registry), 0

    @given(fields, st.binary())
    @settings(max_examples=60, deadline=None)
    def fuzz(changed: tuple[str, Any], garbage: bytes) -> None:
        nonlocal refused
        # Callers of their own: one that sends too often is refused for that alone.
        document = digest(f"fuzzed-{next(_sequence)}") | dict([changed])
        status = send(shared_registry, document).status_code
        assert status == 200 or 400 <= status < 500, document
        callers[status == 200].add(str(document["caller"]))
        refused += 1 + (status != 200)
        assert 400 <= shared_registry.client.post("/v1/traffic", content=garbage or b"{").status_code < 500

    fuzz()
    assert refused_digests(shared_registry) == before + refused
    assert min(len(callers[True]), len(callers[False])) > 5
    # What was taken before is listed, and so would be what was taken of those that were refused.
    assert send(shared_registry, digest("fuzzed-last")).status_code == 200
    eventually(lambda: pairs(shared_registry, caller="fuzzed-last") != [], within=10)
    listed = {pair["caller"] for pair in pairs(shared_registry, window="1h")}
    assert listed & callers[True]
    assert listed & (callers[False] - callers[True]) == set()


def test_a_repetition_counts_once(shared_registry: Registry, service: str) -> None:
    """As when the answer to a digest was lost on a connection that the registry closed."""
    document = digest(service)
    assert send(shared_registry, document).status_code == 200
    assert send(shared_registry, document).status_code == 200
    eventually(lambda: pairs(shared_registry, caller=service) != [], within=10)
    assert pairs(shared_registry, caller=service)[0]["requests"] == 240


def test_both_fronts_take_digests_alike(shared_registry: Registry, service: str) -> None:
    """In front of the application, and in its route, which gets every unusual request and what cannot be read."""
    for number, headers in enumerate(({}, {"x-actor": "ann"}, {"x-request-id": "mine"}), start=1):
        answer = send(shared_registry, digest(service), **headers)
        assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (200, {}, "application/json")
        assert answer.headers["x-request-id"]
        eventually(lambda: requests(shared_registry, service) == 240 * number, within=10)  # noqa: B023
        refused = [
            send(shared_registry, digest(service) | {"seconds": 0}, **headers).json() for headers in ({}, headers)
        ]
        for problem in refused:
            problem.pop("request_id", None)
        assert refused[0] == refused[1]


def test_an_envoy_that_sends_too_often_is_told_so(shared_registry: Registry, service: str) -> None:
    """Two Envoys that share a node id are hardly so many; a loop is."""
    statuses = [send(shared_registry, digest(service)).status_code for _ in range(70)]
    assert statuses[0] == 200
    refused = send(shared_registry, digest(service))
    assert 429 in {*statuses, refused.status_code}


def test_processes_answer_for_one_another_and_say_when_they_cannot(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Each process adds up the digests of all; without PostgreSQL it shows its own, and `complete` is false."""
    with registry(database, workplace) as one, registry(database, workplace) as other:
        send(one, digest(service, node="i-1"))
        send(other, digest(service, node="i-2", edges=[["payments", [60, 0, 57]]]))
        for process in (one, other):
            eventually(lambda process=process: requests(process, service) == 300, within=20)  # type: ignore[misc]
            document = process.client.get("/v1/traffic").json()
            assert (document["complete"], document["processes"]) == (True, 2)
            assert document["reporting"][service] == {"reported": 2, "expected": 2}
            assert document["pairs"][0]["success"] == 0.8
            eventually(lambda process=process: f"{service} to payments" in failing(process), within=20)  # type: ignore[misc]
        name = urlsplit(database).path.removeprefix("/")
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        assert send(one, digest(service, node="i-1")).status_code == 200
        eventually(lambda: not one.client.get("/v1/traffic").json()["complete"], within=30)
        assert requests(one, service) >= 240
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        eventually(lambda: one.client.get("/v1/traffic").json()["complete"], within=30)
        eventually(lambda: requests(other, service) == 540, within=20)


def failing(process: Registry) -> str:
    """Return what the verdict says of requests that fail."""
    (finding,) = [
        each for each in process.client.get("/v1/verdict").json()["findings"] if each["id"] == "requests-succeed"
    ]
    return "\n".join(line["text"] for line in finding["lines"])


def requests(process: Registry, caller: str) -> int:
    """Return the requests of a caller in the last hour."""
    return sum(pair["requests"] for pair in pairs(process, caller=caller, window="1h"))


def test_a_forged_caller_is_refused(database: str, workplace: Path) -> None:
    """A registrar reports for the services that it may register, and readers see those that they may read."""
    with registry(database, workplace, auth="on") as process:
        admin = first_token(database)
        shop = new_token(process, admin, "shop", {"verbs": ["register"], "services": ["shop"]})["token"]
        reader = new_token(process, admin, "reader", {"verbs": ["read"], "services": ["payments"]})["token"]
        assert send(process, digest("shop"), **bearer(shop)).status_code == 200
        assert send(process, digest("checkout"), **bearer(shop)).status_code == 403
        assert send(process, digest("shop")).status_code == 401

        def read(token: str, query: str) -> httpx.Response:
            return process.client.get(f"/v1/traffic{query}", headers=bearer(token))

        assert read(shop, "").status_code == 403
        assert read(reader, "?caller=shop").status_code == 403
        eventually(lambda: read(reader, "?callee=payments").json()["pairs"] != [], within=10)
        assert [pair["caller"] for pair in read(reader, "?callee=payments").json()["pairs"]] == ["shop"]
        assert read(reader, "/routes?callee=shop").status_code == 403
        for services, seen in ((["shop"], True), (["payments"], True), (["users"], False)):
            name = f"observes-{services[0]}"
            token = new_token(process, admin, name, {"verbs": ["observe"], "services": services})["token"]
            text = process.client.get("/metrics", headers=bearer(token)).text
            assert ('headcount_traffic_requests_total{caller="shop"' in text) == seen
            assert "registry_traffic_digests_total" in text


def test_a_flood_of_pairs_costs_its_sender_alone_and_is_named(database: str, workplace: Path) -> None:
    """What others report stays; the log names principal and caller once, and the metric counts."""
    with registry(database, workplace, auth="on", traffic_pairs=40) as process:
        admin = first_token(database)
        shop = bearer(new_token(process, admin, "shop", {"verbs": ["register"], "services": ["shop"]})["token"])
        bad = bearer(new_token(process, admin, "bad", {"verbs": ["register"], "services": ["bad*"]})["token"])
        assert send(process, digest("shop"), **shop).status_code == 200
        for number in range(3):
            edges = [[f"invented-{number}-{callee}", [9_000]] for callee in range(30)]
            assert send(process, digest(f"bad-{number}", edges=edges), **bad).status_code == 200

        def read() -> dict[str, Any]:
            document: dict[str, Any] = process.client.get("/v1/traffic", headers=bearer(admin)).json()
            return document

        eventually(lambda: read()["dropped"] >= 50, within=20)
        assert ("shop", "payments") in {(pair["caller"], pair["callee"]) for pair in read()["pairs"]}
        eventually(lambda: "traffic_dropped" in process.log.read_text(), within=20)
        (line,) = (line for line in process.log.read_text().splitlines() if "traffic_dropped" in line)
        assert "token:bad" in line
        assert "token:shop" not in line
        metrics = process.client.get("/metrics", headers=bearer(admin)).text
        assert float(re.search(r"^registry_traffic_dropped_total (\S+)$", metrics, re.MULTILINE)[1]) >= 50  # type: ignore[index]


def test_a_shift_is_judged_by_what_digests_count(shared_registry: Registry, service: str) -> None:
    """The answer to a digest asks for endpoints each two seconds; the group that fails is taken back by itself."""
    old, new = "10.0.0.1:80", "10.0.0.2:80"
    for endpoint, revision in ((old, "a"), (new, "b")):
        shared_registry.register(service, endpoint, ttl=600, revision=revision)
    registryctl(shared_registry.url, "shift", service, "--to", "revision=b", "--steps", "50,100", "--reason", "try")
    caller = f"{service}-front"

    def report(endpoints: list[Any]) -> dict[str, Any]:
        document = digest(caller, callee=service, seconds=2.0)
        document["edges"][0].append(endpoints)
        answered: dict[str, Any] = send(shared_registry, document).json()
        return answered

    eventually(lambda: report([]) == {"interval": 2.0, "endpoints": [service]}, within=10, every=0.5)

    def state_after_errors() -> str:
        report([[old, [100, 0]], [new, [100, 50]]])
        return str(shared_registry.client.get(f"/v1/services/{service}/shift").json()["state"])

    eventually(lambda: state_after_errors() == "aborted", within=20, every=1.0)
    eventually(lambda: report([]) == {}, within=10, every=0.5)


def test_the_command_shows_the_guilty_pair_first(shared_registry: Registry, service: str) -> None:
    """Stat, edges and routes; exit status 1 when nobody reports."""
    url, callee = shared_registry.url, f"{service}-callee"
    assert registryctl(url, "stat", service).status == 1
    assert registryctl(url, "routes", service).status == 1
    for name, failures, timeouts in (("good", 0, 0), ("bad", 120, 7)):
        counts = [240, 0, failures, timeouts, 0, 0, 0, 0, 0, 2, 3]
        routes = [[callee, "refund", [40, 2, failures // 10]]]
        edges = [[callee, counts, [17, 240]]]
        assert send(shared_registry, digest(f"{service}-{name}", edges=edges, routes=routes)).status_code == 200
    for endpoint in ("10.0.0.1:80", "10.0.0.2:80"):
        shared_registry.register(f"{service}-bad", endpoint, ttl=600)
    eventually(lambda: len(registryctl(url, "stat", callee, "-o", "json").json["pairs"]) == 2, within=10)
    said = registryctl(url, "stat", callee)
    head, first, second = (line.split() for line in said.out.splitlines())
    assert (said.status, head[:4]) == (0, ["CALLER", "CALLEE", "SUCCESS", "REQ/S"])
    assert first[:4] == [f"{service}-bad", callee, "50.00", "%"]
    assert first[5:11] == ["11ms", "11ms", "11ms", "7", "2/3", "1/2"]
    assert " ".join(first[11:]) == "113 answered with an error"
    assert second[:4] == [f"{service}-good", callee, "100.00", "%"]
    assert "error" not in second
    assert f"not all Envoys report: {service}-bad 1/2" in said.err
    assert registryctl(url, "stat", f"{service}-bad").out.splitlines()[1].startswith(f"{service}-bad")
    assert [f"{service}-bad", callee] in [line.split()[:2] for line in registryctl(url, "edges").out.splitlines()]
    checked = registryctl(url, "check")
    assert f"{service}-bad to {callee}: 50.0 % of 240 requests failed in the last minute: 113 answered" in checked.out
    assert (f"{service}-good to" in checked.out, "checks.md#requests-succeed" in checked.out) == (False, True)
    routes_said = registryctl(url, "routes", callee)
    assert routes_said.status == 0
    assert routes_said.out.splitlines()[1].split()[:4] == [f"{service}-bad", "refund", "70.00", "%"]


def test_a_registry_of_before_is_told_from_one_without_traffic() -> None:
    """It answers 404, and the command says what to do."""

    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer as a registry does for a path that it does not know."""
            body = b'{"title": "Not Found", "status": 404, "detail": "no such path"}'
            self.send_response(404)
            self.send_header("content-type", "application/problem+json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Old) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        said = registryctl(f"http://127.0.0.1:{server.server_address[1]}", "stat")
        thread.join()
    assert (said.status, "older than they are" in said.err) == (5, True)
