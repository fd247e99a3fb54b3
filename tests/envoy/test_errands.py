"""Errands on a real Envoy, from the operator's question to the registrar's answer."""

import contextlib
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registrar import Registrar, registrar
from harness.registry import Registry
from harness.tapped_envoy import TappedEnvoy, app, tapped_envoy

SECRETS = {
    "Authorization": "Bearer HEADER-SECRET-1",
    "AUTHORIZATION": "Basic HEADER-SECRET-2",
    "cookie": "sid=HEADER-SECRET-3",
    "Cookie": "sid=HEADER-SECRET-4",
    "X-Api-Key": "HEADER-SECRET-5",
    "x-API-kEy": "HEADER-SECRET-6",
    "Proxy-Authorization": "HEADER-SECRET-7",
    "X-Amz-Security-Token": "HEADER-SECRET-8",
    "x-forwarded-client-cert": "HEADER-SECRET-9",
    "Referer": "http://shop/?token=HEADER-SECRET-10",
}
FORBIDDEN = (
    "quitquitquit",
    "drain_listeners",
    "healthcheck/fail",
    "healthcheck/ok",
    "reset_counters",
    "runtime_modify",
    "cpuprofiler",
    "heapprofiler",
    "heap_dump",
    "allocprofiler",
    "reopen_logs",
    "contention",
    "certs",
    "init_dump",
    "stats",
    "memory",
    "hot_restart_version",
    "listeners",
    "server_info",
)


class World:
    """A registry, a registrar and its Envoy."""

    def __init__(self, process: Registry, beside: Registrar, envoy: TappedEnvoy, service: str, endpoint: str) -> None:
        self.registry = process
        self.registrar = beside
        self.envoy = envoy
        self.service = service
        self.endpoint = endpoint
        self.client = httpx.Client(timeout=10, trust_env=False, verify=False)  # of loopback

    def ask(self, verb: str, **arguments: Any) -> httpx.Response:
        """Ask the Envoy."""
        question = {"service": self.service, "arguments": {"verb": verb} | arguments, "reason": "a test"}
        return self.registry.client.post("/v1/errands", json=question)

    def answer(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask the Envoy, and return its answer."""
        return self.wait(self.ask(verb, **arguments))

    def wait(self, asked: httpx.Response) -> dict[str, Any]:
        """Return the result of an errand that was asked."""
        assert asked.status_code == 201, asked.text
        (errand,) = asked.json()["errands"]
        view: dict[str, Any] = {}

        def over() -> bool:
            nonlocal view
            view = self.registry.client.get(f"/v1/errands/{errand['id']}", params={"wait": 20}).json()
            return view["state"] not in ("asked", "collected")

        eventually(over, within=60)
        assert view["state"] == "answered", view
        result: dict[str, Any] = view["result"]
        return result

    def send(self, path: str, *, method: str = "GET", port: int = 0, headers: Mapping[str, str] | None = None) -> None:
        """Send a request through the Envoy."""
        url = f"http://127.0.0.1:{port or self.envoy.listener}{path}"
        self.client.request(method, url, headers=headers)

    def levels(self) -> dict[str, str]:
        """Return the levels of Envoy's loggers."""
        listed = self.client.post(f"http://127.0.0.1:{self.envoy.admin}/logging").text
        return dict(line.strip().split(": ") for line in listed.splitlines() if line.startswith("  "))


@contextlib.contextmanager
def sending(send: Callable[[], None]) -> Iterator[None]:
    """Send requests again and again until the end of the block."""
    stop = threading.Event()

    def keep_sending() -> None:
        while not stop.wait(0.02):
            send()

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


@pytest.fixture(scope="module")
def app_port() -> Iterator[int]:
    """The app behind the Envoy."""
    with app() as port:
        yield port


@pytest.fixture
def other_port() -> Iterator[int]:
    """Another one, for a second registrar: it would take the address over from the first one's service."""
    with app() as port:
        yield port


@pytest.fixture(scope="module")
def envoy(workplace: Path, app_port: int) -> Iterator[TappedEnvoy]:
    """The Envoy."""
    with tapped_envoy(workplace, app_port) as started:
        yield started


@pytest.fixture(scope="module")
def shared_world(
    shared_registry: Registry, tmp_path_factory: pytest.TempPathFactory, envoy: TappedEnvoy, app_port: int
) -> Iterator[World]:
    """A service whose registrar may do everything at the Envoy: starting one costs more than most tests."""
    service = f"service-{uuid.uuid4().hex[:12]}"
    with beside(shared_registry, service, tmp_path_factory.mktemp("errands"), envoy, app_port) as started:
        yield started


@pytest.fixture
def world(shared_world: World, server: Postgres) -> World:
    """The same, which has had no errand in this minute: it gets six."""
    process = shared_world.registry
    server.execute("DELETE FROM errands WHERE service = $1", shared_world.service, url=process.database_url)
    return shared_world


@contextlib.contextmanager
def beside(
    process: Registry, service: str, directory: Path, envoy: TappedEnvoy, app_port: int, **settings: str
) -> Iterator[World]:
    """Run a registrar beside an Envoy until the end of the block."""
    endpoint = f"127.0.0.1:{app_port}"
    chosen: dict[str, Any] = {
        "envoy_admin": f"http://127.0.0.1:{envoy.admin}",
        "errands": "debug",
        "state_directory": str(directory),
        "admin_listen": "off",
        # Of its own: a registrar gets six errands in a minute.
        "instance_id": f"i-{service}",
    } | settings
    with registrar(directory, process.url, service, endpoint, **chosen) as started:
        eventually(lambda: process.statuses(service) == {endpoint: "HEALTHY"}, within=20)
        world = World(process, started, envoy, service, endpoint)
        with contextlib.closing(world.client):
            yield world


def test_an_envoy_is_looked_at_without_secrets_and_cannot_be_stopped(world: World) -> None:
    """Clusters, and sections of the configuration with what may be secret cut; every forbidden path is refused."""
    listed = world.answer("clusters")["clusters"]
    assert listed["clusters"] == [{"name": "payments", "hosts": 1, "healthy": 1}]
    (host,) = world.answer("clusters", cluster="payments")["clusters"]["hosts"]
    assert (host["address"], host["health"]) == (world.endpoint, "HEALTHY")
    routes = world.answer("config", section="routes")["config"]
    assert "ROUTE-SECRET" not in json.dumps(routes)
    assert routes["cut"] >= 2
    assert "request_headers_to_add" in json.dumps(routes)
    bootstrap = json.dumps(world.answer("config", section="bootstrap"))
    assert "SECRET" not in bootstrap
    assert "payments" in bootstrap
    (listener,) = world.answer("config", section="listeners", name="egress")["config"]["resources"]
    assert listener["listener"]["name"] == "egress"
    # What may stop an Envoy cannot be asked for: neither as a verb nor as the value of an argument.
    for path in FORBIDDEN:
        for verb in (path, f"/{path}", f"clusters/../{path}"):
            assert world.ask(verb).status_code == 422, verb
    for argument in ({"loggers": {"http&level": "off"}}, {"loggers": {"http": "debug&x=/quitquitquit"}}):
        assert world.ask("log-level", **argument).status_code == 422
    assert world.ask("config", section="secrets").status_code == 422
    assert world.ask("tap", path="/x\r\nPOST /quitquitquit HTTP/1.1").status_code == 422
    assert world.ask("tap", method="GET /quitquitquit").status_code == 422
    # Where any text is allowed, it is a value and no path.
    text = "../quitquitquit?x&y#z HTTP/1.1\\r\\nPOST /quitquitquit"
    assert world.answer("config", section="clusters", name=text)["outcome"] == "refused"
    assert world.envoy.live()


def test_taps_show_what_was_asked_for_and_no_secret(  # the rooms of one registrar, whose start costs most
    world: World,
) -> None:
    """Only 5xx of the inbound listener, what a caller sends, and sums: of allowed headers, and paths without query."""

    def send() -> None:
        for header, value in SECRETS.items():
            world.send(
                f"/bad/a;jsessionid=PATH-SECRET?token=QUERY-SECRET-{header}", method="POST", headers={header: value}
            )
        world.send("/good")
        world.send("/bad/outbound", port=world.envoy.outbound)

    with sending(send):
        result = world.answer("tap", status="5xx", max_traces=10, seconds=5, percent=100, all_requests=True)
    tap = result["tap"]
    assert tap["config_id"] == "shop"
    assert len(tap["traces"]) == 10
    assert {trace["path"] for trace in tap["traces"]} == {"/bad/a"}
    (first, *_) = tap["traces"]
    assert first.keys() <= {
        "method", "path", "authority", "status", "request_id", "content_type", "user_agent", "upstream_milliseconds",
    }  # fmt: skip
    assert (first["method"], first["status"], first["content_type"]) == ("POST", "500", "application/json")
    events = world.registry.client.get("/v1/events", params={"service": world.service}).text
    assert "SECRET" not in json.dumps(tap) + events + world.registrar.log.read_text()
    assert "tap for 5 s, 100 % of requests, status 5xx: a test" in events
    # The Envoys of a caller look at their outbound listener, for the callee's name in Host.
    callee = f"{world.service}-callee"
    world.registry.register(callee, "10.0.0.9:80", ttl=600)
    asked = world.registry.client.post(
        "/v1/errands",
        json={
            "service": callee,
            "arguments": {
                "verb": "tap",
                "caller": world.service,
                "seconds": 5,
                "max_traces": 3,
                "percent": 100,
                "all_requests": True,
            },
        },
    )

    def send_as_caller() -> None:
        world.send("/work", port=world.envoy.outbound, headers={"host": f"{callee}:80"})
        world.send("/other", port=world.envoy.outbound, headers={"host": "other"})
        world.send("/inbound", headers={"host": callee})

    with sending(send_as_caller):
        tap = world.wait(asked)["tap"]
    assert tap["config_id"] == "egress"
    assert [trace["path"] for trace in tap["traces"]] == ["/work"] * 3
    events = world.registry.client.get("/v1/events", params={"service": world.service}).text
    assert f"to {callee}" in events
    # Two paths with ids are one row of top; one tap after the other goes on past 50 requests.
    numbers = iter(range(10_000))

    def send_ids() -> None:
        world.send(f"/users/{next(numbers)}/cart?token=QUERY-SECRET")
        world.send("/bad/users")

    with sending(send_ids):
        top = world.answer("top", seconds=3, all_requests=True, percent=100)["top"]
    rows = {row["path"]: row for row in top["rows"]}
    assert rows.keys() == {"/users/{id}/cart", "/bad/users"}
    assert rows["/bad/users"]["failures"] == rows["/bad/users"]["requests"] > 1
    assert "failures" not in rows["/users/{id}/cart"]


def test_what_an_envoy_cannot_do_is_said_so(
    world: World, shared_registry: Registry, service: str, tmp_path: Path, other_port: int
) -> None:
    """Another tap that runs, a missing filter with the lines that the listeners lack, and an Envoy that hangs.

    Its registrar is stopped at the end, while a log level is to go back later.
    """
    body = {
        "config_id": "shop",
        "tap_config": {"match": {"any_match": True}, "output_config": {"sinks": [{"streaming_admin": {}}]}},
    }
    url = f"http://127.0.0.1:{world.envoy.admin}/tap"
    with world.client.stream("POST", url, json=body):
        assert "another tap runs on this Envoy" in world.answer("tap", seconds=1)["detail"]
    assert "it has egress, shop" in world.answer("tap", seconds=1, config_id="nothing")["detail"]
    bare = tmp_path / "bare"
    bare.mkdir()
    with (
        tapped_envoy(bare, other_port, filters=False) as envoy,
        beside(shared_registry, f"{service}-bare", bare, envoy, other_port) as other,
    ):
        result = other.answer("tap", seconds=1)
        assert result["outcome"] == "refused"
        assert '"common_config": {"admin_config": {"config_id": "NAME"}}' in result["detail"]
        # An Envoy that hangs: its registrar says so, and goes on renewing; after it the next errand is done.
        os.kill(envoy.pid, signal.SIGSTOP)
        try:
            result = other.answer("clusters")
        finally:
            os.kill(envoy.pid, signal.SIGCONT)
        assert result["outcome"] == "failed"
        assert "no complete answer within 5s" in result["detail"]
        assert shared_registry.statuses(other.service) == {other.endpoint: "HEALTHY"}
        assert other.answer("clusters")["outcome"] == "done"
        # A registrar that is stopped puts the levels back before it ends.
        before = other.levels()
        other.answer("log-level", loggers={"http": "debug"}, seconds=600)
        assert other.levels() != before
        other.registrar.send(signal.SIGTERM)
        other.registrar.process.wait(30)
        assert other.levels() == before


def test_a_log_level_goes_back_by_itself(world: World) -> None:
    """After its time, to what Envoy had listed before; an unknown logger is refused with those that there are."""
    before = world.levels()
    set_at = world.answer("log-level", loggers={"http": "debug", "router": "trace"}, seconds=1)
    assert set_at["outcome"] == "done", set_at
    assert set_at["log_level"]["before"] == {"http": before["http"], "router": before["router"]}
    eventually(lambda: world.levels() == before, within=20)
    assert "has no logger nothing" in world.answer("log-level", loggers={"nothing": "debug"})["detail"]


def test_a_log_level_goes_back_after_kill_minus_nine(
    shared_registry: Registry, service: str, tmp_path: Path, envoy: TappedEnvoy, other_port: int
) -> None:
    """What has to go back is on disk; the next registrar does it, when its time is over."""
    with beside(shared_registry, service, tmp_path, envoy, other_port) as world:
        before = world.levels()
        world.answer("log-level", loggers={"http": "debug"}, seconds=1800)
        world.registrar.kill()
        assert world.levels()["http"] == "debug"
    # As if the half hour had passed.
    (kept,) = tmp_path.glob("log-level-*")
    state = json.loads(kept.read_text())
    state["loggers"]["http"]["until"] = 0
    kept.write_text(json.dumps(state))
    with beside(shared_registry, service, tmp_path, envoy, other_port, errands="read") as world:
        eventually(lambda: world.levels() == before, within=20)
        eventually(lambda: not kept.exists())
        # Whatever the registry allows, this one may read alone, and says which setting it is.
        assert world.answer("clusters")["outcome"] == "done"
        refused = {"outcome": "refused", "detail": "REGISTRAR_ERRANDS is read here, and tap needs debug"}
        assert world.answer("tap") == refused
        said = registryctl(shared_registry.url, "tap", service).err
        assert ("REGISTRAR_ERRANDS is read here" in said, "--caller" in said) == (True, False)


def test_the_operators_command_shows_what_envoys_answer(world: World) -> None:
    """Each verb as a person sees it, with the reason in the history; exit status 1 when no Envoy answered."""
    url, service, endpoint = world.registry.url, world.service, world.endpoint
    said = registryctl(url, "envoy", "clusters", endpoint, "payments")
    assert [line.split()[:2] for line in said.out.splitlines()] == [["ENDPOINT", "HEALTH"], [endpoint, "HEALTHY"]], said
    config = registryctl(url, "envoy", "config", endpoint, "--section", "routes")
    assert {each["route_config"]["name"] for each in config.json} == {"shop", "egress"}
    assert "values are cut by the registrar" in config.err
    changed = registryctl(url, "log-level", service, "http=debug", "--for", "1s", "--reason", "look closer")
    assert f"{service} {endpoint}: http warning > debug; goes back in 1 s" in changed.out.replace("→", ">")
    with sending(lambda: world.send("/bad/a?token=QUERY-SECRET")):
        tapped = registryctl(url, "tap", service, "--status", "5xx", "--for", "3s", "--max", "2", "--all-requests")
        topped = registryctl(url, "top", service, "--for", "1s", "--all-requests", "-o", "json")
    assert [line.split()[:3] for line in tapped.out.splitlines()[1:3]] == [["GET", "/bad/a", "500"]] * 2, tapped
    assert "2 requests seen at an Envoy" in tapped.out
    assert topped.json["errands"][0]["result"]["top"]["rows"][0]["path"] == "/bad/a"
    assert "QUERY-SECRET" not in tapped.out + topped.out
    history = registryctl(url, "events", service).out
    assert "log-level http=debug for 1 s: look closer" in history
    page = world.registry.client.get(f"/ui/events?service={service}").text
    assert "look closer" in page
    # The sixth of this minute.
    nothing = registryctl(url, "tap", service, "--for", "1s", "--percent", "10")
    assert (nothing.status, "fits; --all-requests looks at every request" in nothing.err) == (0, True)
    refused = registryctl(url, "tap", service)
    assert (refused.status, "had its 6 errands of this minute" in refused.err) == (4, True)
