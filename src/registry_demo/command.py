"""Commands that run to their end in the demo's environment."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry_demo.process import environment


@dataclass(frozen=True)
class Finished:
    """The end of a command: its exit status, and what it printed."""

    status: int
    output: str


async def run_command(argv: Sequence[str], directory: Path, settings: Mapping[str, str], seconds: float) -> Finished:
    """Run a command in the directory of the demo, with settings in its environment; its errors are in its output.

    Raises:
        TimeoutError: it did not end within these seconds, and was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=directory,
        env=environment(directory, settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Finished(process.returncode or 0, said.decode(errors="replace").strip())
