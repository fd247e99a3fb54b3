"""One running registrar in this process: what its parts do to each other."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from harness.fake_registry import FakeRegistry
from harness.link import FakeTask, sample
from msgspec import structs

import wire.log_stream
from registrar.checks.noop import NoopOptions
from registrar.config.settings import OnSigterm, Service, Settings
from registrar.duration import Duration
from registrar.endpoint.endpoints import build_endpoints
from registrar.endpoint.monitors import Monitors
from registrar.endpoint.port_follower import PortFollower
from registrar.identity.source import Facts, Source
from registrar.identity.sources import sources
from registrar.identity.spec import EndpointSpec
from registrar.lifecycle import sidecar as sidecar_module
from registrar.lifecycle.app import App
from registrar.lifecycle.reload import Reloader, ReloadPlan
from registrar.lifecycle.sidecar import Sidecar, Work
from registrar.lifecycle.signals import Signals
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls
from wire.log_stream import LogStream


class SlowReloader(Reloader):
    """Reads settings like any other, and then waits for an event, as for an address that is slow to find."""

    def __init__(self, settings: Settings, asked: tuple[Source, ...]) -> None:
        super().__init__(lambda: settings, asked)
        self.asking = asyncio.Event()
        self.go = asyncio.Event()

    async def plan(self, current: Settings, monitors: Monitors) -> ReloadPlan | None:
        """Return the plan in the end."""
        self.asking.set()
        plan = await super().plan(current, monitors)
        await self.go.wait()
        return plan


class BrokenReloader(Reloader):
    """Has a defect."""

    async def plan(self, current: Settings, monitors: Monitors) -> ReloadPlan | None:
        """Fail in a way that nobody foresaw."""
        raise RuntimeError("a defect")


# Says that it runs, and needs a moment to end.
APP = """
import signal, sys, time
def stop(*_):
    time.sleep({grace})
    print("ended in peace", file=open(sys.argv[1], "a"))
    raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
print("started", file=open(sys.argv[1], "a"))
while True:
    time.sleep(0.02)
"""


def passing(interval: float) -> tuple[NoopOptions]:
    """Return a check that always passes."""
    return (NoopOptions(interval=Duration(interval)),)


def settings(*services: str, interval: float = 0.1) -> Settings:
    """Return the settings of these services, which always pass."""
    checks = passing(interval)
    return Settings(
        services=tuple(
            Service(service=name, endpoint=EndpointSpec.parse(f"10.0.0.5:{port}"), checks=checks)
            for port, name in enumerate(services, 1)
        ),
        on_sigterm=OnSigterm.DRAIN,
        drain_wait=Duration(0.6),
    )


class Started:
    """A sidecar of the service shop and what it is told by."""

    def __init__(self, sidecar: Sidecar, signals: Signals, reloader: SlowReloader, task: asyncio.Task[int]) -> None:
        self.sidecar, self.signals, self.reloader, self.task = sidecar, signals, reloader, task


@asynccontextmanager
async def started(registry: FakeRegistry, new: Settings, beside: Work | None = None) -> AsyncIterator[Started]:
    """Run a sidecar whose next reload finds the ``new`` settings, with some work beside its heartbeats."""
    first = settings("shop")
    asked = sources(Facts("i-1"), {"AWS_EC2_METADATA_DISABLED": "true"})
    async with RegistryClient(RegistryUrls(registry.url)) as client:
        signals, reloader = Signals(), SlowReloader(new, asked)
        sidecar = Sidecar(first, client, await build_endpoints(first, asked), signals, reloader)
        if beside is not None:
            sidecar.beside(beside, "work")
        task = asyncio.create_task(sidecar.run())
        await registry.until(lambda: registry.batches)
        yield Started(sidecar, signals, reloader, task)
        signals.stop.set()
        async with asyncio.timeout(5):
            assert await task == 0


async def test_lines_that_wait_for_the_reader_of_the_log_are_written_without_a_further_one(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next event may come in an hour."""
    taken = bytearray()
    reads, written = False, asyncio.Event()

    def channel(data: bytes) -> int:
        if not reads:
            raise BlockingIOError
        taken.extend(data)
        written.set()
        return len(data)

    stream = LogStream(channel)
    monkeypatch.setattr(wire.log_stream, "log_stream", lambda: stream)
    stream.write("a line\n")
    async with started(registry, settings("shop")):
        reads = True
        async with asyncio.timeout(30):
            await written.wait()
    assert taken == b"a line\n"


@pytest.mark.parametrize("by", ["signal", "admin"])
async def test_what_drains_does_not_come_back_by_a_reload_that_was_under_way(registry: FakeRegistry, by: str) -> None:
    """Neither with other checks, nor beside what is new."""
    registry.interval = 0.1
    async with started(registry, settings("shop", "admin", interval=0.05)) as it:
        it.signals.reload.set()
        await it.reloader.asking.wait()
        if by == "signal":
            it.signals.stop.set()
        else:
            it.sidecar.start_drain()
        await registry.until(lambda: registry.last.registration.draining)
        drained = len(registry.heartbeats)
        it.reloader.go.set()
        await registry.until(lambda: registry.deregistrations)
    assert all(beat.registration.draining for beat in registry.heartbeats[drained:])
    assert {beat.service for beat in registry.heartbeats} == {"shop"}


async def test_work_beside_the_heartbeats_is_begun_again_and_stops_none(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of it, also one of a group of tasks, neither ends the process nor takes the app out of rotation."""
    monkeypatch.setattr(sidecar_module, "RESTART_PAUSE", 0.01)
    registry.interval = 0.1
    begun, goes_on = 0, asyncio.Event()

    async def fail() -> None:
        raise OverflowError("int too large to convert to float")

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            await fail()
        if begun == 2:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
        goes_on.set()
        await asyncio.Event().wait()

    async with started(registry, settings("shop"), work) as it:
        async with asyncio.timeout(10):
            await goes_on.wait()
        sent = len(registry.batches)
        await registry.until(lambda: len(registry.batches) > sent)
        assert not it.task.done()
        assert not registry.deregistrations


async def test_a_reload_does_not_make_it_another_instance(registry: FakeRegistry) -> None:
    """The source of the instance's id may fail during a reload, and the next source has another id."""
    registry.interval = 0.1
    async with started(registry, settings("shop", "admin", interval=0.05)) as it:
        it.reloader.sources = sources(Facts("i-2"), {"AWS_EC2_METADATA_DISABLED": "true"})
        it.reloader.go.set()
        it.signals.reload.set()
        await registry.until(lambda: {beat.service for beat in registry.heartbeats} == {"shop", "admin"})
    assert {beat.registration.instance_id for beat in registry.heartbeats} == {"i-1"}


@pytest.mark.parametrize(("grace", "said"), [(0.5, ["started", "ended in peace"]), (60, ["started"])])
async def test_a_defect_of_ours_gives_the_app_its_grace(
    registry: FakeRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, grace: float, said: list[str]
) -> None:
    """Deregistered, SIGTERM, the time of any other stop, only then force; and the log has the traceback."""
    first, log = structs.replace(settings("shop"), stop_timeout=Duration(5)), tmp_path / "app"
    asked = sources(Facts("i-1"), {"AWS_EC2_METADATA_DISABLED": "true"})
    command = (sys.executable, "-c", APP.format(grace=grace), str(log))
    async with RegistryClient(RegistryUrls(registry.url)) as client, App(command, os.environ) as app:
        signals = Signals()
        sidecar = Sidecar(
            first, client, await build_endpoints(first, asked), signals, BrokenReloader(lambda: first, asked)
        )
        task = asyncio.create_task(sidecar.run(app))
        await registry.until(lambda: registry.batches)
        async with asyncio.timeout(5):
            while not log.exists():
                await asyncio.sleep(0.02)
        signals.reload.set()
        async with asyncio.timeout(5):
            assert await task == os.EX_SOFTWARE
        ended = 0 if grace < 1 else 128 + signal.SIGKILL
        assert await app.ended() == ended
    assert log.read_text().splitlines() == said
    assert len(registry.deregistrations) == 1
    (record,) = (record for record in caplog.records if record.message == "internal_error")
    assert record.exc_info is not None
    errors = record.exc_info[1]
    assert isinstance(errors, ExceptionGroup)
    assert [repr(error) for error in errors.exceptions] == ["RuntimeError('a defect')"]


async def test_a_port_that_moves_takes_nothing_else_with_it(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new port is registered and the old one drained; no file is read, and the others are untouched."""
    monkeypatch.setattr("registrar.lifecycle.sidecar.PortFollower", partial(PortFollower, interval=0.05))
    mapped = Service(service="web", endpoint=EndpointSpec.parse(":8080"), container="app", checks=passing(0.1))
    first = structs.replace(settings("shop"), services=(*settings("shop").services, mapped))
    (tmp_path / "file").write_text(json.dumps(sample("ecs-container-metadata-file-bridge-ready")))
    registry.interval = 0.1
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as fake:
        environ = {**fake.variables, "ECS_CONTAINER_METADATA_FILE": str(tmp_path / "file")}
        asked = sources(Facts("i-1"), environ)
        async with RegistryClient(RegistryUrls(registry.url)) as client:
            signals, reloader = Signals(), Reloader(lambda: pytest.fail("the file was read"), asked)
            sidecar = Sidecar(first, client, await build_endpoints(first, asked), signals, reloader)
            task = asyncio.create_task(sidecar.run())
            await registry.until(
                lambda: {beat.endpoint for beat in registry.heartbeats} >= {"10.0.0.5:1", "10.0.8.17:32769"}
            )
            fake.container("app")["Ports"] = [{"ContainerPort": 8080, "HostPort": 32801, "HostIp": "0.0.0.0"}]
            left = {"10.0.0.5:1", "10.0.8.17:32801"}
            await registry.until(
                lambda: (
                    registry.deregistrations and {beat.endpoint for beat in registry.batches[-1][1].heartbeats} == left
                )
            )
            assert sidecar.status().reloads.applied == 0
            signals.stop.set()
            async with asyncio.timeout(5):
                await task
    assert registry.deregistrations[0].path.endswith("/web/endpoints/10.0.8.17:32769")
    others = {beat.registration.incarnation for beat in registry.heartbeats if beat.service == "shop"}
    moved = [beat for beat in registry.heartbeats if beat.endpoint == "10.0.8.17:32769"]
    assert len(others) == 1
    assert any(beat.registration.draining for beat in moved)
