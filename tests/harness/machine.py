"""A machine of its own: a root file system of Debian, booted by its systemd in a container without network."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.process import end, eventually

ROOT = Path(__file__).parents[2]
ROOTS = Path(os.environ.get("PACKAGES_ROOTS", ROOT / "build" / "roots"))
"""Where roots are kept between runs, as archives."""
SUITES = {"debian-12": "bookworm", "debian-13": "trixie", "debian-sid": "sid"}
_INCLUDED = "systemd,systemd-sysv,dbus,python3,ca-certificates,iproute2,curl,postgresql,rpm,bash-completion"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
_ENVIRONMENT |= {"DEBIAN_FRONTEND": "noninteractive"}
_BOOT_TIMEOUT = 60.0
"""Seconds for systemd to reach its target."""
_ROOT_TIMEOUT = 900.0
"""Seconds to fetch and unpack the packages of a root."""


@dataclass
class Machine:
    """A booted container."""

    name: str
    root: Path
    leader: int
    """The pid of its systemd, as the host sees it."""

    def run(self, command: str, *, timeout: float = 120.0) -> str:
        """Run a command of the shell inside, which has to succeed, and return what it wrote."""
        status, text = self.try_run(command, timeout=timeout)
        assert status == 0, f"{command}\n{text}"
        return text

    def try_run(self, command: str, *, timeout: float = 120.0) -> tuple[int, str]:
        """Run a command of the shell inside, and return its exit status and what it wrote to both streams."""
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        done = subprocess.run(
            [*enter, "--", "timeout", str(timeout), "/bin/sh", "-c", command],
            check=False,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout + 10,
        )
        return done.returncode, done.stdout

    def put(self, file: Path) -> str:
        """Copy a file in, and return its path there."""
        shutil.copy(file, self.root / "root" / file.name)
        return f"/root/{file.name}"

    def main_pid(self, unit: str) -> int:
        """Return the pid of a unit's main process, 0 when there is none."""
        return int(self.run(f"systemctl show --property=MainPID --value {unit}"))

    def journal(self, unit: str) -> str:
        """Return what a unit has logged."""
        return self.run(f"journalctl --no-pager --output=cat --unit={unit}")


def need_tools(*names: str) -> None:
    """Skip the test where a tool is missing, or where this is not root."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)} (apt-get install mmdebstrap systemd-container rpm)")
    if os.geteuid():
        pytest.skip("a root file system is made and booted by root alone")


def root_archive(name: str) -> Path:
    """Return the archive of a distribution's root, made by mmdebstrap unless it is there."""
    archive = ROOTS / f"{name}.tar"
    if archive.exists():
        return archive
    need_tools("mmdebstrap")
    ROOTS.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial.tar")
    include = _INCLUDED + (",python3.14" if name == "debian-sid" else "")
    # A mirror of unstable that stands still is good enough: what is tried is its Python.
    options = ["--variant=minbase", f"--include={include}", '--aptopt=Acquire::Check-Valid-Until "false"']
    try:
        done = subprocess.run(
            ["mmdebstrap", *options, SUITES[name], str(partial)],
            check=False,
            capture_output=True,
            text=True,
            timeout=_ROOT_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        partial.unlink(missing_ok=True)
        pytest.skip(f"mmdebstrap did not make a root of {SUITES[name]} within {_ROOT_TIMEOUT:.0f} s")
    if done.returncode:
        partial.unlink(missing_ok=True)
        pytest.skip(f"mmdebstrap cannot make a root of {SUITES[name]}: {done.stderr.strip().splitlines()[-2:]}")
    partial.rename(archive)
    return archive


@contextlib.contextmanager
def booted(name: str, folder: Path) -> Iterator[Machine]:
    """Unpack a root and boot it for the length of the block, then remove it."""
    need_tools("systemd-nspawn", "nsenter")
    root = folder / name
    root.mkdir()
    unpack = ["tar", f"--directory={root}", "--extract", f"--file={root_archive(name)}"]
    subprocess.run(unpack, check=True, timeout=_ROOT_TIMEOUT)
    command = ["systemd-nspawn", "--boot", "--private-network", "--register=no", "--keep-unit", "--quiet"]
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*command, f"--directory={root}", f"--machine=hc-{os.getpid()}-{name[7:]}"],
            # As on a machine of today, also where this one has cgroups of version 1, which systemd 258 refuses.
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        eventually(lambda: _leader(child.pid) != 0, within=_BOOT_TIMEOUT, said=lambda: log.read_text(errors="replace"))
        machine = Machine(name, root, _leader(child.pid))
        eventually(
            lambda: machine.try_run("systemctl is-system-running")[1].strip() == "running",
            within=_BOOT_TIMEOUT,
            every=0.5,
            said=lambda: machine.try_run("systemctl --failed; systemctl list-jobs")[1],
        )
        yield machine
    finally:
        # On SIGTERM systemd-nspawn halts the container in order (--kill-signal).
        end(child, patience=30)
        shutil.rmtree(root, ignore_errors=True)


def _leader(pid: int) -> int:
    """Return the pid of the container's systemd, or 0 while it is not there."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
    return 0
