"""The examination of the edge: its address, disk and fallback, and the inotify instances that files would need."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from registrar.admin.client import AdminClient
from registrar.config.listen import ListenAddress
from registrar.config.settings import Settings, kept_directory
from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.edge.disk_cache import DiskCache
from registrar.edge.fallback import Fallback
from registrar.errors import AdminRefused, AdminUnavailable
from registrar.thread_call import call_in_thread

_PROC = Path("/proc")
_TIMEOUT = 2.0
"""Seconds in which an edge has to answer its probe."""
_PROBE = b"ok\n"
"""The answer of an edge that is well."""
_INOTIFY = "anon_inode:inotify"
_MAX_SERVICES = 5
"""Services of the edge whose grant is looked at."""
_FULL = 0.75
"""Share of the instances in use above which one more Envoy may be too many."""


async def examine_edge(settings: Settings, environ: Mapping[str, str], proc: Path = _PROC) -> Section:
    """Return the diagnostics of the edge, and of what Envoys with files in its place would need."""
    if settings.edge_listen.off:
        text = "off: the Envoy beside polls the registries itself, and one that starts while they are away has no hosts"
        fix = "set REGISTRAR_EDGE_LISTEN=127.0.0.1:9903, and let Envoy's management cluster be an aggregate of both"
        return Section("Edge", [Diagnostic(Severity.NOTE, text, fix), *_inotify(proc)])
    listens = await call_in_thread(lambda: _listens(settings.edge_listen))
    disk = _disk(kept_directory(settings, environ))
    return Section("Edge", [listens, disk, *await _fallback(settings), *_inotify(proc)])


def polled_services(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Return services that Envoys have polled this machine's edge for, by its disk: those of the latest changes."""
    directory = kept_directory(settings, environ)
    if directory is None or settings.edge_listen.off:
        return []
    return DiskCache(directory / "edge").services(_MAX_SERVICES)


def _listens(address: ListenAddress) -> Diagnostic:
    """Return whether an edge answers at its address; it blocks."""
    try:
        status, body = AdminClient(address, _TIMEOUT).request("GET", "/livez")
    except AdminRefused as error:
        fix = "see `registrar status`, which says what the registry refuses or of what there is no room"
        return Diagnostic(Severity.WARN, f"the edge at {address} sends Envoys to the registries: {error}", fix)
    except AdminUnavailable:
        text = f"nothing answers at {address} now: the Envoy beside polls the registries itself"
        fix = "start the registrar with these settings; if it runs, `edge_listen_failed` in its log says why"
        return Diagnostic(Severity.NOTE, text, fix)
    if (status, body) != (200, _PROBE):
        text = f"something at {address} answers /livez with {status}, and is no edge"
        fix = "set REGISTRAR_EDGE_LISTEN, and the address of Envoy's cluster registry/edge, to a free port"
        return Diagnostic(Severity.FAIL, text, fix)
    return Diagnostic(Severity.OK, f"the edge at {address} answers")


async def _fallback(settings: Settings) -> list[Diagnostic]:
    """Return whether the fallback has an object of the first service, if there is a fallback."""
    service = next((service.service for service in settings.services if service.service), None)
    if not settings.edge_fallback or service is None:
        return []
    fallback, url = Fallback(settings.edge_fallback), settings.edge_fallback.of(service)
    try:
        await fallback.get(service)
    finally:
        await fallback.close()
    if fallback.problem is None:
        return [Diagnostic(Severity.OK, f"{url} has an assignment of {service}")]
    text = f"{url}: {fallback.problem}; with an empty disk, Envoys have no hosts of it while registries are away"
    fix = (
        "let registries publish (REGISTRY_PUBLISH_TO), this machine read the objects, and REGISTRAR_EDGE_FALLBACK name "
        "them; a service without endpoints is never published"
    )
    return [Diagnostic(Severity.WARN, text, fix)]


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
