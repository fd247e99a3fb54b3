"""Ports that tests are given: no two of them get the same one, whichever process asks."""

import subprocess
import sys
from pathlib import Path

import pytest
from harness import process
from harness.process import free_port

_ASK = "import sys; from harness.process import free_port; print(free_port(), flush=True); sys.stdin.read()"


def test_a_port_that_was_given_is_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on it, and it is claimed until the process of tests ends that it was given to."""
    env = {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", _ASK]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        monkeypatch.setattr(process, "_PORTS", range(port, port + 1))
        with pytest.raises(OSError, match=f"no port of 127.0.0.1 from {port} to {port} is free"):
            free_port()
        other.communicate(timeout=60)
    assert free_port() == port
    with pytest.raises(OSError, match="is free"):
        free_port()
