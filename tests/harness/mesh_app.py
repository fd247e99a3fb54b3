"""Apps behind Envoys of a mesh: over HTTP/1.1 and gRPC, with what each of them was asked."""

import asyncio
import contextlib
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from h2.exceptions import ProtocolError

from harness.websocket import serve_websocket

NAME_HEADER = "x-app"
"""The response header with the name of the app that answered."""
_HANG = 3.0


@dataclass(frozen=True)
class Asked:
    """A request as an app got it."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class MeshApp:
    """An app that is running.

    Attributes:
        name: what it answers in ``NAME_HEADER``.
        port: where it listens on loopback.
        asked: the requests that came, in order.
    """

    name: str
    port: int = 0
    asked: list[Asked] = field(default_factory=list)

    def headers(self, path: str) -> dict[str, str]:
        """Return the headers of the only request for a path."""
        (asked,) = [each for each in self.asked if each.path == path]
        return asked.headers

    def count(self, path: str) -> int:
        """Return the number of requests for a path."""
        return sum(each.path == path for each in self.asked)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Envoys under load open many connections at once to an app that they are switched to.
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of callers that gave up."""


@contextlib.contextmanager
def mesh_app(name: str, tls: ssl.SSLContext | None = None, **answers: str) -> Iterator[MeshApp]:
    """Run an app for the length of the block.

    The path says how it answers: ``/status/503``, ``/hang``, ``/hang-once`` and otherwise with 200. ``answers`` are
    response headers, with a low line for each hyphen. An app called ``authz`` refuses who has no cookie. A handshake
    for another path than these opens a websocket that echoes.
    """
    app = MeshApp(name)
    extra = {key.replace("_", "-"): value for key, value in answers.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            earlier = app.count(self.path)
            headers = {key.lower(): value for key, value in self.headers.items()}
            app.asked.append(Asked(self.command, self.path, headers))
            if self.path == "/hang" or (self.path == "/hang-once" and not earlier):
                time.sleep(_HANG)
            status = int(self.path.removeprefix("/status/")) if self.path.startswith("/status/") else 200
            if app.name == "authz" and "cookie" not in headers:
                status = 401
            if headers.get("upgrade", "").lower() == "websocket" and status == 200:
                self._echo(headers)
                return
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                for key, value in {NAME_HEADER: app.name, "content-length": "0", **extra}.items():
                    self.send_header(key, value)
                self.end_headers()

        def _echo(self, headers: dict[str, str]) -> None:
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                serve_websocket(headers, self.rfile, self.wfile.write, app.name)

        do_GET = do_POST = do_PUT = do_HEAD = _answer  # noqa: N815  # the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    app.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield app
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def grpc_app(name: str) -> Iterator[MeshApp]:
    """Run a gRPC server on the h2 package: it answers each call with two messages, and ``…/Hang`` never."""
    app = MeshApp(name)
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        with contextlib.suppress(ConnectionError, ProtocolError):
            writer.write(connection.data_to_send())
            while data := await reader.read(65_536):
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived):
                        headers = {str(key): str(value) for key, value in event.headers}
                        app.asked.append(Asked(headers[":method"], headers[":path"], headers))
                    elif isinstance(event, StreamEnded) and not app.asked[-1].path.endswith("/Hang"):
                        _reply(connection, event.stream_id, app.name)
                writer.write(connection.data_to_send())
        writer.close()

    async def run() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(partial(loop.call_soon_threadsafe, end.set))
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        app.port = server.sockets[0].getsockname()[1]
        started.set()
        await end.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="grpc app")
    thread.start()
    started.wait(5)
    try:
        yield app
    finally:
        stop[0]()
        thread.join()


def _reply(connection: H2Connection, stream: int, name: str) -> None:
    connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc"), (NAME_HEADER, name)])
    for _ in range(2):
        connection.send_data(stream, b"\0\0\0\0\0")
    connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
