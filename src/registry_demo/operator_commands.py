"""Commands that an operator of the demo's registry types."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from registry_demo.access import DemoAccess
from registry_demo.bounds import REGION
from registry_demo.errors import BrokenError
from registry_demo.process import Process, environment

COMMAND_TIMEOUT = 60.0
"""Seconds that a command may take."""


@dataclass(frozen=True)
class Finished:
    """The end of a command: its exit status, and what it printed."""

    status: int
    output: str


class OperatorCommands:
    """Runs commands as an operator does.

    Args:
        directory: the directory of the demo.
        access: the tokens.
        registry: the registry.
        registry_port: where it listens.
    """

    def __init__(self, directory: Path, access: DemoAccess, registry: Process, registry_port: int) -> None:
        self._directory = directory
        self._access = access
        self._registry = registry
        self._registry_port = registry_port

    async def run(self, command: list[str]) -> Finished:
        """Run a command; a refusal is a status, and no error.

        Raises:
            BrokenError: it takes too long.
        """
        registry = f"http://127.0.0.1:{self._registry_port}"
        settings = {
            "REGISTRYCTL_URL": registry,
            "REGISTRAR_REGISTRY_URL": registry,
            "REGISTRYCTL_TOKEN_FILE": str(self._access.operator_file),
            "REGISTRAR_SERVICE": "web",
            "REGISTRAR_ENDPOINT": "127.0.0.1:1",
            "REGISTRAR_INSTANCE_ID": "demo-web",
            "REGISTRAR_REGION": REGION,
            "REGISTRAR_ZONE": f"{REGION}a",
        }
        program, *arguments = command
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name(program)), *arguments),
            cwd=self._directory,
            env=environment(self._directory, settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                said, _ = await process.communicate()
        except TimeoutError:
            raise BrokenError(
                f"{' '.join(command)} takes longer than {COMMAND_TIMEOUT:.0f} s", self._registry
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Finished(process.returncode or 0, said.decode(errors="replace").strip())
