"""An Envoy whose clusters each fail in another way, and the requests that show it."""

import concurrent.futures
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from harness.envoy import binary
from harness.no_tls import NO_TLS
from harness.process import eventually, free_port, running
from meshconfig.statistics import prometheus

_HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_SLOW = 0.4
_SHORT = 0.1


@dataclass(frozen=True)
class Callee:
    """One cluster: what is wrong with it, what Envoy counts of 10 requests, and the success that this means.

    ``success`` is None where no request was completed, which is no traffic rather than success or failure.
    """

    name: str
    attempts: int
    completed: int
    server_errors: int
    success: float | None
    cluster: dict[str, Any]
    route: dict[str, Any]
    grpc: bool = False
    concurrent: bool = False
    gives_up: bool = False

    @property
    def host(self) -> str:
        """The host by which requests to it are told; Envoy refuses one with a bar."""
        return self.name.replace("|", "-")


class _Handler(http.server.BaseHTTPRequestHandler):
    """An app that answers as the first part of the path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer 200, 503, slowly, or with a gRPC status."""
        how = self.path.split("/")[1]
        if how == "slow":
            time.sleep(_SLOW)
        with contextlib.suppress(ConnectionError):
            self.send_response(503 if how == "503" else 200)
            if how == "grpc":
                self.send_header("content-type", "application/grpc")
                self.send_header("grpc-status", "14")
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of callers that gave up."""


@contextlib.contextmanager
def _app() -> Iterator[int]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _endpoint(port: int, **more: Any) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} | more


def _cluster(*endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    localities = [{"lb_endpoints": list(endpoints)}] if endpoints else []
    return {"load_assignment": {"endpoints": localities}, "common_lb_config": {"healthy_panic_threshold": {}}} | more


def callees(app: int) -> list[Callee]:
    """Return a callee for each way to fail, as the statistics of Envoy tell them apart."""
    well = _cluster(_endpoint(app))
    dead = _cluster(_endpoint(free_port()))
    unhealthy = _cluster(_endpoint(app, health_status="UNHEALTHY"))
    breaker = _cluster(
        _endpoint(app), circuit_breakers={"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]}
    )
    retries = {"retry_policy": {"retry_on": "5xx", "num_retries": 2}}
    quick = {"timeout": f"{_SHORT}s"}
    ok, bad, slow, status = ({"prefix_rewrite": f"/{how}/"} for how in ("200", "503", "slow", "grpc"))
    return [
        Callee("well", 10, 10, 0, 1.0, well, ok),
        Callee("rejects", 30, 10, 10, 0.0, well, bad | retries),
        Callee("times-out", 10, 10, 10, 0.0, well, slow | quick),
        Callee("refuses", 0, 10, 10, 0.0, dead, ok),
        Callee("no-endpoints", 0, 10, 10, 0.0, _cluster(), ok),
        Callee("none-healthy", 0, 10, 10, 0.0, unhealthy, ok),
        Callee("breaker", 2, 10, 8, 0.2, breaker, slow, concurrent=True),
        Callee("gave-up", 10, 0, 0, None, well, slow, gives_up=True),
        Callee("grpc-status", 10, 10, 0, 0.0, well, status, grpc=True),
        Callee("grpc-refuses", 0, 10, 10, 0.0, dead, ok, grpc=True),
    ]


class Callees:
    """A running Envoy with a cluster for each callee."""

    def __init__(self, admin: int, listener: int, metrics: int, callees: list[Callee]) -> None:
        self.admin = admin
        self.metrics = metrics
        self.callees = callees
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{admin}", timeout=10, trust_env=False, verify=NO_TLS)
        self._requests = httpx.Client(
            base_url=f"http://127.0.0.1:{listener}", timeout=5, trust_env=False, verify=NO_TLS
        )

    def close(self) -> None:
        """Close the connections to Envoy."""
        self._client.close()
        self._requests.close()

    def live(self) -> bool:
        """Tell whether Envoy has started up."""
        try:
            return self._client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def stats(self) -> dict[str, int]:
        """Return each counter of the clusters by its name without ``cluster.``."""
        stats = self._client.get("/stats?format=json&filter=^cluster\\.").json()["stats"]
        return {stat["name"].removeprefix("cluster."): stat["value"] for stat in stats if "name" in stat}

    def call(self, callee: Callee, times: int = 10) -> None:
        """Send requests to a callee, one after another or, where its fault needs that, at once."""
        with concurrent.futures.ThreadPoolExecutor(times if callee.concurrent else 1) as pool:
            list(pool.map(lambda _: self._call_once(callee), range(times)))

    def _call_once(self, callee: Callee) -> None:
        headers = {"host": callee.host} | ({"content-type": "application/grpc"} if callee.grpc else {})
        timeout = _SHORT if callee.gives_up else 5
        with contextlib.suppress(httpx.ReadTimeout):
            self._requests.get(f"/{callee.host}/call", headers=headers, timeout=timeout)


@contextlib.contextmanager
def failing_callees(
    directory: Path,
    *,
    caller: str = "caller",
    node: str = "callees",
    ports: tuple[int, int, int] | None = None,
    more: Callable[[int], list[Callee]] = lambda _: [],
) -> Iterator[Callees]:
    """Run an Envoy with a cluster for each way to fail, until the end of the block.

    ``caller`` and ``node`` are what it says that it is; ``ports`` those of its admin interface and its listeners;
    ``more`` returns further callees for the port of the app.
    """
    admin, listener, metrics = ports or (free_port(), free_port(), free_port())
    with _app() as app:
        configured = callees(app) + more(app)
        path = directory / f"callees-{admin}.json"
        document = _bootstrap(admin, listener, metrics, configured)
        document["node"] = {"id": node, "cluster": caller, "locality": {"region": "r", "zone": "za"}}
        path.write_text(json.dumps(document))
        log = path.with_suffix(".log")
        command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        with (
            running(command, log=log) as process,
            contextlib.closing(Callees(admin, listener, metrics, configured)) as running_envoy,
        ):
            eventually(
                lambda: process.poll() is not None or running_envoy.live(),
                within=20,
                said=lambda: log.read_text()[-2000:],
            )
            assert process.poll() is None, log.read_text()[-2000:]
            yield running_envoy


def _bootstrap(admin: int, listener: int, metrics: int, configured: list[Callee]) -> dict[str, Any]:
    hosts = [
        {
            "name": callee.name,
            "domains": [callee.host],
            "routes": [
                {
                    "match": {"prefix": "/"},
                    "route": {"cluster": callee.name} | callee.route,
                    "stat_prefix": "all.of-it",
                }
            ],
        }
        for callee in configured
    ]
    filters = [
        ("grpc_stats", {"@type": f"{_HTTP_FILTERS}.grpc_stats.v3.FilterConfig", "stats_for_all_methods": False}),
        ("router", {"@type": f"{_HTTP_FILTERS}.router.v3.Router"}),
    ]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "callees",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": f"envoy.filters.http.{name}", "typed_config": config} for name, config in filters],
    }
    scraped = prometheus(f"127.0.0.1:{admin}", f"127.0.0.1:{metrics}")["static_resources"]
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": "callees",
                    "address": _address(listener),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ]
                        }
                    ],
                },
                *scraped["listeners"],
            ],
            "clusters": [*(_named(callee) for callee in configured), *scraped["clusters"]],
        },
    }


def _named(callee: Callee) -> dict[str, Any]:
    if "eds_cluster_config" in callee.cluster:
        return callee.cluster | {"name": callee.name}
    assignment = callee.cluster["load_assignment"] | {"cluster_name": callee.name}
    return callee.cluster | {"name": callee.name, "type": "STATIC", "load_assignment": assignment}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
