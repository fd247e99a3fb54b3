"""What `make packages` builds, for this machine's architecture."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BUILD_TIMEOUT = 900.0
"""Seconds for the wheel, or for both packages in both formats."""


@dataclass(frozen=True)
class Packages:
    """The packages of one revision for this machine's architecture."""

    directory: Path
    release: str

    def deb(self, package: str) -> Path:
        """Return the deb of `registry` or `registrar`."""
        return next(self.directory.glob(f"headcount-{package}_*-{self.release}_*.deb"))

    def rpm(self, package: str) -> Path:
        """Return the rpm of `registry` or `registrar`."""
        return next(self.directory.glob(f"headcount-{package}-*-{self.release}.*.rpm"))


def build_wheel(out: Path, source: Path = ROOT) -> Path:
    """Build the wheel of a directory of sources into another one, and return its path."""
    _run(source, sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out))
    return next(out.glob("*.whl"))


def build_packages(wheel: Path, out: Path, releases: Sequence[str]) -> dict[str, Packages]:
    """Build both packages from a wheel, as several revisions of its version."""
    if shutil.which("uv") is None or ("NFPM" not in os.environ and shutil.which("go") is None):
        pytest.skip("packages are built by uv and nfpm (Go), and one of them is not here")
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    command = [sys.executable, "deploy/packages/build.py", "--wheel", str(wheel), "--out", str(out), "--arch", arch]
    _run(ROOT, *command, *(f"--release={release}" for release in releases))
    return {release: Packages(out, release) for release in releases}


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=_BUILD_TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
