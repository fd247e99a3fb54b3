"""The support archive: everything that can be asked, without secrets, for somebody who cannot look by himself."""

import io
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from registryctl.client import Client, read
from registryctl.doctor.envoy_admin import Admin
from registryctl.doctor.examination import examine
from registryctl.doctor.finding import Finding
from registryctl.doctor.report import json_report, print_report
from registryctl.errors import CtlError, UsageError
from registryctl.output import Screen
from registryctl.paths import path_of
from registryctl.redaction import redact, redact_text
from registryctl.session import Session

_EVENTS_OF = 3600.0
_MOST_EVENTS = 20_000
_ENVOY_FILES = {
    "config_dump.json": "/config_dump?include_eds=true",
    "clusters.json": "/clusters?format=json",
    "stats.txt": "/stats",
    "server_info.json": "/server_info",
}


class File:
    """A member of the archive: its name, and what gets it."""

    def __init__(self, name: str, holds: str, get: Callable[[], Any]) -> None:
        self.name = name
        self.holds = holds
        self.get = get


def write_bundle(session: Session, path: Path | None, envoys: Sequence[str]) -> None:
    """Write the archive and print what is inside; what cannot be had is told in it instead.

    Raises:
        UsageError: the file cannot be written.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = path or Path(f"headcount-{stamp}.tar.gz")
    rows = []
    try:
        with path.open("xb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
            for file in _files(session, envoys):
                content, note = _content(file)
                _add(archive, f"{path.name.removesuffix('.tar.gz')}/{file.name}", content)
                rows.append((file.name, len(content), note or file.holds))
    except FileExistsError:
        raise UsageError(f"{path} is there already", "name another file, or move it away") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    _tell(session, path, rows)


def _files(session: Session, envoys: Sequence[str]) -> Iterator[File]:
    client = session.client
    # Once, for both forms of it.
    found = cache(partial(examine, session.settings, envoys))
    yield File("versions.json", "versions of the programs", lambda: _versions(client))
    yield File("check.json", "what `registryctl check` found", lambda: msgspec.json.decode(json_report(found())))
    yield File("check.txt", "the same for people", lambda: _printed(found()))
    yield File("readyz.json", "readiness, part by part", client.readiness)
    yield File("state.json", "the registry's own state", lambda: read(client.get("/v1/state")))
    yield File("expiry.json", "pauses and suspects", lambda: read(client.get("/v1/expiry")))
    yield File("subscribers.json", "who polls", lambda: _list(client, "/v1/subscribers", "subscribers"))
    yield File("services.json", "services in numbers", lambda: _list(client, "/v1/services", "services"))
    yield from _endpoint_files(client)
    yield File("events.json", "events of the last hour", lambda: _events(client))
    yield File("metrics.txt", "the metrics of one address", lambda: client.text("/metrics"))
    for number, url in enumerate(envoys, start=1):
        with closing(Admin(url, session.settings.timeout)) as admin:
            yield from _envoy_files(admin, number)


def _endpoint_files(client: Client) -> Iterator[File]:
    try:
        names = [one["name"] for one in _list(client, "/v1/services", "services")]
    except CtlError:
        return
    for name in names:
        path = path_of(name, rest="/endpoints")
        yield File(f"endpoints/{name}.json", "its endpoints", partial(_list, client, path, "endpoints"))


def _envoy_files(admin: Admin, number: int) -> Iterator[File]:
    for name, path in _ENVOY_FILES.items():
        ask: Callable[[str], Any] = admin.json if name.endswith(".json") else admin.text
        yield File(f"envoy-{number}/{name}", f"of the Envoy at {admin.shown}", partial(ask, path))


def _versions(client: Client) -> dict[str, object]:
    told = {"registryctl": version("headcount"), "python": platform.python_version(), "machine": platform.platform()}
    return {**told, "registry": read(client.get("/version"))}


def _printed(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    print_report(Screen(text), findings, short=False)
    return text.getvalue()


def _list(client: Client, path: str, name: str) -> list[dict[str, Any]]:
    return [read(one) for one in client.pages(path, name)]


def _events(client: Client) -> list[dict[str, Any]]:
    wanted = {"since": client.ask_time() - _EVENTS_OF}
    return [read(one) for one in client.pages("/v1/events", "events", wanted, most=_MOST_EVENTS)]


def _content(file: File) -> tuple[bytes, str]:
    """Return what a file holds, and why it does not hold what it should."""
    try:
        got = file.get()
    except CtlError as error:
        said = redact_text(f"it could not be had: {error}")
        return f"{said}\n".encode(), said
    if isinstance(got, str):
        return redact_text(got).encode(), ""
    return msgspec.json.format(msgspec.json.encode(redact(got)), indent=2) + b"\n", ""


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
    archive.addfile(member, io.BytesIO(content))


def _tell(session: Session, path: Path, rows: Sequence[tuple[str, int, str]]) -> None:
    if session.json:
        files = [{"name": name, "bytes": size, "holds": holds} for name, size, holds in rows]
        session.screen.document(msgspec.Raw(msgspec.json.encode({"path": str(path), "files": files})))
        return
    session.screen.table(
        ("file", "bytes", "holds"), [(name, str(size), holds) for name, size, holds in rows], right=("bytes",)
    )
    session.screen.say(
        ("secrets are left out by the names of fields and the look of values; read it before you pass it on", "dim")
    )
    session.screen.say(f"{path}  {path.stat().st_size} bytes")
