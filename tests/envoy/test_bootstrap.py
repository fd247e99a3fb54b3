"""The recommended bootstrap, on a real Envoy: what is repeated, what is not, and who is ejected."""

import contextlib
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.envoy import Envoy, TokenDirectory, recommended_envoy
from harness.no_tls import NO_TLS
from harness.process import eventually, free_port
from harness.registry import Registry

from meshconfig.recommended_bootstrap import ListenedService, Node, recommended_bootstrap, registries

pytestmark = pytest.mark.envoy

# The words that Envoy knows in retry_on of HTTP; it takes any other silently.
_CONDITIONS = {
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
}


class RecordingApp:
    """An app that answers every request with ``status`` and counts the ids of those that it got."""

    def __init__(self) -> None:
        app = self
        self.status = 200
        self.seen: Counter[str] = Counter()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                app.seen[self.headers["x-id"]] += 1
                self.send_response(app.status)
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815  # the base class's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}).start()

    def stop(self) -> None:
        """End it; its port refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def recording_apps(number: int) -> Iterator[list[RecordingApp]]:
    """Run some apps for the length of the block."""
    apps = [RecordingApp() for _ in range(number)]
    try:
        yield apps
    finally:
        for app in apps:
            app.stop()


@contextlib.contextmanager
def recommended(directory: Path, found: Registry, service: str, apps: list[str]) -> Iterator[Envoy]:
    """Run an Envoy by the bootstrap, with these endpoints registered, until it holds them."""
    for endpoint in apps:
        found.register(service, endpoint, ttl=600)
    token = TokenDirectory(directory / f"token-{service}")
    client = registries(f"127.0.0.1:{found.port}", token_directory=str(token.path))
    with recommended_envoy(directory, client, service) as envoy:
        eventually(lambda: len(envoy.hosts(service)) == len(apps), within=20, said=envoy.log.read_text)
        yield envoy


def send(envoy: Envoy, method: str, times: int) -> Counter[int]:
    """Send requests, each with an id of its own; return how often each status came."""
    with httpx.Client(
        base_url=f"http://127.0.0.1:{envoy.listener}", timeout=10, trust_env=False, verify=NO_TLS
    ) as client:
        return Counter(
            client.request(method, "/", headers={"x-id": f"{method}-{number}"}).status_code for number in range(times)
        )


def test_a_get_that_failed_is_repeated_elsewhere_and_a_post_is_not(
    shared_registry: Registry, workplace: Path, service: str
) -> None:
    """One of two apps answers 503: no GET is lost, and no POST runs twice, whatever became of it."""
    with recording_apps(2) as apps:
        with recommended(workplace, shared_registry, service, [app.endpoint for app in apps]) as envoy:
            apps[0].status = 503
            assert send(envoy, "GET", 40) == {200: 40}
            assert apps[0].seen.total() > 0
            # Taps and access logs name a request by this id, and so can the person who sent it.
            url = f"http://127.0.0.1:{envoy.listener}/"
            answer = httpx.get(url, headers={"x-id": "GET-named"}, trust_env=False, verify=NO_TLS)
            assert answer.headers["x-request-id"]
            posts = send(envoy, "POST", 40)
        assert posts[200] + posts[503] == 40
        assert posts[503] == sum(times for name, times in apps[0].seen.items() if name.startswith("POST"))
        both = apps[0].seen + apps[1].seen
        assert [name for name, times in both.items() if name.startswith("POST") and times > 1] == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_reached_no_app_is_repeated_whatever_its_method(
    shared_registry: Registry, workplace: Path, service: str, method: str
) -> None:
    """One of three apps is gone and still listed: none is lost, none runs twice, and the dead one is ejected."""
    with recording_apps(2) as apps:
        dead = f"127.0.0.1:{free_port()}"
        with recommended(workplace, shared_registry, service, [dead, *(app.endpoint for app in apps)]) as envoy:
            assert send(envoy, method, 60) == {200: 60}
            assert {times for app in apps for times in app.seen.values()} == {1}
            assert envoy.counter(service, "outlier_detection.ejections_active") == 1
            attempts = envoy.counter(service, "upstream_cx_connect_fail")
            assert send(envoy, method, 30) == {200: 30}
            assert envoy.counter(service, "upstream_cx_connect_fail") == attempts


def test_nothing_in_it_is_what_envoy_takes_silently() -> None:
    """No unknown word, no codes without their word, no attempt as long as its request, no ejection that cannot be."""
    service = ListenedService("shop", "127.0.0.1:2")
    document = recommended_bootstrap(Node("n", "c", "r"), "127.0.0.1:1", registries("127.0.0.1:3"), [service])
    static = document["static_resources"]
    (listener,), (_, cluster) = static["listeners"], static["clusters"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        policy: dict[str, Any] = route["route"]["retry_policy"]
        conditions = set(policy["retry_on"].split(","))
        assert conditions <= _CONDITIONS
        assert ("retriable_status_codes" in policy) == ("retriable-status-codes" in conditions)
        if "per_try_timeout" in policy:
            assert float(policy["per_try_timeout"][:-1]) < float(route["route"]["timeout"][:-1])
            assert cluster["circuit_breakers"]["per_host_thresholds"]
        if "headers" not in route["match"]:
            assert not conditions & {"reset", "5xx", "gateway-error", "retriable-status-codes"}
    outlier = cluster["outlier_detection"]
    assert outlier["max_ejection_percent"] >= 34
    # 30 s is Envoy's own value, which is not written.
    assert float(outlier["max_ejection_time"][:-1]) >= float(outlier.get("base_ejection_time", "30s")[:-1])
