"""The credentials on disk: whole or not at all, for their owner alone, and no token in them."""

import os
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from unit.registry.auth.test_access_table import ALL, NOW, TASK, made, problem, table

from registry.auth.access_table import AccessTable
from registry.auth.grants import Grant
from registry.auth.tokens import SESSION
from registry.auth.verbs import Verb
from registry.cache.disk_access import DiskAccess
from registry.cache.disk_file import encode

TOKEN_HEADER, TOKEN_ROW = made(grants=(*ALL, Grant((Verb.READ,), ("shop-*",), ("peer",), "session")))
SESSION_HEADER, SESSION_ROW = made(SESSION, identity="shop", grants=(), session_name="task", login_at=NOW)


def full() -> AccessTable:
    """Return a table with a token, a session and an identity."""
    return table(TOKEN_ROW, SESSION_ROW, identities=(TASK,))


async def kept(path: Path) -> DiskAccess:
    """Write the full table, and return what wrote it."""
    disk = DiskAccess(path)
    await disk.keep(full(), NOW)
    return disk


def refused(path: Path) -> str:
    """Return why a file is not read, and see that nothing of it is taken."""
    access = AccessTable()
    with capture_logs() as logs:
        assert not DiskAccess(path).restore(access)
    assert (access.ready, access.tokens(), access.identities()) == (False, {}, {})
    assert [entry["event"] for entry in logs] == ["access_unreadable"]
    return str(logs[0]["reason"])


async def test_what_was_kept_is_restored(tmp_path: Path) -> None:
    """Every field, in a file of its owner's without any token; the table is ready, and known to be old."""
    path = tmp_path / "data" / "access.msgpack"
    await kept(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for header in (TOKEN_HEADER, SESSION_HEADER):
        assert header.split(b"_", 2)[2] not in path.read_bytes()
    access = AccessTable()
    assert DiskAccess(path).restore(access)
    assert access.contents(NOW) == full().contents(NOW)
    assert (access.ready, access.stale) == (True, True)
    assert problem(access, TOKEN_HEADER) == problem(access, SESSION_HEADER) == ""


async def test_it_is_written_only_when_something_changed(tmp_path: Path) -> None:
    """A table that was taken from disk is not written back: it may be older than what another process has written."""
    path = tmp_path / "access.msgpack"
    disk, access = DiskAccess(path), full()
    await disk.keep(access, NOW)
    first = path.stat().st_ino
    await disk.keep(access, NOW)
    assert path.stat().st_ino == first
    access.add_session(made(SESSION, identity="shop", grants=())[1])
    await disk.keep(access, NOW)
    assert path.stat().st_ino != first
    old = AccessTable()
    disk.restore(old)
    path.unlink()
    await DiskAccess(path).keep(old, NOW)
    await DiskAccess(path).keep(AccessTable(), NOW)
    assert not path.exists()
    old.replace([TOKEN_ROW], [TASK], [])
    await DiskAccess(path).keep(old, NOW)
    assert [entry.name for entry in tmp_path.iterdir()] == ["access.msgpack"]


HEADER = {"format": 1, "identities": 0, "credentials": 1}


def block(document: object) -> bytes:
    """Return a document as it stands in the file."""
    body = msgspec.msgpack.encode(document)
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00" * 4096, id="zeros"),
        pytest.param(os.urandom(4096), id="noise"),
        pytest.param(block(HEADER | {"format": 2}) + encode(TOKEN_ROW), id="a newer format"),
        pytest.param(encode(TOKEN_ROW), id="no header"),
        pytest.param(block(HEADER), id="a credential is missing"),
        pytest.param(block(HEADER) + encode(TOKEN_ROW) * 2, id="one credential too many"),
        pytest.param(block(HEADER) + encode(TASK), id="an identity for a credential"),
        pytest.param(block(HEADER) + encode(TOKEN_ROW)[:-1], id="half a credential"),
    ],
)
async def test_a_foreign_or_damaged_file_is_refused_whole(tmp_path: Path, written: bytes) -> None:
    """Half of the grants would let some in and lock others out."""
    path = tmp_path / "access.msgpack"
    path.write_bytes(written)
    path.chmod(0o600)
    refused(path)


@pytest.mark.parametrize(
    ("credential", "identity", "reason"),
    [
        ({"kind": "robot"}, {}, "Invalid enum value 'robot'"),
        ({"expires_at": float("nan")}, {}, "expires_at is nan s since 1970"),
        ({"networks": ["10.0.0.1/8"]}, {}, "is no network"),
        ({"grants": [{"verbs": ["fly"]}]}, {}, "Invalid enum value 'fly'"),
        ({}, {"source": "network", "match": "everywhere"}, "'everywhere' is no network"),
        ({}, {"grants": 7}, "Expected `array`, got `int`"),
    ],
)
async def test_a_document_that_cannot_be_read_allows_nothing_and_hinders_no_other(
    tmp_path: Path, credential: dict[str, object], identity: dict[str, object], reason: str
) -> None:
    """A newer version wrote the file; a process that starts while PostgreSQL is away serves the others."""
    path = tmp_path / "access.msgpack"
    tokens = (
        [msgspec.to_builtins(TOKEN_ROW, builtin_types=(bytes,)) | credential, TOKEN_ROW] if credential else [TOKEN_ROW]
    )
    identities = [msgspec.to_builtins(TASK) | {"name": "bad"} | identity, TASK] if identity else [TASK]
    header = {"format": 1, "identities": len(identities), "credentials": len(tokens)}
    path.write_bytes(b"".join(map(block, [header, *identities, *tokens])))
    path.chmod(0o600)
    access = AccessTable()
    with capture_logs() as logs:
        assert DiskAccess(path).restore(access)
    assert (list(access.tokens()), list(access.identities())) == ([TOKEN_ROW.id], ["shop"])
    assert [entry["event"] for entry in logs] == ["access_row_unreadable", "access_taken_from_disk"]
    ((row, said),) = access.unreadable.items()
    assert row == ("credential 1 of 2 on disk" if credential else "identity 1 of 2 on disk")
    assert reason in said


async def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Who can write it can let himself in; a link and a pipe are none of ours."""
    path = tmp_path / "access.msgpack"
    await kept(path)
    path.chmod(0o660)
    assert refused(path) == "others can write it (mode 660); it has to be 600"
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    refused(link)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert refused(pipe) == "it is no file"


async def test_a_directory_that_cannot_be_written_is_logged_once(tmp_path: Path) -> None:
    """And written as soon as it can be."""
    place = tmp_path / "data"
    place.write_text("a file where the directory should be")
    disk, access = DiskAccess(place / "access.msgpack"), full()
    with capture_logs() as logs:
        for _ in range(3):
            await disk.keep(access, NOW)
    assert [entry["event"] for entry in logs] == ["access_not_kept"]
    place.unlink()
    await disk.keep(access, NOW)
    assert DiskAccess(place / "access.msgpack").restore(AccessTable())
