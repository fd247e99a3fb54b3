"""Processes of the demo: the registry, Envoy, and the apps with a registrar beside each."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry_demo import leftover_processes
from registry_demo.access import DemoAccess
from registry_demo.bootstrap import CALLER, Ports, render
from registry_demo.bounds import CHECK_INTERVAL, DRAIN_WAIT, REGION, STOP_TIMEOUT, TRAFFIC_INTERVAL
from registry_demo.connection import fetch
from registry_demo.errors import BrokenError
from registry_demo.free_ports import free_ports
from registry_demo.process import Process
from wire.duration import format_duration
from wire.envoy_token import SDS_FILE, TOKEN_FILE, token_sds

POLL_INTERVAL = 0.05
"""Seconds between two requests to a process that starts."""
READY_TIMEOUT = 60.0
"""Seconds that the registry and Envoy may need to start."""
APP_TIMEOUT = 15.0
"""Seconds that an app may need to start."""
LEFTOVER_TIMEOUT = 5.0
"""Seconds that processes without a parent may need to end."""
REGISTRY_STOP_TIMEOUT = 15.0
"""Seconds that the registry and its PostgreSQL may need to end."""
_TOKEN_DIRECTORY = "envoy-token"  # noqa: S105  # a directory
"""The directory with Envoy's token, in that of the demo."""


@dataclass
class Instance:
    """One endpoint: an app, and the registrar beside it."""

    name: str
    zone: str
    port: int
    app: Process
    registrar: Process

    @property
    def endpoint(self) -> str:
        """The ``ip:port`` of the app."""
        return f"127.0.0.1:{self.port}"


class DemoProcesses:
    """Set of all processes of the demo: it starts them, checks that they live, and ends each of them."""

    def __init__(self, directory: Path, envoy: Path) -> None:
        self.ports = Ports(*free_ports(5))
        self.instances: dict[str, Instance] = {}
        self.registry: Process | None = None
        self.envoy: Process | None = None
        self.access: DemoAccess | None = None
        self.directory = directory
        self._binary = envoy
        # The processes that must not end by themselves.
        self._expected: set[Process] = set()
        # Every process that was started, in order.
        self._started: list[Process] = []

    async def start_registry(self) -> Process:
        """Start the registry with access on and a PostgreSQL of its own, and wait until it is ready."""
        settings = {
            "REGISTRY_LISTEN": f"127.0.0.1:{self.ports.registry}",
            "REGISTRY_XDS_LISTEN": f"127.0.0.1:{self.ports.streams}",
            "REGISTRY_DATA_DIR": str(self.directory / "data"),
            "REGISTRY_AUTH": "on",
            # It proves every revision of the mesh configuration before it serves it.
            "REGISTRY_ENVOY_BINARY": str(self._binary),
        }
        argv = [sys.executable, "-m", "registry.cli", "serve"]
        self.registry = await self._start("registry", argv, settings)
        await self._answering(self.registry, self.ports.registry, "/readyz", READY_TIMEOUT)
        return self.registry

    async def create_tokens(self) -> DemoAccess:
        """Make the tokens of registrars, Envoy and operator, and the directory from which Envoy takes its own."""
        if self.registry is None:
            raise RuntimeError("the registry gives the tokens, and is not started")
        token = self.token_directory
        token.mkdir()
        (token / SDS_FILE).write_text(token_sds(str(token)), encoding="utf-8")
        self.access = DemoAccess(self.directory, self.registry, self.ports.registry)
        await self.access.create_tokens(token / TOKEN_FILE)
        return self.access

    async def start_envoy(self) -> Process:
        """Start Envoy and wait until it serves."""
        config = self.directory / "envoy.yaml"
        config.write_text(render(self.ports, self.token_directory), encoding="utf-8")
        argv = [str(self._binary), "-c", str(config), "--disable-hot-restart", "--concurrency", "2"]
        self.envoy = await self._start("envoy", argv, {})
        await self._answering(self.envoy, self.ports.admin, "/ready", READY_TIMEOUT)
        return self.envoy

    async def start_instance(self, name: str, zone: str) -> Instance:
        """Start an app of ``shop`` and its registrar at once, and wait until the app answers its check."""
        self.instances[name] = await self.start_instance_of("shop", name, zone)
        return self.instances[name]

    async def start_instance_of(self, service: str, name: str, zone: str) -> Instance:
        """Start an app of another service and its registrar, which the live view does not show."""
        [port] = free_ports(1)
        app = await self._start_app(name, zone, port)
        registrar = await self._start_registrar(service, name, zone, port)
        await self._answering(app, port, "/healthz", APP_TIMEOUT)
        return Instance(name, zone, port, app, registrar)

    async def start_canary(self, revision: str, zone: str, errors: float) -> Instance:
        """Start an app of ``shop`` of another revision, of which this part of the answers is errors."""
        name = "canary"
        [port] = free_ports(1)
        app = await self._start_app(name, zone, port, ["--errors", str(errors)])
        registrar = await self._start_registrar("shop", name, zone, port, {"REGISTRAR_REVISION": revision})
        await self._answering(app, port, "/healthz", APP_TIMEOUT)
        self.instances[name] = Instance(name, zone, port, app, registrar)
        return self.instances[name]

    async def start_envoy_registrar(self) -> Process:
        """Start the registrar beside Envoy, which reports what Envoy counts; its endpoint is Envoy's listener."""
        more = {
            "REGISTRAR_ENVOY_ADMIN": f"http://127.0.0.1:{self.ports.admin}",
            "REGISTRAR_ERRANDS": "debug",
            "REGISTRAR_TRAFFIC_INTERVAL": format_duration(TRAFFIC_INTERVAL),
        }
        return await self._start_registrar(CALLER, "front", f"{REGION}a", self.ports.listener, more)

    async def start_mesh_envoy(self, bootstrap: str, overlay: str, admin: int) -> Process:
        """Start an Envoy with a generated bootstrap and the overlay of its task, and wait until it serves."""
        config = self.directory / "web.json"
        config.write_text(bootstrap, encoding="utf-8")
        argv = [str(self._binary), "-c", str(config), "--config-yaml", overlay, "--disable-hot-restart"]
        envoy = await self._start("envoy web", [*argv, "--concurrency", "1"], {})
        await self._answering(envoy, admin, "/ready", READY_TIMEOUT)
        return envoy

    async def start_app_again(self, instance: Instance) -> None:
        """Start the app of ``instance`` once more and wait until it answers its check."""
        instance.app = await self._start_app(instance.name, instance.zone, instance.port)
        await self._answering(instance.app, instance.port, "/healthz", APP_TIMEOUT)

    @property
    def token_directory(self) -> Path:
        """The directory from which Envoys take their token."""
        return self.directory / _TOKEN_DIRECTORY

    def expect_end(self, process: Process) -> None:
        """Expect the end of ``process`` from now on."""
        self._expected.discard(process)

    def check(self) -> None:
        """Check that no process has ended that should not have.

        Raises:
            BrokenError: a process has ended; the text names it.
        """
        for process in self._expected:
            if process.status is not None:
                raise BrokenError(f"{process.name} ended by itself with status {process.status}", process)

    async def stop(self) -> list[str]:
        """End every process, the registry last, by force if needed; return what had to be forced."""
        self._expected.clear()
        others = [process for process in self._started if process.name != "registry"]
        registry = [process for process in self._started if process.name == "registry"]
        forced = await _stop(others, STOP_TIMEOUT) + await _stop(registry, REGISTRY_STOP_TIMEOUT)
        left = await leftover_processes.end(self.directory, LEFTOVER_TIMEOUT)
        return [f"{name} did not end on SIGTERM and was killed" for name in forced] + [
            f"{name} was left behind and had to be ended" for name in left
        ]

    async def _start_app(self, name: str, zone: str, port: int, more: Sequence[str] = ()) -> Process:
        where = ["--listen", f"127.0.0.1:{port}", "--name", name, "--zone", zone, *more]
        return await self._start(f"app {name}", [sys.executable, "-m", "registry_demo.app", *where], {})

    async def _start_registrar(
        self, service: str, name: str, zone: str, port: int, more: Mapping[str, str] | None = None
    ) -> Process:
        settings = {
            "REGISTRAR_REGISTRY_URL": f"http://127.0.0.1:{self.ports.registry}",
            "REGISTRAR_TOKEN_FILE": "" if self.access is None else str(self.access.registrar_file),
            "REGISTRAR_SERVICE": service,
            "REGISTRAR_ENDPOINT": f"127.0.0.1:{port}",
            "REGISTRAR_INSTANCE_ID": f"demo-{name}",
            "REGISTRAR_REVISION": "demo",
            "REGISTRAR_REGION": REGION,
            "REGISTRAR_ZONE": zone,
            "REGISTRAR_CHECK_HTTP_PATH": "/healthz",
            "REGISTRAR_CHECK_INTERVAL": format_duration(CHECK_INTERVAL),
            "REGISTRAR_ON_SIGTERM": "drain",
            "REGISTRAR_DRAIN_WAIT": format_duration(DRAIN_WAIT),
            "REGISTRAR_STOP_TIMEOUT": format_duration(STOP_TIMEOUT),
            # Several of them share this machine's loopback.
            "REGISTRAR_ADMIN_LISTEN": "off",
            **(more or {}),
        }
        return await self._start(f"registrar {name}", [sys.executable, "-m", "registrar.cli", "run"], settings)

    async def _start(self, name: str, argv: list[str], settings: dict[str, str]) -> Process:
        process = await Process.start(name, argv, self.directory, settings)
        self._started.append(process)
        self._expected.add(process)
        return process

    async def _answering(self, process: Process, port: int, path: str, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                while not await _is_ok(port, path):
                    self.check()
                    await asyncio.sleep(POLL_INTERVAL)
        except TimeoutError:
            message = f"{process.name} does not answer GET {path} with 200 after {within:.0f} s"
            raise BrokenError(message, process) from None


async def _stop(processes: list[Process], within: float) -> list[str]:
    ended = await asyncio.gather(*(process.stop(within) for process in processes))
    return [process.name for process, by_itself in zip(processes, ended, strict=True) if not by_itself]


async def _is_ok(port: int, path: str) -> bool:
    try:
        return (await fetch(port, path)).status == 200
    except OSError:
        return False
