"""The examination of the edge: its disk, and the inotify instances that files in its place would need."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from registrar.config.settings import Settings, kept_directory
from registrar.diagnostic import Diagnostic, Section, Severity

_PROC = Path("/proc")
_INOTIFY = "anon_inode:inotify"
_FULL = 0.75
"""Share of the instances in use above which one more Envoy may be too many."""


def examine_edge(settings: Settings, environ: Mapping[str, str], proc: Path = _PROC) -> Section:
    """Return the diagnostics of the edge, and of what Envoys with files in its place would need."""
    if settings.edge_listen.off:
        text = "off: the Envoy beside polls the registries itself, and one that starts while they are away has no hosts"
        fix = "set REGISTRAR_EDGE_LISTEN=127.0.0.1:9903, and let Envoy's management cluster be an aggregate of both"
        return Section("Edge", [Diagnostic(Severity.NOTE, text, fix), *_inotify(proc)])
    listens = Diagnostic(Severity.OK, f"a running registrar has it at {settings.edge_listen}")
    return Section("Edge", [listens, _disk(kept_directory(settings, environ)), *_inotify(proc)])


def _disk(directory: Path | None) -> Diagnostic:
    if directory is None:
        text = "nothing is kept on disk: after a restart while registries are away an Envoy that starts has no hosts"
        fix = "set REGISTRAR_STATE_DIRECTORY to a directory that outlives the process, or StateDirectory= in its unit"
        return Diagnostic(Severity.WARN, text, fix)
    edge = directory / "edge"
    try:
        edge.mkdir(0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=edge, prefix=".doctor.", suffix=f".{os.getpid()}.new") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        names = sum(not path.name.startswith(".") for path in edge.iterdir())
    except OSError as error:
        fix = "let the registrar's user write there, or make room: Envoys are served from memory alone meanwhile"
        return Diagnostic(Severity.FAIL, f"{edge} cannot be written: {error.strerror or error}", fix)
    return Diagnostic(Severity.OK, f"{edge} can be written, and has {names} names")


def _inotify(proc: Path) -> list[Diagnostic]:
    """Return a warning where inotify's instances are nearly used up: Envoy takes one for each file of endpoints."""
    try:
        limit = int((proc / "sys/fs/inotify/max_user_instances").read_text())
    except (OSError, ValueError):
        return []
    used = sum(_instances(process) for process in proc.iterdir() if process.name.isdigit())
    if used <= limit * _FULL:
        return []
    text = f"{used} of {limit} inotify instances of this user are in use; Envoy aborts where it gets none"
    fix = (
        "let Envoys poll the edge instead of reading endpoints from files (one instance for each cluster), or raise "
        "fs.inotify.max_user_instances on the host: all containers of a user share it"
    )
    return [Diagnostic(Severity.WARN, text, fix)]


def _instances(process: Path) -> int:
    """Return the inotify instances of a process of this user; those of others cannot be seen, and do not count."""
    with contextlib.suppress(OSError):
        if process.stat().st_uid == os.getuid():
            return sum(_link(entry) == _INOTIFY for entry in (process / "fd").iterdir())
    return 0


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""
