"""The exec check: the exit status of a command."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.result import Outcome, Result
from registrar.environment import check_environment, is_registrars_own, missing_variables
from wire.orphans import start_child

MAX_OUTPUT_BYTES = 4096
"""Bytes of the output that are kept."""
_OUTPUT_TIMEOUT = 0.1
"""Seconds to wait for output of the command's children after the command has ended."""
_REAP_TIMEOUT = 1.0
"""Seconds to wait for the end of a command after SIGKILL."""
_OUTCOMES = {0: Outcome.PASSED, 1: Outcome.DEGRADED}


class ExecOptions(Options, frozen=True, tag="exec"):
    """The options of the exec check."""

    command: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[^\x00]*$")], ...],
        Meta(
            min_length=1,
            description="The program and its arguments, without a shell. Exit status 0 passes, 1 is degraded, all "
            "others fail. On timeout its whole process group is killed. The beginning of its output is the detail, "
            "which the registry shows and stores. Of the registrar's environment it gets PATH, HOME, LANG, what "
            "begins with CHECK_, and what env lists; CHECK_ADDRESS and CHECK_PORT are what is advertised.",
        ),
    ]
    env: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[^=\x00]+$")], ...],
        Meta(
            description="Names of further variables of the registrar's environment that the command gets, like "
            "[JAVA_HOME, PGHOST]. A secret among them is in the registry's history once the command prints it. "
            "REGISTRAR_TOKEN, REGISTRAR_ENVOY_TOKEN, NOTIFY_SOCKET and WATCHDOG_* are never passed."
        ),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.command[0]:
            raise ValueError("command: the first item is empty; it has to be the path or name of a program")
        for name in filter(is_registrars_own, self.env):
            raise ValueError(f"env: {name} is for the registrar alone and is never passed to a command; remove it")

    @property
    def failure_note(self) -> str:
        """The variables that the command does not get: a common cause of failures that a shell does not show."""
        return missing_variables(os.environ, self.env)

    def check(self, target: CheckTarget) -> Check:
        """Return the check with these options for ``target``."""
        return ExecCheck(self, target)


class ExecCheck:
    """Runs the command in a process group of its own, so that no process of it outlives the probe."""

    def __init__(self, options: ExecOptions, target: CheckTarget) -> None:
        self._command = options.command
        advertised = {"CHECK_ADDRESS": target.address, "CHECK_PORT": str(target.port)}
        self._environment = check_environment(os.environ, options.env) | advertised
        # Process groups that were killed and may have processes left to reap.
        self._killed: set[int] = set()

    async def probe(self) -> Result:
        """Run the command and return the result of its exit status; cancellation kills the process group."""
        self._reap()
        output = _Output()
        with _pipe() as (read_end, write_end):
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: output, os.fdopen(read_end, "rb", 0)
            )
            try:
                process = await self._start(write_end)
            except BlockingIOError as error:
                # The limit of processes is reached, which says nothing about the app.
                transport.close()
                return Result(Outcome.UNKNOWN, f"not checked, no process can be started: {error.strerror}")
            except BaseException:
                transport.close()
                raise
        try:
            status = await process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_OUTPUT_TIMEOUT):
                    await output.ended.wait()
        finally:
            await self._end(process, output)
            transport.close()
        return Result(_OUTCOMES.get(status, Outcome.FAILED), f"{_meaning(status)} {output.text}")

    async def _start(self, output: int) -> Process:
        return await start_child(
            *self._command,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            env=self._environment,
            start_new_session=True,
        )

    async def _end(self, process: Process, output: "_Output") -> None:
        """Kill the rest of the process group and reap its processes."""
        if process.returncode is None or not output.ended.is_set():
            # The kernel cannot have reused the group's id: the leader is not reaped, or a member holds the pipe.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            self._killed.add(process.pid)
        # With a timeout: a process in uninterruptible sleep is reaped later, at the next probe.
        await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_REAP_TIMEOUT)
        self._reap()

    def _reap(self) -> None:
        """Reap the orphans of killed groups; they are children of this process if it is PID 1."""
        for group in list(self._killed):
            try:
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                self._killed.discard(group)


class _Output(asyncio.Protocol):
    """Reads all output, so that the command never blocks on a full pipe, and keeps the beginning."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._kept = bytearray()

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def data_received(self, data: bytes) -> None:
        self._kept += data[: MAX_OUTPUT_BYTES - len(self._kept)]

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # an end is an end
        self.ended.set()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe; the write end is closed here, the read end by the caller."""
    read_end, write_end = os.pipe()
    try:
        yield read_end, write_end
    finally:
        os.close(write_end)


def _meaning(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
