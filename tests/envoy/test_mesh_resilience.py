"""The generated defaults while apps die, hang, reset, refuse and are replaced: the promises of the documentation."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from harness.envoy import Envoy
from harness.mesh_envoy import envoy_of
from harness.mesh_server import MeshServer, Place, lb_endpoint, mesh_server
from harness.no_tls import NO_TLS
from harness.process import eventually, free_port, running
from harness.steady_load import Load

from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.fault_injection import Abort, FaultInjection
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

RATE = 150.0
"""Requests a second, of which three in ten are POSTs."""
SECONDS = 8.0
"""The length of a run: 840 GETs and 360 POSTs."""
COUNTERS = (
    "upstream_cx_connect_fail",
    "upstream_rq_retry",
    "upstream_rq_retry_overflow",
    "upstream_cx_overflow",
    "upstream_rq_pending_overflow",
)
"""What Envoy counts of a run, from which it is clear why a request was lost."""


@dataclass
class Stage:
    """A caller's Envoy with three endpoints behind it."""

    port: int
    registry: MeshServer
    directory: Path
    stack: contextlib.ExitStack
    envoy: Envoy = field(init=False)
    processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self) -> int:
        """Start an app; return its port."""
        port = free_port()
        command = [sys.executable, "-m", "harness.failing_app", str(port), str(port), str(self.directory / "posts")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        app = running(command, env=environment, log=self.directory / "app.log")
        self.processes[port] = self.stack.enter_context(app)
        eventually(lambda: self.ask(port, "/asked"), within=15)
        return port

    def ask(self, port: int, path: str) -> bool:
        """Ask an app itself; tell whether it answers."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, verify=NO_TLS).status_code == 200
        return False

    def serve(self, places: Sequence[Place]) -> None:
        """Let the registry serve these endpoints."""
        self.registry.ports = {"shop": places}
        self.registry.version += 1

    def run(self, *acts: tuple[float, Callable[[], object]]) -> Load:
        """Send the load, and act at times of it; return how it went."""

        async def whole() -> Load:
            load = Load(self.port)
            sending = asyncio.create_task(load.run(RATE, SECONDS))
            begins = time.monotonic()
            for moment, act in acts:
                await asyncio.sleep(max(0.0, begins + moment - time.monotonic()))
                await asyncio.to_thread(act)
            await sending
            await load.finish()
            return load

        return asyncio.run(whole())

    def replacements(self) -> list[tuple[int, int]]:
        """Start a new app for each; return the ports of old and new. A start takes seconds on a busy machine."""
        return [(old, self.start()) for old in list(self.processes)]

    def repeated(self) -> list[str]:
        """Return the ids of POSTs that apps began more than once."""
        begun = Counter((self.directory / "posts").read_text().split())
        return [number for number, times in begun.items() if times > 1]


@contextlib.contextmanager
def stage_of(directory: Path, shop: Dependency) -> Iterator[Stage]:
    """Run three apps and the Envoy of a caller with this dependency on them."""
    registry_port = free_port()
    mesh = Mesh(
        registry=RegistryClient(addresses=(f"127.0.0.1:{registry_port}",)),
        egress=Listen(port=free_port()),
        admin=Admin(port=free_port()),
    )
    configuration = Configuration(mesh, {"web": Caller("web", (shop,))})
    (directory / "posts").touch()
    with contextlib.ExitStack() as stack:
        snapshot = compile_mesh(configuration, Catalog())
        registry = stack.enter_context(mesh_server(snapshot, {"shop": []}, registry_port))
        made = Stage(mesh.egress.port, registry, directory, stack)
        made.serve([made.start() for _ in range(3)])
        made.envoy = stack.enter_context(envoy_of(directory, configuration, "web"))
        eventually(lambda: len(made.envoy.hosts("shop")) == 3)
        yield made


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Run three apps and a caller's Envoy with the generated defaults."""
    with stage_of(tmp_path, Dependency(name="shop", service="shop")) as made:
        yield made


def said(load: Load) -> str:
    """Return what a run lost, for reports."""
    counts = ", ".join(f"{load.lost[method]} of {load.sent[method]} {method}s" for method in ("GET", "POST"))
    return f"lost {counts}: {dict(load.reasons)}"


def assert_lost(stage: Stage, load: Load, most: int) -> None:
    """Hold a run to its promise: no GET, at most some POSTs, and no POST twice.

    On a machine whose processes wait for seconds, requests that fill every connection meanwhile are lost: an overflow.
    """
    counts = {name: stage.envoy.counter("shop", name) for name in COUNTERS}
    report = f"{said(load)}; {counts}"
    print(report)  # noqa: T201  # the figures of a proof
    assert load.sent["GET"] > 800
    assert load.lost["GET"] == 0, report
    assert load.lost["POST"] <= most, report
    assert stage.repeated() == []


def test_an_app_that_is_killed(stage: Stage) -> None:
    """The registry serves it for another one and a half seconds."""
    victim, *rest = stage.processes
    load = stage.run((2.0, stage.processes[victim].kill), (3.5, lambda: stage.serve(rest)))
    assert_lost(stage, load, 1)


def test_an_app_that_is_killed_with_many_requests_under_way(stage: Stage) -> None:
    """All of them fail in one moment, and each is retried: a fifth of what is under way would be too few retries."""
    for port in stage.processes:
        stage.ask(port, "/mode/long")
    victim, *rest = stage.processes

    async def whole() -> Load:
        load = Load(stage.port)
        sending = asyncio.create_task(load.run(RATE, 4, posts=False))
        await asyncio.sleep(2)
        stage.processes[victim].kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(stage.serve, rest)
        await sending
        await load.finish()
        return load

    load = asyncio.run(whole())
    counts = {name: stage.envoy.counter("shop", name) for name in COUNTERS}
    assert counts["upstream_rq_retry"] > 10, counts
    assert load.lost["GET"] == 0, f"{said(load)}; {counts}"


def test_an_app_that_is_killed_without_the_defaults(tmp_path: Path) -> None:
    """The same kill loses requests of both kinds where nothing is retried and nobody ejected."""
    with stage_of(tmp_path, Dependency(name="shop", service="shop", retry=None, outlier_detection=None)) as stage:
        victim, *rest = stage.processes
        load = stage.run((2.0, stage.processes[victim].kill), (3.5, lambda: stage.serve(rest)))
        print(said(load))  # noqa: T201  # the figures of a proof
        assert load.lost["GET"] >= 10
        assert load.lost["POST"] >= 5


def test_an_app_that_hangs(stage: Stage) -> None:
    """It accepts connections and says nothing; POSTs that it may have begun are nobody's to repeat."""
    victim, *rest = stage.processes
    stopped = stage.processes[victim]
    try:
        load = stage.run(
            (1.0, lambda: stopped.send_signal(signal.SIGSTOP)),
            (7.3, lambda: stage.serve(rest)),
        )
    finally:
        stopped.send_signal(signal.SIGCONT)
    assert_lost(stage, load, 30)


@pytest.mark.parametrize("mode", ["reset", "unavailable"])
def test_an_app_that_fails_every_request(stage: Stage, mode: str) -> None:
    """Retries bridge until it is ejected."""
    victim = next(iter(stage.processes))
    load = stage.run((2.0, lambda: stage.ask(victim, f"/mode/{mode}")))
    assert_lost(stage, load, 10)


def test_a_deploy_that_drains_first(stage: Stage) -> None:
    """Each of the three is replaced: draining, stopped once Envoy sends it nothing more, gone."""
    acts: list[tuple[float, Callable[[], object]]] = []
    for number, (old, new) in enumerate(stage.replacements()):
        acts += [
            (1.0 + 2 * number, partial(replace, stage, old, new, draining=True)),
            (2.2 + 2 * number, partial(stop_drained, stage, old)),
            (2.4 + 2 * number, partial(without, stage, old)),
        ]
    assert_lost(stage, stage.run(*acts), 0)


def test_a_deploy_that_stops_first(stage: Stage) -> None:
    """The registry learns of each a second after it is gone."""
    acts: list[tuple[float, Callable[[], object]]] = []
    for number, (old, new) in enumerate(stage.replacements()):
        acts += [
            (1.0 + 2 * number, partial(replace, stage, old, new, draining=False)),
            (1.2 + 2 * number, partial(stop, stage, old)),
            (2.2 + 2 * number, partial(without, stage, old)),
        ]
    assert_lost(stage, stage.run(*acts), 5)


def replace(stage: Stage, old: int, new: int, *, draining: bool) -> None:
    """Serve a new app beside an old one, which drains or goes on."""
    rest = [place for place in stage.registry.ports["shop"] if place != old]
    stage.serve([*rest, new, lb_endpoint(old, health_status="DRAINING") if draining else old])


def stop_drained(stage: Stage, old: int) -> None:
    """Send SIGTERM to an app that Envoy sends nothing more, however long a busy machine takes to tell Envoy so.

    A POST that has reached an app when it stops is lost, whatever Envoy may repeat.
    """
    address = f"127.0.0.1:{old}"
    eventually(lambda: stage.envoy.hosts("shop")[address] == "DRAINING" and not stage.envoy.active("shop")[address])
    stop(stage, old)


def stop(stage: Stage, old: int) -> None:
    """Send SIGTERM to an app."""
    stage.processes[old].terminate()


def without(stage: Stage, old: int) -> None:
    """Let the registry serve the endpoints that are left."""
    stage.serve([place for place in stage.registry.ports["shop"] if place not in (old, _draining(old))])


def _draining(port: int) -> Place:
    return lb_endpoint(port, health_status="DRAINING")


def test_an_abort_is_not_retried(tmp_path: Path) -> None:
    """Thirty percent of the requests, drawn for each on its own."""
    fault = FaultInjection(abort=Abort(status=503, percent=30))
    with stage_of(tmp_path, Dependency(name="shop", service="shop", fault=fault)) as stage:
        load = stage.run()
        lost = load.lost["GET"] + load.lost["POST"]
        assert 290 <= lost <= 430, said(load)


@pytest.mark.parametrize("mode", ["slow", "rejecting"])
def test_an_overload_ends_with_its_cause(stage: Stage, mode: str) -> None:
    """Four seconds of half again what the apps can do, then two thirds of it: nothing fails at the end."""
    for port in stage.processes:
        stage.ask(port, f"/mode/{mode}")

    async def whole() -> Load:
        load = Load(stage.port)
        await load.run(180, 4, posts=False)
        await load.run(80, 4, posts=False)
        await load.finish()
        return load

    load = asyncio.run(whole())
    print(said(load))  # noqa: T201  # the figures of a proof
    last = [load.outcomes[number] for number in sorted(load.outcomes)][-160:]
    assert last.count(False) == 0, said(load)
