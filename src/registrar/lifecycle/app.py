"""The app of ``registrar exec``: a child process that is started, signalled and reaped here."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Self

from registrar.environment import app_environment
from registrar.errors import AppNotStarted
from registrar.event_log import EventLogger
from wire.orphans import start_child

# Signals that are passed on to the app; SIGHUP also reloads the registrar's settings.
FORWARDED = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

log = EventLogger(__name__)


class App:
    """The app as a child process; leaving the context manager ends it.

    It runs in a session of its own: Ctrl-C in a terminal must not reach it before the drain is over.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = command
        # Without the token and NOTIFY_SOCKET: the app must not report to systemd in the registrar's place.
        self._environ = app_environment(environ)
        # Set once the child has been started.
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start the app.

        Raises:
            AppNotStarted: the command does not exist, or cannot be executed.
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
        """Wait for the app's end and return its exit status as a shell does: 128 + n after signal n."""
        assert self._process is not None  # noqa: S101 - entered
        status = await self._process.wait()
        return 128 - status if status < 0 else status

    def signal(self, number: int) -> None:
        """Send a signal to the app, unless it has ended."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, deadline: float) -> int:
        """Send SIGTERM, and SIGKILL at the deadline; return the exit status."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout_at(deadline):
                return await self.ended()
        except TimeoutError:
            log.warning("app_killed", command=self._command[0])
            self._kill()
            return await self.ended()

    def _kill(self) -> None:
        """Send SIGKILL to the app's process group."""
        assert self._process is not None  # noqa: S101 - entered
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
