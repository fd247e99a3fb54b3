"""The exec check: a command whose exit status tells."""

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
from registrar.orphans import start_child

LARGEST_OUTPUT = 4096
# For what the command's children still write once it has ended.
_LAST_WORDS = 0.1
_BURIAL = 1.0
_OUTCOMES = {0: Outcome.PASSED, 1: Outcome.DEGRADED}


class ExecOptions(Options, frozen=True, tag="exec"):
    """Run a command."""

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
            "REGISTRAR_TOKEN, NOTIFY_SOCKET and WATCHDOG_* are never passed."
        ),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.command[0]:
            raise ValueError("command names no program")
        for name in filter(is_registrars_own, self.env):
            raise ValueError(f"env: {name} is the registrar's own and is never passed to a command; leave it out")

    @property
    def failure_note(self) -> str:
        """Which variables the command does not have; who knows it from another environment looks there first."""
        return missing_variables(os.environ, self.env)

    def check(self, target: CheckTarget) -> Check:
        """Return the check of this type for ``target``."""
        return ExecCheck(self, target)


class ExecCheck:
    """Starts the command in a process group of its own, so that nothing of it outlives the probe."""

    def __init__(self, options: ExecOptions, target: CheckTarget) -> None:
        self._command = options.command
        advertised = {"CHECK_ADDRESS": target.address, "CHECK_PORT": str(target.port)}
        self._environment = check_environment(os.environ, options.env) | advertised
        self._ended: set[int] = set()

    async def probe(self) -> Result:
        """Judge the exit status; whoever cancels this has the group killed."""
        self._bury()
        output = _Output()
        with _pipe() as (read_end, write_end):
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: output, os.fdopen(read_end, "rb", 0)
            )
            try:
                process = await self._start(write_end)
            except BlockingIOError as error:
                # The limit of processes is reached, and that says nothing about the app.
                transport.close()
                return Result(Outcome.UNKNOWN, f"not asked, no process can be started: {error.strerror}")
            except BaseException:
                transport.close()
                raise
        try:
            status = await process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
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
        """Leave neither a process of the group behind nor a zombie."""
        if process.returncode is None or not output.ended.is_set():
            # While the leader is not collected, or somebody of the group holds the pipe, the number is its own.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            self._ended.add(process.pid)
        # Bounded: a process that hangs in the kernel is collected when it comes out, and not waited for.
        await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_BURIAL)
        self._bury()

    def _bury(self) -> None:
        """Collect what the killed groups left to us: where this process is PID 1, their orphans are its own."""
        for group in list(self._ended):
            try:
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                self._ended.discard(group)


class _Output(asyncio.Protocol):
    """Reads to the end, or the command would block on a full pipe, and keeps the beginning."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._kept = bytearray()

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def data_received(self, data: bytes) -> None:
        self._kept += data[: LARGEST_OUTPUT - len(self._kept)]

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # an end is an end
        self.ended.set()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Give both ends; the reader's is for whoever takes it, the writer's is closed here."""
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
