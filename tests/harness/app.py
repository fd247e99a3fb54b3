"""Apps to be registered: the demo's, as a process, and one whose health can be turned."""

import contextlib
import http.server
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.fleet import listens
from harness.process import eventually, free_port, running


class App:
    """The demo's sample app as a process of its own."""

    def __init__(self, endpoint: str, process: subprocess.Popen[bytes]) -> None:
        self.endpoint = endpoint
        self.process = process


@contextlib.contextmanager
def app(directory: Path, endpoint: str = "", within: Sequence[str] = ()) -> Iterator[App]:
    """Run a sample app for the length of the block; ``within`` is a command that executes the one behind it."""
    endpoint = endpoint or f"127.0.0.1:{free_port()}"
    command = [*within, sys.executable, "-m", "registry_demo.app", "--listen", endpoint, "--name", endpoint]
    log = directory / "app.log"
    with running(command, log=log) as process:
        started = App(endpoint, process)
        eventually(lambda: process.poll() is not None or listens(endpoint), within=15)
        assert process.poll() is None, log.read_text()[-2000:]
        yield started


class Turned:
    """An app of a few lines that answers every request with ``status``, and each ``bad_every``-th one with 503.

    Checks at ``/healthz`` never are those: a bad revision may pass them. It takes ``delay`` seconds for each answer.
    """

    def __init__(self, port: int = 0) -> None:
        turned = self
        self.status = 200
        self.bad_every = 0
        self.delay = 0.0
        self.requests = itertools.count(1)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(turned.delay)
                is_check = self.path == "/healthz"
                bad = not is_check and turned.bad_every and next(turned.requests) % turned.bad_every == 0
                self.send_response(503 if bad else turned.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.endpoint = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """End it; its port refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def turned(port: int = 0) -> Iterator[Turned]:
    """Run an app whose health can be turned."""
    started = Turned(port)
    try:
        yield started
    finally:
        started.stop()
