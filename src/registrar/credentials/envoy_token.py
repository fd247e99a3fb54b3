"""The file with the token of the Envoy beside this process, and the SDS document that names it."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Never

from registrar import jitter
from registrar.credentials.session import SessionToken
from registrar.event_log import EventLogger
from registrar.thread_call import call_in_thread
from wire.atomic_file import replace_file
from wire.envoy_token import prepare_token_files, write_token_sds

_MODE = 0o640
"""Mode of the files, whatever the umask is: Envoy's group reads them, and nobody but this user writes."""
_LOOK_INTERVAL = 5.0
"""Seconds between two looks at the file, which somebody may have removed."""
_WRITE_TIMEOUT = 10.0
"""Seconds after which a disk counts as one that does not answer."""
_BACKOFF_BASE = 1.0
_MAX_BACKOFF = 30.0
"""Seconds between two attempts to write at most."""

# Inode, time of change, size and mode of a file: enough to see that somebody replaced it.
Signature = tuple[int, int, int, int]

log = EventLogger(__name__)


class EnvoyTokenFile:
    """Keeps the newest token in a file that is replaced by renaming, until ``run`` is cancelled.

    A write that fails is repeated. Envoy goes on with the token that it has, and nothing else here waits for it.

    Args:
        path: the file of the token.
        source: returns the newest token, or None while there is none.

    Attributes:
        path: as given, from the root.
        written: the token in the file; None before the first write. Stale while writes fail.
        written_at: loop time of the last write, or None.
        first_written: set by the first write.
        problem: why the newest write failed; empty after a success.
        failures: writes that failed.
        wake: set when there may be another token.
    """

    def __init__(self, path: Path, source: Callable[[], SessionToken | None]) -> None:
        self.path = path.absolute()
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._backoff = jitter.Backoff(_BACKOFF_BASE, _MAX_BACKOFF)
        self.written: SessionToken | None = None
        self.written_at: float | None = None
        self.first_written = asyncio.Event()
        self.problem = ""
        self.failures = 0
        self.wake = asyncio.Event()
        # Whether a change by somebody else was logged for the token in the file.
        self._disturbed = False
        # The file as it was after the last write; None before the first.
        self._signature: Signature | None = None
        # The token that the thread writes, or wrote last.
        self._newest: SessionToken | None = None
        # The thread that writes, kept beyond a timeout: a disk that hangs must not collect threads.
        self._writing: asyncio.Task[Signature | None] | None = None

    async def run(self) -> Never:
        """Write each new token, and again when the file is gone."""
        while True:
            self.wake.clear()
            pause = await self._keep()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self.wake.wait()

    async def _keep(self) -> float:
        """Bring the file up to date and return the seconds until the next look at it."""
        if self._writing is None:
            self._newest = token = self._source()
            signature = self._signature if token == self.written else None
            keep = partial(_keep_files, self.path, token.token if token else "", signature)
            self._writing = asyncio.create_task(call_in_thread(keep), name="write")
            # Where this task is cancelled first, nobody else asks for the error.
            self._writing.add_done_callback(lambda writing: writing.cancelled() or writing.exception())
        done, _ = await asyncio.wait({self._writing}, timeout=_WRITE_TIMEOUT)
        if not done:
            return self._failed(f"the disk did not answer within {_WRITE_TIMEOUT:g}s")
        writing, self._writing = self._writing, None
        try:
            now_there = writing.result()
        except (OSError, ValueError) as error:
            # ValueError: the path cannot be one.
            return self._failed((error.strerror if isinstance(error, OSError) else None) or str(error))
        if now_there is not None and now_there != self._signature:
            self._note_write(now_there)
        if self.problem:
            log.info("envoy_token_file_back", path=str(self.path))
        self.problem = ""
        self._backoff.reset()
        # A thread that took long may have written an older token.
        return 0.0 if self._source() != self._newest else _LOOK_INTERVAL

    def _note_write(self, signature: Signature) -> None:
        again = self._newest == self.written
        self._signature, self.written, self.written_at = signature, self._newest, self._loop.time()
        self.first_written.set()
        if not again:
            self._disturbed = False
            log.info("envoy_token_written", path=str(self.path), lifetime=self._lifetime())
        elif not self._disturbed:
            self._disturbed = True
            log.warning(
                "envoy_token_written_again",
                path=str(self.path),
                meaning="something else changed or removed the file",
                fix="let each registrar have a file of its own, and nothing else write to it",
            )

    def _failed(self, reason: str) -> float:
        self.failures += 1
        if reason != self.problem:
            log.warning(
                "envoy_token_not_written",
                path=str(self.path),
                reason=reason,
                meanwhile="Envoy goes on with the token that it has; one that starts has none",
                fix="the directory has to exist, with room, and this user has to be allowed to write there",
            )
        self.problem = reason
        return self._backoff.failed(math.inf)

    def _lifetime(self) -> int | None:
        if self.written is None or self.written.ends_at == math.inf:
            return None
        return round(self.written.ends_at - self._loop.time())


def _keep_files(path: Path, token: str, signature: Signature | None) -> Signature | None:
    """Write what is missing, and return the signature of the token's file; None without a token.

    Raises:
        OSError: a file cannot be written.
    """
    if not token:
        prepare_token_files(path, _MODE)
        return None
    write_token_sds(path, _MODE)
    if signature is None or _signature(path) != signature:
        replace_file(path, token.encode(), _MODE)
    return _signature(path)


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode
