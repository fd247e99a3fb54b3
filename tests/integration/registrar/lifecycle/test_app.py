"""`registrar exec`: the app as a child, as processes."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.processes import environment, registrar, run_verb

# Writes down each signal with its name and exits with 7 at SIGTERM.
CHILD = """
import os, signal, sys, time
said = open(sys.argv[1], "a", buffering=1)
def hear(number, _):
    said.write(signal.Signals(number).name + "\\n")
    if number == signal.SIGTERM:
        sys.exit(7)
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(one, hear)
said.write("started " + os.environ.get("NOTIFY_SOCKET", "alone") + "\\n")
while True:
    time.sleep(0.02)
"""


def child(log: Path, code: str = CHILD) -> tuple[str, ...]:
    """Return the arguments that run a small app."""
    return ("exec", "--", sys.executable, "-c", code, str(log))


async def heard(log: Path, line: str, limit: float = 10) -> None:
    """Wait until the child has written a line."""
    async with asyncio.timeout(limit):
        while not log.exists() or line not in log.read_text():
            await asyncio.sleep(0.02)


async def test_the_app_is_stopped_after_the_drain(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """SIGTERM drains and waits while the app serves; then the app gets it, and its status is ours."""
    log = tmp_path / "child"
    registry.drain_wait = 1.0
    async with registrar(environment(registry, app), *child(log)) as process:
        await registry.until(lambda: registry.batches, 10)
        process.terminate()
        await registry.until(lambda: registry.last.registration.draining)
        await asyncio.sleep(0.5)
        assert "SIGTERM" not in log.read_text()
        async with asyncio.timeout(5):
            assert await process.wait() == 7
    assert log.read_text().splitlines() == ["started alone", "SIGTERM"]
    assert len(registry.deregistrations) == 1


async def test_an_app_that_dies_is_deregistered_at_once(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """Nobody waits for a drain of what no longer serves; 128 + n tells the signal, as in a shell."""
    log = tmp_path / "child"
    registry.drain_wait = 60
    code = CHILD.replace("sys.exit(7)", "os.kill(os.getpid(), signal.SIGKILL)")
    async with registrar(environment(registry, app), *child(log, code)) as process:
        await registry.until(lambda: registry.batches, 10)
        await heard(log, "started")
        process.send_signal(signal.SIGUSR1)
        await heard(log, "SIGUSR1")
        # A second SIGTERM skips the drain.
        process.terminate()
        await asyncio.sleep(0.2)
        process.terminate()
        async with asyncio.timeout(5):
            assert await process.wait() == 137
    assert len(registry.deregistrations) == 1


@pytest.mark.parametrize("status", [0, 3])
async def test_the_exit_status_is_the_apps(registry: FakeRegistry, app: FakeApp, tmp_path: Path, status: int) -> None:
    """An app that ends by itself ends the registrar too."""
    command = ("exec", "--", sys.executable, "-c", f"import time; time.sleep(2); raise SystemExit({status})")
    async with registrar(environment(registry, app), *command) as process:
        await registry.until(lambda: registry.batches, 10)
        async with asyncio.timeout(8):
            assert await process.wait() == status
    assert len(registry.deregistrations) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
async def test_other_signals_are_handed_on(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path, number: signal.Signals
) -> None:
    """Signals that the registrar does not use are passed on to the app."""
    log = tmp_path / "child"
    async with registrar(environment(registry, app, NOTIFY_SOCKET=str(tmp_path / "none")), *child(log)) as process:
        await heard(log, "started alone")
        # The app's first line is older than the handlers of its parent.
        await registry.until(lambda: registry.batches, 10)
        process.send_signal(number)
        await heard(log, number.name)


async def test_an_app_that_does_not_listen_is_killed_in_time(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path
) -> None:
    """The stop ends before its deadline whatever the app does, and nothing of it is left."""
    log = tmp_path / "child"
    code = CHILD.replace("sys.exit(7)", "pass")
    registry.drain_wait = 0.1
    environ = environment(registry, app, REGISTRAR_STOP_TIMEOUT="4s")
    async with registrar(environ, *child(log, code)) as process:
        await registry.until(lambda: registry.batches, 10)
        await heard(log, "started")
        process.terminate()
        async with asyncio.timeout(6):
            assert await process.wait() == 137


@pytest.mark.parametrize(("command", "status"), [("/no/such/thing", 127), ("/etc/passwd", 126)])
async def test_a_command_that_cannot_run_is_told_as_a_shell_tells_it(
    registry: FakeRegistry, app: FakeApp, command: str, status: int
) -> None:
    """127 for what is not there, 126 for what is no program."""
    code, _, err = await run_verb(environment(registry, app), "exec", "--", command)
    assert (code, f"registrar: {command}: " in err) == (status, True)


@pytest.mark.parametrize("arguments", [("exec",), ("run", "--", "true"), ("exec", "--")])
async def test_exec_takes_a_command_and_run_does_not(
    registry: FakeRegistry, app: FakeApp, arguments: tuple[str, ...]
) -> None:
    """Anything else is a mistake that is told at once."""
    code, _, err = await run_verb(environment(registry, app), *arguments)
    assert (code, "after `--`" in err) == (2, True)


async def test_the_app_gets_the_environment_but_not_the_registrars_own(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path
) -> None:
    """The token is the registrar's secret, and the channel to systemd is its own; the rest is the app's."""
    log = tmp_path / "child"
    own = {"REGISTRAR_TOKEN": "s3cret", "NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "60000000"}
    code = "import os, sys; open(sys.argv[1], 'w').write(' '.join(os.environ))"
    environ = environment(registry, app, **own, WATCHDOG_PID="1", AWS_REGION="eu-west-1")
    assert (await run_verb(environ, *child(log, code)))[0] == 0
    names = set(log.read_text().split())
    assert {"PATH", "AWS_REGION", "REGISTRAR_SERVICE"} <= names
    assert not names & {*own, "WATCHDOG_PID"}
