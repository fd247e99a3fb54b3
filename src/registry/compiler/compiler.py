"""The compiler as the registry calls it: a short-lived process for each job, one at a time."""

import asyncio
import os
import sys
from contextlib import suppress

import msgspec
import structlog

from registry.compiler.job import Failed, Job, Malformed, Result
from registry.errors import InvalidError, LimitError, UnavailableError, UnreadableError

log = structlog.get_logger()

_TIMEOUT = 150.0
"""Seconds for a job: reading, compiling, and the proof by an Envoy."""
_END_TIMEOUT = 2.0
"""Seconds for the process to end after SIGTERM."""
_MAX_WAITING = 4
"""Jobs that wait for another one; each may hold a repository of 16 MiB in memory."""

_decoder: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


class Compiler:
    """Runs jobs in a process of their own: no compilation delays a poll, and no definition ends the registry."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        """Jobs that run or wait. Written by run()."""

    async def run(self, job: Job) -> Result:
        """Return the result of a job.

        Raises:
            LimitError: too many jobs wait already.
            InvalidError: the document of the request has a wrong value.
            UnreadableError: it is no JSON.
            UnavailableError: the process failed, or took too long.
        """
        if self._waiting >= _MAX_WAITING:
            raise LimitError(
                f"{self._waiting} compilations run or wait, and at most {_MAX_WAITING} may; try again",
                "compilations",
                5.0,
            )
        self._waiting += 1
        try:
            async with self._turn:
                result = await _run(job)
        finally:
            self._waiting -= 1
        if isinstance(result, Malformed):
            raise InvalidError(result.message, result.pointer) if result.readable else UnreadableError(result.message)
        if isinstance(result, Failed):
            log.error("compiler_failed", traceback=result.traceback)
            raise UnavailableError("the compiler failed by a defect of the registry; its log says more")
        return result


async def _run(job: Job) -> Result:
    # The environment of the registry has secrets, and nothing that the compiler needs.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Not from the working directory, which others may be able to write.
        "-P",
        "-m",
        "registry.compiler.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            output, errors = await process.communicate(msgspec.msgpack.encode(job))
    except TimeoutError:
        raise UnavailableError(f"the compiler took longer than {_TIMEOUT:g} s and was ended") from None
    finally:
        await _end(process)
    if process.returncode:
        log.error("compiler_died", status=process.returncode, said=errors.decode(errors="replace")[-2000:])
        raise UnavailableError(f"the compiler ended with status {process.returncode}; the registry's log says more")
    return _decoder.decode(output)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs, and let it end its Envoy."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_TIMEOUT):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
