"""A shadow of ten percent, apps that close idle connections, and a split whose part is dead: the documented figures."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from harness.envoy import Envoy
from harness.mesh_app import mesh_app
from harness.mesh_envoy import envoy_of
from harness.mesh_server import MeshServer, mesh_server
from harness.process import eventually, free_port
from harness.steady_load import Load

from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.route import Route
from meshconfig.definition.shadow import Shadow
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

_RATE = 150.0
"""Requests a second."""
_IDLE_TIMEOUT = 0.3
"""Seconds after which the app closes a connection without a request."""
_BURST = 20
"""Requests at once: as many connections are idle for the same time afterwards."""


@contextlib.contextmanager
def _caller(
    directory: Path, shop: Dependency, ports: Mapping[str, Sequence[int]], *targets: Dependency
) -> Iterator[tuple[int, MeshServer]]:
    """Run the Envoy of a caller with this dependency; yield the port for its requests, and its registry."""
    registry_port = free_port()
    mesh = Mesh(
        registry=RegistryClient(addresses=(f"127.0.0.1:{registry_port}",)),
        egress=Listen(port=free_port()),
        admin=Admin(port=free_port()),
    )
    configuration = Configuration(mesh, {"web": Caller("web", (shop,), targets)})
    snapshot = compile_mesh(configuration, Catalog())
    with mesh_server(snapshot, ports, registry_port) as registry, envoy_of(directory, configuration, "web") as envoy:
        for service, places in ports.items():
            eventually(partial(_has, envoy, service, len(places)), within=15)
        yield mesh.egress.port, registry


def _has(envoy: Envoy, service: str, count: int) -> bool:
    return len(envoy.hosts(service)) == count


async def _run(port: int, seconds: float, *acts: tuple[float, Callable[[], object]]) -> Load:
    """Send GETs, and act at times of it; return how it went."""
    load, clock = Load(port), asyncio.get_running_loop().time
    sending, begins = asyncio.create_task(load.run(_RATE, seconds, posts=False)), clock()
    for moment, act in acts:
        await asyncio.sleep(max(0.0, begins + moment - clock()))
        await asyncio.to_thread(act)
    await sending
    await load.finish()
    return load


@pytest.mark.parametrize("state", ["well", "dead"])
def test_a_shadow_gets_a_tenth_and_harms_nobody(tmp_path: Path, state: str) -> None:
    """65 to 135 copies of 1,000 requests, drawn for each on its own; none of the requests is lost to them."""
    shadowed = Route(prefix="/", shadow=Shadow(service="copy", percent=10.0))
    shop = Dependency(name="shop", service="shop", routes=(shadowed,))
    with mesh_app("shop") as app, mesh_app("copy") as copy:
        ports = {"shop": [app.port], "copy": [free_port() if state == "dead" else copy.port]}
        with _caller(tmp_path, shop, ports, Dependency(name="copy", service="copy")) as (port, _):
            load = asyncio.run(_run(port, 1_000 / _RATE))
        assert (load.sent.total(), load.lost.total()) == (1_000, 0), load.reasons
        assert copy.count("/work") == 0 if state == "dead" else 65 <= copy.count("/work") <= 135
        print(f"copies to a shadow that is {state}: {copy.count('/work')} of 1,000")  # noqa: T201  # the figure of a proof


@pytest.mark.parametrize("state", ["served", "gone"])
def test_a_split_loses_the_share_of_a_dead_service(tmp_path: Path, state: str) -> None:
    """As `plan` warns: a fifth of the requests, also when the registry serves none of its endpoints any more."""
    split = Route(prefix="/", split={"shop": 80.0, "next": 20.0})
    shop = Dependency(name="shop", service="shop", routes=(split,))
    with mesh_app("shop") as app:
        ports = {"shop": [app.port], "next": [free_port()] if state == "served" else []}
        with _caller(tmp_path, shop, ports, Dependency(name="next", service="next")) as (port, _):
            load = asyncio.run(_run(port, 840 / _RATE))
    print(f"lost to a split whose part is dead and {state}: {load.lost['GET']} of 840")  # noqa: T201  # the figure
    assert 118 <= load.lost["GET"] <= 218, load.reasons


@pytest.mark.parametrize("keep_alive", [_IDLE_TIMEOUT / 2, None])
def test_connections_end_before_the_app_closes_them(tmp_path: Path, keep_alive: float | None) -> None:
    """A POST on a connection that the app is just closing is lost, unless Envoy has closed it before."""
    route = Route(prefix="/", retry=None)
    shop = Dependency(name="shop", service="shop", keep_alive=keep_alive, outlier_detection=None, routes=(route,))
    with _impatient_app() as app, _caller(tmp_path, shop, {"shop": [app]}) as (port, _):
        sent, lost = asyncio.run(_bursts(port, until_lost=keep_alive is None))
    print(f"lost with keep_alive {keep_alive}: {lost} of {sent} POSTs")  # noqa: T201  # the figure of a proof
    assert (lost == 0) is (keep_alive is not None)


async def _bursts(port: int, *, until_lost: bool) -> tuple[int, int]:
    """Send POSTs together, again and again about when the app closes its idle connections; return sent and lost."""
    load = Load(port)
    for burst in range(150 if until_lost else 60):
        await asyncio.gather(*(load.request("POST", burst * _BURST + number) for number in range(_BURST)))
        if until_lost and load.lost:
            break
        await asyncio.sleep(_IDLE_TIMEOUT + random.uniform(-0.01, 0.01))
    return load.sent.total(), load.lost.total()


@contextlib.contextmanager
def _impatient_app() -> Iterator[int]:
    """Run an app that closes each connection after a while without a request; yield its port."""
    loop, started, ports = asyncio.new_event_loop(), threading.Event(), list[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(_IDLE_TIMEOUT):
                    await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        async with server:
            await server.serve_forever()

    def work() -> None:
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    task = loop.create_task(run())
    thread = threading.Thread(target=work)
    thread.start()
    started.wait(5)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
