"""The errand `log-level`: sets the level of Envoy's loggers for a while, and puts it back whatever happens meanwhile.

The levels of before are on disk before the first one is changed, so that the next start of the registrar puts them back
where this process is killed. Time is that of the system since its start, which goes on while it sleeps and which nobody
sets; after a restart of the machine, or of Envoy, there is nothing to put back.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Never, Protocol

import msgspec
from msgspec import Struct

from registrar.errands.refused import RefusedError
from registrar.errors import EnvoyAdminError
from registrar.event_log import EventLogger
from wire.atomic_file import replace_file
from wire.errand import Level, LogLevel, LogLevelResult

_RETRY_INTERVAL = 2.0
"""Seconds between two attempts to put levels back that Envoy did not take."""
_MAX_LOG_INTERVAL = 600.0
"""Seconds between two log entries at most while levels cannot be put back for the same reason."""
_CLOSE_TIMEOUT = 1.0
"""Seconds for that at the stop of the registrar."""
_SAME_START = 5.0
"""Seconds by which two readings of the start of one Envoy may differ; it says whole seconds."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN_BOOT = "unknown"

log = EventLogger(__name__)


class RaisedLevel(Struct, frozen=True):
    """A logger whose level was changed."""

    before: Level
    until: float
    """Seconds since the machine started."""


class LevelState(Struct, frozen=True):
    """The levels that have to be put back, as they are on disk."""

    boot: str
    envoy_started: float
    """Seconds since the machine started."""
    loggers: dict[str, RaisedLevel]


class Admin(Protocol):
    """The requests to Envoy that log levels need."""

    async def loggers(self) -> dict[str, str]:
        """Return the level of each logger."""

    async def set_loggers(self, levels: Mapping[str, Level]) -> None:
        """Set the levels of some loggers."""

    async def uptime(self) -> float:
        """Return the seconds since this process of Envoy started."""


_decode = msgspec.json.Decoder(LevelState).decode


def system_time() -> float:
    """Return the seconds since the machine started, sleep included; setting the clock does not change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the id of this start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return _UNKNOWN_BOOT


class LogLevels:
    """The levels that were changed for a while.

    Args:
        admin: the Envoy.
        path: the file with what has to be put back.
        clock: returns the seconds since the machine started.
    """

    def __init__(self, admin: Admin, path: Path, clock: Callable[[], float] = system_time) -> None:
        self._admin = admin
        self._now = clock
        self._path = path
        self._state: LevelState | None = None
        """What has to be put back; None for nothing. Written by set(), restore() and _load()."""
        self._changed = asyncio.Event()
        """Set when there is something new to put back."""
        self._failure = ""
        """Why the levels could not be put back at the last attempt; empty: they could. Written by _restore()."""
        self._log_interval = _RETRY_INTERVAL
        """Seconds from the last log entry of that reason to the next one, which grow."""
        self._logged_at = float("-inf")
        """When that entry was written, by the clock."""
        self._busy = asyncio.Lock()
        """Held while levels are set or put back: each of them reads what the other one writes."""

    async def set(self, wanted: LogLevel) -> LogLevelResult:
        """Set levels, after those of before are on disk.

        Raises:
            EnvoyAdminError: Envoy did not answer.
            RefusedError: it has no such logger, or the disk takes nothing.
        """
        async with self._busy:
            levels = await self._admin.loggers()
            unknown = sorted(set(wanted.loggers) - levels.keys())
            if unknown:
                raise RefusedError(f"this Envoy has no logger {', '.join(unknown)}; it has {', '.join(sorted(levels))}")
            now = self._now()
            started = now - await self._admin.uptime()
            same = self._state is not None and abs(started - self._state.envoy_started) <= _SAME_START
            raised = dict(self._state.loggers) if self._state is not None and same else {}
            before: dict[str, Level] = {}
            for logger in wanted.loggers:
                # One that is raised already goes back to what it was before that.
                earlier = raised.get(logger)
                before[logger] = msgspec.convert(levels[logger] if earlier is None else earlier.before, Level)
                raised[logger] = RaisedLevel(before[logger], now + wanted.seconds)
            self._store(LevelState(boot_id(), started, raised))
            self._changed.set()
            await self._admin.set_loggers(wanted.loggers)
        log.info("envoy_log_level_set", loggers=dict(wanted.loggers), seconds=wanted.seconds)
        return LogLevelResult(dict(wanted.loggers), before, wanted.seconds)

    async def run(self) -> Never:
        """Put levels back when their time is over, those of an earlier process too, until cancelled."""
        self._load()
        try:
            while True:
                await self._restore_due()
                await self._until_due()
        finally:
            # Nobody may be there later to do it.
            if self._state is not None:
                try:
                    async with asyncio.timeout(_CLOSE_TIMEOUT):
                        await self._restore(everything=True)
                except TimeoutError:
                    log.warning("envoy_log_level_not_restored", reason="the registrar stops", file=str(self._path))

    async def _until_due(self) -> None:
        self._changed.clear()
        delay = None
        if self._state is not None:
            due = min(raised.until for raised in self._state.loggers.values()) - self._now()
            delay = max(_RETRY_INTERVAL if due <= 0 else 0.05, due)
        try:
            async with asyncio.timeout(delay):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _restore_due(self) -> None:
        await self._restore(everything=False)

    async def _restore(self, *, everything: bool) -> None:
        async with self._busy:
            state = self._state
            if state is None:
                return
            now = self._now()
            due = {
                logger: raised.before
                for logger, raised in state.loggers.items()
                if everything or raised.until <= now or state.boot == _UNKNOWN_BOOT
            }
            if not due:
                return
            try:
                started = now - await self._admin.uptime()
                if abs(started - state.envoy_started) <= _SAME_START:
                    await self._admin.set_loggers(due)
                    log.info("envoy_log_level_restored", loggers=due)
                else:
                    # Another process of Envoy began with the levels of its command line.
                    due = {logger: raised.before for logger, raised in state.loggers.items()}
                    log.info("envoy_log_level_gone", reason="Envoy has restarted")
            except (EnvoyAdminError, ValueError) as error:
                self._log_failure(str(error), due, now)
                return
            self._failure = ""
            self._forget(due)

    def _log_failure(self, reason: str, loggers: Mapping[str, Level], now: float) -> None:
        """Log a new reason at once, and the same one after twice as long each time."""
        if reason == self._failure:
            if now < self._logged_at + self._log_interval:
                return
            self._log_interval = min(2 * self._log_interval, _MAX_LOG_INTERVAL)
        else:
            self._failure, self._log_interval = reason, _RETRY_INTERVAL
        self._logged_at = now
        log.warning("envoy_log_level_not_restored", reason=reason, loggers=dict(loggers))

    def _forget(self, loggers: Mapping[str, Level]) -> None:
        state = self._state
        left = {} if state is None else {name: each for name, each in state.loggers.items() if name not in loggers}
        try:
            self._store(None if state is None or not left else LevelState(state.boot, state.envoy_started, left))
        except RefusedError as error:
            # They are put back; the file that says otherwise makes the next start do it once more.
            log.warning("envoy_log_level_file_kept", reason=str(error))
            self._state = None if state is None or not left else LevelState(state.boot, state.envoy_started, left)

    def _load(self) -> None:
        try:
            state = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning("envoy_log_level_file_unreadable", file=str(self._path), reason=str(error))
            return
        if state.boot not in (boot_id(), _UNKNOWN_BOOT) or not state.loggers:
            # The machine has restarted, and Envoy with it.
            return
        self._state = state

    def _store(self, state: LevelState | None) -> None:
        """Write what has to be put back; None removes the file.

        Raises:
            RefusedError: it cannot be written.
        """
        try:
            if state is None:
                self._path.unlink(missing_ok=True)
            else:
                _write(self._path, msgspec.json.encode(state))
        except OSError as error:
            raise RefusedError(
                f"what the level has to go back to cannot be kept in {self._path.parent}: "
                f"{os.strerror(error.errno) if error.errno else error}; REGISTRAR_STATE_DIRECTORY names another one"
            ) from error
        self._state = state


def state_directory(configured: str) -> Path:
    """Return the directory of what survives a restart: as configured, of systemd, or of this user below /tmp."""
    if configured:
        return Path(configured)
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    # Of this user alone, which _write() checks.
    shared = os.environ.get("TMPDIR", "/tmp")  # noqa: S108  # as said
    return Path(given) if given else Path(shared) / f"headcount-registrar-{os.getuid()}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.parent.stat(follow_symlinks=False).st_uid not in (os.getuid(), 0):
        raise PermissionError(1, f"{path.parent} belongs to another user")
    replace_file(path, content)
