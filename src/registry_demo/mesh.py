"""The mesh of the demo: its definitions, and the commands of an operator that check and apply them."""

from dataclasses import dataclass
from pathlib import Path

from registry_demo.access import DemoAccess
from registry_demo.command import Finished
from registry_demo.errors import BrokenError
from registry_demo.operator_commands import OperatorCommands
from registry_demo.process import Process

CALLER = "web"
"""The service that calls ``shop``."""

_MESH = """\
environment: demo
registry: {{addresses: ["127.0.0.1:{registry}"], token_directory: {token_directory}}}
egress: {{port: {egress}}}
admin: {{port: {admin}}}
"""
_CALLER = """\
service: web
dependencies:
- service: shop
  routes:
  - {route}
"""
_SERVICES = ("shop", "shop-next")


@dataclass(frozen=True)
class MeshPorts:
    """Ports of the second Envoy: where its app calls, and its admin interface."""

    egress: int
    admin: int


class DemoMesh:
    """The definitions of one run, and the command that works on them.

    Args:
        directory: the directory of the demo.
        token_directory: the directory from which Envoys take their token.
        access: the tokens.
        registry: the registry.
        registry_port: where it listens for HTTP.
        streams_port: where it listens for gRPC.
        ports: those of the Envoy of ``web``.
    """

    def __init__(
        self,
        directory: Path,
        token_directory: Path,
        access: DemoAccess,
        registry: Process,
        registry_port: int,
        streams_port: int,
        ports: MeshPorts,
    ) -> None:
        self.ports = ports
        self.definitions = directory / "mesh"
        self._token_directory = token_directory
        self._registry = registry
        self._commands = OperatorCommands(directory, access, registry, registry_port)
        self._registry_port = registry_port
        self._streams_port = streams_port

    def write(self, route: str) -> None:
        """Write the definitions, with this route from ``web`` to ``shop``."""
        services = self.definitions / "services"
        services.mkdir(parents=True, exist_ok=True)
        mesh = _MESH.format(
            registry=self._registry_port,
            token_directory=self._token_directory,
            egress=self.ports.egress,
            admin=self.ports.admin,
        )
        (self.definitions / "mesh.yaml").write_text(mesh, encoding="utf-8")
        (services / f"{CALLER}.yaml").write_text(_CALLER.format(route=route), encoding="utf-8")
        for service in _SERVICES:
            (services / f"{service}.yaml").write_text(f"service: {service}\n", encoding="utf-8")

    async def apply(self, reason: str) -> Finished:
        """Apply the definitions as an operator does; the registry's refusal is a status, and no error."""
        return await self._run(["registryctl", "mesh", "apply", str(self.definitions), "--reason", reason])

    async def bootstrap(self) -> str:
        """Return the bootstrap of the Envoy of ``web``, by which it gets everything over one stream.

        Raises:
            BrokenError: the command failed.
        """
        streams = f"127.0.0.1:{self._streams_port}"
        command = ["registryctl", "mesh", "bootstrap", CALLER, "--dir", str(self.definitions), "--ads", streams]
        return self._output(await self._run(command))

    async def overlay(self) -> str:
        """Return what differs from task to task, as the registrar beside it writes it.

        Raises:
            BrokenError: the command failed.
        """
        return self._output(await self._run(["registrar", "bootstrap"]))

    def _output(self, finished: Finished) -> str:
        if finished.status:
            raise BrokenError(f"a command of the mesh failed: {finished.output}", self._registry)
        return finished.output

    async def _run(self, command: list[str]) -> Finished:
        return await self._commands.run(command)
