"""A real Envoy with tap filters: an inbound and an outbound listener, each in front of an app that fails as asked."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.envoy import Envoy, binary
from harness.process import eventually, free_port, running

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
INBOUND, OUTBOUND = "shop", "egress"
"""The ``config_id`` of the tap filter of each listener."""


class _App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer 500 below /bad, and 200 elsewhere, with a secret in a header and in the body."""
        body = b'{"secret": "BODY-SECRET"}'
        self.send_response(500 if self.path.startswith("/bad") else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "sid=COOKIE-SECRET")
        self.send_header("X-Api-Key", "RESPONSE-SECRET")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815  # as the server of Python names it

    def log_message(self, *_args: object) -> None:
        """Write no log."""


@contextlib.contextmanager
def app() -> Iterator[int]:
    """Run the app, and yield its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _App)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TappedEnvoy(Envoy):
    """A running Envoy, whose ``listener`` is the inbound one."""

    outbound = 0
    """The port of the outbound listener."""


@contextlib.contextmanager
def tapped_envoy(
    directory: Path, app_port: int, *, filters: bool = True, admin: int | None = None
) -> Iterator[TappedEnvoy]:
    """Run the Envoy until the end of the block."""
    admin = admin or free_port()
    inbound, outbound = free_port(), free_port()
    config = {
        "node": {"id": f"envoy-{admin}", "cluster": "shop", "metadata": {"api_key": "NODE-SECRET"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [
                _listener(INBOUND, inbound, "INBOUND", filters),
                _listener(OUTBOUND, outbound, "OUTBOUND", filters),
            ],
            "clusters": [_cluster(app_port)],
        },
    }
    path = directory / f"tapped-{admin}.json"
    path.write_text(json.dumps(config))
    log = path.with_suffix(".log")
    command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    made = TappedEnvoy(admin, inbound, log)
    with running(command, log=log) as process, contextlib.closing(made) as started:
        started.pid = process.pid
        started.outbound = outbound
        eventually(lambda: process.poll() is not None or started.live(), within=20, said=log.read_text)
        assert process.poll() is None, log.read_text()[-2000:]
        yield started


def _cluster(port: int) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": "payments",
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "payments", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def _listener(name: str, port: int, direction: str, filters: bool) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"}}
    tap = {
        "name": "envoy.filters.http.tap",
        "typed_config": {
            "@type": f"{_FILTERS}.http.tap.v3.Tap",
            "common_config": {"admin_config": {"config_id": name}},
        },
    }
    added = {"header": {"key": "authorization", "value": "Bearer ROUTE-SECRET"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "payments"}, "request_headers_to_add": [added]}
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*([tap] if filters else []), router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    where = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": where, "traffic_direction": direction, "filter_chains": [chain]}
