"""A registrar process with an edge, as its users see it."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.no_tls import NO_TLS
from harness.process import free_port
from integration.registrar.processes import admin, environment, registrar, run_verb, until
from prometheus_client.parser import text_string_to_metric_families

from registrar.admin.metrics_text import METRICS
from registrar.config.configuration import load_settings
from registrar.errors import ConfigurationError

EDGE_METRICS = [metric for metric in METRICS if metric.name.startswith("registrar_edge_")]


async def _poll(client: httpx.AsyncClient, service: str) -> httpx.Response:
    return await client.post("/v3/discovery:endpoints", json={"node": {"id": "e"}, "resource_names": [service]})


async def test_status_and_metrics(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """They say what is held, where from, and how old; a stop removes the socket, and a start reads the disk."""
    await registry.assign("shop", "db000001:5", "10.0.0.1:80")
    where, socket = f"unix:{tmp_path}/admin.sock", tmp_path / "edge.sock"
    environ = environment(
        registry,
        app,
        REGISTRAR_ADMIN_LISTEN=where,
        REGISTRAR_EDGE_LISTEN=f"unix:{socket}",
        REGISTRAR_ON_SIGTERM="keep",
        STATE_DIRECTORY=str(tmp_path / "state"),
    )
    transport = httpx.AsyncHTTPTransport(verify=NO_TLS, uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://registry", timeout=10) as envoy:
        async with registrar(environ) as process, admin(where) as client:
            assert (await _poll(envoy, "shop")).json()["version_info"] == "db000001:5"
            await until(client, "/readyz", 200)
            edge = (await client.get("/status")).json()["edge"]
            assert (edge["refused"], edge["full"], edge["away"]) == (False, False, None)
            assert edge["directory"] == f"{tmp_path}/state/edge"
            (name,) = edge["names"]
            assert (name["name"], name["version"], name["source"]) == ("shop", "db000001:5", "registry")
            text = (await client.get("/metrics")).text
            families = {family.name: family for family in text_string_to_metric_families(text)}
            for metric in EDGE_METRICS:
                family = families[metric.name.removesuffix("_total")]
                assert (family.type, {tuple(sample.labels) for sample in family.samples}) == (
                    metric.type,
                    {metric.labels},
                )
            _, out, _ = await run_verb(environ, "status")
            assert f"edge      unix:{socket}, 1 names" in out
            async with asyncio.timeout(10):
                while not (tmp_path / "state" / "edge" / "shop").exists():
                    await asyncio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert not socket.exists()
        registry.silent = True
        async with registrar(environ), admin(where) as client:
            assert (await _poll(envoy, "shop")).json()["version_info"] == "db000001:5"
            (name,) = (await client.get("/status")).json()["edge"]["names"]
            assert name["source"] == "disk"


async def test_a_full_disk_and_no_descriptors(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """Envoys are served from memory; that it cannot be written is said, and it is written when there is room.

    Without descriptors held connections are served, and further ones as soon as there are some.
    """
    where, file = f"unix:{tmp_path}/admin.sock", tmp_path / "state" / "edge" / "shop"
    port = free_port()
    settings = {"REGISTRAR_ADMIN_LISTEN": where, "REGISTRAR_EDGE_LISTEN": f"127.0.0.1:{port}"}
    environ = environment(registry, app, REGISTRAR_STATE_DIRECTORY=str(tmp_path / "state"), **settings)
    envoy = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
    async with envoy, registrar(environ) as process, admin(where) as client:
        await registry.assign("shop", "db000001:5", "10.0.0.1:80")
        assert (await _poll(envoy, "shop")).json()["version_info"] == "db000001:5"
        await _until(lambda: file.exists() and b"db000001:5" in file.read_bytes())
        # A write beyond it fails as one to a full disk does.
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        await registry.assign("shop", "db000001:6", "10.0.0.2:80")

        async def problem() -> str | None:
            edge = (await client.get("/status")).json()["edge"]
            return str(edge["disk_problem"]) if edge["write_failures"] else None

        async with asyncio.timeout(20):
            while not await problem():
                await asyncio.sleep(0.05)
        assert (await _poll(envoy, "shop")).json()["version_info"] == "db000001:6"
        assert b"db000001:5" in file.read_bytes()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
        # Without a change it would be tried again within 15 s.
        await registry.assign("shop", "db000001:7", "10.0.0.2:80")
        await _until(lambda: b"db000001:7" in file.read_bytes())
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1, before[1]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as another:
            waiting = asyncio.create_task(_poll(another, "shop"))
            await asyncio.sleep(0.5)
            assert (await _poll(envoy, "shop")).json()["version_info"] == "db000001:7"
            assert not waiting.done()
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            assert (await waiting).json()["version_info"] == "db000001:7"
        await registry.assign("shop", "db000001:8", "10.0.0.2:80")
        await _until(lambda: b"db000001:8" in file.read_bytes())


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.05)


async def test_an_address_in_use_is_taken_over(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """Two registrars of one machine: the second serves Envoys as soon as the first is killed, whose socket stays."""
    path = tmp_path / "edge.sock"
    environ = environment(registry, app, REGISTRAR_EDGE_LISTEN=f"unix:{path}", REGISTRAR_ON_SIGTERM="keep")
    second = environ | {"REGISTRAR_ADMIN_LISTEN": f"unix:{tmp_path}/second.sock"}
    first = environ | {"REGISTRAR_ADMIN_LISTEN": f"unix:{tmp_path}/first.sock"}
    transport = httpx.AsyncHTTPTransport(verify=NO_TLS, uds=str(path))
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://edge", timeout=10) as probe,
        registrar(first) as before,
        admin(first["REGISTRAR_ADMIN_LISTEN"]),
        registrar(second),
        admin(second["REGISTRAR_ADMIN_LISTEN"]) as client,
    ):
        await until(client, "/readyz", 200)
        assert (await probe.get("/livez")).status_code == 200
        before.kill()
        await before.wait()
        assert path.exists()
        assert await _lives(probe)


async def _lives(probe: httpx.AsyncClient) -> bool:
    async with asyncio.timeout(20):
        while True:
            try:
                return (await probe.get("/livez")).status_code == 200
            except httpx.TransportError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("REGISTRAR_EDGE_LISTEN", "10.0.0.1:9903", "loopback"),
        ("REGISTRAR_EDGE_FALLBACK", "https://bucket/shop.json", "{service}"),
        ("REGISTRAR_EDGE_FALLBACK", "s3://bucket/{service}.json", "http"),
    ],
)
async def test_unusable_settings(registry: FakeRegistry, app: FakeApp, setting: str, value: str, word: str) -> None:
    """They are refused, and the message says what would do."""
    with pytest.raises(ConfigurationError) as refused:
        load_settings({}, environment(registry, app, **{setting: value}))
    (fault,) = refused.value.faults
    assert setting in fault
    assert word in fault


async def test_a_path_that_nothing_can_listen_at(registry: FakeRegistry, app: FakeApp) -> None:
    """It is refused at the start, as an unusable setting is."""
    status, _, err = await run_verb(environment(registry, app, REGISTRAR_EDGE_LISTEN="unix:/nowhere/edge.sock"))
    assert status == 2
    assert "REGISTRAR_EDGE_LISTEN: cannot listen" in err


@pytest.mark.parametrize("setting", ["REGISTRAR_EDGE_LISTEN", "REGISTRAR_ADMIN_LISTEN"])
async def test_a_file_at_the_path_of_a_socket_is_left_alone(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path, setting: str
) -> None:
    """A path that was mistyped costs no configuration; only a socket that nothing listens at is removed."""
    file = tmp_path / "registrar.yaml"
    file.write_text("precious")
    status, _, err = await run_verb(environment(registry, app, **{setting: f"unix:{file}"}))
    assert (status, file.read_text()) == (2, "precious")
    assert f"{setting}: cannot listen on unix:{file}: what is there is no socket, and is not removed" in err


async def test_a_process_that_hangs_at_the_path_stops_no_other(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path
) -> None:
    """Its queue is full, since Envoy went on probing; the next registrar registers its app all the same."""
    path = f"{tmp_path}/edge.sock"
    clients = []
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(path)
        hanging.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                clients.append(socket.socket(socket.AF_UNIX))
                clients[-1].setblocking(False)
                clients[-1].connect(path)
        environ = environment(registry, app, REGISTRAR_EDGE_LISTEN=f"unix:{path}")
        environ["REGISTRAR_ADMIN_LISTEN"] = f"unix:{tmp_path}/admin.sock"
        async with registrar(environ), admin(environ["REGISTRAR_ADMIN_LISTEN"]) as client:
            await until(client, "/readyz", 200)
    for each in clients:
        each.close()
