"""Shifts of traffic, from the command to what Envoys are served, against a real PostgreSQL."""

import gzip
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

OLD, OTHER, NEW = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


def populated(process: Registry, service: str) -> None:
    """Register two endpoints of a revision and one of the next."""
    for endpoint, revision in ((OLD, "a"), (OTHER, "a"), (NEW, "b")):
        process.register(service, endpoint, ttl=600, revision=revision)


def weights(process: Registry, service: str) -> dict[str, object]:
    """Return the weight of each endpoint as v3 EDS publishes it, or its status where it is not HEALTHY."""
    resources = process.poll(service).json()["resources"]
    return {
        "{address}:{port_value}".format(**member["endpoint"]["address"]["socket_address"]): member.get(
            "load_balancing_weight"
        )
        if member["health_status"] == "HEALTHY"
        else member["health_status"]
        for locality in resources[0]["endpoints"]
        for member in locality["lb_endpoints"]
    }


def kinds(process: Registry, service: str) -> list[str]:
    """Return the kinds of a shift's events, the newest first."""
    events = process.client.get("/v1/events", params={"service": service}).json()["events"]
    return [event["kind"] for event in events if event["kind"].startswith("shift_")]


def test_a_shift_is_begun_paused_resumed_and_aborted(shared_registry: Registry, service: str) -> None:
    """By the command; EDS, the history, the explanation and the page follow."""
    populated(shared_registry, service)
    url = shared_registry.url
    said = registryctl(url, "shift", service, "--to", "revision=b", "--steps", "10,50,100", "--reason", "release b")
    lines = said.out.splitlines()
    assert (said.status, lines[0]) == (
        0,
        f"{service} to revision=b: running at 10 %, step 1 of 3 (10, 50, 100 %, each for 5m)",
    )
    assert weights(shared_registry, service) == {OLD: 450_000, OTHER: 450_000, NEW: 100_000}
    explained = registryctl(url, "explain", service, NEW).out
    assert "its group revision=b gets 10 % of the requests (ann from 127.0.0.1: shift running: " in explained
    version = shared_registry.client.get(f"/v1/services/{service}").json()["version"]
    assert "paused at 10 %" in registryctl(url, "shift", service, "--pause", "--reason", "lunch").out
    # No weight changes, so Envoys are served nothing new.
    assert shared_registry.client.get(f"/v1/services/{service}").json()["version"] == version
    assert "running at 10 %" in registryctl(url, "shift", service, "--resume").out
    aborted = registryctl(url, "shift", service, "--abort", "--reason", "bad", "--wait")
    assert (aborted.status, aborted.out) == (1, "0 %  aborted  aborted at 10 %: bad\n")
    assert weights(shared_registry, service) == {OLD: 500_000, OTHER: 500_000, NEW: "DRAINING"}
    assert kinds(shared_registry, service) == ["shift_aborted", "shift_resumed", "shift_paused", "shift_started"]
    assert f"{service}  revision=b" in registryctl(url, "shift").out


def test_a_promoted_shift_has_all_requests_and_exit_status_0(shared_registry: Registry, service: str) -> None:
    """A deploy pipeline waits for it; the other revision is drained, and the last shares stay."""
    populated(shared_registry, service)
    registryctl(shared_registry.url, "shift", service, "--to", "revision=b", "--steps", "5,100")
    waited = registryctl(shared_registry.url, "shift", service, "--wait", "--for", "100ms")
    assert (waited.status, "the shift is running" in waited.err) == (6, True)
    promoted = registryctl(shared_registry.url, "shift", service, "--promote", "--wait")
    assert (promoted.status, promoted.out) == (0, "100 %  done  promoted from 5 to 100 %\n")
    assert weights(shared_registry, service) == {OLD: "DRAINING", OTHER: "DRAINING", NEW: 1_000_000}
    again = registryctl(shared_registry.url, "share", service, "--clear")
    assert again.status == 0


def test_without_figures_a_shift_holds_and_says_so(shared_registry: Registry, service: str) -> None:
    """Although each of its steps takes a second: nobody knows how its group does."""
    populated(shared_registry, service)
    registryctl(
        shared_registry.url, "shift", service, "--to", "revision=b", "--every", "1s", "--min-requests", "0", "-r", "x"
    )
    url = f"/v1/services/{service}/shift"
    eventually(lambda: shared_registry.client.get(url).json()["held"].startswith("no Envoy reports traffic to the"))
    shift = shared_registry.client.get(url).json()
    assert (shift["state"], shift["step"], shift["waited"]) == ("running", 1, 0.0)
    assert "holds: no Envoy reports" in registryctl(shared_registry.url, "shift", service).out
    registryctl(shared_registry.url, "shift", service, "--abort")


def test_the_share_that_is_served_is_shown_beside_that_of_the_shift(
    shared_registry: Registry, service: str, server: Postgres
) -> None:
    """Another hand may have set it; and a pipeline that waits ends when the registry has forgotten the service."""
    populated(shared_registry, service)
    url, database = shared_registry.url, shared_registry.database_url
    registryctl(url, "shift", service, "--to", "revision=b", "--steps", "10,50")
    assert registryctl(url, "shift", service, "--for", "1s").status == 2
    registryctl(url, "shift", service, "--pause")
    path = f"/v1/services/{service}/shift"
    assert shared_registry.client.get(path).json()["served_percent"] == 10.0
    by_bob = (
        "UPDATE services SET shares = replace(replace(shares, '\"percent\":10.0', '\"percent\":90.0'), 'ann', 'bob'),"
        f" version = version + 1, change = change + 1 WHERE name = '{service}'"
        " RETURNING pg_notify('headcount_changes', name || ' ' || change)"
    )
    server.execute(by_bob, url=database)
    eventually(lambda: shared_registry.client.get(path).json()["served_percent"] == 90.0)
    words = "revision=b is served 90 % now, set by bob from 127.0.0.1; --resume sets 10 % again"
    assert words in registryctl(url, "shift", service).out
    assert words in registryctl(url, "shift").out
    assert f"; {words}\n" in registryctl(url, "shift", service, "--wait", "--for", "100ms").out
    server.execute(
        """UPDATE shifts SET shift = replace(shift, '"changed_by":"ann from 127.0.0.1"', '"changed_by":"registry"')"""
        f" WHERE service = '{service}'",
        url=database,
    )
    paused = f"{service}: the shift to revision=b was paused "
    eventually(lambda: paused in registryctl(url, "check").out)
    registryctl(url, "shift", service, "--promote")
    registryctl(url, "share", service, "--clear")
    assert "revision=b is served no share of its own now" in registryctl(url, "shift", service).out
    assert paused not in registryctl(url, "check").out
    with ThreadPoolExecutor(1) as pipeline:
        waiting = pipeline.submit(registryctl, url, "shift", service, "--to", "revision=b", "--wait")
        forget = f"DELETE FROM shifts WHERE service = '{service}' AND state = 'running' RETURNING service"
        eventually(lambda: bool(server.execute(forget, url=database)))
        assert (waiting.result().status, "the shift is gone: " in waiting.result().err) == (1, True)


Answers = list[tuple[int, dict[str, str], bytes]]
_HTML = {"content-type": "text/html"}
_JSON = {"content-type": "application/json"}
_PACKED = gzip.compress(b'{"service":"shop"}' * 100)
NO_REGISTRY: Answers = [
    (200, _HTML, b"<html>please sign in</html>"),
    (200, _JSON, b'{"service":"shop","sta'),
    (200, _JSON | {"content-encoding": "gzip"}, b"no gzip" + _PACKED),
    (302, {"location": "https://portal.invalid/"}, b""),
    (401, _HTML, b"<html>who are you</html>"),
    (404, _HTML, b"<html>no such target group</html>"),
    (429, _HTML, b"<html>slow down</html>"),
    (502, _HTML, b"<html>bad gateway</html>"),
    (200, _JSON, b""),
    (200, _JSON, b"null"),
    (200, _JSON, b'{"service":"\xff"}'),
    (200, _JSON, b"[]"),
    (200, _JSON, b'{"status":"ok"}'),
    (200, _JSON, b'{"service":"shop","state":"done"}'),
    (200, _JSON, b'{"service":"other","to":"a=b","state":"aborted","percent":0,"started_at":1,"held":"","reason":""}'),
    (404, {"content-type": "application/problem+json"}, b'{"title":"Not found","status":404,"detail":"no upstream"}'),
    (204, {}, b""),
]
"""What stands in front of a registry may answer with for a while."""


@contextmanager
def in_front(answers: Answers, last: bytes) -> Iterator[str]:
    """Answer requests with one of ``answers`` after the other, and then with a document; yield the URL."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, body = left.pop(0) if left else (200, _JSON | {"date": "no date"}, last)
            self.send_response_only(status)
            for name, value in (headers | {"content-length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # as http.server names it

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as front:
        serving = Thread(target=front.serve_forever, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{front.server_address[1]}"
        front.shutdown()


def test_a_pipeline_takes_no_answer_of_a_proxy_for_that_of_a_registry(
    shared_registry: Registry, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it begins with is unknown (5); later it asks again, says so once for each reason, and sees the end."""
    monkeypatch.setattr("registryctl.shifts.POLL_INTERVAL", 0.01)
    populated(shared_registry, service)
    registryctl(shared_registry.url, "shift", service, "--to", "revision=b", "--steps", "10,50")
    path = f"/v1/services/{service}/shift"
    running = shared_registry.client.get(path).content
    registryctl(shared_registry.url, "shift", service, "--promote")
    done = shared_registry.client.get(path).content
    for answer in NO_REGISTRY:
        with in_front([answer], done) as url:
            said = registryctl(url, "shift", service, "--wait")
        assert said.status == 5, (answer, said)
        assert said.err
    often = [answer for answer in NO_REGISTRY for _ in range(3)]
    with in_front([(200, _JSON, running), *often], done) as url:
        said = registryctl(url, "shift", service, "--wait", "--for", "1m")
    assert said.status == 0, said
    assert said.err.count("asked again: ") == len(NO_REGISTRY)
    assert [line.split("  ")[1] for line in said.out.splitlines()] == ["running", "done"]
    with in_front([(200, _HTML, b"<html>")], done) as url:
        assert registryctl(url, "share", service).status == 5


def test_an_answer_of_another_program_is_no_defect_and_no_answer() -> None:
    """The command says so, and its exit status is that of a registry that does not answer."""
    verbs = (
        ("shift",),
        ("shift", "shop", "-o", "json"),
        ("stat",),
        ("edges", "-o", "json"),
        ("routes", "shop"),
        ("tap", "shop"),
        ("services",),
        ("events", "-o", "json"),
        ("expiry",),
    )
    for body in (b"", b"[]", b'{"status":"ok"}', b'{"state":"done","pairs":7,"errands":7,"events":{}}'):
        with in_front([], body) as url:
            for words in verbs:
                said = registryctl(url, *words)
                assert (said.status, said.err[:13]) == (5, "registryctl: "), (words, body, said)


def test_who_follows_a_roll_out_asks_again_as_well(shared_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it begins with is unknown (5); later it asks again, says so once for each reason, and not for ever."""
    monkeypatch.setattr("registryctl.mesh.rollout_view.POLL_INTERVAL", 0.01)
    done = shared_registry.client.get("/v1/mesh/rollout").content
    rollout = {
        "node_cluster": "web",
        "share": 0.0,
        "revision": 2,
        "state": "waiting",
        "reason": "",
        "step": 1,
        "steps": [1, 2],
        "deadline": None,
        "waited": 1.0,
        "awaited": [],
        "awaited_count": 0,
        "left_behind": [],
    }
    waiting = msgspec.json.encode({**msgspec.json.decode(done), "rollouts": [rollout]})
    with in_front(NO_REGISTRY[:1], done) as url:
        assert registryctl(url, "mesh", "rollout", "--watch").status == 5
    often = [answer for answer in NO_REGISTRY for _ in range(3)]
    with in_front([(200, _JSON, waiting), *often], done) as url:
        said = registryctl(url, "mesh", "rollout", "--watch")
    assert said.status == 0, said
    assert said.err.count("asked again: ") >= len(NO_REGISTRY) - 3  # the same words for three of them
    assert said.out.splitlines()[:2] == ["web: 1 of 2: add clusters, waiting", "web: done"]
    monkeypatch.setattr("registryctl.mesh.rollout_view.MAX_OUTAGE", 0.0)
    with in_front([(200, _JSON, waiting), *often], done) as url:
        assert registryctl(url, "mesh", "rollout", "--watch").status == 5


def test_who_waits_hears_that_postgresql_does_not_answer(
    shared_registry: Registry, service: str, server: Postgres
) -> None:
    """Before the command gives up, of reads and of changes; a change may be stored all the same, and it says so."""
    populated(shared_registry, service)
    url, database = shared_registry.url, shared_registry.database_url
    registryctl(url, "shift", service, "--to", "revision=b", "--steps", "10,50")
    late = "PostgreSQL has not answered within 1 s: it hangs, or another session holds a lock"
    perhaps = "The change may be stored all the same: look before you repeat it"
    orders = (
        ("shift", service, "--pause"),
        ("drain", service, NEW, "-r", "x"),
        ("drain", service, OLD, NEW, "-r", "x"),
        ("expect", service, "2", "-r", "x"),
    )
    with (
        server.holding("SELECT 1 FROM services WHERE name = $1 FOR UPDATE", service, url=database),
        server.holding("LOCK events IN ACCESS EXCLUSIVE MODE", url=database),
    ):
        for order in orders:
            said = registryctl(url, "--timeout", "2s", *order)
            assert (said.status, late in said.err, perhaps in said.err) == (5, True, True), said
        said = registryctl(url, "--timeout", "2s", "events", service)
        assert (said.status, late in said.err, perhaps in said.err) == (5, True, False), said
    assert "paused at 10 %" in registryctl(url, "shift", service, "--pause").out
    assert registryctl(url, "shift", service, "--abort").status == 0


def test_what_means_nothing_or_comes_second_is_refused(shared_registry: Registry, service: str) -> None:
    """With what is allowed and what to do, and nothing changes."""
    populated(shared_registry, service)
    post, url = shared_registry.client.post, f"/v1/services/{service}/shift"
    assert shared_registry.client.get(url).status_code == 404
    for steps, words in (([50, 25], "each step is greater"), ([50, 101], "has to be at most 100"), ([], "$.steps")):
        refused = post(url, json={"to": "revision=b", "steps": steps})
        assert refused.status_code == 422
        assert words in refused.text
    nothing = post(url, json={"to": "revision=c", "steps": [5]})
    assert (nothing.status_code, "fits no endpoint" in nothing.text) == (422, True)
    # zone= fits all of them: there is nothing to go back to.
    for endpoint in (OLD, OTHER, NEW):
        shared_registry.register(service, endpoint, ttl=600, zone="a", revision="a" if endpoint != NEW else "b")
    alone = post(url, json={"to": "zone=a", "steps": [5]})
    assert (alone.status_code, "needs others to go back to" in alone.text) == (409, True)
    assert post("/v1/services/nobody-knows/shift", json={"to": "a=b", "steps": [5]}).status_code == 404
    assert post(f"{url}/abort").status_code == 404
    assert weights(shared_registry, service) == {OLD: None, OTHER: None, NEW: None}
    assert post(url, json={"to": "revision=b", "steps": [5]}).status_code == 200
    second = registryctl(shared_registry.url, "shift", service, "--to", "revision=b")
    assert (second.status, "abort or promote it first" in second.err) == (4, True)
    by_hand = registryctl(shared_registry.url, "share", service, "revision=b=50")
    assert (by_hand.status, "a shift to revision=b sets the shares" in by_hand.err) == (4, True)
    assert registryctl(shared_registry.url, "share", service, "--clear").status == 4
    assert registryctl(shared_registry.url, "shift", service, "--to", "revision=b", "--abort").status == 2
    assert registryctl(shared_registry.url, "shift", service, "--to", "a=b", "--steps", "five").status == 2
    assert weights(shared_registry, service) == {OLD: 475_000, OTHER: 475_000, NEW: 50_000}


@pytest.mark.proof
def test_a_shift_goes_on_when_its_leader_is_killed(database: str, workplace: Path, service: str) -> None:
    """Another process looks at it within seconds, from what the first one has stored, and ends it."""
    with registry(database, workplace) as first, registry(database, workplace) as second:
        populated(first, service)
        eventually(lambda: _leads(first) or _leads(second), within=30)
        leader, other = (first, second) if _leads(first) else (second, first)
        plan = {"to": "revision=b", "steps": [10, 100], "every": 4, "min_requests": 20}
        other.client.post(f"/v1/services/{service}/shift", json=plan).raise_for_status()
        url = f"/v1/services/{service}/shift"

        def reported(state: str, step: int) -> bool:
            edge = [service, [100], [], [[OLD, [50, 0]], [OTHER, [40, 0]], [NEW, [10, 0]]]]
            digest = {"caller": "web", "node": "i-1", "seconds": 1.0, "sequence": time.monotonic_ns(), "edges": [edge]}
            other.client.post("/v1/traffic", json=digest).raise_for_status()
            shift = other.client.get(url).json()
            return (shift["state"], shift["step"]) == (state, step)

        eventually(lambda: reported("running", 2), within=60, every=0.5)
        leader.process.send_signal(signal.SIGKILL)
        leader.process.wait(5)
        eventually(lambda: reported("done", 2), within=60, every=0.5)
        assert weights(other, service) == {OLD: "DRAINING", OTHER: "DRAINING", NEW: 1_000_000}
        assert kinds(other, service) == ["shift_done", "shift_step", "shift_started"]


def _leads(process: Registry) -> bool:
    return "registry_sweep_leader 1.0" in process.client.get("/metrics").text
