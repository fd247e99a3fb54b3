"""Support archive: every document that the registry and Envoys give, without secrets, for a reader elsewhere."""

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
from msgspec import Struct

from registryctl.client import ApiClient, read
from registryctl.doctor.envoy_admin import EnvoyAdmin
from registryctl.doctor.examination import examine
from registryctl.doctor.report import json_report, print_report
from registryctl.errors import CtlError, UsageError
from registryctl.output import Screen
from registryctl.paths import path_of
from registryctl.redaction import redact, redact_text
from registryctl.session import Session
from wire.finding import Finding

EVENTS_WITHIN = 3600.0
"""Seconds back for which the archive has events."""
MAX_EVENTS = 20_000
"""Events in the archive, the newest."""

_ENVOY_FILES = {
    "config_dump.json": "/config_dump?include_eds=true",
    "clusters.json": "/clusters?format=json",
    "stats.txt": "/stats",
    "server_info.json": "/server_info",
}


class Member(Struct, frozen=True):
    """One file of the archive.

    Attributes:
        name: its name in the archive.
        holds: its content, in words.
        get: returns the content: text, or a JSON document.
    """

    name: str
    holds: str
    get: Callable[[], Any]


def write_bundle(session: Session, path: Path | None, envoys: Sequence[str]) -> None:
    """Write the archive and print what is inside; a document that cannot be had is replaced by the reason.

    Raises:
        UsageError: the file cannot be written.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = path or Path(f"headcount-{stamp}.tar.gz")
    rows = []
    try:
        with path.open("xb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
            for member in _members(session, envoys):
                content, note = _content(member)
                _add(archive, f"{path.name.removesuffix('.tar.gz')}/{member.name}", content)
                rows.append((member.name, len(content), note or member.holds))
    except FileExistsError:
        raise UsageError(f"{path} is there already", "name another file, or move it away") from None
    except OSError as error:
        fix = "name a file in a directory that you may write to"
        raise UsageError(f"{path} cannot be written: {error.strerror or error}", fix) from None
    _show(session, path, rows)


def _members(session: Session, envoys: Sequence[str]) -> Iterator[Member]:
    client = session.client
    # Examined once, for both forms of the report.
    findings = cache(partial(examine, session.settings, envoys))
    yield Member("versions.json", "versions of the programs", lambda: _versions(client))
    yield Member("check.json", "report of `registryctl check`", lambda: msgspec.json.decode(json_report(findings())))
    yield Member("check.txt", "the same for people", lambda: _printed(findings()))
    yield Member("readyz.json", "readiness, part by part", client.readiness)
    yield Member("verdict.json", "the verdict of one address", lambda: read(client.get("/v1/verdict")))
    yield Member("state.json", "the registry's own state", lambda: read(client.get("/v1/state")))
    yield Member("whoami.json", "who asked, and what it may do", lambda: read(client.get("/v1/whoami")))
    yield Member("expiry.json", "pauses and suspects", lambda: read(client.get("/v1/expiry")))
    yield Member("subscribers.json", "Envoys that poll", lambda: _list(client, "/v1/subscribers", "subscribers"))
    yield Member("services.json", "services in numbers", lambda: _list(client, "/v1/services", "services"))
    yield from _endpoint_members(client)
    yield Member("events.json", "events of the last hour", lambda: _events(client))
    yield Member("metrics.txt", "the metrics of one address", lambda: client.text("/metrics"))
    for number, url in enumerate(envoys, start=1):
        with closing(EnvoyAdmin(url, session.settings.timeout)) as admin:
            yield from _envoy_members(admin, number)


def _endpoint_members(client: ApiClient) -> Iterator[Member]:
    try:
        listed = read(client.whole("/v1/services", "services"))
    except CtlError:
        return
    # Of one that the registry cannot read, the file has what it says.
    for name in sorted({*(service["name"] for service in listed["services"]), *listed.get("unavailable", ())}):
        path = path_of(name, rest="/endpoints")
        yield Member(f"endpoints/{name}.json", "its endpoints", partial(_list, client, path, "endpoints"))


def _envoy_members(admin: EnvoyAdmin, number: int) -> Iterator[Member]:
    for name, path in _ENVOY_FILES.items():
        get: Callable[[str], Any] = admin.json if name.endswith(".json") else admin.text
        yield Member(f"envoy-{number}/{name}", f"of the Envoy at {admin.shown}", partial(get, path))


def _versions(client: ApiClient) -> dict[str, object]:
    own = {"registryctl": version("headcount"), "python": platform.python_version(), "machine": platform.platform()}
    return {**own, "registry": read(client.get("/version"))}


def _printed(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    print_report(Screen(text), findings, short=False)
    return text.getvalue()


def _list(client: ApiClient, path: str, name: str) -> list[dict[str, Any]]:
    return [read(item) for item in client.pages(path, name)]


def _events(client: ApiClient) -> list[dict[str, Any]]:
    params = {"since": client.ask_time() - EVENTS_WITHIN}
    return [read(event) for event in client.pages("/v1/events", "events", params, limit=MAX_EVENTS)]


def _content(member: Member) -> tuple[bytes, str]:
    """Return the content of a file, and why it is not what it should be."""
    try:
        content = member.get()
    except CtlError as error:
        reason = redact_text(f"it could not be had: {error}")
        return f"{reason}\n".encode(), reason
    if isinstance(content, str):
        return redact_text(content).encode(), ""
    return msgspec.json.format(msgspec.json.encode(redact(content)), indent=2) + b"\n", ""


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), int(time.time()), 0o600
    archive.addfile(info, io.BytesIO(content))


def _show(session: Session, path: Path, rows: Sequence[tuple[str, int, str]]) -> None:
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
