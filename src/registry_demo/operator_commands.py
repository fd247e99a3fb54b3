"""Commands that an operator of the demo's registry types."""

import sys
from pathlib import Path

from registry_demo.access import DemoAccess
from registry_demo.bounds import REGION
from registry_demo.command import Finished, run_command
from registry_demo.errors import BrokenError
from registry_demo.process import Process

COMMAND_TIMEOUT = 60.0
"""Seconds that a command may take."""


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
        argv = [str(Path(sys.executable).with_name(program)), *arguments]
        try:
            return await run_command(argv, self._directory, settings, COMMAND_TIMEOUT)
        except TimeoutError:
            raise BrokenError(
                f"{' '.join(command)} takes longer than {COMMAND_TIMEOUT:.0f} s", self._registry
            ) from None
