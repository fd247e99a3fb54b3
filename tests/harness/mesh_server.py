"""A management server for real Envoys that answers every kind of poll with compiled resources and given endpoints."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshconfig.resource import TYPE_URLS, NodeResources, Snapshot

_ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_HOLD = 0.3
"""Seconds for which a poll that is current is held."""


Place = int | Mapping[str, Any]
"""A port on loopback, or a whole ``LbEndpoint``."""


def lb_endpoint(port: int, **fields: Any) -> dict[str, Any]:
    """Return an endpoint on loopback."""
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}, **fields}


@dataclass
class MeshServer:
    """A management server that is running.

    Attributes:
        port: where it listens.
        snapshot: what it serves; replace it for a new version.
        ports: the ports of each service's endpoints, on loopback; an endpoint with metadata or health is a whole
            ``LbEndpoint`` instead.
        version: the version of all its answers; a test that changes something counts it up.
        polls: the kind of resource, the node and the Authorization header of each poll, in order.
        checks: how often Envoys asked whether it is alive.
    """

    port: int = 0
    snapshot: Snapshot = field(default_factory=lambda: Snapshot({}))
    ports: Mapping[str, Sequence[Place]] = field(default_factory=dict)
    version: int = 1
    polls: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    checks: int = 0

    def answer(self, kind: str, poll: dict[str, Any]) -> bytes:
        """Return the response to a poll that is not current."""
        names = poll.get("resource_names", [])
        if kind == "endpoints":
            resources = [self._assignment(name) for name in names]
        else:
            node: NodeResources = self.snapshot.nodes.get(poll["node"]["cluster"], {})
            served = [resource for key, resources in node.items() if key == kind for resource in resources.values()]
            resources = [json.loads(each.body) for each in served if not names or each.name in names]
        return json.dumps({"version_info": str(self.version), "resources": resources}).encode()

    def _assignment(self, name: str) -> dict[str, Any]:
        endpoints = [lb_endpoint(place) if isinstance(place, int) else place for place in self.ports[name]]
        return {"@type": _ENDPOINTS, "cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}

    def kinds(self) -> set[str]:
        """Return the kinds of resource that were asked for."""
        return {kind for kind, _, _ in self.polls}


@contextlib.contextmanager
def mesh_server(snapshot: Snapshot, ports: Mapping[str, Sequence[Place]], port: int = 0) -> Iterator[MeshServer]:
    """Run a management server on loopback for the length of the block."""
    served = MeshServer(snapshot=snapshot, ports=ports)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.checks += self.path == "/livez"
            self._send(200 if self.path == "/livez" else 404, b"")

        def do_POST(self) -> None:
            poll = json.loads(self.rfile.read(int(self.headers["content-length"])))
            kind = self.path.removeprefix("/v3/discovery:")
            assert kind in {*TYPE_URLS, "endpoints"}
            served.polls.append((kind, poll["node"], self.headers["authorization"]))
            ends = time.monotonic() + _HOLD
            while poll.get("version_info") == str(served.version) and time.monotonic() < ends:
                time.sleep(0.01)
            current = poll.get("version_info") == str(served.version)
            self._send(304 if current else 200, b"" if current else served.answer(kind, poll))

        def _send(self, status: int, body: bytes) -> None:
            # The Envoy of a test that is over has closed its connections.
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
