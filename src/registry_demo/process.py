"""One process of the demo: its pid, its log, and its certain end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

MARK = "HEADCOUNT_DEMO"
"""Variable in the environment of every process of the demo, PostgreSQL included, that names its directory."""

# Variables that the user's shell or a container may set, and that would lead the demo's processes elsewhere: other
# addresses, another database, a proxy between two loopback ports, a supervisor that is not theirs.
_FOREIGN = ("REGISTRY_", "REGISTRAR_", "ECS_", "AWS_", "NOTIFY_SOCKET", "WATCHDOG_")


def environment(directory: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process of the demo that keeps its files in ``directory``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and not name.lower().endswith("_proxy")
    }
    return {**kept, MARK: str(directory), "PYTHONUNBUFFERED": "1", **settings}


class Process:
    """A running process; its output goes to its log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, name: str, argv: Sequence[str], directory: Path, settings: Mapping[str, str]) -> "Process":
        """Start ``argv`` with ``settings`` in its environment and its log in ``directory``."""
        log = directory / f"{name.replace(' ', '-')}.log"
        with log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=directory,
                env=environment(directory, settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # Ctrl-C in the terminal must reach the demo alone: it stops the others in the right order.
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """The pid, also after its end."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal that ended it), None while it runs."""
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended takes none."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self, within: float) -> int:
        """Wait for its end and return its exit status.

        Raises:
            TimeoutError: it still runs.
        """
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def stop(self, within: float) -> bool:
        """Ask it to end and return whether it did; after ``within`` seconds end it by force."""
        self.signal(signal.SIGTERM)
        try:
            await self.wait(within)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()
            return False
        return True

    def tail(self, lines: int = 12) -> list[str]:
        """Return the last lines of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return text.splitlines()[-lines:]
