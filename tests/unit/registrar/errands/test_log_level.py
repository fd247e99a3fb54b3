"""Log levels go back: by the clock of the machine, once, and whatever happens to the registrar and to Envoy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

from registrar.errands.log_level import LevelState, LogLevels, boot_id
from registrar.errands.refused import RefusedError
from registrar.errors import EnvoyAdminError
from wire.errand import Level, LogLevel

BEFORE = {"http": "info", "router": "warning"}


class FakeEnvoy:
    """Loggers, and a clock that the test turns."""

    def __init__(self) -> None:
        self.levels: dict[str, str] = dict(BEFORE)
        self.now = 1000.0
        self.started = 900.0
        self.away = False
        self.problem = "connection refused"

    async def loggers(self) -> dict[str, str]:
        """Return the levels."""
        self.check()
        return dict(self.levels)

    async def set_loggers(self, levels: Mapping[str, Level]) -> None:
        """Set levels."""
        self.check()
        self.levels |= levels

    async def uptime(self) -> float:
        """Return whole seconds, as Envoy does."""
        self.check()
        return float(int(self.now - self.started))

    def check(self) -> None:
        """Fail while it is away."""
        if self.away:
            raise EnvoyAdminError("127.0.0.1:1", "/logging", self.problem)


@contextlib.asynccontextmanager
async def running(envoy: FakeEnvoy, path: Path, *, kill: bool = False) -> AsyncIterator[LogLevels]:
    """Run the loop that puts levels back; ``kill`` ends it as kill -9 does."""
    levels = LogLevels(envoy, path, lambda: envoy.now)
    task = asyncio.create_task(levels.run())
    await asyncio.sleep(0)
    try:
        yield levels
    finally:
        if kill:
            envoy.away = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        envoy.away = False


async def until(envoy: FakeEnvoy, levels: Mapping[str, str]) -> None:
    """Wait until Envoy has these levels."""
    async with asyncio.timeout(20):
        while envoy.levels != levels:
            await asyncio.sleep(0.01)


async def test_a_level_goes_back_when_the_registrar_starts_again(tmp_path: Path) -> None:
    """It is on disk before Envoy has it; the next process puts it back when its time is over, and not before."""
    envoy, path = FakeEnvoy(), tmp_path / "state" / "level.json"
    async with running(envoy, path, kill=True) as levels:
        await levels.set(LogLevel({"http": "debug"}, 60))
    assert path.exists()
    assert path.stat().st_mode & 0o077 == 0
    async with running(envoy, path, kill=True):
        await asyncio.sleep(0.1)
        assert envoy.levels["http"] == "debug"
    envoy.now += 61
    async with running(envoy, path):
        await until(envoy, BEFORE)
        assert not path.exists()


async def test_a_level_that_is_set_twice_goes_back_to_the_first_one(tmp_path: Path) -> None:
    """By the later end; another logger by its own."""
    envoy, path = FakeEnvoy(), tmp_path / "level.json"
    async with running(envoy, path) as levels:
        await levels.set(LogLevel({"http": "debug"}, 10))
        result = await levels.set(LogLevel({"http": "trace", "router": "trace"}, 60))
        assert result.before == BEFORE
        envoy.now += 30
        await levels._restore_due()
        assert envoy.levels == {"http": "trace", "router": "trace"}
    # Its end puts back what is left, because nobody may be there later to do it.
    assert envoy.levels == BEFORE


async def test_an_envoy_that_restarted_keeps_the_levels_of_its_command_line(tmp_path: Path) -> None:
    """What another process of Envoy had listed means nothing to this one."""
    envoy, path = FakeEnvoy(), tmp_path / "level.json"
    async with running(envoy, path, kill=True) as levels:
        await levels.set(LogLevel({"http": "debug"}, 10))
    envoy.now += 100
    envoy.started = envoy.now - 20
    envoy.levels = {"http": "error", "router": "error"}
    async with running(envoy, path):
        async with asyncio.timeout(20):
            while path.exists():
                await asyncio.sleep(0.01)
    assert envoy.levels == {"http": "error", "router": "error"}


async def test_after_a_restart_of_the_machine_nothing_is_put_back(tmp_path: Path) -> None:
    """Its clock began again, and Envoy with it; a file that cannot be read is no reason to fail either."""
    for content in (
        msgspec.json.encode(LevelState("another", 0.0, {})),
        b'{"boot": "' + boot_id().encode() + b'"}',
        b"\xff",
    ):
        envoy, path = FakeEnvoy(), tmp_path / "level.json"
        path.write_bytes(content)
        async with running(envoy, path) as levels:
            await levels.set(LogLevel({"http": "debug"}, 10))
        assert envoy.levels == BEFORE


async def test_what_cannot_be_kept_is_not_set(tmp_path: Path) -> None:
    """A disk that takes nothing, and a logger that Envoy does not have."""
    envoy = FakeEnvoy()
    (tmp_path / "file").write_text("")
    levels = LogLevels(envoy, tmp_path / "file" / "level.json", lambda: envoy.now)
    with pytest.raises(RefusedError, match="REGISTRAR_STATE_DIRECTORY names another one"):
        await levels.set(LogLevel({"http": "debug"}, 10))
    with pytest.raises(RefusedError, match="has no logger nothing; it has http, router"):
        await levels.set(LogLevel({"nothing": "debug"}, 10))
    assert envoy.levels == BEFORE


async def test_a_level_that_cannot_be_put_back_is_logged_by_its_reason_and_ever_less_often(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new reason at once; an Envoy that is gone for an hour makes a dozen entries and not 1,800."""
    envoy = FakeEnvoy()
    levels = LogLevels(envoy, tmp_path / "level.json", lambda: envoy.now)
    await levels.set(LogLevel({"http": "debug"}, 1))
    envoy.away = True
    for _ in range(1800):
        envoy.now += 2
        await levels._restore_due()
    logged = [record for record in caplog.records if record.msg == "envoy_log_level_not_restored"]
    assert 10 <= len(logged) <= 16
    envoy.problem = "no complete answer within 5s"
    await levels._restore_due()
    assert "no complete answer within 5s" in caplog.records[-1].__dict__["fields"]["reason"]
    envoy.away = False
    await levels._restore_due()
    assert envoy.levels == BEFORE
