"""A wall clock that a test can set for one process, by libfaketime; the monotonic clock stays true."""

import contextlib
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")


class Clock:
    """The offset of a process's wall clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Move the clock so far from the true time, from now on."""
        aside = self.path.with_suffix(".new")
        aside.write_text(f"{seconds:+d}s\n")
        aside.replace(self.path)


@contextlib.contextmanager
def clock_for_all() -> Iterator[Clock]:
    """Lend a clock that processes of every user can read, as PostgreSQL's are."""
    directory = Path(tempfile.mkdtemp(prefix="headcount-clock-"))
    directory.chmod(0o755)
    try:
        yield Clock(directory / "clock")
    finally:
        shutil.rmtree(directory)


def faked(clock: Clock) -> dict[str, str]:
    """Return the environment of a process that goes by ``clock``; skip the test where that cannot be."""
    libraries = [path for place in _PLACES for path in glob.glob(place)]  # noqa: PTH207  # a pattern over folders
    if not libraries:
        pytest.skip("libfaketime is not installed here (Debian, Ubuntu: apt install libfaketime)")
    return {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock.path),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def clock_of(clock: Clock) -> float:
    """Return what a process that goes by ``clock`` takes the time for."""
    command = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.check_output(command, env={**os.environ, **faked(clock)}))
