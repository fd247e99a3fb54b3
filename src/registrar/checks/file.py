"""The file check: the endpoint is out of rotation while a maintenance file exists."""

import asyncio
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.result import Outcome, Result
from registrar.thread_call import call_in_thread

_MAX_NOTE = 200
"""Characters of the file that are kept as the detail."""


class FileOptions(Options, frozen=True, tag="file"):
    """The options of the file check."""

    # A directory that cannot be read must neither start nor end a maintenance.
    unanswered: ClassVar[Outcome] = Outcome.UNKNOWN

    path: Annotated[
        str,
        Meta(
            pattern=r"^/[^\x00]+$(?!\n)",
            description="The maintenance file. While it exists the endpoint is DRAINING, from the first look on; once "
            "it is gone the endpoint starts again as a new incarnation, unpublished until its checks passed. Its "
            "first 200 characters are the detail.",
        ),
    ]

    def check(self, target: CheckTarget) -> Check:  # noqa: ARG002  # the file has no address
        """Return the check with these options; it does not use the target."""
        return FileCheck(self.path)


class FileCheck:
    """Opens the file in a thread, one at a time: a network file system may block for long."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        # The current call, which may outlast the timeout of the probe that started it.
        self._reading: asyncio.Task[Result] | None = None

    async def probe(self) -> Result:
        """Return MAINTENANCE while the file exists."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(call_in_thread(self._read), name="maintenance file")
        return await asyncio.shield(self._reading)

    def _read(self) -> Result:
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file:
                note = file.read(_MAX_NOTE)
        except (FileNotFoundError, NotADirectoryError):
            return Result(Outcome.PASSED, f"no {self._path}")
        except IsADirectoryError:
            note = ""
        return Result(Outcome.MAINTENANCE, f"{self._path} exists {note}")
