"""The credentials and identities on disk, by which a process that starts while PostgreSQL is away knows its clients.

The file has digests of tokens, which nobody can turn back into tokens. A person who can write it can let himself in, so
one that others can write is not read.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from registry.auth.access_table import AccessTable, Contents
from registry.auth.credential import Credential, Identity, check_credential, check_identity
from registry.cache.disk_file import documents_in, encode, write_file
from registry.errors import InvalidError
from registry.metrics import ACCESS_ROWS_UNREADABLE

log = structlog.get_logger()

Value = TypeVar("Value", Credential, Identity)

_FORMAT = 1
"""The format of the file; another one is not read."""
_DOCUMENTS_PER_TURN = 200
"""Credentials that are encoded in one turn of the event loop."""


class _Header(Struct, frozen=True):
    """The first document: the format, and how many identities and then credentials follow."""

    format: int
    identities: int
    credentials: int


class DiskAccess:
    """A file beside that of the snapshot: a header, then an identity or a credential each.

    Args:
        path: the file; written aside and renamed, so that it is always whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: int | None = None
        """The number of changes of the table that is in the file. Written by keep()."""
        self._failing = False
        """Whether the last attempt to write failed, which is logged once. Written by keep()."""

    async def keep(self, table: AccessTable, now: float) -> None:
        """Write the contents of the table, if any has changed since the last time.

        Args:
            table: the credentials and identities; only what was read from PostgreSQL is written.
            now: PostgreSQL's time; what has ended by then is left out.
        """
        changes = table.changes
        if not table.ready or table.stale or changes == self._written:
            return
        try:
            await write_file(self._path, _pieces(table.contents(now)))
        except OSError as error:
            if not self._failing:
                log.warning("access_not_kept", path=str(self._path), reason=str(error))
            self._failing = True
            return
        self._written, self._failing = changes, False

    def restore(self, table: AccessTable) -> bool:
        """Fill the table from the file; return False if there is none that can be used.

        A document that this version would not have written allows nothing and hinders no other, as a row of PostgreSQL.
        """
        unreadable: dict[str, str] = {}
        try:
            contents = _read(_private_content(self._path), unreadable)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("access_unreadable", path=str(self._path), reason=str(error))
            return False
        table.restore(contents)
        for document, reason in unreadable.items():
            log.error("access_row_unreadable", row=document, reason=reason)
        table.unreadable = unreadable
        ACCESS_ROWS_UNREADABLE.set(len(unreadable))
        log.warning(
            "access_taken_from_disk", credentials=len(contents.credentials), identities=len(contents.identities)
        )
        return True


def _private_content(path: Path) -> bytes:
    """Return the content of a file that nobody but its owner can write."""
    # Without blocking: a pipe of this name would hold the process up for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        if status.st_uid not in (0, os.geteuid()):
            raise ValueError(f"it belongs to user {status.st_uid}, and the registry runs as {os.geteuid()}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"others can write it (mode {stat.S_IMODE(status.st_mode):o}); it has to be 600")
        return file.read()


_header = msgspec.msgpack.Decoder(_Header)
_identity = msgspec.msgpack.Decoder(Identity)
_credential = msgspec.msgpack.Decoder(Credential)


def _pieces(contents: Contents) -> Iterator[bytes]:
    yield encode(_Header(_FORMAT, len(contents.identities), len(contents.credentials)))
    documents = [*contents.identities, *contents.credentials]
    for begin in range(0, len(documents), _DOCUMENTS_PER_TURN):
        yield b"".join(map(encode, documents[begin : begin + _DOCUMENTS_PER_TURN]))


def _read(content: bytes, unreadable: dict[str, str]) -> Contents:
    documents = documents_in(content)
    header = _header.decode(documents[0]) if documents else _Header(0, 0, 0)
    if header.format != _FORMAT:
        raise ValueError(f"format {header.format} is not one that this version reads")
    rest = documents[1:]
    if len(rest) != header.identities + header.credentials:
        raise ValueError(f"it has {len(rest)} of {header.identities + header.credentials} documents")
    identities, credentials = rest[: header.identities], rest[header.identities :]
    contents = Contents(
        list(_readable(credentials, _credential, check_credential, "credential", unreadable)),
        list(_readable(identities, _identity, check_identity, "identity", unreadable)),
    )
    if rest and len(unreadable) == len(rest):
        raise ValueError(f"no document in it can be read; the first one: {next(iter(unreadable.values()))}")
    return contents


def _readable(
    documents: Sequence[bytes],
    decoder: msgspec.msgpack.Decoder[Value],
    check: Callable[[Value], None],
    kind: str,
    unreadable: dict[str, str],
) -> Iterator[Value]:
    for number, document in enumerate(documents, start=1):
        try:
            value = decoder.decode(document)
            check(value)
        except (msgspec.DecodeError, ValueError, RecursionError, InvalidError) as error:
            unreadable[f"{kind} {number} of {len(documents)} on disk"] = str(error)
        else:
            yield value
