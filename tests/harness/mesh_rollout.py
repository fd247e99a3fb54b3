"""A mesh under load: a registry that rolls out, real Envoys that follow in several ways, and clients that count."""

import asyncio
import contextlib
import http.client
import http.server
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import text

from harness.envoy import Envoy
from harness.mesh_app import MeshApp, mesh_app
from harness.mesh_envoy import envoy_of
from harness.mesh_revisions import store_resources
from harness.process import eventually, free_port
from harness.registry import Registry
from harness.websocket import RefusedHandshakeError, Websocket
from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.route import Route
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog, NodeResources
from meshconfig.snapshot import compile_mesh
from registry.core.rollout import NodeRollout
from registry.store import rollouts
from registry.store.database import Database
from registry.store.mesh import WHOLE

Result = TypeVar("Result")

CLIENTS = 8
_PAUSE = 0.01
"""Seconds between two requests of a client."""
_LATE = 1.0
"""Seconds by which endpoints come late through the proxy."""


@dataclass
class Follower:
    """One Envoy, and the way in which it follows.

    Attributes:
        name: its node.cluster.
        port: where its app would send requests.
        admin: its admin interface.
        registry: where it polls.
        refresh_delay: seconds between two polls, up to twice as many.
        request_timeout: seconds for which a poll may be held.
        streams: ports of gRPC listeners, if it gets everything over ADS instead of by polls.
        api_type: the variant of its stream.
        edge: the port of the edge beside it; 0 if it polls the registries.
    """

    name: str
    registry: Sequence[int]
    refresh_delay: float = 0.2
    request_timeout: float = 30.0
    streams: Sequence[int] = ()
    api_type: str = "DELTA_GRPC"
    edge: int = 0
    port: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)

    def mesh(self) -> Mesh:
        """Return the settings by which it is started."""
        client = RegistryClient(
            addresses=tuple(f"127.0.0.1:{port}" for port in self.registry),
            refresh_delay=self.refresh_delay,
            request_timeout=self.request_timeout,
            edge=f"127.0.0.1:{self.edge}" if self.edge else None,
        )
        return Mesh(registry=client, egress=Listen(port=self.port), admin=Admin(port=self.admin))


def dependency(
    service: str,
    *,
    name: str = "user",
    cluster: str | None = None,
    split: Mapping[str, float] | None = None,
    connect_timeout: float = 1.0,
    health_check: HealthCheck | None = None,
    address: str | None = None,
) -> Dependency:
    """Return a dependency without retries, which would hide what is lost."""
    return Dependency(
        name=name,
        service=None if address else service,
        address=address,
        cluster=cluster or name,
        hosts=(name,),
        connect_timeout=connect_timeout,
        outlier_detection=None,
        limit=Limit(connections_per_endpoint=None, pending_requests=None, retry_budget=None),
        health_check=health_check,
        upgrade=("websocket",),
        routes=(Route(prefix="/", timeout=10.0, retry=None, split=split, upgrade=("websocket",)),),
    )


class Load:
    """Clients that send requests through an Envoy, one after the other, and keep what failed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.passed = 0
        self.failures: list[str] = []
        self.messages = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=("/",)) for _ in range(CLIENTS)]
        # One request that takes three seconds is always in flight.
        self._threads.append(threading.Thread(target=self._run, args=("/hang",)))
        # A websocket stays open from the beginning to the end, whatever happens to its route and its cluster.
        self._threads.append(threading.Thread(target=self._talk))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the last requests end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def _run(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        while not self._stop.is_set():
            try:
                connection.request("GET", path, headers={"host": "user"})
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    self.passed += 1
                else:
                    self.failures.append(f"{path} {response.status} {body[:80]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{path} {error!r}")
                connection.close()
            time.sleep(_PAUSE)
        connection.close()

    def _talk(self) -> None:
        try:
            with contextlib.closing(Websocket(self.port, "user")) as websocket:
                while not self._stop.is_set():
                    websocket.ask("still there?")
                    self.messages += 1
                    time.sleep(_PAUSE)
        except (OSError, RefusedHandshakeError) as error:
            self.failures.append(f"websocket {error!r}")


@contextlib.contextmanager
def load(port: int) -> Iterator[Load]:
    """Send requests to the app `user` for the length of the block."""
    sender = Load(port)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


class Stage:
    """Registries, apps and the configurations that are applied.

    Args:
        database_url: the registries' database.
        callers: the node.clusters of the Envoys.
    """

    def __init__(self, database_url: str, callers: Sequence[str]) -> None:
        self.database_url = database_url
        self.callers = callers

    def apply(self, *dependencies: Dependency, share: float = WHOLE, at_once: bool = False) -> int:
        """Store what all callers depend on as the next revision; return its number."""
        nodes = self.compiled(*dependencies)
        return self.run(lambda database: store_resources(database, nodes, share, at_once=at_once))

    def compiled(self, *dependencies: Dependency) -> Mapping[str, NodeResources]:
        """Return what the callers' dependencies compile to."""
        clusters = {each.service for each in dependencies}
        targets = {name for each in dependencies for route in each.routes for name in route.split or ()}
        extra = tuple(dependency(name, name=name) for name in sorted(targets - clusters))
        configuration = Configuration(
            callers={name: Caller(name, dependencies, extra) for name in self.callers}, mesh=Mesh()
        )
        return compile_mesh(configuration, Catalog()).nodes

    def under_way(self) -> list[NodeRollout]:
        """Return the roll-outs that are under way."""

        async def read(database: Database) -> list[NodeRollout]:
            async with database.session() as connection:
                return await rollouts.read(connection)

        return self.run(read)

    def wait(self, within: float = 90.0) -> float:
        """Wait until everything is rolled out; return the seconds that it took."""
        began = time.monotonic()
        eventually(lambda: not self.under_way(), within=within, said=lambda: str(self.under_way()))
        return time.monotonic() - began

    def wait_for_step(self, step: int, within: float = 60.0) -> None:
        """Wait until every roll-out is at a step, or has gone on."""
        eventually(
            lambda: all(row.state is not None and row.state.rollout.phase >= step for row in self.under_way()),
            within=within,
            said=lambda: str(self.under_way()),
        )

    def steps(self) -> list[str]:
        """Return the reasons of all steps so far."""

        async def read(database: Database) -> list[str]:
            async with database.session() as connection:
                query = "SELECT service, reason FROM events WHERE kind IN ('mesh_switched', 'mesh_rolled_out')"
                return [f"{row.service}: {row.reason}" for row in await connection.execute(text(query))]

        return self.run(read)

    def run(self, work: Callable[[Database], Coroutine[None, None, Result]]) -> Result:
        """Do something with a connection of its own; a loop may be running in this thread."""

        async def run() -> Result:
            database = Database(self.database_url, connections=2, timeout=10)
            try:
                return await work(database)
            finally:
                await database.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(run())).result()


def follow(directory: Path, follower: Follower, stage: Stage) -> contextlib.AbstractContextManager[Envoy]:
    """Run the Envoy of a follower."""
    callers = {name: Caller(name) for name in stage.callers}
    configuration = Configuration(mesh=follower.mesh(), callers=callers)
    return envoy_of(
        directory,
        configuration,
        follower.name,
        admin=follower.admin,
        streams=follower.streams,
        api_type=follower.api_type,
    )


def serves(port: int) -> bool:
    """Return whether an Envoy answers requests to the app `user`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/", headers={"host": "user"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def apps(registry: Registry, *services: str) -> Iterator[dict[str, MeshApp]]:
    """Run an app of each service, which is registered until the end of the block."""
    with contextlib.ExitStack() as stack:
        running = {service: stack.enter_context(mesh_app(service)) for service in services}
        for service, app in running.items():
            assert registry.register(service, f"127.0.0.1:{app.port}").status_code < 300
        yield running


@contextlib.contextmanager
def late_endpoints(registry: int) -> Iterator[int]:
    """Run a proxy to a registry through which endpoints come a second late; return its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", registry, timeout=60)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                upstream.request(self.command, self.path, body or None, headers)
                response = upstream.getresponse()
                status, answer = response.status, response.read()
            except OSError:
                status, answer = 503, b""
            finally:
                upstream.close()
            if self.path.endswith(":endpoints") and status == 200:
                time.sleep(_LATE)
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                if status != 304:
                    self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        do_GET = do_POST = _pass_on  # noqa: N815  # the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=partial(server.serve_forever, 0.05))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
