"""A small management server for one real Envoy: answers its polls over HTTP/1.1 as a test says, and records them."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


@dataclass(frozen=True)
class Poll:
    """One poll: when it came (monotonic), its connection, its Authorization header, and the status of its response."""

    at: float
    connection: int
    authorization: str | None
    status: int
    first: bool


@dataclass
class ManagementStub:
    """A management server that is running.

    Attributes:
        port: where it listens.
        hosts: the endpoints that it answers with.
        status: the status of every response: 200 answers with the hosts, or 304 when they are current.
        tokens: the tokens that it accepts; None accepts every poll, also without a token.
        hold: seconds for which a poll that is current is held.
        refusal_hold: seconds for which a refused poll is held.
        polls: what came, in order.
    """

    port: int = 0
    hosts: Sequence[str] = ()
    status: int = 200
    tokens: Collection[str] | None = None
    hold: float = 0.3
    refusal_hold: float = 0.0
    polls: list[Poll] = field(default_factory=list)

    def answer(self, document: dict[str, str | list[str]]) -> tuple[int, bytes]:
        """Return status and body of the response to an accepted poll."""
        version = f"v:{','.join(self.hosts)}"
        if self.status != 200:
            return self.status, b""
        if document.get("version_info") == version:
            time.sleep(self.hold)
            return 304, b""
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
            for host, _, port in (endpoint.rpartition(":") for endpoint in self.hosts)
        ]
        resources = [
            {"@type": _TYPE, "cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
            for name in document["resource_names"]
        ]
        return 200, json.dumps({"version_info": version, "resources": resources}).encode()

    def is_accepted(self, authorization: str | None) -> bool:
        """Return whether a poll brings one of the tokens."""
        return self.tokens is None or authorization in {f"Bearer {token}" for token in self.tokens}


@contextlib.contextmanager
def management_stub(hosts: Sequence[str] = (), tokens: Collection[str] | None = None) -> Iterator[ManagementStub]:
    """Run a management server on loopback for the length of the block."""
    stub = ManagementStub(hosts=hosts, tokens=tokens)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer Envoy's check of /livez."""
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            at = time.monotonic()
            document = json.loads(self.rfile.read(int(self.headers["content-length"])))
            authorization = self.headers["authorization"]
            status, body = 401, b""
            if stub.is_accepted(authorization):
                status, body = stub.answer(document)
            if status not in (200, 304):
                time.sleep(stub.refusal_hold)
            first = not document.get("version_info")
            stub.polls.append(Poll(at, self.client_address[1], authorization, status, first))
            # The Envoy of a test that is over has closed its connections.
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
