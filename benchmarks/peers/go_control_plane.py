"""go-control-plane, the control plane in Go that most others are made with: LinearCache and SnapshotCache."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.go_programs import SERVER, program
from benchmarks.stdio import Commands

LINEAR = "LinearCache"
SNAPSHOT = "SnapshotCache"
_CACHES = {LINEAR: "linear", SNAPSHOT: "snapshot"}


class GoControlPlane:
    """A running server with one service."""

    def __init__(self, process: subprocess.Popen[bytes], commands: Commands, port: int) -> None:
        self.pid = process.pid
        self.port = port
        self._commands = commands

    def change(self) -> float:
        """Change the service; return the moment, on the monotonic clock in seconds, before the cache had it."""
        return int(self._commands.ask("change")["at"]) / 1e9

    def collect(self) -> None:
        """Collect garbage, and return unused memory to the kernel."""
        self._commands.ask("collect")


@contextlib.contextmanager
def go_control_plane(cache: str, assignment: object, directory: Path) -> Iterator[GoControlPlane]:
    """Run it with one of its caches until the end of the block; ``assignment`` is what the registry would answer."""
    path = directory / "assignment.json"
    path.write_text(json.dumps(assignment))
    command = [program(SERVER), "-cache", _CACHES[cache], "-assignment", str(path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOGC", "GOMEMLIMIT"))}
    with Commands.running(command, environment) as (process, commands):
        yield GoControlPlane(process, commands, int(commands.read()["port"]))
