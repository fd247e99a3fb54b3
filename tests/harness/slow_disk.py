"""A disk that a test can slow down for one PostgreSQL: a preloaded library delays each fsync and fdatasync."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void delay(void) {
    unsigned int milliseconds = 0;
    const char *path = getenv("SLOW_DISK_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file == NULL) return;
    if (fscanf(file, "%u", &milliseconds) != 1) milliseconds = 0;
    fclose(file);
    usleep(milliseconds * 1000);
}

int fsync(int fd) {
    delay();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    delay();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


class SlowDisk:
    """The delay of each fsync of the processes that run with ``env``."""

    def __init__(self, directory: Path) -> None:
        self._delay = directory / "delay"
        self.env = {"LD_PRELOAD": str(directory / "slow_disk.so"), "SLOW_DISK_FILE": str(self._delay)}
        self.slow_down(0.0)

    def slow_down(self, seconds: float) -> None:
        """Let each fsync from now on take so many seconds longer."""
        aside = self._delay.with_suffix(".new")
        aside.write_text(f"{seconds * 1000:.0f}\n")
        aside.replace(self._delay)


@contextlib.contextmanager
def slow_disk() -> Iterator[SlowDisk]:
    """Build the library, readable by every user; skip the test where there is no compiler."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed here, which builds the library that delays fsync")
    directory = Path(tempfile.mkdtemp(prefix="headcount-disk-"))
    directory.chmod(0o755)
    try:
        (directory / "slow_disk.c").write_text(_SOURCE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", "slow_disk.so", "slow_disk.c", "-ldl"],
            cwd=directory,
            check=True,
            timeout=60,
        )
        yield SlowDisk(directory)
    finally:
        shutil.rmtree(directory)
