"""The watch over tests/unit, shown by a pytest run of its own that has one unit test for each forbidden act."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "unit" / "conftest.py"
TESTS = """
import asyncio, os, socket, subprocess
import pytest

def test_connect():
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))

def test_listen():
    with socket.create_server(("127.0.0.1", 0)):
        pass

def test_swallowed():
    try:
        socket.getaddrinfo("localhost", 80)
    except Exception:
        pass

def test_thread():
    async def main():
        await asyncio.to_thread(os.posix_spawn, "/bin/true", ["true"], {})
    with pytest.raises(AssertionError):
        asyncio.run(main())

def test_process():
    subprocess.run(["true"], check=True)

@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)):
        yield

def test_fixture(listening):
    pass

@pytest.fixture
def database():
    return "postgresql://"

def test_postgresql(database):
    pass

def test_loop():
    async def main():
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
    asyncio.run(main())
    left, right = socket.socketpair()
    left.close(), right.close()
"""
NAMED = {
    "test_connect": "it connects a socket (socket.connect)",
    "test_listen": "it binds a socket (socket.bind)",
    "test_swallowed": "it resolves a name (socket.getaddrinfo)",
    "test_thread": "it starts a process (os.posix_spawn)",
    "test_process": "it starts a process (subprocess.Popen)",
    "test_fixture": "it binds a socket (socket.bind)",
    "test_postgresql": "it asks for PostgreSQL (fixture database)",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what that run prints."""
    folder = tmp_path_factory.mktemp("unit")
    shutil.copy(UNIT, folder)
    (folder / "test_acts.py").write_text(TESTS)
    options = ["-p", "no:cacheprovider", "-p", "no:schemathesis", "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *options, "."]
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMED)
def test_a_unit_test_that_is_none_fails_and_says_where_it_belongs(report: str, name: str) -> None:
    """Whether in the test, in its fixture or on a thread, and also where the code under test caught the exception."""
    assert f"test_acts.py::{name} is not a unit test: {NAMED[name]}. Move it to tests/integration" in report


def test_an_event_loop_is_allowed(report: str) -> None:
    """The loop's own pair of sockets and a thread are no acts, and no other test fails."""
    assert "= 5 failed, 1 passed, 2 errors in" in report
    assert "::test_loop" not in report
