"""The exec check with real processes."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness import probing

from registrar.checks.check import CheckTarget, Options
from registrar.checks.exec import ExecOptions
from registrar.checks.result import Outcome, Result
from registrar.duration import Duration


@pytest.fixture(autouse=True)
def small_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only what each check gets, so that details say nothing of this machine."""
    for name in set(os.environ) - {"PATH", "HOME", "LANG"}:
        monkeypatch.delenv(name)


async def probe(options: Options, target: CheckTarget | None = None) -> Result:
    """Return what one probe finds, in an environment without the variable that pytest sets before each test."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    return await probing.probe(options, target=target)


# Enough for a start on a busy machine, and short enough to wait for.
SHORT = Duration(2)
PATIENCE = Duration(0.5)


def command(*words: str, interval: float = 20, timeout: float = 10) -> ExecOptions:
    """Return options that leave a loaded machine time."""
    return ExecOptions(command=words, interval=Duration(interval), timeout=Duration(timeout))


def shell(script: str) -> ExecOptions:
    """Return options that run a script, by naming its shell."""
    return command("/bin/sh", "-c", script)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(0, Outcome.PASSED), (1, Outcome.DEGRADED), (2, Outcome.FAILED), (127, Outcome.FAILED)],
)
async def test_the_exit_status_tells(status: int, outcome: Outcome) -> None:
    """0 passes, 1 is degraded, all others fail, with the output of both streams."""
    result = await probe(shell(f"echo out; echo err >&2; exit {status}"))
    assert (result.outcome, result.detail) == (outcome, f"exit status {status} out err")


async def test_arguments_are_not_for_a_shell() -> None:
    """The arguments reach the program unchanged: no shell expands them."""
    assert (await probe(command("/bin/echo", "$HOME; *", "a b"))).detail == "exit status 0 $HOME; * a b"


async def test_a_command_that_is_not_there_fails(tmp_path: Path) -> None:
    """So does one that may not be run; both say which."""
    missing = await probe(command("/no/such/check"))
    assert (missing.outcome, missing.detail) == (Outcome.FAILED, "/no/such/check: No such file or directory")
    plain = tmp_path / "check"
    plain.write_text("")
    assert (await probe(command(str(plain)))).detail == f"{plain}: Permission denied"


async def test_a_signal_is_named() -> None:
    """A check that crashes fails."""
    result = await probe(shell("kill -SEGV $$"))
    assert (result.outcome, result.detail) == (Outcome.FAILED, "killed by SIGSEGV")


async def test_the_command_knows_what_is_advertised() -> None:
    """It is told the address and port."""
    result = await probe(shell('echo "$CHECK_ADDRESS $CHECK_PORT"'), target=CheckTarget("10.0.0.5", 8080))
    assert result.detail == "exit status 0 10.0.0.5 8080"


async def test_output_is_cut_and_does_not_block() -> None:
    """A command that writes megabytes ends by itself; its first characters are kept."""
    result = await probe(command(sys.executable, "-c", "print('x' * 3_000_000)"))
    assert result.outcome is Outcome.PASSED
    assert result.detail == ("exit status 0 " + "x" * 5000)[:1024]


async def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    """Children that ignore SIGTERM and hold the pipe are gone, and the next probe is possible."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $! >> {pids}; sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; wait"
    options = ExecOptions(command=("/bin/sh", "-c", script), interval=SHORT, timeout=PATIENCE)
    for _ in range(2):
        result = await probe(options)
        assert (result.outcome, result.detail) == (Outcome.FAILED, "no answer within 0.5s")
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) >= 3
    await _until_gone(started)


async def test_children_that_outlive_the_command_are_killed(tmp_path: Path) -> None:
    """A check starts no daemons: what still holds its output when it ends is ended too."""
    pids = tmp_path / "pids"
    result = await probe(shell(f"sleep 600 & echo $! >> {pids}; echo done"))
    assert (result.outcome, result.detail) == (Outcome.PASSED, "exit status 0 done")
    await _until_gone([int(pids.read_text())])


def open_files() -> int:
    """Return how many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_nothing_is_left_open_after_many_probes() -> None:
    """No zombie and no open pipe, whether the command ended, was missing or was killed."""
    slow = ExecOptions(command=("/bin/sleep", "600"), interval=SHORT, timeout=Duration(0.05))
    await probe(shell("exit 0"))
    before, others = open_files(), set(psutil.Process().children())
    for options in [shell("exit 3"), command("/no/such/check"), slow] * 3:
        await probe(options)
    async with asyncio.timeout(10):
        while set(psutil.Process().children()) - others or open_files() > before:
            await asyncio.sleep(0.02)


def test_orphans_of_a_killed_check_are_collected_where_this_is_the_first_process() -> None:
    """As PID 1 of a container the registrar inherits them, and nobody else would wait for them."""
    script = """
import asyncio, ctypes
import psutil
from registrar.checks.check import CheckTarget
from registrar.checks.exec import ExecOptions
from registrar.checks.schedule import probe_once
from registrar.duration import Duration

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

async def main():
    slow = "sleep 600 & sleep 600 & wait"
    options = ExecOptions(command=("/bin/sh", "-c", slow), interval=Duration(2), timeout=Duration(0.3))
    check = options.check(CheckTarget("127.0.0.1", 1))
    for _ in range(3):
        await probe_once(check, options)
    for _ in range(200):
        await asyncio.sleep(0.02)
        check._reap()
        if not psutil.Process().children():
            return
    raise SystemExit([child.status() for child in psutil.Process().children()])

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_command_gets_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH, HOME, LANG, CHECK_* and what env lists; no secret of the registrar, of AWS or of systemd."""
    monkeypatch.setenv("LANG", "C.UTF-8")
    for name in (
        "REGISTRAR_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "PGHOST",
    ):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("CHECK_DEPTH", "2")
    options = ExecOptions(command=("/usr/bin/env",), env=("PGHOST",), interval=Duration(20), timeout=Duration(10))
    result = await probe(options)
    names = {word.partition("=")[0] for word in result.detail.removeprefix("exit status 0 ").split()}
    assert result.outcome is Outcome.PASSED
    assert names == {"PATH", "HOME", "LANG", "CHECK_ADDRESS", "CHECK_PORT", "CHECK_DEPTH", "PGHOST"}


@pytest.mark.parametrize(
    ("script", "timeout", "begins"),
    [
        ("echo no credentials; exit 2", 10.0, "exit status 2 no credentials; "),
        ("exit 1", 10.0, "exit status 1; "),
        ("sleep 600", 0.3, "no answer within 0.3s; "),
        ("head -c 9000 /dev/zero | tr '\\0' x; exit 3", 10.0, "exit status 3 xxx"),
    ],
)
async def test_a_check_that_fails_says_what_it_was_not_given(
    monkeypatch: pytest.MonkeyPatch, script: str, timeout: float, begins: str
) -> None:
    """The detail names the variables that were not passed, without values and without the registrar's own."""
    for name in ("AWS_REGION", "JAVA_HOME", "REGISTRAR_SERVICE", "REGISTRAR_TOKEN", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "s3cret")
    options = ExecOptions(
        command=("/bin/sh", "-c", script), env=("PGHOST",), interval=Duration(20), timeout=Duration(timeout)
    )
    detail = (await probe(options)).detail
    assert detail.startswith(begins)
    assert "variables not passed to the command: AWS_REGION, JAVA_HOME, REGISTRAR_SERVICE (" in detail
    assert detail.endswith("env lists variables that are not set in the registrar's environment: PGHOST")
    assert "s3cret" not in detail
    assert "REGISTRAR_TOKEN" not in detail
    assert "NOTIFY_SOCKET" not in detail


async def test_a_command_that_is_not_found_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable may have named its place."""
    monkeypatch.setenv("CHECKS", "/opt/checks")
    assert "; variables not passed to the command: CHECKS (" in (await probe(command("no-such-check"))).detail


async def _until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(10):
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            await asyncio.sleep(0.02)
