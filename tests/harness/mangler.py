"""An HTTP server between an Envoy and the registry that spoils what it passes on."""

import contextlib
import http.server
import threading
from collections.abc import Iterator

import httpx

from harness.no_tls import NO_TLS


class Mangler:
    """Passes polls to the registry, and its answers back; while ``poisoned``, with ports that no Envoy takes.

    Attributes:
        port: where it listens.
        poisoned: whether it spoils answers.
    """

    def __init__(self, registry: str) -> None:
        self.poisoned = False
        mangler = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                # Nothing is held: the polls that follow one another at once are what a rejection looks like.
                passed = {
                    name: self.headers[name] for name in ("content-type", "x-forwarded-for") if name in self.headers
                }
                answer = httpx.post(
                    f"{registry}{self.path}", content=body, headers=passed, trust_env=False, verify=NO_TLS, timeout=20
                )
                content = answer.content
                if mangler.poisoned:
                    content = content.replace(b'"port_value":', b'"port_value":9999')
                self.send_response(answer.status_code)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def serve(self) -> None:
        """Serve until stopped."""
        self._server.serve_forever(0.05)

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def mangler(registry: str) -> Iterator[Mangler]:
    """Run one for the length of the block."""
    started = Mangler(registry)
    threading.Thread(target=started.serve, daemon=True).start()
    try:
        yield started
    finally:
        started.stop()
