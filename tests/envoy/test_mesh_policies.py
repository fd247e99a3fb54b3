"""Policies of a dependency on a real Envoy, which is served what they compile to."""

import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.envoy import Envoy
from harness.grpc_call import grpc_call
from harness.mesh_app import NAME_HEADER, MeshApp, grpc_app, mesh_app
from harness.mesh_envoy import envoy_of
from harness.mesh_server import MeshServer, Place, lb_endpoint, mesh_server
from harness.no_tls import NO_TLS
from harness.probing import Authority
from harness.process import eventually, free_port
from harness.websocket import RefusedHandshakeError, Websocket

from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.fault_injection import Abort, Delay, FaultInjection, OnlyHeader
from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.limit import Limit
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.sticky import Sticky
from meshconfig.definition.tls import Tls
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh

pytestmark = pytest.mark.envoy

RETRY = Retry(per_try_timeout=0.3)


def version(value: str | bool, key: str = "revision") -> Route:
    """Return a route to a version, for requests that name it."""
    header = HeaderMatch(name="x-version", exact=str(value))
    return Route(prefix="/", headers=(header,), version={key: value}, retry=RETRY)


def dependencies(tls: dict[str, int], ca: Path) -> Iterator[Dependency]:
    """Yield dependencies that use every policy whose effect can be seen in requests."""
    everything = Route(prefix="/", retry=RETRY)
    yield Dependency(
        name="user",
        service="user",
        host_header="user-service",
        headers=HeaderChanges(set={"x-set": "50%"}, add={"x-added": "ours"}, remove=("x-secret",)),
        routes=(
            Route(path="/ping", timeout=0.1, retry=None, rewrite=Rewrite(path="/hang")),
            Route(prefix="/api", rewrite=Rewrite(prefix="/")),
            everything,
        ),
    )
    canary = Route(prefix="/", cookie={"canary": "1"}, version={"canary": True}, retry=RETRY)
    yield Dependency(
        name="shop",
        service="shop",
        routes=(version("b"), version("sick"), version("gone"), canary, everything),
    )
    only = OnlyHeader(header="x-user", value="jason")
    fault = FaultInjection(abort=Abort(status=418), delay=Delay(time=0.2), only=only)
    yield Dependency(name="faulty", service="user", cluster="faulty", routes=(Route(prefix="/", fault=fault),))
    yield Dependency(name="divided", service="old", routes=(Route(prefix="/", split={"old": 50, "new": 50}),))
    shadowed = Route(prefix="/", shadow=Shadow(service="new"), retry=RETRY)
    dead = Route(prefix="/", shadow=Shadow(service="dead"), retry=RETRY)
    yield Dependency(name="shadowed", service="old", cluster="shadowed", routes=(shadowed,))
    yield Dependency(name="dead-shadow", service="old", cluster="dead-shadow", routes=(dead,))
    by_header = Sticky(by="header", name="x-user")
    yield Dependency(name="sticky", service="user", cluster="sticky", sticky=by_header, routes=(everything,))
    strict = Sticky(by="cookie", name="session", strict=True)
    yield Dependency(name="strict", service="user", cluster="strict", sticky=strict, routes=(everything,))
    websockets = Route(prefix="/", upgrade=("websocket",), timeout=0.5, retry=RETRY)
    waiting = Route(prefix="/quiet", upgrade=("websocket",), idle_timeout=0.5)
    routes = (Route(prefix="/plain", retry=None), waiting, websockets)
    limit = Limit(connections_per_endpoint=None)
    yield Dependency(name="live", service="live", upgrade=("websocket",), limit=limit, keep_alive=0.3, routes=routes)
    yield Dependency(name="rpc", service="rpc", protocol="grpc", routes=(Route(prefix="/", timeout=1, retry=None),))
    verified = Tls(ca_file=str(ca))
    for name, policy in {
        "right": verified,
        "wrong-name": Tls(ca_file=str(ca), server_name="other.example"),
        "self-signed": verified,
        "unverified": Tls(verify=False),
    }.items():
        address = f"localhost:{tls['self-signed' if name == 'unverified' else name]}"
        yield Dependency(name=name, address=address, tls=policy, routes=(Route(prefix="/", retry=None),))


@dataclass
class Stage:
    """A caller's Envoy, and the apps behind it."""

    envoy: Envoy
    registry: MeshServer
    apps: dict[str, MeshApp]
    client: httpx.Client

    def get(self, host: str, path: str = "/", **headers: str) -> httpx.Response:
        """Send a GET to a dependency; a header's name has a low line for each hyphen."""
        return self.send("GET", host, path, **headers)

    def send(self, method: str, host: str, path: str = "/", **headers: str) -> httpx.Response:
        """Send a request to a dependency."""
        fields = {"host": host, **{key.replace("_", "-"): value for key, value in headers.items()}}
        self.client.cookies.clear()
        return self.client.request(method, f"http://127.0.0.1:{self.envoy.listener}{path}", headers=fields)

    def serve(self, **places: list[Place]) -> None:
        """Let the registry serve these endpoints of services."""
        self.registry.ports = {**self.registry.ports, **places}
        self.registry.version += 1

    def asked(self, path: str) -> list[str]:
        """Return the names of the apps that were asked for a path, as often as they were."""
        return [app.name for app in self.apps.values() for _ in range(app.count(path))]


def context(pair: Path) -> ssl.SSLContext:
    """Return the TLS of an app."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair)
    return made


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run apps, a management server, and a caller's Envoy by its generated bootstrap."""
    directory = tmp_path_factory.mktemp("policies")
    authority, stranger = Authority(directory / "ca"), Authority(directory / "stranger")
    trusted, foreign = context(authority.issue("localhost")), context(stranger.issue("localhost"))
    with contextlib.ExitStack() as stack:
        apps = {name: stack.enter_context(mesh_app(name)) for name in ("a", "b", "c", "old", "new")}
        apps["right"] = apps["wrong-name"] = stack.enter_context(mesh_app("tls", trusted))
        apps["self-signed"] = stack.enter_context(mesh_app("foreign", foreign))
        apps["rpc"] = stack.enter_context(grpc_app("rpc"))
        tls = {name: apps[name].port for name in ("right", "wrong-name", "self-signed")}
        registry_port = free_port()
        mesh = Mesh(
            registry=RegistryClient(addresses=(f"127.0.0.1:{registry_port}",)),
            egress=Listen(port=free_port()),
            admin=Admin(port=free_port()),
            internal_ranges=("127.0.0.2",),
        )
        targets = tuple(Dependency(name=name, service=name) for name in ("new", "dead"))
        caller = Caller("web", tuple(dependencies(tls, authority.ca)), targets)
        configuration = Configuration(mesh, {"web": caller})
        versions = [
            lb_endpoint(apps["a"].port, metadata=metadata(revision="a", canary=False)),
            lb_endpoint(apps["b"].port, metadata=metadata(revision="b", canary=True)),
            lb_endpoint(apps["c"].port, metadata=metadata(revision="sick"), health_status="UNHEALTHY"),
        ]
        ports: dict[str, list[Place]] = {
            "user": [apps["a"].port, apps["b"].port, apps["c"].port],
            "shop": [*versions],
            "old": [apps["old"].port],
            "new": [apps["new"].port],
            "dead": [free_port()],
            "rpc": [apps["rpc"].port],
            "live": [apps["a"].port, apps["b"].port],
        }
        served = mesh_server(compile_mesh(configuration, Catalog()), ports, registry_port)
        registry = stack.enter_context(served)
        envoy = stack.enter_context(envoy_of(directory, configuration, "web"))
        client = stack.enter_context(httpx.Client(trust_env=False, verify=NO_TLS, timeout=5))
        running = Stage(envoy, registry, apps, client)
        for host in ("user", "shop", "divided", "shadowed", "sticky", "strict", "right"):
            eventually(partial(ready, running, host), said=envoy.log.read_text)
        yield running
        log = envoy.log.read_text()
        assert "deprecated" not in log
        assert "[error]" not in log


def ready(stage: Stage, host: str) -> bool:
    """Tell whether requests to a dependency are answered by an app."""
    with contextlib.suppress(httpx.TransportError):
        return NAME_HEADER in stage.get(host, "/ready").headers
    return False


def metadata(**values: str | bool) -> dict[str, Any]:
    """Return metadata of an endpoint, as the registry serves it."""
    return {"filter_metadata": {"envoy.lb": values}}


def seconds(send: Callable[[], httpx.Response]) -> tuple[float, httpx.Response]:
    """Return how long a response takes, and the response."""
    begins = time.monotonic()
    response = send()
    return time.monotonic() - begins, response


def test_a_get_is_tried_three_times_and_a_post_once(stage: Stage) -> None:
    """Each time at another endpoint; who has answered a POST may have done it."""
    assert stage.get("user", "/status/503").status_code == 503
    assert sorted(stage.asked("/status/503")) == ["a", "b", "c"]
    assert stage.send("POST", "user", "/status/502").status_code == 502
    assert len(stage.asked("/status/502")) == 1


def test_a_try_that_hangs_is_given_up_for_another(stage: Stage) -> None:
    """The next one goes to an endpoint that was not asked before."""
    time_taken, response = seconds(lambda: stage.get("user", "/hang"))
    assert response.status_code == 504
    assert sorted(stage.asked("/hang")) == ["a", "b", "c"]
    assert 0.9 <= time_taken < 2.5


def test_a_route_narrows_the_timeout(stage: Stage) -> None:
    """100 ms for /ping, which leads to an app that hangs, and is not repeated."""
    before = len(stage.asked("/hang"))
    time_taken, response = seconds(lambda: stage.get("user", "/ping"))
    assert response.status_code == 504
    assert 0.09 <= time_taken < 0.8
    assert len(stage.asked("/hang")) == before + 1


def test_a_fault_meets_only_whom_it_is_for(stage: Stage) -> None:
    """An abort is not retried, and the delay comes first."""
    assert stage.get("faulty").status_code == 200
    time_taken, response = seconds(lambda: stage.get("faulty", "/fault", x_user="jason"))
    assert response.status_code == 418
    assert time_taken >= 0.19
    assert stage.asked("/fault") == []


def test_an_unknown_host_is_told_so(stage: Stage) -> None:
    """By the listener itself, with the name of the caller."""
    response = stage.get("nobody")
    assert (response.status_code, response.text) == (404, "web has no dependency of this name\n")


def test_headers_are_changed_on_the_way(stage: Stage) -> None:
    """The callee gets another Host; a port in the app's is no obstacle; ids come back."""
    response = stage.send("GET", "user:9900", "/headers", x_set="theirs", x_added="theirs", x_secret="1")
    app = stage.apps[response.headers[NAME_HEADER]]
    headers = app.headers("/headers")
    assert headers["host"] == "user-service"
    assert headers["x-set"] == "50%"
    assert headers["x-added"] == "ours"  # the last of two lines of this name
    assert "x-secret" not in headers
    assert headers["x-request-id"] == response.headers["x-request-id"]
    assert "x-forwarded-for" not in headers


def test_an_app_cannot_set_timeouts_and_retries_by_headers(stage: Stage) -> None:
    """Unless the mesh lists its address as internal."""
    response = stage.get("user", "/steered", x_envoy_upstream_rq_timeout_ms="7", x_envoy_max_retries="9")
    headers = stage.apps[response.headers[NAME_HEADER]].headers("/steered")
    assert "x-envoy-internal" not in headers
    assert headers["x-envoy-expected-rq-timeout-ms"] == "300"


def test_an_internal_app_passes_its_deadline_on(stage: Stage) -> None:
    """The hop before had one second; the route's five are replaced by what the app says."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    fields = {"host": "right", "x-envoy-expected-rq-timeout-ms": "1000"}
    with httpx.Client(trust_env=False, transport=transport) as client:
        assert client.get(f"http://127.0.0.1:{stage.envoy.listener}/hop", headers=fields).status_code == 200
    assert stage.get("right", "/no-hop", x_envoy_expected_rq_timeout_ms="1000").status_code == 200
    deadlines = {
        path: stage.apps["right"].headers(path)["x-envoy-expected-rq-timeout-ms"] for path in ("/hop", "/no-hop")
    }
    assert deadlines == {"/hop": "1000", "/no-hop": "5000"}


def test_paths_are_normalized_and_rewritten(stage: Stage) -> None:
    """Escaped slashes are refused, as nobody can say which path they mean."""
    assert stage.get("user", "/x/../api//y?z=1").status_code == 200
    assert len(stage.asked("/y?z=1")) == 1
    assert stage.get("user", "/api/%2e%2e%2fadmin").status_code == 400


def test_a_version_serves_who_asks_for_it_and_everybody_when_it_cannot(stage: Stage) -> None:
    """An unhealthy or absent version leaves its requests to the whole service."""
    assert names(stage, "shop", x_version="b") == {"b"}
    assert names(stage, "shop", cookie="x=1; canary=1") == {"b"}
    assert names(stage, "shop", x_version="sick") == {"a", "b"}
    assert names(stage, "shop", x_version="gone") == {"a", "b"}
    assert names(stage, "shop", cookie="canary=10") == {"a", "b"}


def names(stage: Stage, host: str, number: int = 12, **headers: str) -> set[str]:
    """Return the apps that answer requests."""
    responses = [stage.get(host, **headers) for _ in range(number)]
    assert {response.status_code for response in responses} == {200}
    return {response.headers[NAME_HEADER] for response in responses}


def test_a_split_divides_between_two_services(stage: Stage) -> None:
    """Half of the requests each, at random."""
    answered = Counter(stage.get("divided").headers[NAME_HEADER] for _ in range(100))
    assert set(answered) == {"old", "new"}
    assert 20 <= answered["new"] <= 80


def test_a_shadow_gets_a_copy_and_harms_nobody(stage: Stage) -> None:
    """Its host tells that it is a copy; a dead one is not noticed."""
    assert names(stage, "shadowed") == {"old"}
    assert stage.get("shadowed", "/copy").headers[NAME_HEADER] == "old"
    eventually(lambda: stage.apps["new"].count("/copy") == 1)
    assert stage.apps["new"].headers("/copy")["host"] == "shadowed-shadow"
    assert names(stage, "dead-shadow") == {"old"}


def test_sticky_requests_stay_at_their_endpoint(stage: Stage) -> None:
    """The same header, the same endpoint; many headers, all endpoints."""
    homes = {user: names(stage, "sticky", number=4, x_user=user) for user in map(str, range(20))}
    assert all(len(home) == 1 for home in homes.values())
    assert set.union(*homes.values()) == {"a", "b", "c"}


def test_a_strict_session_is_kept_by_a_cookie(stage: Stage) -> None:
    """The cookie names the endpoint, so a new one does not move anybody."""
    first = stage.get("strict")
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("session=")
    assert names(stage, "strict", cookie=cookie) == {first.headers[NAME_HEADER]}


def test_tls_is_verified_unless_a_file_says_otherwise(stage: Stage) -> None:
    """The authority and the name, both."""
    assert stage.get("right").status_code == 200
    assert stage.get("unverified").headers[NAME_HEADER] == "foreign"
    for host, reason in (("wrong-name", "fail_verify_san"), ("self-signed", "fail_verify_error")):
        assert stage.get(host).status_code == 503
        assert stage.envoy.counter(host, f"ssl.{reason}") == 1
    assert stage.apps["right"].headers("/ready")["host"] == "localhost"


@pytest.mark.parametrize(("timeout", "least", "most"), [("200m", 0.15, 0.9), ("", 0.9, 2.0), ("9S", 0.9, 2.0)])
def test_a_grpc_call_has_its_clients_deadline_below_the_timeout(
    stage: Stage, timeout: str, least: float, most: float
) -> None:
    """What exceeds either is DEADLINE_EXCEEDED, which clients know, and not UNAVAILABLE."""
    begins = time.monotonic()
    assert grpc_call(stage.envoy.listener, "rpc", "/rpc.v1.Rpc/Hang", timeout).status == "4"
    assert least <= time.monotonic() - begins < most


def test_a_grpc_call_is_answered(stage: Stage) -> None:
    """By HTTP/2 to the app, whatever the caller's listener speaks else."""
    assert grpc_call(stage.envoy.listener, "rpc", "/rpc.v1.Rpc/Get").status == "0"


def refused(stage: Stage, path: str) -> int:
    """Return the status with which a handshake is refused."""
    with pytest.raises(RefusedHandshakeError) as refusal:
        Websocket(stage.envoy.listener, "live", path)
    return refusal.value.status


def test_a_websocket_outlives_the_timeouts_of_requests(stage: Stage) -> None:
    """A handshake has the timeout of its route; the websocket behind it ends by its idle timeout alone."""
    with (
        contextlib.closing(Websocket(stage.envoy.listener, "live", "/chat", upgrade="WebSocket")) as websocket,
        contextlib.closing(Websocket(stage.envoy.listener, "live", "/quiet")) as quiet,
    ):
        app, _, answer = websocket.ask("hello").partition(" ")
        assert answer == "hello"
        assert refused(stage, "/hang") == 504
        assert quiet.ends()
        # By now the timeout of all tries, that of each, and the time of an unused connection are over.
        assert websocket.ask("again") == f"{app} again"


def test_websockets_pass_where_a_route_says_so(stage: Stage) -> None:
    """Elsewhere Envoy answers 403 itself; what is no handshake has the policies of the route."""
    assert refused(stage, "/plain") == 403
    assert refused(stage, "/status/504") == 504
    assert len(stage.asked("/status/504")) == 1
    assert stage.get("live", "/status/504").status_code == 504
    assert len(stage.asked("/status/504")) == 4


def test_an_open_websocket_stays_at_an_endpoint_that_drains_and_goes(stage: Stage) -> None:
    """New ones begin elsewhere; what is open ends when the app or its client ends it."""
    with contextlib.closing(Websocket(stage.envoy.listener, "live", "/deploy")) as websocket:
        name, _, _ = websocket.ask("hello").partition(" ")
        other = "b" if name == "a" else "a"
        rest = stage.apps[other].port
        draining = lb_endpoint(stage.apps[name].port, health_status="DRAINING")
        states: tuple[tuple[list[Place], set[str]], ...] = (
            ([draining, rest], {"DRAINING", "HEALTHY"}),
            ([rest], {"HEALTHY"}),
        )
        for places, health in states:
            stage.serve(live=places)
            eventually(partial(shows, stage, len(places), health))
            for _ in range(4):
                with contextlib.closing(Websocket(stage.envoy.listener, "live", "/new")) as another:
                    assert another.ask("hello") == f"{other} hello"
            assert websocket.ask("again") == f"{name} again"


def shows(stage: Stage, number: int, health: set[str]) -> bool:
    """Tell whether Envoy has this number of endpoints, in these states."""
    hosts = stage.envoy.hosts("live")
    return len(hosts) == number and set(hosts.values()) == health
