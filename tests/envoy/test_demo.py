"""The demo: real processes, a real Envoy, and nothing left afterwards."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

_WITHIN = 180.0
_MARK = "HEADCOUNT_DEMO_TEST"
# The demo, the registry, PostgreSQL and six children of its own, Envoy, three apps, three registrars and that of Envoy.
_ALL = 17

pytestmark = [pytest.mark.envoy, pytest.mark.slow]


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a directory for the demo, and end what a failed test left in it.

    Not pytest's own: another run of pytest closes the way to it for PostgreSQL, which is not root.
    """
    with tempfile.TemporaryDirectory(prefix="headcount-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        yield home
        for pid in _living(home):
            os.kill(pid, signal.SIGKILL)


def test_demo_keeps_every_bound_and_leaves_nothing(home: Path) -> None:
    """`registry demo` without a terminal exits 0, shows its measures, and leaves no process and no file."""
    demo = _start(home)

    output, _ = demo.communicate(timeout=_WITHIN)

    assert demo.returncode == 0, output
    acts, _, table = output.partition("What was measured")
    assert re.search(r"map of who calls whom: http://127\.0\.0\.1:\d+/ui/traffic\n", acts), output
    assert re.search(r"✓ +the canary with 50 % errors: taken back after +[\d.]+ m?s ", table), output
    assert re.search(r"✓ +requests lost by the drain, of [\d,]+ +0 +0\n", table), output
    assert re.search(r"✓ +Envoy: update_rejected +0 +0\n", table), output
    assert "✗" not in output
    assert _living(home) == []
    assert list(home.glob("headcount-demo-*")) == []


@pytest.mark.proof
def test_what_is_kept_can_be_looked_at_as_it_says(home: Path) -> None:
    """`--keep` prints a link that signs in once, and commands that work as they stand; Ctrl-C then leaves 0."""
    demo = _start(home, "--keep")
    assert demo.stdout is not None
    lines = list(takewhile(lambda line: "registryctl subscribers" not in line, demo.stdout))
    link = [line.strip() for line in lines if "/ui/login?code=" in line][-1]
    listed = lines[next(number for number, line in enumerate(lines) if "Kept running until Ctrl-C" in line) :]
    assert [line for line in listed if line.split()[0:1] == ["map"] and "/ui/traffic" in line], listed
    _sign_in(link)
    export, check, kill, explain, drain = (line.partition("#")[0] for line in lines[-5:])
    assert _type(export, check) == 0
    # Its app is dead: that is an answer, and exit status 1.
    assert _type(export, kill, "sleep 3", explain) == 1
    assert _type(export, drain) == 0

    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=_WITHIN)
    assert demo.returncode == 0, output
    assert _living(home) == []


def _sign_in(link: str) -> None:
    """Sign in as a browser does that opens the link, and see that it does so once and that a stranger sees nothing."""
    page, _, code = link.partition("?code=")
    with httpx.Client(trust_env=False, headers={"origin": page.removesuffix("/ui/login")}) as browser:
        console = page.removesuffix("/login")
        assert "Sign in" in browser.get(console, follow_redirects=True).text
        assert code in browser.get(link).text
        assert browser.post(page, data={"code": code}).status_code == 303
        assert "shop" in browser.get(console, follow_redirects=True).text
        browser.cookies.clear()
        assert browser.post(page, data={"code": code}).status_code == 401


def _type(*commands: str) -> int:
    return subprocess.run(["/bin/sh", "-c", "\n".join(commands)], check=False, timeout=60).returncode


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.proof)])
def test_a_signal_in_the_middle_leaves_nothing(home: Path, number: signal.Signals) -> None:
    """A signal in the first act ends every process, PostgreSQL included, and says so by the exit status."""
    demo = _start(home)
    _wait_for_processes(home, demo)

    demo.send_signal(number)
    output, _ = demo.communicate(timeout=_WITHIN)

    assert demo.returncode == 128 + number, output
    assert _living(home) == []
    assert list(home.glob("headcount-demo-*")) == []


@pytest.mark.proof
def test_a_child_that_does_not_end_is_killed(home: Path) -> None:
    """Processes that take no SIGTERM are killed within a bound, and so is the PostgreSQL they leave."""
    demo = _start(home)
    _wait_for_processes(home, demo)
    for pid in _children(demo.pid):
        os.kill(pid, signal.SIGSTOP)

    demo.send_signal(signal.SIGTERM)
    output, _ = demo.communicate(timeout=_WITHIN)

    assert demo.returncode == 128 + signal.SIGTERM, output
    assert "registry did not end on SIGTERM and was killed" in output
    assert "postgres (pid" in output
    assert _living(home) == []


def _start(home: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "registry.cli", "demo", *options],
        env=os.environ | {_MARK: str(home), "TMPDIR": str(home), "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _living(home: Path) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _is_of(entry, home)]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_of(entry: Path, home: Path) -> bool:
    try:
        # PostgreSQL's children write their title over their environment; they live in their data directory.
        at_home = (entry / "cwd").readlink().is_relative_to(home)
        return at_home or f"{_MARK}={home}".encode() in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _wait_for_processes(home: Path, demo: subprocess.Popen[str]) -> None:
    end = time.monotonic() + _WITHIN
    while len(_living(home)) < _ALL:
        assert demo.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
