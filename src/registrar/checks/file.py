"""The file check: while a maintenance file exists, the endpoint is out of rotation."""

import asyncio
from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.result import Outcome, Result
from registrar.thread_call import call_in_thread

_LARGEST_NOTE = 200


class FileOptions(Options, frozen=True, tag="file"):
    """Look for a file."""

    # A directory that cannot be read is no reason to drain, nor to end a maintenance.
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

    def check(self, target: CheckTarget) -> Check:  # noqa: ARG002  # the file is looked at
        """Return the check of this type; the target does not matter."""
        return FileCheck(self.path)


class FileCheck:
    """Looks, off the loop: the file may be on a network's disk, whose look may hang, and only one at a time."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._looking: asyncio.Task[Result] | None = None

    async def probe(self) -> Result:
        """Ask for maintenance while the file is there."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(call_in_thread(self._look), name="look")
        return await asyncio.shield(self._looking)

    def _look(self) -> Result:
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file:
                note = file.read(_LARGEST_NOTE)
        except (FileNotFoundError, NotADirectoryError):
            return Result(Outcome.PASSED, f"no {self._path}")
        except IsADirectoryError:
            note = ""
        return Result(Outcome.MAINTENANCE, f"{self._path} exists {note}")
