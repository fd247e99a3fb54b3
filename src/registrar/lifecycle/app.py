"""The app as this process's child: started here, signalled in the right order, and outlived."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Self

import structlog

from registrar.environment import app_environment
from registrar.errors import AppNotStarted
from registrar.orphans import start_child

# For these the registrar has no use of its own.
FORWARDED = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class App:
    """A running child; it is ended when the block is left, whatever happened.

    It has a session of its own: Ctrl-C in a terminal must not reach it before the drain did.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = command
        # systemd's channel is the registrar's, and so is its secret: the app must not speak for the pair of them.
        self._environ = app_environment(environ)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            AppNotStarted: there is no such command, or it cannot be executed.
        """
        try:
            self._process = await start_child(*self._command, env=self._environ, start_new_session=True)
        except OSError as error:
            raise AppNotStarted(self._command[0], error) from error
        log.info("app_started", command=self._command[0], pid=self._process.pid)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._kill()
            await self._process.wait()

    async def ended(self) -> int:
        """Wait for its end and return the exit status, as a shell shows it: 128 + n after signal n."""
        assert self._process is not None  # noqa: S101 - entered
        status = await self._process.wait()
        return 128 - status if status < 0 else status

    def signal(self, number: int) -> None:
        """Send a signal; an app that has ended takes none."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, deadline: float) -> int:
        """Ask it to end, with force at the deadline, and return its exit status."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout_at(deadline):
                return await self.ended()
        except TimeoutError:
            log.warning("app_killed", command=self._command[0])
            self._kill()
            return await self.ended()

    def _kill(self) -> None:
        """Kill it with all that it started."""
        assert self._process is not None  # noqa: S101 - entered
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
