"""The log of a process whose reader hangs: what the process writes at its end, and what its forks do not."""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator

import pytest
from harness.process import script

PROGRAM = """
import os, sys
import typer
from wire.log_stream import drain_log, log_stream

log_stream().write("once\\n")
typer.echo("also once: ä", err=True)
child = os.fork()
if child == 0:
    sys.stderr.write("of the fork\\n")
    print("waits", flush=True)
    drain_log()
    os._exit(0)
os.waitpid(child, 0)
raise ValueError("the last line")
"""


@pytest.fixture
def full() -> Iterator[tuple[int, int, int]]:
    """The ends of a pipe that is full, and the bytes that it holds."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(write, b" " * 4_096)
    os.set_blocking(write, True)
    yield read, write, filled
    for descriptor in (read, write):
        os.close(descriptor)


def test_the_last_lines_reach_a_reader_that_reads_again(full: tuple[int, int, int]) -> None:
    """Each line once, with the traceback that Python itself writes."""
    read, write, filled = full
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=write) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        assert len(os.read(read, filled)) == filled
        assert process.wait(60) == 1
    text = os.read(read, 65_536).decode() if select.select([read], [], [], 0)[0] else ""
    first, *rest = text.splitlines()
    assert first == "of the fork"
    assert rest[:3] == ["once", "also once: ä", "Traceback (most recent call last):"]
    assert rest[-1] == "ValueError: the last line"


def test_no_process_waits_for_ever_for_its_last_line(full: tuple[int, int, int]) -> None:
    """Not even for a traceback of Python."""
    command = [sys.executable, "-c", PROGRAM]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full[1], timeout=60, check=False).returncode == 1


@pytest.mark.parametrize(("program", "verb"), [("registrar", "run"), ("registry", "serve")])
def test_a_start_that_fails_ends_though_nobody_reads_why(full: tuple[int, int, int], program: str, verb: str) -> None:
    """Otherwise whoever started it would take it for one that runs."""
    env = os.environ | {"REGISTRAR_ADMIN_LISTEN": "nowhere", "REGISTRY_LISTEN": "nowhere"}
    command = [*script(program), verb]
    assert subprocess.run(command, env=env, stderr=full[1], timeout=60, check=False).returncode == 2
