"""The machine that a run was taken on, and the versions of what was compared."""

import os
import platform
import re
import sysconfig
from importlib.metadata import version
from pathlib import Path

import psutil
from msgspec import Struct, field

_PACKAGES = ("headcount", "uvicorn", "uvloop", "asyncpg", "msgspec")


class Machine(Struct):
    """Where and with what."""

    processor: str
    cores: int
    memory: float
    """GiB."""
    kernel: str
    versions: dict[str, str] = field(default_factory=dict)
    """Each program's and package's; the parts add those of their peers."""

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores, {self.memory:.0f} GiB, {self.kernel}"


def this_machine() -> Machine:
    """Look around."""
    versions = {"Python": _python()} | {name: version(name) for name in _PACKAGES}
    kernel = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    memory = psutil.virtual_memory().total / 2**30
    return Machine(_processor(), os.cpu_count() or 1, round(memory, 1), kernel, versions)


def _python() -> str:
    """Return the version of Python and how it was built, by which the time of an interpreted step differs."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS"))
    build = [
        platform.python_compiler(),
        "PGO" if "--enable-optimizations" in options else "no PGO",
        "LTO" if "--with-lto" in options else "no LTO",
    ]
    return f"{platform.python_version()} ({', '.join(build)})"


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()
