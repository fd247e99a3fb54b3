"""The compiler as the registry calls it: a short-lived process for each job, and a queue for each kind."""

import asyncio
import os
import sys
from contextlib import suppress

import msgspec
import structlog

from registry.compiler.job import Failed, Job, Malformed, Result
from registry.compiler.job_queue import JobQueue
from registry.errors import InvalidError, UnavailableError, UnreadableError
from wire.orphans import start_child

log = structlog.get_logger()

_TIMEOUT = 150.0
"""Seconds for a job: reading, compiling, and the proof by an Envoy."""
_END_TIMEOUT = 2.0
"""Seconds for the process to end after SIGTERM."""
_PART = 65_536
"""Bytes that are sent to the process, or read from it, in one turn of the event loop."""
_MAX_CHANGES = 4
"""Applies that run or wait."""
_MAX_ROLLBACKS = 2
"""Rollbacks that are compared or whose gateways are compiled, or that wait for that."""
_MAX_PLANS = 4
"""Plans that run or wait."""
_MAX_READS = 8
"""Documents of revisions and services that are made or wait for that."""

_decoder: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


class Compiler:
    """Runs jobs in a process of their own: no compilation delays a poll, and no definition ends the registry.

    Each kind of jobs has a queue of its own, of which one job runs: whoever may only read, or plan, keeps no apply
    waiting.
    """

    def __init__(self) -> None:
        self.changes = JobQueue("changes", _MAX_CHANGES, _MAX_CHANGES // 2, _work)
        """Applies, and gateways of a changed catalog, which need no place."""
        self.rollbacks = JobQueue("rollbacks", _MAX_ROLLBACKS, _MAX_ROLLBACKS // 2, _work)
        """Rollbacks, which do not wait for the proof of an apply."""
        self.plans = JobQueue("plans", _MAX_PLANS, _MAX_PLANS // 2, _work)
        """Plans of those who may configure something."""
        self.reads = JobQueue("documents", _MAX_READS, _MAX_READS // 2, _work)
        """Documents for those who may read."""


async def _work(job: Job) -> Result:
    """Do a job, and raise what its result says is wrong."""
    result = await _run(job)
    if isinstance(result, Malformed):
        raise InvalidError(result.message, result.pointer) if result.readable else UnreadableError(result.message)
    if isinstance(result, Failed):
        log.error("compiler_failed", traceback=result.traceback)
        raise UnavailableError("the compiler failed by a defect of the registry; its log says more")
    return result


async def _run(job: Job) -> Result:
    # The environment of the registry has secrets, and nothing that the compiler needs.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    process = await start_child(
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
            output, errors = await _talk(process, msgspec.msgpack.encode(job))
    except TimeoutError:
        raise UnavailableError(f"the compiler took longer than {_TIMEOUT:g} s and was ended") from None
    finally:
        await _end(process)
    if process.returncode:
        log.error("compiler_died", status=process.returncode, said=errors.decode(errors="replace")[-2000:])
        raise UnavailableError(f"the compiler ended with status {process.returncode}; the registry's log says more")
    return _decoder.decode(output)


async def _talk(process: asyncio.subprocess.Process, job: bytes) -> tuple[bytearray, bytearray]:
    """Send a job to a process, and return its output and what it said.

    ``communicate()`` joins the parts of the output at its end: 11 MB in 8 ms, in which no poll is answered.
    """
    output, errors, _ = await asyncio.gather(_read(process.stdout), _read(process.stderr), _send(process.stdin, job))
    await process.wait()
    return output, errors


async def _read(stream: asyncio.StreamReader | None) -> bytearray:
    content = bytearray()
    while stream is not None and (part := await stream.read(_PART)):
        content += part
    return content


async def _send(stream: asyncio.StreamWriter | None, content: bytes) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        # Its status and what it said tell of a process that ends before it has read the job.
        for begin in range(0, len(content), _PART):
            stream.write(content[begin : begin + _PART])
            await stream.drain()
    stream.close()


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
